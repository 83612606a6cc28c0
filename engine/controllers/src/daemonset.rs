//! DaemonSet: a pod on every node that its template may run on.
//!
//! What happens next is decided in `plan`; here it is carried out. Pods are bound by the scheduler, which each pod leaves one
//! choice.

mod backoff;
mod eligible;
mod plan;
mod status;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use shipway_driver::{Change, EventKind, Queue, Shared};
use tokio_util::sync::CancellationToken;

use crate::Key;
use crate::crew::{self, Crew, is_terminating};
use crate::history::{self, History, REVISION_HASH, Subject};
use crate::owned::{UNSEEN_LIMIT, Unseen};
use crate::world::{World, find, key, wake};
use backoff::Backoff;
use eligible::{Fit, fit};
use plan::{Act, View, Why};

const KIND: &str = "DaemonSet";
/// How many pods are made or deleted at once.
const AT_ONCE: usize = 16;

/// Keeps all daemon sets as they should be, until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let unseen = Unseen::over(world.pods.shared(), &queue);
    let (sets, revisions) = (world.cache::<DaemonSet>(), world.cache::<ControllerRevision>());
    let nodes = world.cache::<Node>();
    wake(&sets, &queue);
    crew::wake_owners(&world, KIND, &queue, sets.store());
    history::wake_owners(&revisions, KIND, &queue, sets.store());
    wake_by_node(&nodes, &queue, sets.store());
    let seen = Seen { sets: sets.store(), revisions: revisions.store(), nodes: nodes.store(), backoff: Arc::default() };
    let look = move |world: World, key| reconcile(world, seen.clone(), unseen.clone(), key);
    world.reconcile(queue, 2, stop, look).await;
}

/// Wakes all sets when a node comes, goes, or changes in what decides about them; not at its heartbeats.
fn wake_by_node(nodes: &Shared<Node>, queue: &Arc<Queue<Key>>, sets: Store<DaemonSet>) {
    let queue = queue.clone();
    let known = Mutex::new(HashMap::<String, Node>::new());
    nodes.listen(move |change| {
        let node = change.object();
        let now = matches!(change, Change::Applied(_)).then(|| eligible::deciding(node));
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&node.name_any()) == now.as_ref() {
            return;
        }
        match now {
            Some(now) => known.insert(node.name_any(), now),
            None => known.remove(&node.name_any()),
        };
        sets.state().into_iter().for_each(|set| queue.add(key(&*set)));
    });
}

/// What this controller reads and remembers.
#[derive(Clone)]
struct Seen {
    sets: Store<DaemonSet>,
    revisions: Store<ControllerRevision>,
    nodes: Store<Node>,
    backoff: Arc<Backoff>,
}

async fn reconcile(world: World, seen: Seen, unseen: Arc<Unseen>, key: Key) -> Result<Option<Duration>, kube::Error> {
    let Some(set) = find(&seen.sets, &key).filter(|set| set.metadata.deletion_timestamp.is_none()) else {
        return Ok(None);
    };
    let Some(spec) = &set.spec else { return Ok(None) };
    let crew = Crew::new(&world, &unseen, set.clone());
    if crew.is_behind() {
        return Ok(Some(UNSEEN_LIMIT));
    }
    let pods = crew.claim(&spec.selector, |_| true).await?;
    let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let subject = Subject { template: &spec.template, collisions, label: REVISION_HASH };
    let looked = history::look(&crew, world.client.clone(), &seen.revisions, &spec.selector, subject).await?;
    let Some((history, current)) = looked else { return Ok(None) };
    let hash = history::hash_of(&current).to_owned();
    Keeper { set: &set, spec, crew: &crew, seen: &seen, hash }.look(&pods, &history).await
}

/// One look at one daemon set.
struct Keeper<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    crew: &'a Crew<DaemonSet>,
    seen: &'a Seen,
    /// Of the template as it is now.
    hash: String,
}

impl Keeper<'_> {
    async fn look(&self, pods: &[Arc<Pod>], history: &History<'_, DaemonSet>) -> Result<Option<Duration>, kube::Error> {
        let Some(view) = View::new(self.set, self.nodes(), pods, &self.hash, Timestamp::now()) else { return Ok(None) };
        let held = |node: &str| self.seen.backoff.held(self.uid(), node);
        let done = self.carry_out(view.next(&held)).await;
        let status = status::of(self.set, &view);
        if self.set.status.as_ref() != Some(&status) {
            self.crew.write_status(&status).await?;
        }
        let mut live: BTreeSet<&str> =
            pods.iter().filter_map(|pod| pod.labels().get(REVISION_HASH).map(String::as_str)).collect();
        live.insert(&self.hash);
        let limit = self.spec.revision_history_limit.unwrap_or(10);
        history.forget(limit, |one| live.contains(history::hash_of(one))).await?;
        match done {
            Err(error) if !is_terminating(&error) => Err(error),
            _ => Ok(view.again(&held)),
        }
    }

    fn uid(&self) -> &str {
        self.set.metadata.uid.as_deref().unwrap_or_default()
    }

    /// What each node is to this set.
    fn nodes(&self) -> BTreeMap<String, Fit> {
        let nodes = self.seen.nodes.state();
        nodes.iter().map(|node| (node.name_any(), fit(&self.spec.template, node))).collect()
    }

    /// One thing first: where the API refuses it, it would refuse them all.
    async fn carry_out(&self, acts: Vec<Act>) -> Result<(), kube::Error> {
        let mut acts = acts.into_iter();
        if let Some(first) = acts.next() {
            self.act(first).await?;
        }
        let rest = futures::stream::iter(acts).map(Ok);
        rest.try_for_each_concurrent(AT_ONCE, |act| self.act(act)).await
    }

    async fn act(&self, act: Act) -> Result<(), kube::Error> {
        match act {
            Act::Create(node) => {
                let mut pod = eligible::pin(self.crew.pod(&self.spec.template), &node);
                pod.labels_mut().insert(REVISION_HASH.to_owned(), self.hash.clone());
                self.crew.create(&pod).await.map(drop)
            }
            Act::Delete(pod, why) => {
                self.explain(&pod, why);
                self.crew.delete(&pod).await
            }
        }
    }

    fn explain(&self, pod: &Pod, why: Why) {
        let (name, node) =
            (format!("{}/{}", self.crew.key.0, pod.name_any()), eligible::node_of(pod).unwrap_or_default());
        match why {
            Why::Surplus => {}
            Why::Failed => {
                self.seen.backoff.failed(self.uid(), &node);
                let message = format!("Found failed daemon pod {name} on node {node}, will try to kill it");
                self.crew.tell(EventKind::Warning, "FailedDaemonPod", &message);
            }
            Why::Succeeded => {
                let message = format!("Found succeeded daemon pod {name} on node {node}, will try to delete it");
                self.crew.tell(EventKind::Normal, "SucceededDaemonPod", &message);
            }
        }
    }
}
