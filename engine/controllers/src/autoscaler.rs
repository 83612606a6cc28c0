//! `HorizontalPodAutoscaler`: as many replicas of a target as its metrics ask for.
//!
//! Each autoscaler is looked at when what it says changes, and every [`PERIOD`]; without one nothing is ever asked for. It
//! acts through the `scale` subresource alone, so any kind that has one can be scaled. What it remembers of recent
//! recommendations and changes is lost with the process, as with any other controller.

mod conditions;
mod decide;
mod figures;
mod measure;
mod memory;
mod replicas;
mod source;
mod target;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::reflector::Store;
use kube::{Api, Resource, ResourceExt};
use shipway_driver::{EventKind, Queue};
use shipway_schema::selector::LabelSelector;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::conditions::{ABLE, ACTIVE, Conditions};
use self::decide::{Bounds, Decision};
use self::measure::Measure;
use self::memory::Memory;
use self::target::Target;
use crate::Key;
use crate::owned::is_stale;
use crate::world::{World, find, wake};

/// How often an autoscaler that exists is looked at.
const PERIOD: Duration = Duration::from_secs(15);
/// How many are looked at at once.
const WORKERS: usize = 4;

/// What is remembered of each autoscaler.
#[derive(Clone, Default)]
struct Memories(Arc<Mutex<HashMap<Key, Remembered>>>);

#[derive(Default)]
struct Remembered {
    uid: String,
    memory: Memory,
    /// When it was last looked at, and what it said then.
    looked: Option<(Instant, HorizontalPodAutoscalerSpec)>,
    selector: String,
}

impl Memories {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long nothing is to be done, because it was looked at a moment ago and says the same; else notes the look.
    fn rest(
        &self,
        key: &Key,
        scaler: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
    ) -> Option<Duration> {
        let mut all = self.lock();
        let own = all.entry(key.clone()).or_default();
        let uid = scaler.metadata.uid.as_deref().unwrap_or_default();
        if own.uid != uid {
            *own = Remembered { uid: uid.to_owned(), ..Remembered::default() };
        }
        let rest =
            own.looked.as_ref().filter(|(_, said)| said == spec).map(|(at, _)| PERIOD.saturating_sub(at.elapsed()));
        let rest = rest.filter(|rest| !rest.is_zero());
        if rest.is_none() {
            own.looked = Some((Instant::now(), spec.clone()));
        }
        rest
    }

    /// The other autoscalers that choose one of these pods, after the selector of this one has been noted.
    fn rivals(&self, key: &Key, selector: &str, pods: &[Arc<Pod>]) -> Vec<String> {
        let mut all = self.lock();
        if let Some(own) = all.get_mut(key) {
            selector.clone_into(&mut own.selector);
        }
        let chooses =
            |text: &str| LabelSelector::parse(text).is_ok_and(|own| pods.iter().any(|pod| selects(&own, pod)));
        let others = all.iter().filter(|(other, _)| other.0 == key.0 && *other != key);
        let mut rivals: Vec<String> = others
            .filter(|(_, own)| !own.selector.is_empty() && chooses(&own.selector))
            .map(|(other, _)| format!("{}/{}", other.0, other.1))
            .collect();
        rivals.sort_unstable();
        rivals
    }
}

/// Keeps all autoscalers at work, until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let (queue, memories) = (Arc::new(Queue::new()), Memories::default());
    let cache = world.cache::<HorizontalPodAutoscaler>();
    let scalers = cache.store();
    wake(&cache, &queue);
    let look = move |world: World, key| reconcile(world, scalers.clone(), memories.clone(), key);
    world.reconcile(queue, WORKERS, stop, look).await;
}

async fn reconcile(
    world: World,
    scalers: Store<HorizontalPodAutoscaler>,
    memories: Memories,
    key: Key,
) -> Result<Option<Duration>, kube::Error> {
    let going = |scaler: &Arc<HorizontalPodAutoscaler>| scaler.metadata.deletion_timestamp.is_some();
    let Some(scaler) = find(&scalers, &key).filter(|scaler| !going(scaler)) else {
        memories.lock().remove(&key);
        return Ok(None);
    };
    let spec = scaler.spec.clone();
    if let Some(rest) = memories.rest(&key, &scaler, &spec) {
        return Ok(Some(rest));
    }
    let now = Timestamp::now();
    let mut status = scaler.status.clone().unwrap_or_default();
    let conditions = Conditions::new(status.conditions.take().unwrap_or_default(), now);
    let mut look = Look { world, memories, key, scaler, spec, status, conditions, now };
    look.take().await;
    look.write_status().await?;
    Ok(Some(PERIOD))
}

/// One look at one autoscaler.
struct Look {
    world: World,
    memories: Memories,
    key: Key,
    scaler: Arc<HorizontalPodAutoscaler>,
    spec: HorizontalPodAutoscalerSpec,
    status: HorizontalPodAutoscalerStatus,
    conditions: Conditions,
    now: Timestamp,
}

/// A failure that ends a look: the reason of its event, and what is to be told.
type Failure = (&'static str, String);

impl Look {
    async fn take(&mut self) {
        if let Err((reason, message)) = self.scale().await {
            self.warn(reason, &message);
        }
    }

    async fn scale(&mut self) -> Result<(), Failure> {
        let target = self.target().await?;
        let current = target.asked();
        let bounds = Bounds::of(&self.spec);
        self.status.current_replicas = Some(target.there());
        if current == 0 && bounds.least != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.conditions.set(ACTIVE, false, "ScalingDisabled", message);
            self.status.desired_replicas = 0;
            return Ok(());
        }
        let decision = match bounds.enforced(current) {
            Some(decision) => decision,
            None => self.wanted(&target, &bounds).await?,
        };
        self.status.desired_replicas = current;
        if decision.replicas != current {
            self.rescale(&target, &decision).await?;
        }
        Ok(())
    }

    async fn target(&mut self) -> Result<Target, Failure> {
        let found = Target::find(&self.world.client, &self.key.0, &self.spec.scale_target_ref).await;
        match found {
            Ok(target) => {
                let message = "the HPA controller was able to get the target's current scale";
                self.conditions.set(ABLE, true, "SucceededGetScale", message);
                Ok(target)
            }
            Err(error) => {
                let message = format!("the HPA controller was unable to get the target's current scale: {error}");
                self.conditions.set(ABLE, false, "FailedGetScale", message);
                Err(("FailedGetScale", error))
            }
        }
    }

    /// What the metrics ask for, as far as it may go.
    async fn wanted(&mut self, target: &Target, bounds: &Bounds) -> Result<Decision, Failure> {
        let pods = self.pods(target)?;
        let measure = Measure {
            client: &self.world.client,
            namespace: &self.key.0,
            target,
            pods: &pods,
            tolerance: bounds.tolerance(),
            now: self.now,
        };
        let measured = measure.all(self.spec.metrics.as_deref().unwrap_or_default()).await;
        self.status.current_metrics = Some(measured.statuses).filter(|all: &Vec<MetricStatus>| !all.is_empty());
        for (reason, message) in &measured.failures {
            self.warn(reason, message);
        }
        let wanted = match measured.wanted {
            Ok(wanted) => wanted,
            Err(message) => {
                if let Some((reason, error)) = measured.failures.first() {
                    let message = format!("the HPA was unable to compute the replica count: {error}");
                    self.conditions.set(ACTIVE, false, reason, message);
                }
                return Err(("FailedComputeMetricsReplicas", message));
            }
        };
        let message = format!("the HPA was able to successfully calculate a replica count from {}", wanted.metric);
        self.conditions.set(ACTIVE, true, "ValidMetricFound", message);
        let mut memories = self.memories.lock();
        let memory = &mut memories.entry(self.key.clone()).or_default().memory;
        Ok(bounds.decide(target.asked(), &wanted, memory, (&mut self.conditions, self.now)))
    }

    /// The pods of the target, which must be nobody else's to scale.
    fn pods(&mut self, target: &Target) -> Result<Vec<Arc<Pod>>, Failure> {
        let text = target.selector();
        if text.is_empty() {
            self.conditions.set(ACTIVE, false, "InvalidSelector", "the HPA target's scale is missing a selector");
            return Err(("SelectorRequired", "selector is required".to_owned()));
        }
        let selector = LabelSelector::parse(text).map_err(|error| {
            let message = format!("the HPA target's scale contains an invalid selector: {error}");
            self.conditions.set(ACTIVE, false, "InvalidSelector", message);
            (
                "InvalidSelector",
                format!("couldn't convert selector into a corresponding internal selector object: {error}"),
            )
        })?;
        let mut pods = self.world.pods.in_namespace(&self.key.0);
        pods.retain(|pod| selects(&selector, pod));
        let rivals = self.memories.rivals(&self.key, text, &pods);
        if rivals.is_empty() {
            return Ok(pods);
        }
        let message = format!("pods by selector {text} are controlled by multiple HPAs: [{}]", rivals.join(" "));
        self.conditions.set(ACTIVE, false, "AmbiguousSelector", message.clone());
        Err(("AmbiguousSelector", message))
    }

    async fn rescale(&mut self, target: &Target, decision: &Decision) -> Result<(), Failure> {
        let Decision { replicas, reason } = decision;
        if let Err(error) = target.scale_to(*replicas).await {
            let message = format!("the HPA controller was unable to update the target scale: {error}");
            self.conditions.set(ABLE, false, "FailedUpdateScale", message);
            return Err(("FailedRescale", format!("New size: {replicas}; reason: {reason}; error: {error}")));
        }
        let message = format!("the HPA controller was able to update the target scale to {replicas}");
        self.conditions.set(ABLE, true, "SucceededRescale", message);
        self.status.desired_replicas = *replicas;
        self.status.last_scale_time = Some(Time(Timestamp::from_second(self.now.as_second()).unwrap_or(self.now)));
        let by = replicas - target.asked();
        self.memories.lock().entry(self.key.clone()).or_default().memory.note(by, self.now);
        let message = format!("New size: {replicas}; reason: {reason}");
        self.world.recorder.event(&self.scaler.object_ref(&()), EventKind::Normal, "SuccessfulRescale", &message);
        tracing::info!(scaler = self.scaler.name_any(), resource = target.resource, replicas, reason, "scaled");
        Ok(())
    }

    fn warn(&self, reason: &str, message: &str) {
        self.world.recorder.event(&self.scaler.object_ref(&()), EventKind::Warning, reason, message);
    }

    async fn write_status(self) -> Result<(), kube::Error> {
        let conditions = Some(self.conditions.into_all()).filter(|all| !all.is_empty());
        let status = HorizontalPodAutoscalerStatus { conditions, ..self.status };
        if self.scaler.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.world.client.clone(), &self.key.0);
        let wanted = HorizontalPodAutoscaler { status: Some(status), ..HorizontalPodAutoscaler::clone(&self.scaler) };
        match api.replace_status(&self.key.1, &PostParams::default(), &wanted).await {
            // Somebody changed it, which wakes us.
            Err(error) if !is_stale(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn selects(selector: &LabelSelector, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.matches(|key| labels?.get(key).map(String::as_str))
}
