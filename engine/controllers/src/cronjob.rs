//! CronJob: jobs by the clock.
//!
//! What is due follows from the schedule, the last time that was served and the time that it is (`plan`), so nothing is
//! lost while nobody looks: of the times that were missed, the last is made up for. A job's name is its time, so no time is
//! served twice.

mod due;
mod history;
mod make;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::runtime::reflector::Store;
use kube::{Api, Resource, ResourceExt};
use shipway_driver::{EventKind, Queue};
use tokio_util::sync::CancellationToken;

use self::plan::{Plan, plan};
use crate::Key;
use crate::crew::{is_terminating, said};
use crate::owned::{UNSEEN_LIMIT, Unseen, is_controlled_by, is_stale, is_still_there};
use crate::world::{World, controller_of, find, key, wake};
use crate::written::Written;

/// Runs all cron jobs, until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let (crons, jobs) = (world.cache::<CronJob>(), world.cache::<Job>());
    let memory = Arc::new(Memory { unseen: Unseen::over(&jobs, &queue), written: Written::default() });
    let noted = memory.clone();
    crons.listen(move |change| noted.written.saw(change));
    wake(&crons, &queue);
    let woken = queue.clone();
    jobs.listen(move |change| {
        if let Some(owner) = controller_of(&**change.object(), "CronJob") {
            woken.add(owner);
        }
    });
    let (crons, jobs) = (crons.store(), jobs.store());
    let look = move |world: World, key: Key| {
        let clock = Clock { world, crons: crons.clone(), jobs: jobs.clone(), memory: memory.clone(), key };
        async move { clock.look().await }
    };
    world.reconcile(queue, 2, stop, look).await;
}

/// What was done and the watches do not show yet.
struct Memory {
    /// Jobs that were made or deleted.
    unseen: Arc<Unseen>,
    /// Cron jobs whose status was written.
    written: Written,
}

/// One look at one cron job.
struct Clock {
    world: World,
    crons: Store<CronJob>,
    jobs: Store<Job>,
    memory: Arc<Memory>,
    key: Key,
}

impl Clock {
    async fn look(&self) -> Result<Option<Duration>, kube::Error> {
        let Some(cron) = find(&self.crons, &self.key) else { return Ok(None) };
        if self.memory.unseen.awaits(&self.key) {
            return Ok(Some(UNSEEN_LIMIT));
        }
        if self.memory.written.awaits(&self.key) {
            // Seeing it wakes us.
            return Ok(None);
        }
        let uid = cron.metadata.uid.as_deref();
        let mut jobs: Vec<Arc<Job>> =
            self.jobs.state().into_iter().filter(|job| is_controlled_by(&**job, uid)).collect();
        jobs.sort_by_cached_key(|job| job.name_any());
        self.follow(&cron, plan(&cron, &jobs, Timestamp::now())).await
    }

    async fn follow(&self, cron: &CronJob, plan: Plan) -> Result<Option<Duration>, kube::Error> {
        for (kind, reason, message) in &plan.events {
            self.tell(cron, *kind, reason, message);
        }
        let mut status = plan.status;
        for job in &plan.delete {
            self.delete(cron, job).await?;
            forget(&mut status, job);
        }
        if let Some((job, at)) = &plan.start
            && let Some(started) = self.start(cron, job).await?
        {
            forget(&mut status, &started);
            if !history::is_over(&started) {
                status.active.get_or_insert_default().push(history::reference(&started));
            }
            status.last_schedule_time = Some(Time(*at));
        }
        self.write(cron, status).await?;
        Ok(plan.again)
    }

    /// Starts a job, or finds the one that was started for this time already.
    async fn start(&self, cron: &CronJob, job: &Job) -> Result<Option<Job>, kube::Error> {
        let jobs: Api<Job> = Api::namespaced(self.world.client.clone(), &self.key.0);
        let name = job.name_any();
        if !is_still_there(&self.world.client, cron).await? {
            return Ok(None);
        }
        match jobs.create(&PostParams::default(), job).await {
            Ok(made) => {
                self.memory.unseen.made(&self.key, &made);
                self.tell(cron, EventKind::Normal, "SuccessfulCreate", &format!("Created job {name}"));
                Ok(Some(made))
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let there = jobs.get_opt(&name).await?;
                let ours = there.filter(|job| is_controlled_by(job, cron.metadata.uid.as_deref()));
                if ours.is_none() {
                    let message = format!("Error creating job: {name} exists and belongs to somebody else");
                    self.tell(cron, EventKind::Warning, "FailedCreate", &message);
                }
                Ok(ours)
            }
            Err(error) => {
                if !is_terminating(&error) {
                    self.tell(
                        cron,
                        EventKind::Warning,
                        "FailedCreate",
                        &format!("Error creating job: {}", said(&error)),
                    );
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<(), kube::Error> {
        let jobs: Api<Job> = Api::namespaced(self.world.client.clone(), &self.key.0);
        let name = job.name_any();
        let preconditions = Some(Preconditions { uid: job.metadata.uid.clone(), resource_version: None });
        match jobs.delete(&name, &DeleteParams { preconditions, ..DeleteParams::background() }).await {
            Ok(_) => {
                self.await_end(job);
                self.tell(cron, EventKind::Normal, "SuccessfulDelete", &format!("Deleted job {name}"));
                Ok(())
            }
            Err(error) if is_stale(&error) => Ok(()),
            Err(error) => {
                self.tell(cron, EventKind::Warning, "FailedDelete", &format!("Deleted job: {}", said(&error)));
                Err(error)
            }
        }
    }

    /// Remembers that the watch of jobs has to show the end of this one.
    fn await_end(&self, job: &Job) {
        let shown = || find(&self.jobs, &key(job)).filter(|shown| shown.metadata.uid == job.metadata.uid);
        let already = || shown().is_none_or(|shown| shown.metadata.deletion_timestamp.is_some());
        self.memory.unseen.deleted(&self.key, job, already);
    }

    async fn write(&self, cron: &CronJob, status: CronJobStatus) -> Result<(), kube::Error> {
        if cron.status.clone().unwrap_or_default() == status {
            return Ok(());
        }
        let crons: Api<CronJob> = Api::namespaced(self.world.client.clone(), &self.key.0);
        let wanted = CronJob { status: Some(status), ..cron.clone() };
        match crons.replace_status(&self.key.1, &PostParams::default(), &wanted).await {
            Ok(written) => {
                self.memory.written.wrote(&self.key, &written, || find(&self.crons, &self.key));
                Ok(())
            }
            Err(error) if is_stale(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn tell(&self, cron: &CronJob, kind: EventKind, reason: &str, message: &str) {
        self.world.recorder.event(&cron.object_ref(&()), kind, reason, message);
    }
}

/// Takes a job off the list of those that run.
fn forget(status: &mut CronJobStatus, job: &Job) {
    if let Some(active) = &mut status.active {
        active.retain(|reference| reference.uid != job.metadata.uid);
    }
    status.active.take_if(|active| active.is_empty());
}
