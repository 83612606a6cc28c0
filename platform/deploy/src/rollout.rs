//! Follows a rollout until every replica is ready, or until it is plain that it will not be.
//!
//! Driven by watches of the Deployment and its pods; nothing is polled.

use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::api::LogParams;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::time::{Instant, timeout_at};

use crate::app::{APP_LABEL, App, apply_deployment};
use crate::error::DeployError;

/// How long a rollout may go on without one more replica becoming ready.
const PATIENCE: Duration = Duration::from_mins(2);
/// How many of a failed program's last lines are shown.
const LAST_LINES: i64 = 20;
/// A program that ended this often is not going to run on.
const ENDS: i32 = 2;

/// Hears how far a rollout is.
pub trait Progress: Send + Sync {
    /// So many of so many replicas are ready.
    fn ready(&self, ready: u32, wanted: u32);

    /// Something failed that is tried again: a volume that is not there, a kernel feature that is missing.
    fn failed(&self, what: &str);
}

/// Applies the app and waits until all replicas of this revision are ready.
pub async fn roll_out(client: &kube::Client, app: &App, progress: &dyn Progress) -> Result<(), DeployError> {
    let applied = apply_deployment(client, app).await?;
    let generation = applied.metadata.generation.unwrap_or(0);
    let mut rollout = Rollout { client, app, progress, generation, ready: 0, told: HashSet::new() };
    rollout.follow().await
}

struct Rollout<'a> {
    client: &'a kube::Client,
    app: &'a App,
    progress: &'a dyn Progress,
    generation: i64,
    ready: u32,
    /// The failures that the progress has heard of.
    told: HashSet<String>,
}

impl Rollout<'_> {
    async fn follow(&mut self) -> Result<(), DeployError> {
        let namespace = &self.app.namespace;
        let (pods, writer) = reflector::store::<Pod>();
        let pods_of_app = watcher::Config::default().labels(&format!("{APP_LABEL}={}", self.app.name));
        let changed_pods = watcher(Api::<Pod>::namespaced(self.client.clone(), namespace), pods_of_app)
            .default_backoff()
            .reflect(writer)
            .map(|_| None);
        let this = watcher::Config::default().fields(&format!("metadata.name={}", self.app.name));
        let changed_deployment = watcher(Api::<Deployment>::namespaced(self.client.clone(), namespace), this)
            .default_backoff()
            .applied_objects()
            .map(Result::ok);
        let (events, writer) = reflector::store::<Event>();
        let warnings = watcher::Config::default().fields("involvedObject.kind=Pod,type=Warning");
        let changed_events = watcher(Api::<Event>::namespaced(self.client.clone(), namespace), warnings)
            .default_backoff()
            .reflect(writer)
            .map(|_| None);
        let changed_pods = futures::stream::select(changed_pods, changed_events);
        let mut changes = pin!(futures::stream::select(changed_pods, changed_deployment));
        self.progress.ready(0, self.app.replicas);
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            let change = timeout_at(deadline, changes.next()).await.map_err(|_| self.timed_out())?;
            if let Some(deployment) = change.flatten() {
                let before = self.ready;
                if self.is_done(&deployment) {
                    return Ok(());
                }
                if self.ready > before {
                    deadline = Instant::now() + PATIENCE;
                }
            }
            self.tell_failures(&pods, &events);
            self.fail_early(&pods).await?;
        }
    }

    /// Passes on, once each, what failed around pods of the app.
    fn tell_failures(&mut self, pods: &Store<Pod>, events: &Store<Event>) {
        let names: HashSet<String> = pods.state().iter().map(|pod| pod.name_any()).collect();
        for event in events.state() {
            let reason = event.reason.as_deref().unwrap_or("");
            let Some(pod) = event.involved_object.name.as_deref().filter(|name| names.contains(*name)) else {
                continue;
            };
            let what = format!("pod {pod}: {reason}: {}", event.message.as_deref().unwrap_or(""));
            if reason.starts_with("Failed") && self.told.insert(what.clone()) {
                self.progress.failed(&what);
            }
        }
    }

    /// Whether the controller has seen this revision and every replica of it is ready, and no older one is left.
    fn is_done(&mut self, deployment: &Deployment) -> bool {
        let Some(status) = deployment.status.as_ref() else { return self.app.replicas == 0 };
        if status.observed_generation.unwrap_or(0) < self.generation {
            return false;
        }
        let count = |value: Option<i32>| u32::try_from(value.unwrap_or(0)).unwrap_or(0);
        let updated = count(status.updated_replicas);
        let ready = updated.min(count(status.available_replicas));
        if ready != self.ready {
            self.ready = ready;
            self.progress.ready(ready, self.app.replicas);
        }
        ready == self.app.replicas && count(status.replicas) == self.app.replicas
    }

    /// Ends the wait where a pod of the new image shows that it cannot succeed.
    async fn fail_early(&self, pods: &Store<Pod>) -> Result<(), DeployError> {
        for pod in pods.state() {
            let spec = pod.spec.as_ref();
            let is_new = spec.and_then(|spec| spec.containers.first()?.image.as_deref()) == Some(&self.app.image);
            if !is_new || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if let Some(message) = unschedulable(&pod) {
                return Err(DeployError::Unschedulable { pod: pod.name_any(), message });
            }
            let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
            for status in statuses.into_iter().flatten() {
                self.check_container(&pod, status).await?;
            }
        }
        Ok(())
    }

    async fn check_container(&self, pod: &Pod, status: &ContainerStatus) -> Result<(), DeployError> {
        if let Some(waiting) = status.state.as_ref().and_then(|state| state.waiting.as_ref()) {
            let reason = waiting.reason.as_deref().unwrap_or("");
            let hopeless = ["CreateContainerError", "CreateContainerConfigError", "RunContainerError", "StartError"];
            if hopeless.contains(&reason) || reason.starts_with("ErrImage") || reason == "InvalidImageName" {
                let message = waiting.message.clone().unwrap_or_default();
                return Err(DeployError::CannotStart { pod: pod.name_any(), reason: reason.to_owned(), message });
            }
        }
        match end_of(status) {
            Some(code) if status.restart_count >= ENDS || is_crash_looping(status) => {
                Err(DeployError::Exited { code, output: self.last_lines(pod, status).await })
            }
            _ => Ok(()),
        }
    }

    async fn last_lines(&self, pod: &Pod, status: &ContainerStatus) -> Vec<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.app.namespace);
        for previous in [true, false] {
            let parameters = LogParams {
                container: Some(status.name.clone()),
                tail_lines: Some(LAST_LINES),
                previous,
                ..LogParams::default()
            };
            if let Ok(text) = pods.logs(&pod.name_any(), &parameters).await
                && !text.is_empty()
            {
                return text.lines().map(str::to_owned).collect();
            }
        }
        Vec::new()
    }

    fn timed_out(&self) -> DeployError {
        DeployError::TimedOut {
            name: self.app.name.clone(),
            seconds: PATIENCE.as_secs(),
            ready: self.ready,
            wanted: self.app.replicas,
        }
    }
}

/// The exit code with which the container last ended.
fn end_of(status: &ContainerStatus) -> Option<i32> {
    let now = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    now.or(last).map(|terminated| terminated.exit_code)
}

fn is_crash_looping(status: &ContainerStatus) -> bool {
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
}

fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
    let stuck = scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable");
    stuck.then(|| scheduled.message.clone().unwrap_or_default())
}
