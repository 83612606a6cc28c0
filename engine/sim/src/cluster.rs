//! The cluster as a test sees it: built, running, and everything that can be done to its parts.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Client;
use shipway_apiserver::Identity;
use shipway_schema::Registry;
use shipway_store::{SimDisk, Store};
use tokio::time::Instant;

use crate::door::Gate;
use crate::interpose;
use crate::log::Complaints;
use crate::node::{Ledger, Node, NodeOptions};
use crate::parts::{self, Part, Tasks};
use crate::run::run;

/// How long nodes may take to become ready.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a cluster is to be like.
#[derive(Clone, Debug)]
pub struct Builder {
    nodes: usize,
    seed: u64,
    options: NodeOptions,
}

impl Builder {
    /// How many nodes there are; they are called `node-0`, `node-1` and so on. One if nothing is said.
    #[must_use]
    pub fn nodes(self, nodes: usize) -> Self {
        Self { nodes, ..self }
    }

    /// What all randomness follows from.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// What each node is like.
    #[must_use]
    pub fn node(self, options: NodeOptions) -> Self {
        Self { options, ..self }
    }

    /// Starts the cluster, waits until its nodes are ready, and runs `test` in it to the end. Panics if the test does, and
    /// if a part of the control plane logged an error or panicked.
    pub fn run<T: Send>(self, test: impl AsyncFnOnce(Cluster) -> T + Send) -> T {
        let (outcome, complaints) = run(self.seed, async move || self.work(test).await);
        assert!(complaints.is_empty(), "parts complained: {complaints:#?}");
        outcome
    }

    /// The same, and hands back what parts complained of, or what the panic said.
    pub(crate) fn watched<T: Send>(
        self,
        test: impl AsyncFnOnce(Cluster) -> T + Send,
    ) -> Result<(T, Vec<String>), String> {
        let lived = catch_unwind(AssertUnwindSafe(|| run(self.seed, async move || self.work(test).await)));
        lived.map_err(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            said.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
        })
    }

    async fn work<T>(self, test: impl AsyncFnOnce(Cluster) -> T) -> (T, Vec<String>) {
        let complaints = Complaints::default();
        let _listening = complaints.listen();
        let cluster = Cluster::start(&self, complaints.clone()).await;
        let outcome = test(cluster.clone()).await;
        cluster.stop().await;
        (outcome, complaints.take())
    }
}

/// A running cluster; clones are the same one.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    registry: Registry,
    gate: Gate,
    began: Instant,
    complaints: Complaints,
    state: Mutex<State>,
}

struct State {
    disk: SimDisk,
    store: Option<Arc<dyn Store>>,
    controllers: Option<Tasks>,
    scheduler: Option<Tasks>,
    nodes: BTreeMap<String, Node>,
}

impl Cluster {
    /// A cluster to be described further.
    pub fn builder() -> Builder {
        Builder { nodes: 1, seed: 1, options: NodeOptions::default() }
    }

    async fn start(builder: &Builder, complaints: Complaints) -> Self {
        let gate = Gate::default();
        let ledger = Ledger::default();
        let node = |index| {
            let node = Node::new(index, builder.options.clone(), &ledger);
            (node.name().to_owned(), node)
        };
        let nodes = (0..builder.nodes).map(node).collect();
        let disk = SimDisk::default();
        let state = State { disk, store: None, controllers: None, scheduler: None, nodes };
        let registry = Registry::builtin();
        let inner = Inner { registry, gate, began: Instant::now(), complaints, state: Mutex::new(state) };
        let cluster = Self(Arc::new(inner));
        for part in [Part::ApiServer, Part::Controllers, Part::Scheduler] {
            cluster.start_part(part).await;
        }
        for name in cluster.node_names() {
            cluster.start_node(&name);
        }
        cluster
            .until("all nodes are ready", PATIENCE, async |cluster| cluster.ready_nodes().await == builder.nodes)
            .await;
        cluster
    }

    async fn stop(&self) {
        for name in self.node_names() {
            self.stop_node(&name);
        }
        for part in [Part::Scheduler, Part::Controllers, Part::ApiServer] {
            self.stop_part(part).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// The store, while the API server is up.
    pub(crate) fn store(&self) -> Option<Arc<dyn Store>> {
        self.state().store.clone()
    }

    /// A client of the administrator. It outlives restarts of the API server.
    pub fn client(&self) -> Client {
        self.0.gate.client(Identity::admin())
    }

    /// A client of somebody else.
    pub fn client_of(&self, identity: Identity) -> Client {
        self.0.gate.client(identity)
    }

    /// Virtual time since the cluster was started.
    pub fn elapsed(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// Sets the wall clock of all machines forward by so many seconds, or back. Timers do not notice.
    pub fn jump(&self, seconds: i64) {
        interpose::jump(seconds);
    }

    /// What parts of the control plane complained of so far; a test that expects complaints takes them.
    pub fn complaints(&self) -> Vec<String> {
        self.0.complaints.take()
    }

    /// Crashes a part if it is up: what it is doing ends in the middle of it. The disk keeps what was synced, and of the
    /// rest what chance says.
    pub async fn stop_part(&self, part: Part) {
        match part {
            Part::Controllers => drop(self.state().controllers.take()),
            Part::Scheduler => drop(self.state().scheduler.take()),
            Part::ApiServer => self.stop_server().await,
        }
    }

    async fn stop_server(&self) {
        let serving = self.0.gate.replace(None);
        {
            let mut state = self.state();
            state.store = None;
            state.disk = state.disk.after_power_cut(fastrand::u64(..));
        }
        if let Some(serving) = serving {
            serving.crashed.cancel();
            // Only ends its tasks: the disk it writes to is not ours any more.
            serving.server.close().await;
        }
    }

    /// Starts a part that is down.
    pub async fn start_part(&self, part: Part) {
        match part {
            Part::Controllers => self.state().controllers = Some(parts::start_controllers(&self.0.gate)),
            Part::Scheduler => self.state().scheduler = Some(parts::start_scheduler(&self.0.gate)),
            Part::ApiServer => {
                let disk = self.state().disk.clone();
                let (serving, store) = parts::open(&disk).await;
                let mut state = self.state();
                state.store = Some(store);
                state.nodes.values().for_each(|node| serving.server.register_node(node.name(), node.service()));
                self.0.gate.replace(Some(serving));
            }
        }
    }

    /// Crashes a part and starts it again at once.
    pub async fn restart(&self, part: Part) {
        self.stop_part(part).await;
        self.start_part(part).await;
    }

    /// The names of all nodes.
    pub fn node_names(&self) -> Vec<String> {
        self.state().nodes.keys().cloned().collect()
    }

    async fn ready_nodes(&self) -> usize {
        let nodes: Vec<NodeObject> = self.list("", "").await;
        let ready = |node: &&NodeObject| {
            let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
        };
        nodes.iter().filter(ready).count()
    }

    fn with_node<T>(&self, name: &str, act: impl FnOnce(&mut Node) -> T) -> T {
        let mut state = self.state();
        act(state.nodes.get_mut(name).unwrap_or_else(|| panic!("there is no node {name}")))
    }

    /// Adds a node, which starts at once. Returns its name.
    pub fn add_node(&self, options: NodeOptions) -> String {
        let name = {
            let mut state = self.state();
            let ledger = state.nodes.values().next().map_or_else(Ledger::default, |node| node.ledger().clone());
            let node = Node::new(state.nodes.len(), options, &ledger);
            let name = node.name().to_owned();
            self.0.gate.register(&name, node.service());
            state.nodes.insert(name.clone(), node);
            name
        };
        self.start_node(&name);
        name
    }

    /// Kills the node's process; containers go on running.
    pub fn stop_node(&self, name: &str) {
        self.with_node(name, Node::stop);
    }

    /// Starts the node's process, and the machine if it is off.
    pub fn start_node(&self, name: &str) {
        let client = self.0.gate.client(Identity::node(name));
        self.with_node(name, |node| node.start(client));
    }

    /// Cuts the machine's power: its containers are dead, and it stays off until [`Cluster::start_node`].
    pub fn kill_node(&self, name: &str) {
        self.with_node(name, |node| {
            node.stop();
            node.kill();
        });
    }

    /// Cuts the node off from the API server; its containers go on running.
    pub fn cut_off(&self, name: &str) {
        self.0.gate.cut_off(&Identity::node(name).user);
    }

    /// Undoes [`Cluster::cut_off`].
    pub fn reconnect(&self, name: &str) {
        self.0.gate.reconnect(&Identity::node(name).user);
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// The parts of which something has ended by itself, which nothing may.
    pub(crate) fn dead_parts(&self) -> Vec<&'static str> {
        let mut state = self.state();
        let State { controllers, scheduler, .. } = &mut *state;
        let parts = [("the controllers", controllers), ("the scheduler", scheduler)];
        parts.into_iter().filter_map(|(name, part)| part.as_mut()?.try_join_next().map(|_| name)).collect()
    }

    /// What ran twice that must not, since the last time this was asked.
    pub(crate) fn doubles(&self) -> Vec<String> {
        self.state().nodes.values().next().map(|node| node.ledger().doubles()).unwrap_or_default()
    }

    /// The pods of which a container runs on a node at this moment, by uid, whatever the API says.
    pub fn running_on(&self, name: &str) -> Vec<String> {
        self.with_node(name, |node| node.running())
    }
}
