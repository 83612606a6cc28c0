//! The pods that a machine runs: made, stepped and taken down as their objects say. Outlives the node's process.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use tokio::time::Instant;

use super::leash::{self, Leash};
use super::ledger::Ledger;
use super::plan::Plan;
use super::sandbox::{Sandbox, Why};
use super::status::status;

/// Namespace and name.
pub(super) type Key = (String, String);

/// How soon a pod is looked at again that waits for the lease.
const HOLD: Duration = Duration::from_millis(200);

/// What is to be told to the API, and when to look again.
#[derive(Default)]
pub(super) struct Due {
    pub(super) publish: Option<(Arc<Pod>, PodStatus)>,
    /// A pod that has ended and whose object is to be removed.
    pub(super) remove: Option<Arc<Pod>>,
    pub(super) wake: Option<Instant>,
}

pub(super) struct Machine {
    index: u8,
    start: Duration,
    ledger: Ledger,
    /// By uid.
    sandboxes: BTreeMap<String, Sandbox>,
    /// How many addresses were given out.
    addresses: u16,
    /// What holds pods to the node's lease, where anything does.
    leash: Option<Leash>,
}

impl Machine {
    /// `lease`: for how long a lease holds that pods are held to.
    pub(super) fn new(index: usize, start: Duration, lease: Option<Duration>, ledger: Ledger) -> Self {
        let index = u8::try_from(index).unwrap_or(u8::MAX);
        Self { index, start, ledger, sandboxes: BTreeMap::new(), addresses: 0, leash: lease.map(Leash::new) }
    }

    /// The machine's own address.
    pub(super) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 0, self.index)
    }

    /// All containers die.
    pub(super) fn kill(&mut self) {
        self.sandboxes.values_mut().for_each(Sandbox::kill);
        self.tell();
    }

    /// Writes down which names that only one machine may hold are held here, where the machine has promised to let go.
    fn tell(&self) {
        let Some(leash) = self.leash else { return };
        let now = Instant::now();
        let held =
            self.sandboxes.values().filter(|it| leash::is_wanted(&it.pod) && it.runs_at(now) && !leash.is_over(now));
        let until = |sandbox: &Sandbox| sandbox.ends().map_or(leash.until(), |at| at.min(leash.until()));
        self.ledger.hold(self.index, held.map(|sandbox| (key(&sandbox.pod), until(sandbox))).collect());
    }

    /// The uids of the pods of which a container runs.
    pub(super) fn running(&self) -> Vec<String> {
        let now = Instant::now();
        let over = self.leash.is_some_and(|leash| leash.is_over(now));
        let stopped = |sandbox: &Sandbox| over && leash::is_wanted(&sandbox.pod);
        let running = self.sandboxes.iter().filter(|(_, sandbox)| sandbox.runs_at(now) && !stopped(sandbox));
        running.map(|(uid, _)| uid.clone()).collect()
    }

    /// The lease was renewed by a call that began at `sent`; false when it had run out, and pods with it.
    pub(super) fn renewed(&mut self, sent: Instant) -> bool {
        let Some(leash) = &mut self.leash else { return true };
        if leash.is_over(Instant::now()) {
            self.sandboxes.values_mut().filter(|it| leash::is_wanted(&it.pod)).for_each(Sandbox::kill);
        }
        let renewed = leash.renew(sent);
        self.tell();
        renewed
    }

    /// Lets pods be started again, if the node's object has nothing against it.
    pub(super) fn open(&mut self, node: &Node) {
        if let Some(leash) = &mut self.leash {
            leash.open(node);
        }
    }

    /// Whether nothing of the pod is here and the API has to be asked before it is: it may be running elsewhere.
    pub(super) fn must_ask(&self, pod: &Pod) -> bool {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.leash.is_some() && leash::is_wanted(pod) && !self.sandboxes.get(uid).is_some_and(Sandbox::runs)
    }

    /// What is here.
    pub(super) fn sandboxes(&self) -> impl Iterator<Item = &Sandbox> {
        self.sandboxes.values()
    }

    /// The pods that have something here.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.sandboxes.values().map(|sandbox| key(&sandbox.pod)).collect()
    }

    /// Notes what the API was told.
    pub(super) fn published(&mut self, uid: &str, status: PodStatus) {
        if let Some(sandbox) = self.sandboxes.get_mut(uid) {
            sandbox.published = Some(status);
        }
    }

    /// Brings the pods of one name to where their object says, if there is one.
    pub(super) fn step(&mut self, name: &Key, object: Option<&Arc<Pod>>) -> Due {
        let due = self.advance(name, object);
        self.tell();
        due
    }

    fn advance(&mut self, name: &Key, object: Option<&Arc<Pod>>) -> Due {
        let uid = object.and_then(|pod| pod.metadata.uid.as_deref());
        if let Some(wake) = self.end_others(name, uid) {
            // One at a time has the name.
            return Due { wake: Some(wake), ..Due::default() };
        }
        let (Some(pod), Some(uid)) = (object, uid) else { return Due::default() };
        if !self.sandboxes.contains_key(uid) && !self.begin(pod, uid) {
            let remove = pod.metadata.deletion_timestamp.is_some().then(|| pod.clone());
            return Due { remove, ..Due::default() };
        }
        let (host, leash) = (self.address().to_string(), self.leash.filter(|_| leash::is_wanted(pod)));
        let Some(sandbox) = self.sandboxes.get_mut(uid) else { return Due::default() };
        sandbox.pod = pod.clone();
        let now = Instant::now();
        // A pod that somebody else has declared over does not come back to life.
        let over = is_over(pod.status.as_ref()) && !is_over(sandbox.published.as_ref());
        if over || pod.metadata.deletion_timestamp.is_some() {
            sandbox.end_all(Why::Deleted, grace(pod), now);
        }
        if leash.is_some_and(|leash| leash.is_over(now)) {
            sandbox.kill();
        }
        let held = leash.is_none_or(|leash| leash.is_held(now)) || pod.metadata.deletion_timestamp.is_some();
        let wake = if held { sandbox.step(now) } else { Some(now + HOLD) };
        let wake = wake.into_iter().chain(leash.filter(|_| held).map(|leash| leash.until())).min();
        if is_disowned(pod) {
            sandbox.published = None;
        }
        let mut status = status(sandbox, &host, now);
        if leash.is_some() {
            let since = status.start_time.clone().map_or_else(jiff::Timestamp::now, |time| time.0);
            status.conditions.get_or_insert_default().push(leash::condition(since));
        }
        let ended = pod.metadata.deletion_timestamp.is_some() && !sandbox.runs();
        let publish = (!over && sandbox.published.as_ref() != Some(&status)).then(|| (pod.clone(), status));
        Due { publish, remove: ended.then(|| pod.clone()), wake }
    }

    /// Makes the sandbox of a pod that is to run; false when it is not.
    fn begin(&mut self, pod: &Arc<Pod>, uid: &str) -> bool {
        if is_over(pod.status.as_ref()) || pod.metadata.deletion_timestamp.is_some() {
            return false;
        }
        self.addresses = self.addresses.wrapping_add(1);
        let [high, low] = self.addresses.to_be_bytes();
        let address = Ipv4Addr::new(10, self.index.saturating_add(100), high, low);
        let sandbox = Sandbox::new(pod.clone(), address, self.attempt(pod), self.start);
        self.sandboxes.insert(uid.to_owned(), sandbox);
        true
    }

    /// How many pods of the same owner were started before this one.
    fn attempt(&self, pod: &Pod) -> u32 {
        let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        let Some(owner) = owner else { return 0 };
        self.ledger.attempt(format!("{}/{}", owner.uid, Plan(pod).index().unwrap_or_default()))
    }

    /// Takes down what has the name but not the uid. Says when to look again if something still runs.
    fn end_others(&mut self, name: &Key, uid: Option<&str>) -> Option<Instant> {
        let now = Instant::now();
        let others = self.sandboxes.iter_mut().filter(|(own, it)| Some(own.as_str()) != uid && key(&it.pod) == *name);
        let mut wake = None;
        let mut ended = Vec::new();
        for (uid, sandbox) in others {
            sandbox.end_all(Why::Deleted, grace(&sandbox.pod.clone()), now);
            match sandbox.step(now).filter(|_| sandbox.runs()) {
                Some(at) => wake = Some(at),
                None => ended.push(uid.clone()),
            }
        }
        for uid in ended {
            self.sandboxes.remove(&uid);
        }
        wake
    }
}

/// Whether somebody has said in the node's place that the pod is not ready.
fn is_disowned(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Ready" && it.reason.as_deref() == Some("NodeNotReady"))
}

fn key(pod: &Pod) -> Key {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

/// How long the pod may take to end.
fn grace(pod: &Pod) -> Duration {
    let own = || pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let seconds = pod.metadata.deletion_grace_period_seconds.or_else(own).unwrap_or(30);
    Duration::from_secs(seconds.try_into().unwrap_or(0))
}

/// Whether a pod of this status will not run again.
fn is_over(status: Option<&PodStatus>) -> bool {
    matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}
