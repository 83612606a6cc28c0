//! StatefulSet: pods that keep their names and their storage.
//!
//! What happens next is decided in `plan`; here it is carried out. A claim is there before its pod, and its owner is right
//! before its pod goes.

mod claims;
mod identity;
mod plan;
mod status;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};
use serde_json::json;
use shipway_driver::{EventKind, Queue, Shared};
use tokio_util::sync::CancellationToken;

use crate::Key;
use crate::crew::{self, Crew, is_terminating, said};
use crate::history::{self, History, Subject};
use crate::owned::{UNSEEN_LIMIT, Unseen, ignore_stale, is_stale};
use crate::pods::is_ending;
use crate::world::{World, find, key, wake};
use plan::{Act, View, Which};
use status::Revisions;

const KIND: &str = "StatefulSet";
/// The label of revisions with their hash.
const HASH: &str = "controller.kubernetes.io/hash";
/// How many pods are made or deleted at once, where they do not wait for each other.
const AT_ONCE: usize = 16;

/// Keeps all stateful sets as they should be, until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let unseen = Unseen::over(world.pods.shared(), &queue);
    let (sets, revisions) = (world.cache::<StatefulSet>(), world.cache::<ControllerRevision>());
    let claims = world.cache::<PersistentVolumeClaim>();
    wake(&sets, &queue);
    crew::wake_owners(&world, KIND, &queue, sets.store());
    history::wake_owners(&revisions, KIND, &queue, sets.store());
    wake_by_claim(&claims, &queue, sets.store());
    let seen = Seen { sets: sets.store(), revisions: revisions.store(), claims: claims.store() };
    let look = move |world: World, key| reconcile(world, seen.clone(), unseen.clone(), key);
    world.reconcile(queue, 4, stop, look).await;
}

/// Wakes the set that a claim belongs to: one that was to go is perhaps gone.
fn wake_by_claim(claims: &Shared<PersistentVolumeClaim>, queue: &Arc<Queue<Key>>, sets: Store<StatefulSet>) {
    let queue = queue.clone();
    claims.listen(move |change| {
        let (namespace, name) = key(&**change.object());
        let near = sets.state().into_iter().filter(|set| set.metadata.namespace.as_ref() == Some(&namespace));
        near.filter(|set| claims::is_of(set, &name)).for_each(|set| queue.add(key(&*set)));
    });
}

/// What this controller reads.
#[derive(Clone)]
struct Seen {
    sets: Store<StatefulSet>,
    revisions: Store<ControllerRevision>,
    claims: Store<PersistentVolumeClaim>,
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
    let pods = crew.claim(&spec.selector, |pod| identity::ordinal(&set, pod).is_some()).await?;
    let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let subject = Subject { template: &spec.template, collisions, label: HASH };
    let looked = history::look(&crew, world.client.clone(), &seen.revisions, &spec.selector, subject).await?;
    let Some((history, update)) = looked else { return Ok(None) };
    let known = set.status.as_ref().and_then(|status| history.named(status.current_revision.as_deref()?));
    let current = known.unwrap_or(&update).clone();
    let keeper = Keeper {
        pods: Api::namespaced(world.client.clone(), &key.0),
        claims: Api::namespaced(world.client.clone(), &key.0),
        set: &set,
        spec,
        crew: &crew,
        seen: &seen,
        current,
        update,
    };
    keeper.look(&pods, &history).await
}

/// One look at one stateful set.
struct Keeper<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    crew: &'a Crew<StatefulSet>,
    seen: &'a Seen,
    /// The revision that the pods were of before.
    current: Arc<ControllerRevision>,
    /// The revision that all of them are to be of.
    update: Arc<ControllerRevision>,
    pods: Api<Pod>,
    claims: Api<PersistentVolumeClaim>,
}

impl Keeper<'_> {
    async fn look(
        &self,
        pods: &[Arc<Pod>],
        history: &History<'_, StatefulSet>,
    ) -> Result<Option<Duration>, kube::Error> {
        let (current, update) = (self.current.name_any(), self.update.name_any());
        let now = Timestamp::now();
        let Some(view) = View::new(self.set, pods, &update, now) else { return Ok(None) };
        let done = self.settle(&view).await;
        let status = status::of(self.set, pods, Revisions { current: &current, update: &update }, now);
        if self.set.status.as_ref() != Some(&status) {
            self.crew.write_status(&status).await?;
        }
        let mut live: BTreeSet<&str> = pods.iter().map(|pod| identity::revision(pod)).collect();
        live.extend([current.as_str(), update.as_str()]);
        let limit = self.spec.revision_history_limit.unwrap_or(10);
        history.forget(limit, |one| live.contains(one.name_any().as_str())).await?;
        match done {
            Err(error) if !is_terminating(&error) => Err(error),
            _ => Ok(view.again()),
        }
    }

    /// Puts right what is there, then does what is next: one thing first, since where the API refuses it, it would refuse
    /// them all.
    async fn settle(&self, view: &View<'_>) -> Result<(), kube::Error> {
        for (ordinal, pod) in view.replicas() {
            self.identify(pod, ordinal).await?;
            self.hand_over(pod, ordinal, false).await?;
        }
        for pod in view.condemned() {
            if let Some(ordinal) = identity::ordinal(self.set, pod) {
                self.hand_over(pod, ordinal, true).await?;
            }
        }
        let mut acts = view.next().into_iter();
        if let Some(first) = acts.next() {
            self.carry_out(first).await?;
        }
        let rest = futures::stream::iter(acts).map(Ok);
        rest.try_for_each_concurrent(AT_ONCE, |act| self.carry_out(act)).await
    }

    async fn carry_out(&self, act: Act) -> Result<(), kube::Error> {
        match act {
            Act::Create(ordinal, which) => self.create(ordinal, which).await,
            Act::Delete(pod) => self.delete(&pod).await,
        }
    }

    /// Gives a pod the labels that its identity has, and one that waits for claims the claims.
    async fn identify(&self, pod: &Pod, ordinal: i64) -> Result<(), kube::Error> {
        let lacking = identity::lacking(self.set, pod, ordinal);
        if !lacking.is_empty() && !is_ending(pod) {
            let patch = json!({ "metadata": { "uid": pod.metadata.uid, "labels": lacking } });
            let patched = self.pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
            ignore_stale(patched)?;
        }
        let waits = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending");
        if waits && !is_ending(pod) {
            self.provide(ordinal).await?;
        }
        Ok(())
    }

    /// Gives the claims of a pod the owner by which they go when they should.
    async fn hand_over(&self, pod: &Pod, ordinal: i64, condemned: bool) -> Result<(), kube::Error> {
        for wanted in claims::of(self.set, ordinal) {
            let Some(claim) = find(&self.seen.claims, &key(&wanted)) else { continue };
            let Some(owners) = claims::owners(&claim, self.set, pod, condemned) else { continue };
            let metadata = json!({
                "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version,
                "ownerReferences": owners,
            });
            let patch = Patch::Merge(json!({ "metadata": metadata }));
            // Of somebody else's change the watch tells.
            self.claims.patch(&claim.name_any(), &PatchParams::default(), &patch).await?;
        }
        Ok(())
    }

    /// Makes the claims of an ordinal that are not there; whether a pod may take them up.
    async fn provide(&self, ordinal: i64) -> Result<bool, kube::Error> {
        let pod = identity::name(self.set, ordinal);
        for claim in claims::of(self.set, ordinal) {
            match find(&self.seen.claims, &key(&claim)) {
                Some(present) if claims::is_stale(&present, self.set, &pod) => return Ok(false),
                Some(present) if present.metadata.deletion_timestamp.is_some() => {
                    let why = format!("pvc {} is being deleted", present.name_any());
                    self.tell_failed("create", &pod, &why);
                    return Ok(false);
                }
                Some(_) => {}
                None => self.create_claim(&claim, &pod).await?,
            }
        }
        Ok(true)
    }

    async fn create_claim(&self, claim: &PersistentVolumeClaim, pod: &str) -> Result<(), kube::Error> {
        if !self.crew.is_still_there().await? {
            return Ok(());
        }
        let (name, set) = (claim.name_any(), self.set.name_any());
        match self.claims.create(&PostParams::default(), claim).await {
            Ok(_) => {
                let message = format!("create Claim {name} Pod {pod} in StatefulSet {set} success");
                self.crew.tell(EventKind::Normal, "SuccessfulCreate", &message);
                Ok(())
            }
            // It is there already and the watch has not shown it yet.
            Err(error) if is_stale(&error) => Ok(()),
            Err(error) => {
                if !is_terminating(&error) {
                    let why = said(&error);
                    let message = format!("create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {why}");
                    self.crew.tell(EventKind::Warning, "FailedCreate", &message);
                }
                Err(error)
            }
        }
    }

    async fn create(&self, ordinal: i64, which: Which) -> Result<(), kube::Error> {
        if !self.provide(ordinal).await? {
            return Ok(()); // the claim's end wakes us
        }
        let revision = if which == Which::Current { &self.current } else { &self.update };
        let template = history::template(revision).unwrap_or_else(|| self.spec.template.clone());
        let pod = identity::give(self.crew.pod(&template), self.set, ordinal, &revision.name_any());
        let name = pod.name_any();
        match self.crew.make(&pod).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => {
                let message = format!("create Pod {name} in StatefulSet {} successful", self.set.name_any());
                self.crew.tell(EventKind::Normal, "SuccessfulCreate", &message);
                Ok(())
            }
            Err(error) => {
                // Somebody else's pod of that name is in the way until it goes.
                if !is_terminating(&error) && !is_stale(&error) {
                    self.tell_failed("create", &name, &said(&error));
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, pod: &Pod) -> Result<(), kube::Error> {
        let name = pod.name_any();
        match self.crew.end(pod).await {
            Ok(true) => {
                let message = format!("delete Pod {name} in StatefulSet {} successful", self.set.name_any());
                self.crew.tell(EventKind::Normal, "SuccessfulDelete", &message);
            }
            Ok(false) => {}
            Err(error) => {
                self.tell_failed("delete", &name, &said(&error));
                return Err(error);
            }
        }
        Ok(())
    }

    fn tell_failed(&self, verb: &str, pod: &str, why: &str) {
        let message = format!("{verb} Pod {pod} in StatefulSet {} failed error: {why}", self.set.name_any());
        let reason = if verb == "create" { "FailedCreate" } else { "FailedDelete" };
        self.crew.tell(EventKind::Warning, reason, &message);
    }
}
