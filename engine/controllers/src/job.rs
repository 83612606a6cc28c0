//! Job: pods that run until so many of them have succeeded.
//!
//! A pod is held by a finalizer until it is counted (`count`), so none is missed or counted twice, whoever deletes it and
//! whenever this controller dies. What to do follows from the job and its pods alone (`plan`). Jobs that say that somebody
//! else manages them are left alone.

mod backoff;
mod conditions;
mod count;
mod failure;
mod indexes;
mod look;
mod make;
mod manage;
mod memory;
mod orphan;
mod plan;
mod pods;
mod success;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};
use shipway_driver::{Change, EventKind, Queue, Shared};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

pub(crate) use self::conditions::finished;
use self::manage::{New, Work};
use self::memory::Memory;
use self::orphan::{release, track};
use self::plan::{Done, Plan, plan};
use self::pods::is_tracked;
use self::verdict::Verdict;
use crate::Key;
use crate::crew::{Crew, is_terminating, wake_owners};
use crate::owned::{UNSEEN_LIMIT, Unseen, is_stale};
use crate::pods::{is_finished, ready_since};
use crate::world::{World, find, wake};

/// How many pods are made, deleted or let go at once.
const AT_ONCE: usize = 16;
/// The manager that a job means when it names none.
const OURSELVES: &str = "kubernetes.io/job-controller";

/// Runs all jobs, until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let memory = Arc::new(Memory::new(Unseen::over(world.pods.shared(), &queue)));
    let cache: Shared<Job> = world.cache();
    let jobs = cache.store();
    // What was awaited is noted as seen before anybody is woken who asks for it.
    let noted = memory.clone();
    cache.listen(move |change| {
        noted.written.saw(change);
        if let Change::Deleted(job) = change {
            noted.forget(job.metadata.uid.as_deref().unwrap_or_default());
        }
    });
    let noted = memory.clone();
    world.pods.listen(move |change| noted.written.saw(change));
    wake(&cache, &queue);
    wake_owners(&world, "Job", &queue, jobs.clone());
    let orphans = orphan::run(world.clone(), cache, stop.clone());
    let look = move |world: World, key| reconcile(world, jobs.clone(), memory.clone(), key);
    tokio::join!(orphans, world.reconcile(queue, 4, stop, look));
}

async fn reconcile(
    world: World,
    jobs: Store<Job>,
    memory: Arc<Memory>,
    key: Key,
) -> Result<Option<Duration>, kube::Error> {
    let Some(job) = find(&jobs, &key).filter(|job| is_ours(job)) else { return Ok(None) };
    let crew = Crew::new(&world, &memory.unseen, job);
    if crew.is_behind() {
        return Ok(Some(UNSEEN_LIMIT));
    }
    if memory.written.awaits(&key) {
        // Seeing it wakes us.
        return Ok(None);
    }
    let pods = Api::namespaced(world.client.clone(), &key.0);
    Runner { world, memory, jobs, crew, pods }.look().await
}

/// Whether nobody else was asked to manage the job.
fn is_ours(job: &Job) -> bool {
    let by = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    by.is_none_or(|by| by == OURSELVES)
}

/// One look at one job.
struct Runner {
    world: World,
    memory: Arc<Memory>,
    jobs: Store<Job>,
    crew: Crew<Job>,
    pods: Api<Pod>,
}

impl Runner {
    fn job(&self) -> &Job {
        &self.crew.owner
    }

    fn uid(&self) -> &str {
        self.job().metadata.uid.as_deref().unwrap_or_default()
    }

    async fn look(&self) -> Result<Option<Duration>, kube::Error> {
        if self.job().status.as_ref().is_some_and(|status| finished(status).is_some()) {
            self.memory.forget(self.uid());
            let held = self.world.pods.of(self.uid()).into_iter().filter(|pod| is_tracked(pod));
            return self.let_go(held.collect()).await.map(|_| None);
        }
        let none = LabelSelector::default();
        let selector = self.job().spec.as_ref().and_then(|spec| spec.selector.as_ref()).unwrap_or(&none);
        let pods = self.crew.claim(selector, |pod| !is_finished(pod)).await?;
        match plan(self.job(), &pods, self.memory.record(self.uid()), Timestamp::now()) {
            Some(plan) => self.follow(plan).await,
            None => Ok(None),
        }
    }

    async fn follow(&self, plan: Plan) -> Result<Option<Duration>, kube::Error> {
        let (done, worked) = self.work(&plan).await;
        if let (Err(error), Some(_)) = (&worked, &plan.verdict) {
            // Nothing is said about the end of a job some of whose pods may go on.
            tracing::debug!(%error, job = %self.crew.key.1, "pods of a finished job not deleted");
            return worked.map(|()| None);
        }
        let first = plan.first_status(done);
        let Some(written) = self.write(self.job(), first).await? else { return Ok(None) };
        self.memory.remember(self.uid(), plan.record);
        plan.events.iter().for_each(|(reason, message)| self.crew.tell(EventKind::Normal, reason, message));
        let released = self.let_go(plan.release.clone()).await?;
        let first = written.status.clone().unwrap_or_default();
        let (last, is_over) = plan.last_status(&first, |uid| released.contains(uid), Timestamp::now());
        let stored = self.write(&written, last).await?;
        if let (Some(job), Some(verdict), true) = (stored, &plan.verdict, is_over) {
            self.tell_end(&job, verdict);
        }
        match worked {
            Err(error) if !is_terminating(&error) => Err(error),
            _ => Ok(plan.again),
        }
    }

    /// Makes and deletes pods; says how many, also where some could not be.
    async fn work(&self, plan: &Plan) -> (Done, Result<(), kube::Error>) {
        let done = Mutex::new(Done::default());
        let result = match &plan.work {
            Work::None => Ok(()),
            Work::Make(new) => self.make(new, &done).await,
            Work::Drop(pods) => self.delete(pods, false, &done).await,
            Work::End(pods) => self.delete(pods, true, &done).await,
        };
        let result = match result {
            Ok(()) => self.take_back(&plan.track).await,
            error => error,
        };
        (done.into_inner(), result)
    }

    async fn make(&self, new: &[New], done: &Mutex<Done>) -> Result<(), kube::Error> {
        let Some((first, rest)) = new.split_first() else { return Ok(()) };
        // One first: where the API refuses it, it would refuse them all.
        self.make_one(*first, done).await?;
        stream::iter(rest).map(Ok).try_for_each_concurrent(AT_ONCE, |new| self.make_one(*new, done)).await
    }

    async fn make_one(&self, new: New, done: &Mutex<Done>) -> Result<(), kube::Error> {
        let Some(spec) = &self.job().spec else { return Ok(()) };
        let pod = make::complete(self.crew.pod(&spec.template), &self.crew.key.1, spec, new);
        if self.crew.create(&pod).await?.is_some() {
            done.lock().await.made += 1;
        }
        Ok(())
    }

    /// Deletes pods. Those that are not to be counted lose their finalizer before.
    async fn delete(&self, pods: &[Arc<Pod>], are_counted: bool, done: &Mutex<Done>) -> Result<(), kube::Error> {
        let each = |pod: Arc<Pod>| async move {
            if !are_counted && is_tracked(&pod) {
                self.note(release(&self.pods, &pod).await?);
            }
            self.crew.delete(&pod).await?;
            let mut done = done.lock().await;
            done.deleted += 1;
            done.ready += usize::from(ready_since(&pod).is_some());
            Ok(())
        };
        stream::iter(pods.to_vec()).map(Ok).try_for_each_concurrent(AT_ONCE, each).await
    }

    /// Holds pods again that would not be counted.
    async fn take_back(&self, pods: &[Arc<Pod>]) -> Result<(), kube::Error> {
        for pod in pods {
            self.note(track(&self.pods, pod).await?);
        }
        Ok(())
    }

    /// Takes the finalizer off pods; the uids of those that are without it now.
    async fn let_go(&self, pods: Vec<Arc<Pod>>) -> Result<HashSet<String>, kube::Error> {
        let each = |pod: Arc<Pod>| async move {
            self.note(release(&self.pods, &pod).await?);
            Ok::<_, kube::Error>(pod.uid().unwrap_or_default())
        };
        stream::iter(pods).map(each).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Remembers that the watch has to show this pod before anything is counted.
    fn note(&self, pod: Option<Pod>) {
        if let Some(pod) = pod {
            self.memory.written.wrote(&self.crew.key, &pod, || self.world.pods.get(&crate::world::key(&pod)));
        }
    }

    /// Writes the status where it differs, and only if nobody changed the job meanwhile; nothing where somebody did.
    async fn write(&self, job: &Job, status: JobStatus) -> Result<Option<Job>, kube::Error> {
        if job.status.as_ref() == Some(&status) {
            return Ok(Some(job.clone()));
        }
        let jobs: Api<Job> = Api::namespaced(self.world.client.clone(), &self.crew.key.0);
        let wanted = Job { status: Some(status), ..job.clone() };
        match jobs.replace_status(&self.crew.key.1, &PostParams::default(), &wanted).await {
            Ok(job) => {
                self.memory.written.wrote(&self.crew.key, &job, || find(&self.jobs, &self.crew.key));
                Ok(Some(job))
            }
            Err(error) if is_stale(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn tell_end(&self, job: &Job, verdict: &Verdict) {
        if !verdict.is_success {
            return self.crew.tell(EventKind::Warning, &verdict.reason, &verdict.message);
        }
        let wanted = job.spec.as_ref().and_then(|spec| spec.completions);
        let done = job.status.as_ref().and_then(|status| status.succeeded).unwrap_or(0);
        if wanted.is_some_and(|wanted| done > wanted) {
            self.crew.tell(EventKind::Warning, "TooManySucceededPods", "Too many succeeded pods found");
        }
        self.crew.tell(EventKind::Normal, "Completed", "Job completed");
    }
}
