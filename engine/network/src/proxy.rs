//! Watches services and their endpoints and makes them true: in the kernel, in DNS, and as the address of load
//! balancers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use shipway_driver::{Change, EventKind, Queue, Recorder, Shared, cached, drive};
use tokio_util::sync::CancellationToken;

use crate::dns::Server;
use crate::links::host_address;
use crate::ports::PortConflict;
use crate::records::{Wanted, key, wanted};
use crate::{Network, NetworkError, hostports, policy, sleep};

const COMPONENT: &str = "service-proxy";
/// The label that ties an endpoint slice to its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const WORKERS: usize = 2;
/// The kernel does not tell when a program gives back a port of the host: it is tried again after this time.
const PORT_RETRY: Duration = Duration::from_secs(15);

/// What a proxy does beside its own node's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is the engine's, and says in the services where load balancers answer.
    Publisher,
    /// One of several.
    Follower,
}

/// What the proxy of one node works with.
pub struct Proxying {
    /// Asks the API, with leave to do what the role of the service proxy allows.
    pub client: Client,
    /// Scales workloads down and up that sleep while nobody needs them, with leave to do that; on one node only.
    pub sleeper: Option<Client>,
    /// The node's network.
    pub network: Network,
    /// All pods of the cluster.
    pub pods: Shared<Pod>,
    /// What it does beside its own node's part.
    pub role: Role,
    /// The name of the node.
    pub node: String,
}

/// Runs the service proxy, the DNS server and the enforcement of network policies until stopped.
///
/// Changes nothing before it knows all services, endpoints and policies, so that a restart takes no backend away and opens
/// nothing; then removes what no longer exists. From this call on pods that are attached wait for the policies about them.
/// Fails only when it cannot begin.
pub fn proxy(with: Proxying, stop: CancellationToken) -> impl Future<Output = Result<(), NetworkError>> + Send {
    let arrivals = with.network.guard().learn();
    async move {
        let taken = || NetworkError::Config("another proxy works on this network".to_owned());
        let Proxying { client, sleeper, network, pods, role, node } = with;
        let arrivals = arrivals.ok_or_else(taken)?;
        let enforcing = policy::enforce(client.clone(), network.clone(), pods.clone(), arrivals, stop.clone());
        let sleeping = watch_over(sleeper, network.clone(), stop.clone());
        tokio::try_join!(serve(client, network, pods, (role, node), stop), enforcing, sleeping).map(|_| ())
    }
}

/// Lets workloads sleep and wakes them, where this is the node that does.
async fn watch_over(sleeper: Option<Client>, network: Network, stop: CancellationToken) -> Result<(), NetworkError> {
    if let Some(client) = sleeper {
        return sleep::watch_over(client, network, stop).await;
    }
    stop.cancelled().await;
    Ok(())
}

/// Answers DNS questions of the further nodes of this machine, which cannot ask the host's resolvers themselves.
pub async fn answer_nodes(network: Network, stop: CancellationToken) -> Result<(), NetworkError> {
    if let Some(address) = network.config().node_address(1) {
        Server::listen(network.zone().clone(), address, None).await?.run(stop).await;
    }
    Ok(())
}

async fn serve(
    client: Client,
    network: Network,
    pods: Shared<Pod>,
    (role, node): (Role, String),
    stop: CancellationToken,
) -> Result<(), NetworkError> {
    let config = network.config();
    let names = Server::listen(network.zone().clone(), config.dns_address, config.host()).await?;
    let queue = Arc::new(Queue::new());
    let slices = Arc::new(Slices::default());
    let (services, watching) = {
        let queue = queue.clone();
        let changed = move |change: &Change<Service>| queue.add(key(change.object()));
        cached(Api::<Service>::all(client.clone()), watcher::Config::default(), stop.clone(), changed)
    };
    let (known_slices, watching_slices) = {
        let (queue, slices) = (queue.clone(), slices.clone());
        let changed =
            move |change: &Change<EndpointSlice>| slices.note(change).into_iter().for_each(|key| queue.add(key));
        cached(Api::<EndpointSlice>::all(client.clone()), watcher::Config::default(), stop.clone(), changed)
    };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let recorder = Recorder::new(client.clone(), COMPONENT, host.trim());
    let refused = Mutex::default();
    let known = pods.store();
    let proxy =
        Arc::new(Proxy { client, network, node, role, services, slices, pods: known, queue, recorder, refused });
    let work = async {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            known = async {
                let Proxy { services, .. } = &*proxy;
                tokio::join!(services.wait_until_ready(), known_slices.wait_until_ready(), pods.is_complete())
            } => {
                if known.0.is_err() || known.1.is_err() {
                    return Ok(());
                }
            }
        }
        proxy.begin().await?;
        let listening = proxy.clone();
        pods.listen(move |change: &Change<Pod>| {
            if hostports::asks(change.object(), &listening.node) {
                listening.queue.add(hostports::key(change.object()));
            }
        });
        let reconciling = proxy.clone();
        let reconcile = move |key: String| {
            let proxy = reconciling.clone();
            async move { proxy.reconcile(&key).await }
        };
        tokio::join!(names.run(stop.clone()), drive(proxy.queue.clone(), WORKERS, stop.clone(), reconcile));
        Ok(())
    };
    tokio::select! {
        done = work => done,
        _ = async { tokio::join!(watching, watching_slices) } => Ok(()),
    }
}

/// The endpoint slices by service.
#[derive(Default)]
struct Slices {
    by_service: Mutex<HashMap<String, BTreeMap<String, Arc<EndpointSlice>>>>,
}

impl Slices {
    /// Notes a change; returns the service that it is about.
    fn note(&self, change: &Change<EndpointSlice>) -> Option<String> {
        let slice = change.object();
        let service = slice.labels().get(SERVICE_NAME)?;
        let key = format!("{}/{service}", slice.namespace().unwrap_or_default());
        let mut all = self.lock();
        let of_service = all.entry(key.clone()).or_default();
        match change {
            Change::Applied(slice) => of_service.insert(slice.name_any(), slice.clone()),
            Change::Deleted(slice) => of_service.remove(&slice.name_any()),
        };
        if of_service.is_empty() {
            all.remove(&key);
        }
        Some(key)
    }

    fn of(&self, key: &str) -> Vec<Arc<EndpointSlice>> {
        self.lock().get(key).map(|slices| slices.values().cloned().collect()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, Arc<EndpointSlice>>>> {
        self.by_service.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Proxy {
    client: Client,
    network: Network,
    node: String,
    services: Store<Service>,
    pods: Store<Pod>,
    slices: Arc<Slices>,
    queue: Arc<Queue<String>>,
    recorder: Recorder,
    role: Role,
    /// Services that did not get a port of the host, and what they were told.
    refused: Mutex<HashMap<String, Vec<PortConflict>>>,
}

impl Proxy {
    /// Sets everything that there is and removes everything else.
    async fn begin(&self) -> Result<(), NetworkError> {
        let services = self.services.state();
        let mut keys: HashSet<String> = services.iter().map(|service| key(service)).collect();
        self.network.zone().retain(|namespace, name| keys.contains(&format!("{namespace}/{name}")));
        for service in &services {
            self.set_names(&key(service), &self.wanted(service).records);
        }
        let asking = self.pods.state().into_iter().filter(|pod| hostports::asks(pod, &self.node));
        keys.extend(asking.map(|pod| hostports::key(&pod)));
        self.network.retain_services(&keys).await
    }

    async fn reconcile(&self, key: &str) -> Result<Option<Duration>, NetworkError> {
        if let Some((namespace, name)) = hostports::pod_of(key) {
            return self.reconcile_pod(key, self.pods.get(&ObjectRef::new(name).within(namespace))).await;
        }
        let Some((namespace, name)) = key.split_once('/') else { return Ok(None) };
        let Some(service) = self.services.get(&ObjectRef::new(name).within(namespace)) else {
            self.network.zone().remove(namespace, name);
            self.network.remove_service(key).await?;
            self.settle(key, Vec::new());
            return Ok(None);
        };
        let wanted = self.wanted(&service);
        self.set_names(key, &wanted.records);
        let conflicts = if let Some(rules) = wanted.rules.clone() {
            self.network.set_service(rules).await?
        } else {
            self.network.remove_service(key).await?;
            Vec::new()
        };
        self.publish(&service, &wanted, &conflicts).await?;
        Ok(self.complain(key, &about("Service", &*service), conflicts))
    }

    /// Ports of the host that a pod asks for.
    async fn reconcile_pod(&self, key: &str, pod: Option<Arc<Pod>>) -> Result<Option<Duration>, NetworkError> {
        let rules = pod.as_ref().and_then(|pod| hostports::rules(pod, &self.node));
        let (Some(rules), Some(pod)) = (rules, pod) else {
            self.network.remove_service(key).await?;
            self.settle(key, Vec::new());
            return Ok(None);
        };
        let conflicts = self.network.set_service(rules).await?;
        Ok(self.complain(key, &about("Pod", &*pod), conflicts))
    }

    /// Tells of ports that were not to be had; says when to try again.
    fn complain(&self, key: &str, about: &ObjectReference, conflicts: Vec<PortConflict>) -> Option<Duration> {
        let retry = (!conflicts.is_empty()).then_some(PORT_RETRY);
        if self.settle(key, conflicts.clone()) {
            for conflict in conflicts {
                self.recorder.event(about, EventKind::Warning, "PortInUse", &conflict.to_string());
            }
        }
        retry
    }

    fn wanted(&self, service: &Service) -> Wanted {
        let slices = self.slices.of(&key(service));
        wanted(service, slices.iter().map(AsRef::as_ref), &self.node)
    }

    fn set_names(&self, key: &str, records: &crate::dns::ServiceRecords) {
        if let Some((namespace, name)) = key.split_once('/') {
            self.network.zone().set(namespace, name, records.clone());
        }
    }

    /// Notes which ports a service did not get; true when that is news. Another service's ports may have become free:
    /// those that were refused try again.
    fn settle(&self, key: &str, conflicts: Vec<PortConflict>) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if conflicts.is_empty() { refused.remove(key) } else { refused.insert(key.to_owned(), conflicts) };
        let news = refused.get(key) != before.as_ref();
        let holder =
            |conflict: &PortConflict| matches!(&conflict.holder, crate::PortHolder::Service(service) if service == key);
        for (other, conflicts) in refused.iter().filter(|(other, _)| *other != key) {
            if conflicts.iter().any(holder) {
                self.queue.add(other.clone());
            }
        }
        news
    }

    /// Says at which address a load balancer answers; nowhere, when a port of it is somebody else's.
    async fn publish(
        &self,
        service: &Service,
        wanted: &Wanted,
        conflicts: &[PortConflict],
    ) -> Result<(), NetworkError> {
        let address = (wanted.balanced && conflicts.is_empty()).then(host_address);
        let foreign = service.spec.as_ref().is_some_and(|spec| spec.load_balancer_class.is_some());
        if self.role == Role::Follower || foreign || published(service) == address.into_iter().collect::<Vec<_>>() {
            return Ok(());
        }
        let ingress: Vec<_> =
            address.iter().map(|address| json!({"ip": address.to_string(), "ipMode": "VIP"})).collect();
        let status = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": ingress}}}));
        let api = Api::<Service>::namespaced(self.client.clone(), &service.namespace().unwrap_or_default());
        match api.patch_status(&service.name_any(), &PatchParams::default(), &status).await {
            Ok(_) => Ok(()),
            // Gone meanwhile: its deletion is on the way.
            Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn about(kind: &str, object: &impl ResourceExt) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        namespace: object.namespace(),
        name: Some(object.name_any()),
        uid: object.uid(),
        resource_version: object.resource_version(),
        ..ObjectReference::default()
    }
}

fn published(service: &Service) -> Vec<Ipv4Addr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}
