//! The parts of the control plane: started, crashed and started again, each for itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use shipway_apiserver::{ApiServer, Config, Identity};
use shipway_driver::{Meters, Shared, slim};
use shipway_store::{Log, Options, SimDisk, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::door::{Gate, Serving};

/// A part that can be crashed and started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Store and API server; with them goes what the disk had not been told to keep.
    ApiServer,
    /// All controllers.
    Controllers,
    /// The scheduler.
    Scheduler,
}

/// Opens the log on a disk: all of its work is done on the caller's thread.
fn open_log(disk: &SimDisk) -> Arc<Log> {
    let options = Options {
        segment_bytes: 1 << 20,
        inline_below: Duration::MAX,
        background: false,
        identity: Some(1),
        ..Options::default()
    };
    Log::open_on(Arc::new(disk.clone()), options).unwrap_or_else(|error| panic!("the store does not open: {error}"))
}

/// Opens the API server over a disk.
pub(crate) async fn open(disk: &SimDisk) -> (Serving, Arc<dyn Store>) {
    let store: Arc<dyn Store> = open_log(disk);
    let address = SocketAddr::from((Ipv4Addr::new(10, 96, 0, 1), 443));
    let mut config = Config::new((Ipv4Addr::new(10, 96, 0, 0), 16), address, 30000..=32767);
    // As the engine has it.
    config.toleration_seconds = 2;
    let server = ApiServer::open(store.clone(), config).await;
    let server = server.unwrap_or_else(|error| panic!("the API server does not open: {error}"));
    (Serving { server, crashed: CancellationToken::new() }, store)
}

/// Tasks that are up; dropping it is a crash of them all.
pub(crate) type Tasks = JoinSet<()>;

/// A cache of pods as the binary makes it; here controllers and scheduler have one each, so that they crash each for itself.
fn pods(gate: &Gate, tasks: &mut Tasks) -> Shared<k8s_openapi::api::core::v1::Pod> {
    let client = gate.client(Identity::scheduler());
    let (pods, watching) = Shared::new(Api::all(client), slim, CancellationToken::new());
    tasks.spawn(watching);
    pods
}

/// Starts the controllers.
pub(crate) fn start_controllers(gate: &Gate) -> Tasks {
    let mut tasks = Tasks::new();
    let pods = pods(gate, &mut tasks);
    let gate = gate.clone();
    let client = move |name: &str| gate.client(Identity::controller(name));
    let refuse = |_: &[u8], _: &[String], _: Duration| Err("a simulation signs nothing".to_owned());
    let authority = shipway_controllers::Authority { root: "simulated".into(), sign: Arc::new(refuse) };
    tasks.spawn(shipway_controllers::run(client, &pods, authority, &Meters::default(), CancellationToken::new()));
    tasks
}

/// Starts the scheduler.
pub(crate) fn start_scheduler(gate: &Gate) -> Tasks {
    let mut tasks = Tasks::new();
    let pods = pods(gate, &mut tasks);
    let client = gate.client(Identity::scheduler());
    tasks.spawn(shipway_scheduler::run(client, pods, CancellationToken::new()));
    tasks
}
