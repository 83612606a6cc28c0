//! Reads every commit of the store, beside all clients, and checks what must hold at each.
//!
//! What it saw was acknowledged to somebody: after a crash it has to be there still, with its revision.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use shipway_store::{Commit, EventKind, Range, Revision, Store};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::Cluster;
use crate::chaos::trace::Trace;
use crate::chaos::view::{Pod, Replicated};

/// So long a controller may act on what it was told before.
const STALE: Duration = Duration::from_mins(2);
/// How long to leave a store alone that is away.
const AWAY: Duration = Duration::from_millis(20);
const PODS: &str = "/registry/core/pods/";
/// Whatever makes pods: where it is kept, and what it is called.
const OWNERS: [(&str, &str); 5] = [
    ("/registry/apps/deployments/", "deployment"),
    (REPLICA_SETS, "replica set"),
    ("/registry/apps/statefulsets/", "stateful set"),
    ("/registry/apps/daemonsets/", "daemon set"),
    ("/registry/batch/jobs/", "job"),
];
const REPLICA_SETS: &str = "/registry/apps/replicasets/";

/// A handle on it; it observes as long as one is there.
#[derive(Clone)]
pub(crate) struct Observer {
    model: Arc<Mutex<Model>>,
    _task: Arc<JoinSet<()>>,
}

struct Model {
    cluster: Cluster,
    trace: Trace,
    /// The last revision seen.
    revision: Revision,
    /// The revision of every key.
    keys: BTreeMap<Bytes, Revision>,
    /// By key.
    pods: BTreeMap<String, Pod>,
    /// Whatever makes pods by uid: what was asked for, and since when.
    asked: HashMap<String, Vec<(Instant, Replicated)>>,
    /// Which of these are there: uid by key.
    present: BTreeMap<String, String>,
    /// Until when missing pods are not the controllers' doing.
    excused: Option<Instant>,
    violations: Vec<String>,
}

impl Observer {
    pub(crate) fn start(cluster: &Cluster, trace: &Trace) -> Self {
        let model = Arc::new(Mutex::new(Model {
            cluster: cluster.clone(),
            trace: trace.clone(),
            revision: 0,
            keys: BTreeMap::new(),
            pods: BTreeMap::new(),
            asked: HashMap::new(),
            present: BTreeMap::new(),
            excused: None,
            violations: Vec::new(),
        }));
        let mut task = JoinSet::new();
        task.spawn(observe(cluster.clone(), model.clone()));
        Self { model, _task: Arc::new(task) }
    }

    /// For so long from now on pods may be missing for other reasons than what controllers do.
    pub(crate) fn excuse(&self, time: Duration) {
        let until = Instant::now() + time + STALE;
        let mut model = lock(&self.model);
        model.excused = model.excused.max(Some(until));
    }

    /// What was broken so far; forgets it.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.has_violations();
        std::mem::take(&mut lock(&self.model).violations)
    }

    /// Whether something was broken.
    pub(crate) fn has_violations(&self) -> bool {
        let mut model = lock(&self.model);
        for double in model.cluster.doubles() {
            model.break_rule(double);
        }
        !model.violations.is_empty()
    }
}

fn lock(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn observe(cluster: Cluster, model: Arc<Mutex<Model>>) {
    loop {
        let Some(store) = cluster.store() else {
            sleep(AWAY).await;
            continue;
        };
        compare(&*store, &model).await;
        let from = lock(&model).revision + 1;
        let Ok(mut watcher) = store.watch(Range::all(), from).await else {
            sleep(AWAY).await;
            continue;
        };
        // The watch ends with the store.
        drop(store);
        while let Ok(commit) = watcher.next().await {
            lock(&model).take(&commit);
        }
    }
}

/// Everything that was seen is in the store as it was.
async fn compare(store: &dyn Store, model: &Mutex<Model>) {
    let (seen, head) = (lock(model).revision, store.revision());
    if seen > head {
        lock(model).break_rule(format!("revision {seen} was seen, and after a crash the newest is {head}"));
        return;
    }
    if seen == 0 {
        return;
    }
    let Ok(found) = store.range(Range { revision: Some(seen), ..Range::all() }).await else { return };
    let found: BTreeMap<Bytes, Revision> = found.items.into_iter().map(|kv| (kv.key, kv.mod_revision)).collect();
    let mut model = lock(model);
    if found != model.keys {
        model.break_rule(format!("after a crash the store has another state at revision {seen} than was seen"));
    }
}

impl Model {
    fn break_rule(&mut self, what: String) {
        self.trace.say(format!("BROKEN: {what}"));
        self.violations.push(what);
    }

    fn take(&mut self, commit: &Commit) {
        if commit.revision != self.revision + 1 && self.revision != 0 {
            let last = self.revision;
            self.break_rule(format!("revision {} came after {last}", commit.revision));
        }
        self.revision = commit.revision;
        for event in &commit.events {
            let key = String::from_utf8_lossy(&event.kv.key).into_owned();
            let there = event.kind == EventKind::Put;
            if there {
                self.keys.insert(event.kv.key.clone(), event.kv.mod_revision);
            } else {
                self.keys.remove(&event.kv.key);
            }
            if key.starts_with(PODS) {
                let pod = if there { self.read::<Pod>(&key, &event.kv.value) } else { None };
                self.pod(&key, pod.as_ref(), event.kv.create_revision == event.kv.mod_revision);
            } else if OWNERS.iter().any(|(folder, _)| key.starts_with(folder)) {
                self.present.remove(&key);
                if there {
                    self.asked_for(&key, &event.kv.value);
                }
            }
        }
    }

    fn read<T: DeserializeOwned>(&mut self, key: &str, value: &[u8]) -> Option<T> {
        let read = serde_json::from_slice(value);
        read.map_err(|error| self.break_rule(format!("{key} cannot be read: {error}"))).ok()
    }

    fn asked_for(&mut self, key: &str, value: &[u8]) {
        let Some(object) = self.read::<Replicated>(key, value) else { return };
        self.present.insert(key.to_owned(), object.metadata.uid.clone());
        let history = self.asked.entry(object.metadata.uid.clone()).or_default();
        let before = history.last().map(|(_, last)| (last.spec.most(), last.spec.fewest()));
        let after = (object.spec.most(), object.spec.fewest());
        match history.last_mut() {
            Some((_, last)) if before == Some(after) => *last = object.clone(),
            _ => history.push((Instant::now(), object.clone())),
        }
        if key.starts_with(REPLICA_SETS) && before.is_none_or(|before| before.0 < after.0) {
            self.grew(&object);
        }
    }

    /// What was asked for at any time that a controller may still act on.
    fn recently(&self, uid: &str, read: impl Fn(&Replicated) -> i64) -> Vec<i64> {
        let Some(history) = self.asked.get(uid) else { return Vec::new() };
        let old = Instant::now() - STALE;
        let since = history.iter().rposition(|(at, _)| *at <= old).unwrap_or(0);
        history[since..].iter().map(|(_, object)| read(object)).collect()
    }

    fn pod(&mut self, key: &str, pod: Option<&Pod>, created: bool) {
        let before = self.pods.remove(key);
        if let Some(pod) = pod {
            self.pods.insert(key.to_owned(), pod.clone());
        }
        let short = &key[PODS.len()..];
        self.tell(short, before.as_ref(), pod);
        match (&before, pod) {
            (Some(before), Some(pod)) if before.metadata.uid == pod.metadata.uid => self.changed(short, before, pod),
            (Some(_), Some(_)) => self.break_rule(format!("pod {short} became another without being deleted")),
            _ => {}
        }
        if let Some(pod) = pod.filter(|_| created) {
            self.created(short, pod);
        }
        let leaves = |pod: &Pod| pod.is_ready() && pod.is_live();
        let goes = pod.is_none_or(Pod::is_going);
        if let Some(before) = before.filter(leaves).filter(|_| goes) {
            self.went(short, &before);
        }
    }

    fn tell(&self, key: &str, before: Option<&Pod>, pod: Option<&Pod>) {
        let picture = |pod: &Pod| {
            let ready = if pod.is_ready() { " ready" } else { "" };
            let going = if pod.is_going() { " going" } else { "" };
            format!("{}{ready}{going} on {:?}", pod.status.phase, pod.spec.node_name)
        };
        let (before, after) = (before.map(picture), pod.map(picture));
        if before != after {
            self.trace.say(format!("pod {key}: {}", after.as_deref().unwrap_or("gone")));
        }
    }

    fn changed(&mut self, key: &str, before: &Pod, pod: &Pod) {
        let (from, to) = (&before.spec.node_name, &pod.spec.node_name);
        if !from.is_empty() && from != to {
            self.break_rule(format!("pod {key} moved from {from} to {to}"));
        }
        if from.is_empty() && !to.is_empty() {
            self.bound(key, pod);
        }
        if before.is_finished() && before.status.phase != pod.status.phase {
            let (was, is) = (&before.status.phase, &pod.status.phase);
            self.break_rule(format!("pod {key} was {was} and is {is}"));
        }
        if before.is_going() && !pod.is_going() {
            self.break_rule(format!("pod {key} is not being deleted any more"));
        }
    }

    /// A set of daemons has one pod a node, and while it rolls as many more as it was told.
    fn bound(&mut self, key: &str, pod: &Pod) {
        let Some(owner) = pod.metadata.controller().filter(|owner| owner.kind == "DaemonSet").cloned() else { return };
        let Some(most) = self.recently(&owner.uid, |object| object.spec.most_a_node()).into_iter().max() else {
            return;
        };
        let node = &pod.spec.node_name;
        let own = |it: &&Pod| it.metadata.controller().is_some_and(|it| it.uid == owner.uid);
        let there = self.pods.values().filter(own).filter(|it| it.is_live() && it.spec.node_name == *node).count();
        let there = i64::try_from(there).unwrap_or(i64::MAX);
        if there > most.saturating_add(self.slack()) && self.is_there(&owner.uid) {
            let what = format!("with pod {key} daemon set {} has {there} pods on {node}, at most {most}", owner.name);
            self.break_rule(what);
        }
    }

    /// How many pods there may be that nobody knows of who made them.
    fn slack(&self) -> i64 {
        let slack = self.cluster.gate().forgotten_since(Instant::now() - STALE);
        i64::try_from(slack).unwrap_or(i64::MAX)
    }

    /// The uids of the set that a pod belongs to, and of the deployment above it.
    fn roots(&self, pod: &Pod) -> Vec<String> {
        let Some(owner) = pod.metadata.controller().filter(|owner| owner.kind != "DaemonSet") else {
            return Vec::new();
        };
        let above = self.asked.get(&owner.uid).and_then(|history| history.last());
        let above = above.and_then(|(_, set)| set.metadata.controller()).map(|owner| owner.uid.clone());
        std::iter::once(owner.uid.clone()).chain(above).collect()
    }

    fn counted(&self, root: &str, counts: impl Fn(&Pod) -> bool) -> i64 {
        let pods = self.pods.values().filter(|pod| counts(pod) && self.roots(pod).iter().any(|own| own == root));
        i64::try_from(pods.count()).unwrap_or(i64::MAX)
    }

    /// Never more than the set was asked for. Of one that is gone a controller may not know yet: what it makes is
    /// removed with it.
    fn created(&mut self, key: &str, pod: &Pod) {
        let Some(root) = self.roots(pod).into_iter().next() else { return };
        let Some(most) = self.recently(&root, |object| object.spec.most()).into_iter().max() else { return };
        // A set in order takes pods away only while those before are well: what counts is which it makes.
        let there = pod.ordinal().map_or_else(|| self.counted(&root, Pod::is_live), |ordinal| ordinal + 1);
        if there > most.saturating_add(self.slack()) && self.is_there(&root) {
            let (kind, name) = self.named(&root);
            let what = format!("with pod {key} {kind} {name} has {there} pods, and at most {most} were asked for");
            self.break_rule(what);
        }
    }

    /// A deployment asks its replica sets together for no more than it was asked for and may have beside it. Pods of one
    /// may still be on their way out while those of another come.
    fn grew(&mut self, set: &Replicated) {
        let Some(owner) = set.metadata.controller().map(|owner| owner.uid.clone()) else { return };
        let Some(most) = self.recently(&owner, |object| object.spec.most()).into_iter().max() else { return };
        let last = |uid: &String| self.asked.get(uid).and_then(|history| history.last()).map(|(_, last)| last);
        let sets = self.present.values().filter_map(last);
        let own = sets.filter(|set| set.metadata.controller().is_some_and(|it| it.uid == owner));
        let sum: i64 = own.map(|set| set.spec.replicas).sum();
        if sum > most && self.is_there(&owner) {
            let (kind, name) = self.named(&owner);
            let what = format!("{kind} {name} asks its replica sets for {sum} pods, and at most {most} were asked for");
            self.break_rule(what);
        }
    }

    /// A rollout takes away only what may be missing.
    fn went(&mut self, key: &str, pod: &Pod) {
        if self.excused.is_some_and(|until| until > Instant::now()) {
            return;
        }
        let Some(root) = self.roots(pod).pop() else { return };
        let Some(fewest) = self.recently(&root, |object| object.spec.fewest()).into_iter().min() else { return };
        let ready = self.counted(&root, |pod| pod.is_live() && pod.is_ready());
        let (kind, name) = self.named(&root);
        if ready < fewest && kind == "deployment" && self.is_there(&root) {
            self.break_rule(format!(
                "without pod {key} {kind} {name} has {ready} ready pods, and at least {fewest} were asked for"
            ));
        }
    }

    /// Whether what was asked for still is.
    fn is_there(&self, uid: &str) -> bool {
        let last = self.asked.get(uid).and_then(|history| history.last());
        let going = last.is_none_or(|(_, object)| object.metadata.deletion_timestamp.is_some());
        !going && self.present.values().any(|present| present == uid)
    }

    fn named(&self, uid: &str) -> (&'static str, String) {
        let key = self.present.iter().find(|(_, present)| *present == uid).map(|(key, _)| key.as_str());
        let kind = OWNERS.iter().find(|(folder, _)| key.is_some_and(|key| key.starts_with(folder)));
        let last = self.asked.get(uid).and_then(|history| history.last());
        let name = last.map(|(_, object)| object.metadata.name.clone()).unwrap_or_default();
        (kind.map_or("something gone", |(_, kind)| kind), name)
    }
}
