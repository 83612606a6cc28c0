//! The process of a further node: the same node, network and service proxy as the engine's, with the API at the other end of
//! a TLS connection.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddrV4};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::json;
use shipway_container::{Layout, Runtime};
use shipway_driver::{Shared, slim};
use shipway_network::{Network, NetworkConfig, Proxying, Role, Subnet, parse_subnet};
use shipway_node::{Lease, Node, NodeConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::identity::Credentials;
use super::renewal;
use crate::engine::{start_log, take_all_files};
use crate::home::private_folder;
use crate::output::one_line;

/// Where a node answers the API server: a kubelet's port.
pub(crate) const DOOR: u16 = 10250;
/// A connection on which nothing came for so long is taken for dead.
pub(crate) const SILENCE: Duration = Duration::from_secs(20);
/// How long connecting to the API may take.
pub(crate) const KNOCK: Duration = Duration::from_secs(3);
/// How soon the API is asked again for a subnet.
const AGAIN: Duration = Duration::from_millis(200);
/// How long the parts may take to end when asked to.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// All that a node's process has to know.
pub(crate) struct Facts {
    pub(crate) name: String,
    /// What a home is to the engine.
    pub(crate) folder: PathBuf,
    /// The folders of images and of unpacked layers.
    pub(crate) images: (PathBuf, PathBuf),
    /// Where other nodes keep their things that use these images, if they are this node's to remove.
    pub(crate) collects: Option<PathBuf>,
    pub(crate) layout: Layout,
    /// The network, but for the subnet of the node's own pods, which the cluster gives.
    pub(crate) network: NetworkConfig,
    /// Where the API answers.
    pub(crate) api: SocketAddrV4,
    /// Where the node is reached.
    pub(crate) address: IpAddr,
}

/// What a process does once, before it is a node.
pub(crate) fn prepare() {
    start_log();
    take_all_files();
}

/// Runs the node until it is told to stop; its containers go on. An error says why it has to begin anew.
pub(crate) async fn run(facts: Facts) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut parts = Parts { stop: CancellationToken::new(), running: JoinSet::new() };
    let stop = parts.stop.clone();
    let working = async {
        parts.start(facts).await?;
        stop.cancelled().await;
        bail!("a part of the node failed")
    };
    let result = tokio::select! {
        failed = working => failed,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    stop.cancel();
    let ended = async { while parts.running.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WORDS, ended).await.is_err() {
        tracing::warn!("some parts did not end in time");
    }
    result
}

struct Parts {
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl Parts {
    async fn start(&mut self, facts: Facts) -> Result<()> {
        private_folder(&facts.layout.state)?;
        let credentials = Credentials::read(&facts.folder.join("pki"))?;
        let door = credentials.door()?;
        let client = credentials.client(&format!("https://{}", facts.api)).await?;
        let pod_subnet = subnet(&client, &facts.name).await;
        let config = NetworkConfig { pod_subnet, api_endpoint: Some(facts.api), ..facts.network };
        let network = Network::open(config.clone()).await.context("cannot set the network up")?;
        let runtime = Runtime::new(facts.layout).context("cannot set the container runtime up")?;
        let (images, layers) = facts.images;
        let images = shipway_oci::Store::open(&images).context("cannot open the image store")?;
        let layers = shipway_oci::Layers::open(&layers).context("cannot open the folder of layers")?;
        let overlay = network.clone();
        let (pods, watching) = Shared::new(Api::all(client.clone()), slim, self.stop.clone());
        self.spawn("cache of pods", watching.map(Ok::<(), Infallible>));
        let (asking, role, node) = (client.clone(), Role::Follower, facts.name.clone());
        let proxying = Proxying { client: asking, sleeper: None, network: network.clone(), pods, role, node };
        self.spawn("service proxy", shipway_network::proxy(proxying, self.stop.clone()));
        let (asking, own, stop) = (client.clone(), facts.name.clone(), self.stop.clone());
        let overlay = async move { shipway_network::overlay(asking, overlay, &own, false, stop).await };
        self.spawn("overlay", overlay);
        let renewing = renewal::run(client.clone(), facts.name.clone(), facts.folder.join("pki"), self.stop.clone());
        self.spawn("renewal", renewing.map(|renewed| renewed.map_err(|error| one_line(&error))));
        let node = NodeConfig {
            name: facts.name,
            home: facts.folder,
            dns_address: config.dns_address,
            cluster_domain: config.cluster_domain,
            pod_subnet,
            address: facts.address,
            port: Some(DOOR),
            lease: Lease::BY_ITSELF,
            collects: facts.collects,
        };
        let node = Node::new(client, runtime, network, images, layers, node);
        let listener = TcpListener::bind((facts.address, DOOR)).await;
        let listener = listener.with_context(|| format!("cannot listen on {}:{DOOR}", facts.address))?;
        self.spawn("door", shipway_node::serve(node.service(), listener, door, self.stop.clone()));
        self.spawn("node", node.run(self.stop.clone()));
        Ok(())
    }

    /// Runs a part until the end; one that fails takes the process with it, which is then started again.
    fn spawn<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let stop = self.stop.clone();
        self.running.spawn(async move {
            match AssertUnwindSafe(part).catch_unwind().await {
                Ok(Ok(())) if stop.is_cancelled() => {}
                Ok(Ok(())) => tracing::error!("{name} ended by itself, the node ends"),
                Ok(Err(error)) => tracing::error!(%error, "{name} failed, the node ends"),
                Err(_) => tracing::error!("{name} panicked, the node ends"),
            }
            stop.cancel();
        });
    }
}

/// The subnet that the cluster gave this node, or gives it now. Waits for as long as that takes.
async fn subnet(client: &Client, name: &str) -> Subnet {
    loop {
        match try_subnet(client, name).await {
            Ok(Some(subnet)) => return subnet,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the cluster gave this node no subnet yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn subnet_of(node: &NodeObject) -> Option<Subnet> {
    parse_subnet(node.spec.as_ref()?.pod_cidr.as_deref()?)
}

async fn try_subnet(client: &Client, name: &str) -> Result<Option<Subnet>> {
    let api: Api<NodeObject> = Api::all(client.clone());
    if api.get_opt(name).await?.is_none() {
        let bare: NodeObject = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        match api.create(&PostParams::default(), &bare).await {
            Err(kube::Error::Api(error)) if error.code == 409 => {}
            other => drop(other?),
        }
    }
    let given = |node: Option<&NodeObject>| node.is_some_and(|node| subnet_of(node).is_some());
    match tokio::time::timeout(SILENCE, await_condition(api, name, given)).await {
        Ok(node) => Ok(node?.as_ref().and_then(subnet_of)),
        Err(_) => Ok(None),
    }
}
