//! A node that only seems to run containers: a client of the API like any other node.
//!
//! The machine ([`Machine`]) holds what really runs and outlives the node's process, as containers outlive a kubelet. The
//! process registers the node, renews its lease, follows its pods and reports what the machine does. What a container does
//! is told by annotations on its pod (`plan.rs`).

mod backoff;
mod heartbeat;
mod leash;
mod ledger;
mod machine;
mod plan;
mod process;
mod sandbox;
mod stats;
mod status;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use shipway_apiserver::NodeService;

use crate::parts::Tasks;
pub(crate) use ledger::Ledger;
use machine::Machine;

/// What a node is like.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// How many processors it has, as a quantity.
    pub cpu: String,
    /// How much memory, as a quantity.
    pub memory: String,
    /// How many pods it takes.
    pub pods: u32,
    /// Labels beside the usual ones.
    pub labels: Vec<(String, String)>,
    /// How long a pod takes from its binding to the start of its first container.
    pub start: Duration,
    /// How often it renews its lease, and how long that holds.
    pub lease: (Duration, Duration),
    /// Whether it stops pods that must not run twice when it cannot renew its lease.
    pub leashed: bool,
}

impl NodeOptions {
    /// A node in a process of its own: soon missed, and its pods are on the leash.
    #[must_use]
    pub fn by_itself() -> Self {
        Self { lease: (Duration::from_secs(2), Duration::from_secs(5)), leashed: true, ..Self::default() }
    }
}

impl Default for NodeOptions {
    fn default() -> Self {
        let (cpu, memory) = ("8".to_owned(), "16Gi".to_owned());
        let lease = (Duration::from_secs(10), Duration::from_secs(40));
        let start = Duration::from_millis(300);
        Self { cpu, memory, pods: 110, labels: Vec::new(), start, lease, leashed: false }
    }
}

/// A machine and the node's process on it.
pub(crate) struct Node {
    name: String,
    options: NodeOptions,
    ledger: Ledger,
    machine: Arc<Mutex<Machine>>,
    process: Option<Tasks>,
    alive: Alive,
}

/// Whether a node's process is up.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicBool>);

impl Alive {
    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, alive: bool) {
        self.0.store(alive, Ordering::Relaxed);
    }
}

impl Node {
    pub(crate) fn new(index: usize, options: NodeOptions, ledger: &Ledger) -> Self {
        let lease = options.leashed.then_some(options.lease.1);
        let machine = Arc::new(Mutex::new(Machine::new(index, options.start, lease, ledger.clone())));
        Self {
            name: format!("node-{index}"),
            options,
            ledger: ledger.clone(),
            machine,
            process: None,
            alive: Alive::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Starts the process, in place of one that runs.
    pub(crate) fn start(&mut self, client: Client) {
        self.process = None;
        let address = lock(&self.machine).address().to_string();
        let (name, options, machine) = (self.name.clone(), self.options.clone(), self.machine.clone());
        let heartbeat = heartbeat::run(client.clone(), name, address, options, machine);
        let mut tasks = Tasks::new();
        tasks.spawn(heartbeat);
        tasks.spawn(process::run(client, self.name.clone(), self.machine.clone()));
        self.process = Some(tasks);
        self.alive.set(true);
    }

    /// Kills the process.
    pub(crate) fn stop(&mut self) {
        self.process = None;
        self.alive.set(false);
    }

    /// What the node answers when it is asked for figures.
    pub(crate) fn service(&self) -> NodeService {
        stats::service(self.machine.clone(), self.alive.clone())
    }

    /// Kills all containers, as a power cut does.
    pub(crate) fn kill(&mut self) {
        lock(&self.machine).kill();
    }

    /// The uids of the pods of which a container runs.
    pub(crate) fn running(&self) -> Vec<String> {
        lock(&self.machine).running()
    }
}

fn lock(machine: &Mutex<Machine>) -> MutexGuard<'_, Machine> {
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}
