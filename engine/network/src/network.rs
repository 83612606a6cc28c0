//! The network of one instance: pods attach and detach, services are set and removed. Cheap to clone; all clones are
//! the same network.

use std::collections::HashSet;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::net::if_::if_nametoindex;
use tokio::sync::{mpsc, watch};

use crate::NetworkError;
use crate::config::NetworkConfig;
use crate::dns::Zone;
use crate::links::{
    Claim, Links, Namespace, Peer, PodLink, Pods, UNDERLAY_MTU, USUAL_MTU, apart, configure, forward_packets,
    remove_links,
};
use crate::nft::{Filter, Sleepers, Table};
use crate::policy::Guard;
use crate::ports::PortConflict;
use crate::rules::ServiceRules;
use crate::services::{Backends, Services};

/// Pods that wait for their links to be deleted; beyond that, detaching waits.
const LEAVING: usize = 1024;
/// The kernel keeps a link's alias only up to 255 bytes; an address and a blank take 16 of them.
const LONGEST_IDENTIFIER: usize = 239;

/// The network of one instance.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    config: NetworkConfig,
    links: Links,
    state: Arc<State>,
    zone: Arc<Zone>,
    guard: Guard,
    /// Pods whose links are to be deleted. The task behind it ends when this is dropped.
    leaving: mpsc::Sender<Arc<Claim>>,
}

/// What the task that deletes links shares with the network.
struct State {
    pods: Mutex<Pods>,
    services: Mutex<Services>,
    backends: watch::Sender<Backends>,
}

impl State {
    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn services(&self) -> MutexGuard<'_, Services> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network {
    /// Lays the instance's network, or takes up what an earlier process left: its pods keep their addresses and its
    /// services go on working meanwhile. Must be called inside a runtime.
    pub async fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        config.check()?;
        // First, since it changes nothing: a kernel that cannot filter packets is left as it was.
        let table = Table::new(&config)?;
        forward_packets()?;
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(NetworkError::kernel("open a netlink socket"))?;
        // Ends when the last handle is dropped.
        tokio::spawn(connection);
        let links = Links::new(handle);
        links.lay_bridge(&config).await?;
        let found = links.find(&config).await?;
        delete(found.broken, &config).await?;
        let pods = Pods::new(config.pod_subnet, config.bridge(), &found.pods);
        let backends = watch::Sender::new(Backends::default());
        let addresses = found.pods.iter().map(|pod| pod.address).collect();
        let services = Services::open(table, &config, addresses, backends.clone())?;
        let state = Arc::new(State { pods: Mutex::new(pods), services: Mutex::new(services), backends });
        let (leaving, left) = mpsc::channel(LEAVING);
        tokio::spawn(delete_leaving(left, state.clone(), config.clone()));
        let zone = Arc::new(Zone::new(&config));
        Ok(Self { inner: Arc::new(Inner { config, links, state, zone, guard: Guard::default(), leaving }) })
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &NetworkConfig {
        &self.inner.config
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.inner.guard
    }

    /// The names that the DNS server answers for.
    pub fn zone(&self) -> &Arc<Zone> {
        &self.inner.zone
    }

    /// Connects a pod: `eth0` inside the network namespace, an address, routes on both sides. Returns the address, once
    /// the network policies about the pod are in the kernel.
    ///
    /// The same pod in the same namespace: renews what is missing and returns the same address. The same pod in another
    /// namespace: the old link goes, the address stays.
    pub async fn attach(&self, uid: &str, namespace: &Path) -> Result<Ipv4Addr, NetworkError> {
        if uid.is_empty() || uid.len() > LONGEST_IDENTIFIER || uid.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(NetworkError::BadIdentifier { uid: uid.to_owned() });
        }
        let file =
            File::open(namespace).map_err(|source| NetworkError::Namespace { path: namespace.to_owned(), source })?;
        let (claim, new) = self.inner.state.pods().claim(uid)?;
        let laid = {
            let _guard = claim.busy.lock().await;
            self.lay(uid, &claim, &Namespace { file, path: namespace.to_owned() }).await
        };
        let laid = match laid {
            Ok(()) => self.inner.guard.admit(uid, claim.address).await,
            failed => failed,
        };
        match laid {
            Ok(()) => Ok(claim.address),
            Err(error) => {
                if new {
                    self.detach(uid).await?;
                }
                Err(error)
            }
        }
    }

    async fn lay(&self, uid: &str, claim: &Claim, namespace: &Namespace) -> Result<(), NetworkError> {
        let Inner { config, links, state, .. } = &*self.inner;
        let link = PodLink { uid: uid.to_owned(), address: claim.address, name: claim.link.clone() };
        let there = if_nametoindex(link.name.as_str()).ok();
        if let Some(index) = there
            && !configure(namespace.try_clone()?, claim.address).await?
        {
            delete(vec![index], config).await?;
        }
        if if_nametoindex(link.name.as_str()).is_err() {
            links.make_pair(&link.name, &namespace.file).await?;
            configure(namespace.try_clone()?, claim.address).await?;
        }
        links.lay_host_end(&link, config).await?;
        state.services().add_pod(claim.address)
    }

    /// Disconnects a pod. Returns at once; the link is deleted in the background and only then its address is free.
    pub async fn detach(&self, uid: &str) -> Result<(), NetworkError> {
        let claim = self.inner.state.pods().leave(uid);
        if let Some(claim) = claim
            && self.inner.leaving.send(claim).await.is_err()
        {
            tracing::debug!(uid, "the runtime ends: the link stays for the next start");
        }
        Ok(())
    }

    /// The address of an attached pod.
    pub fn address_of(&self, uid: &str) -> Option<Ipv4Addr> {
        self.inner.state.pods().get(uid).map(|claim| claim.address)
    }

    /// The attached pods, as found at the start and changed since.
    pub fn attached(&self) -> Vec<String> {
        self.inner.state.pods().identifiers()
    }

    /// Makes the link between the nodes, or takes it up.
    pub(crate) async fn lay_overlay(&self) -> Result<(), NetworkError> {
        let mtu = if self.inner.config.underlay.is_some() { UNDERLAY_MTU } else { USUAL_MTU };
        self.inner.links.lay_overlay(&self.inner.config, mtu).await
    }

    /// Makes these the nodes whose pods are reached, and no others.
    pub(crate) async fn set_peers(&self, peers: &[Peer]) -> Result<(), NetworkError> {
        self.inner.links.set_peers(&self.inner.config, peers).await
    }

    /// Programs one service in one atomic step. Ports of the host that it cannot have are left out and returned.
    #[expect(clippy::unused_async, reason = "the kernel answers at once today; callers need not know")]
    pub async fn set_service(&self, rules: ServiceRules) -> Result<Vec<PortConflict>, NetworkError> {
        self.inner.state.services().set(rules)
    }

    /// Removes one service (`namespace/name`); nothing happens when it is not there.
    #[expect(clippy::unused_async, reason = "the kernel answers at once today; callers need not know")]
    pub async fn remove_service(&self, key: &str) -> Result<(), NetworkError> {
        self.inner.state.services().remove(key)
    }

    /// Removes every service that is not among `keys`.
    #[expect(clippy::unused_async, reason = "the kernel answers at once today; callers need not know")]
    pub async fn retain_services(&self, keys: &HashSet<String>) -> Result<(), NetworkError> {
        self.inner.state.services().retain(keys)
    }

    /// Resolves once no service sends new connections to that address.
    ///
    /// After a restart this waits until every service that was taken up has been set again or removed.
    pub async fn released(&self, address: Ipv4Addr) {
        let mut backends = self.inner.state.backends.subscribe();
        let released = backends.wait_for(|backends| backends.are_without(address)).await;
        released.expect("the sender lives as long as this network");
    }

    /// Whether the kernel leads connections to the service (`namespace/name`) to any pod.
    pub(crate) fn is_served(&self, key: &str) -> bool {
        self.inner.state.services().has_backends(key)
    }

    /// Tells when what the kernel knows of services has changed.
    pub(crate) fn services_changed(&self) -> watch::Receiver<impl Sized + use<>> {
        self.inner.state.backends.subscribe()
    }

    /// Removes everything of that instance: its table, its bridge, its pods' links and with them all routes. Nothing of
    /// another instance or of the host is touched, and nothing being there is no error. A network that is still open
    /// must not be used for anything new afterwards: attaching or setting a service would lay its table again.
    pub async fn teardown(config: &NetworkConfig) -> Result<(), NetworkError> {
        config.check()?;
        Table::new(config)?.delete()?;
        Filter::new(config)?.delete()?;
        Sleepers::new(config)?.delete()?;
        let (found, owned) = (config.clone(), config.clone());
        let links = apart(None, move |handle| async move { Links::new(handle).find(&found).await }).await?;
        delete(links.all, &owned).await
    }
}

/// Deletes links on a thread of their own: the kernel waits in it.
async fn delete(links: Vec<u32>, config: &NetworkConfig) -> Result<(), NetworkError> {
    if links.is_empty() {
        return Ok(());
    }
    let group = group_of(config);
    apart(None, move |handle| async move { remove_links(&handle, &links, group).await }).await
}

/// A group of links that is no other instance's, for deleting many at once.
fn group_of(config: &NetworkConfig) -> u32 {
    0x5300_0000 | u32::from_str_radix(&config.instance, 16).expect("check() saw six hex digits")
}

/// Deletes the links of detached pods, those that wait all at once, then frees their addresses.
async fn delete_leaving(mut left: mpsc::Receiver<Arc<Claim>>, state: Arc<State>, config: NetworkConfig) {
    let mut claims = Vec::new();
    while left.recv_many(&mut claims, LEAVING).await > 0 {
        let addresses: Vec<Ipv4Addr> = claims.iter().map(|claim| claim.address).collect();
        let mut indices = Vec::new();
        for claim in &claims {
            let _guard = claim.busy.lock().await;
            indices.extend(if_nametoindex(claim.link.as_str()).ok());
        }
        let deleted = delete(indices, &config).await;
        let forgotten = state.services().remove_pods(&addresses);
        match deleted.and(forgotten) {
            Ok(()) => claims.iter().for_each(|claim| state.pods().release(claim)),
            // Their addresses stay taken: a link that is still there must not share its address with another.
            Err(error) => {
                tracing::warn!(%error, pods = claims.len(), "links of detached pods stay until the next start");
            }
        }
        claims.clear();
    }
}
