//! Where the node meets the runtime, the network and the images: the few things that a pod's life asks of this machine.
//!
//! `Host` is this machine as it is. Tests put an imagined one in its place and need no privilege.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use shipway_container::{ContainerSpec, FailureKind, PodState, Resources, SandboxSpec};
use shipway_network::Network;
use tokio::sync::watch;

use crate::error::NodeError;
use crate::image::{Answer, Images, PullPolicy};
use crate::keyring::Keyring;
use crate::observed::StartFailure;
use crate::volume::PodMount;

/// Something to be done.
pub(crate) type Work = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// This machine, as far as pods are concerned.
pub(crate) trait Machine: Clone + Send + Sync + 'static {
    /// A pod's place on it.
    type Sandbox: Sandbox;

    fn create(&self, spec: SandboxSpec) -> impl Future<Output = Result<Self::Sandbox, NodeError>> + Send;
    /// The place of a pod that was made before.
    fn find(&self, uid: &str) -> impl Future<Output = Result<Option<Self::Sandbox>, NodeError>> + Send;
    fn attach(&self, uid: &str, namespace: &Path) -> impl Future<Output = Result<Ipv4Addr, NodeError>> + Send;
    fn detach(&self, uid: &str) -> impl Future<Output = Result<(), NodeError>> + Send;
    /// Resolves when no service sends new connections to `address`.
    fn released(&self, address: Ipv4Addr) -> impl Future<Output = ()> + Send;
    fn fetch(&self, image: &str, policy: PullPolicy, keys: &Keyring) -> impl Future<Output = Answer> + Send;
    fn mount(&self, supervisor: i32, mounts: Vec<PodMount>) -> impl Future<Output = Result<(), String>> + Send;
    /// Does something, which may block, where the pod's mounts are seen.
    fn inside(&self, supervisor: i32, work: Work) -> impl Future<Output = Result<(), String>> + Send;
}

/// A pod's place on the machine: its namespaces and its supervisor.
pub(crate) trait Sandbox: Clone + Send + Sync + 'static {
    fn supervisor(&self) -> i32;
    fn network_namespace(&self) -> PathBuf;
    fn state(&self) -> watch::Receiver<PodState>;
    fn start(&self, spec: ContainerSpec) -> impl Future<Output = Result<Begun, StartFailure>> + Send;
    /// Changes what a run may use.
    fn resize(&self, run: &str, resources: Resources) -> impl Future<Output = Result<(), NodeError>> + Send;
    fn kill(&self, run: &str, signal: i32) -> impl Future<Output = Result<(), NodeError>> + Send;
    fn exec(
        &self,
        run: &str,
        command: &[String],
        timeout: Duration,
    ) -> impl Future<Output = Result<(i32, Vec<u8>), NodeError>> + Send;
    fn forget(&self, run: &str) -> impl Future<Output = Result<(), NodeError>> + Send;
    fn destroy(&self) -> impl Future<Output = Result<(), NodeError>> + Send;
}

/// A run that was begun.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Begun {
    pub(crate) pid: i32,
    pub(crate) since: Timestamp,
    /// What was asked for and is not possible on this machine.
    pub(crate) warnings: Vec<String>,
}

/// The runtime's times as the API's.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_default()
}

/// The machine as it is.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) runtime: shipway_container::Runtime,
    pub(crate) network: Network,
    pub(crate) images: Images,
}

fn runtime_error(error: impl std::fmt::Display) -> NodeError {
    NodeError::Runtime(error.to_string())
}

fn network_error(error: impl std::fmt::Display) -> NodeError {
    NodeError::Network(error.to_string())
}

impl Machine for Host {
    type Sandbox = shipway_container::Pod;

    async fn create(&self, spec: SandboxSpec) -> Result<Self::Sandbox, NodeError> {
        self.runtime.create(spec).await.map_err(runtime_error)
    }

    async fn find(&self, uid: &str) -> Result<Option<Self::Sandbox>, NodeError> {
        self.runtime.find(uid).await.map_err(runtime_error)
    }

    async fn attach(&self, uid: &str, namespace: &Path) -> Result<Ipv4Addr, NodeError> {
        self.network.attach(uid, namespace).await.map_err(network_error)
    }

    async fn detach(&self, uid: &str) -> Result<(), NodeError> {
        self.network.detach(uid).await.map_err(network_error)
    }

    async fn released(&self, address: Ipv4Addr) {
        self.network.released(address).await;
    }

    async fn fetch(&self, image: &str, policy: PullPolicy, keys: &Keyring) -> Answer {
        self.images.fetch(image, policy, keys).await
    }

    async fn mount(&self, supervisor: i32, mounts: Vec<PodMount>) -> Result<(), String> {
        crate::volume::mount(supervisor, mounts).await
    }

    async fn inside(&self, supervisor: i32, work: Work) -> Result<(), String> {
        crate::volume::inside(supervisor, work).await
    }
}

impl Sandbox for shipway_container::Pod {
    fn supervisor(&self) -> i32 {
        self.supervisor_pid()
    }

    fn network_namespace(&self) -> PathBuf {
        Self::network_namespace(self)
    }

    fn state(&self) -> watch::Receiver<PodState> {
        Self::state(self)
    }

    async fn start(&self, spec: ContainerSpec) -> Result<Begun, StartFailure> {
        match Self::start(self, spec).await {
            Ok(started) => {
                Ok(Begun { pid: started.pid, since: timestamp(started.started_at), warnings: started.warnings })
            }
            Err(error) => Err(match error.kind() {
                FailureKind::RunContainer | FailureKind::Start => StartFailure::Run(error.to_string()),
                _ => StartFailure::Create(error.to_string()),
            }),
        }
    }

    async fn resize(&self, run: &str, resources: Resources) -> Result<(), NodeError> {
        Self::change(self, run, resources).await.map_err(runtime_error)
    }

    async fn kill(&self, run: &str, signal: i32) -> Result<(), NodeError> {
        Self::kill(self, run, signal).await.map_err(runtime_error)
    }

    async fn exec(&self, run: &str, command: &[String], timeout: Duration) -> Result<(i32, Vec<u8>), NodeError> {
        let output = Self::exec(self, run, command, timeout).await.map_err(runtime_error)?;
        Ok((output.code, output.output))
    }

    async fn forget(&self, run: &str) -> Result<(), NodeError> {
        self.remove_container(run).await.map_err(runtime_error)
    }

    async fn destroy(&self) -> Result<(), NodeError> {
        Self::destroy(self).await.map_err(runtime_error)
    }
}
