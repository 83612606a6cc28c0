//! Pods to containers on this machine: lifecycle, probes, volumes, logs.
//!
//! The node is a client of the API like any other: it watches the pods that the scheduler gave it, makes them real through
//! the runtime and the network, and writes back what it sees. Every decision in a pod's life is a pure function over plain
//! data (`lifecycle`, `status`, `recover`); what touches the machine is kept apart from it (`jobs`, `machine`).
//!
//! It never reads the store, never decides where a pod runs, and stopping it ends no container.

#![cfg_attr(test, allow(clippy::needless_pass_by_value, reason = "what json! makes is handed over as it stands"))]

mod admit;
mod amount;
mod backoff;
mod capacity;
mod collect;
mod door;
mod downward;
mod environment;
mod error;
mod evict;
mod expansion;
mod files;
mod folders;
mod followed;
mod heartbeat;
mod image;
mod jobs;
mod keyring;
mod leash;
mod lifecycle;
mod log;
mod logs;
mod machine;
mod observed;
mod pod;
mod pods;
mod ports;
mod probe;
mod publish;
mod recover;
mod references;
mod resize;
mod runtime;
mod security;
mod service;
mod signal;
mod specification;
mod stats;
mod status;
mod streams;
#[cfg(test)]
mod testing;
mod tokens;
mod users;
mod variable_file;
mod volume;
mod worker;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::runtime::watcher;
use shipway_container::Runtime;
use shipway_driver::{Recorder, cached};
use shipway_network::Network;
use shipway_oci::{Layers, Store};
use tokio_util::sync::CancellationToken;

pub use door::serve;
pub use error::NodeError;
pub use ports::{ASK as DISCOVER_PORTS, FOUND as LISTENING_PORTS};
pub use service::{Body, NodeService};

/// Who the node is and where it keeps things.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The Node object's name.
    pub name: String,
    /// The instance's folder: `pods/` and `logs/` below it are the node's.
    pub home: PathBuf,
    /// The cluster's DNS server.
    pub dns_address: Ipv4Addr,
    /// The domain of services, `cluster.local`.
    pub cluster_domain: String,
    /// Where pod addresses come from: network and prefix length.
    pub pod_subnet: (Ipv4Addr, u8),
    /// The host's address as pods and other machines reach it.
    pub address: IpAddr,
    /// The port on which it answers the API server; none in the API server's own process.
    pub port: Option<u16>,
    /// How the node shows that it lives.
    pub lease: Lease,
    /// Where further nodes keep their things that use the same images; none for one of them, which removes no image.
    pub collects: Option<PathBuf>,
}

/// How a node shows that it lives: how often it says so, for how long that holds, and what happens to its pods when it
/// cannot. Why there are two: docs/decisions/0013-leash.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// How often the lease is renewed.
    pub renewal: Duration,
    /// How long it holds.
    pub duration: Duration,
    /// Whether pods that must not run twice are stopped when it cannot be renewed.
    pub leashed: bool,
}

impl Lease {
    /// For a node in the API server's own process: nobody is there to give its pods away when it is gone. The documented
    /// times of node leases (https://kubernetes.io/docs/concepts/architecture/leases/#node-heart-beats).
    pub const WITH_THE_API: Self =
        Self { renewal: Duration::from_secs(10), duration: Duration::from_secs(40), leashed: false };
    /// For any other node: it is missed after six seconds, when its pods on the leash have been stopped for one.
    pub const BY_ITSELF: Self =
        Self { renewal: Duration::from_secs(2), duration: Duration::from_secs(5), leashed: true };
}

/// The node.
pub struct Node {
    client: kube::Client,
    machine: machine::Host,
    config: NodeConfig,
    runs: logs::Runs,
    streams: streams::Streams,
    stats: stats::Stats,
}

impl Node {
    /// A node that is not registered yet; `layers` is where images are unpacked.
    pub fn new(
        client: kube::Client,
        runtime: Runtime,
        network: Network,
        images: Store,
        layers: Layers,
        config: NodeConfig,
    ) -> Self {
        let runs = logs::Runs::default();
        let streams = streams::Streams::new(runtime.clone(), runs.clone());
        let read = stats::Machine { runtime: runtime.clone(), runs: runs.clone(), home: config.home.clone() };
        let stats = stats::Stats::new(move || read.read());
        let images = image::Images::new(images, layers, config.home.join("registries.json"));
        let machine = machine::Host { runtime, network, images };
        Self { client, machine, config, runs, streams, stats }
    }

    /// Answers what the API server asks of a node, on the paths of a kubelet: `containerLogs`, `exec`, `attach`,
    /// `portForward`, `stats/summary`, `metrics/resource`. For `exec`, `attach` and `portForward` a request must carry the client's own connection: `hyper`'s `OnUpgrade` in
    /// its extensions. Whoever hands the request on passes the `101` reply back as it is.
    pub fn service(&self) -> NodeService {
        let (name, home) = (self.config.name.clone(), self.config.home.clone());
        service::new(name, home, self.runs.clone(), self.streams.clone(), self.stats.clone())
    }

    /// Registers the node and runs its pods until stopped. Containers go on; the next engine takes them up. Ends with
    /// [`NodeError::Away`] when it should be begun anew.
    pub fn run(self, stop: CancellationToken) -> BoxFuture<'static, Result<(), NodeError>> {
        Box::pin(self.work(stop))
    }

    async fn work(self, stop: CancellationToken) -> Result<(), NodeError> {
        let Self { client, machine, config, runs, streams, .. } = self;
        let stop = stop.child_token();
        let (subnet, length) = config.pod_subnet;
        let leash = || Arc::new(leash::Leash::new(config.home.join("leash"), config.lease.duration));
        let leash = config.lease.leashed.then(leash);
        let identity = heartbeat::Identity {
            client: client.clone(),
            name: config.name.clone(),
            address: config.address,
            port: config.port,
            pod_subnet: format!("{subnet}/{length}"),
            home: config.home.clone(),
            lease: config.lease,
            leash: leash.clone(),
        };
        let all: Api<Service> = Api::all(client.clone());
        let (services, watching) = cached(all, watcher::Config::default(), stop.clone(), |_| {});
        let allocatable = capacity::allocatable(capacity::capacity(&config.home));
        let shared = Arc::new(jobs::Shared {
            machine,
            recorder: Recorder::new(client.clone(), "kubelet", &config.name),
            followed: followed::Followed::new(client.clone()),
            client,
            home: config.home.clone(),
            names: files::Names {
                node: config.name.clone(),
                cluster_domain: config.cluster_domain,
                dns_address: config.dns_address,
            },
            host: config.address,
            allocatable,
            room: resize::Room::new(allocatable),
            orders: tokio::sync::watch::Sender::new(None),
            services,
            runs,
            leash,
            collects: config.collects,
        });
        let pods = async {
            // Variables of services must not be missing in the first containers after a start.
            let ready = shared.services.wait_until_ready().await.is_ok();
            if ready { pods::run(shared.clone(), &config.name, stop.clone()).await } else { Ok(()) }
        };
        let folders = folders::run(shared.client.clone(), &config.name, &config.home, stop.clone());
        let ((), stayed, (), pods) = tokio::join!(watching, heartbeat::run(identity, stop.clone()), folders, pods);
        streams.close().await;
        if stayed { pods } else { Err(NodeError::Away) }
    }
}
