//! From what was measured to a number of replicas, for one metric: pure arithmetic, careful where something is missing.
//!
//! Amounts are thousandths. A pod without figures is taken for one that would speak against the change: full when there is
//! less to do, idle when there is more. <https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/>

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::pods::is_ending;

/// How long after its start a pod's processor usage says more about its start than about its load.
const SETTLING: SignedDuration = SignedDuration::from_mins(5);
/// A pod that was never ready since this long after its start is not held for one that still begins.
const FIRST_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// What was measured of one pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) value: i64,
    pub(super) at: Timestamp,
    pub(super) window: SignedDuration,
}

/// By the name of the pod.
pub(super) type Samples = BTreeMap<String, Sample>;

/// By how much a ratio may be off 1 without anything being done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerance {
    pub(super) down: f64,
    pub(super) up: f64,
}

impl Tolerance {
    fn holds(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What there is at the moment.
#[derive(Clone, Copy)]
pub(super) struct Present<'a> {
    pub(super) replicas: i32,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) tolerance: Tolerance,
    pub(super) now: Timestamp,
}

/// A wished number and the average that it follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Averaged {
    pub(super) replicas: i32,
    pub(super) average: i64,
    /// The average as a share of what was requested, in hundredths.
    pub(super) utilization: Option<i32>,
}

/// The pods that count, by what is known of them.
#[derive(Debug, PartialEq)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    /// What the ready ones use.
    values: BTreeMap<String, i64>,
}

/// So many that on average a pod uses `target` hundredths of what it requests.
pub(super) fn by_utilization(
    present: &Present<'_>,
    samples: &Samples,
    requests: &BTreeMap<String, i64>,
    (target, resource): (i32, &str),
) -> Result<Averaged, String> {
    let groups = grouped(present, samples, resource == "cpu")?;
    let known = |values: &BTreeMap<String, i64>| {
        let pairs = values.iter().filter_map(|(pod, value)| Some((*value, *requests.get(pod)?)));
        pairs.fold((0_i64, 0_i64, 0_i64), |(used, asked, count), (value, request)| {
            (used.saturating_add(value), asked.saturating_add(request), count + 1)
        })
    };
    let share = |values: &BTreeMap<String, i64>| match known(values) {
        (_, 0, _) => Err("no metrics returned matched known pods".to_owned()),
        (used, asked, _) => Ok(i32::try_from(used.saturating_mul(100) / asked).unwrap_or(i32::MAX)),
    };
    let utilization = share(&groups.values)?;
    let (used, _, count) = known(&groups.values);
    let full = |pod: &str| requests.get(pod).map_or(0, |request| request.saturating_mul(target.max(100).into()) / 100);
    let ratio = |values: &BTreeMap<String, i64>| Ok(f64::from(share(values)?) / f64::from(target));
    let replicas = wished(present, groups, ratio, full)?;
    Ok(Averaged { replicas, average: used / count, utilization: Some(utilization) })
}

/// So many that on average a pod uses `target`. `resource` is empty for what is no resource.
pub(super) fn by_average(
    present: &Present<'_>,
    samples: &Samples,
    (target, resource): (i64, &str),
) -> Result<Averaged, String> {
    let groups = grouped(present, samples, resource == "cpu")?;
    let mean = |values: &BTreeMap<String, i64>| {
        sum(values.values().copied()) / i64::try_from(values.len()).unwrap_or(i64::MAX).max(1)
    };
    let average = mean(&groups.values);
    let replicas = wished(present, groups, |values| Ok(quotient(mean(values), target)), |_| target)?;
    Ok(Averaged { replicas, average, utilization: None })
}

/// So many that what all of them share becomes `target`, if it shrinks as they grow.
pub(super) fn by_total(present: &Present<'_>, usage: i64, target: i64) -> i32 {
    let ratio = quotient(usage, target);
    if present.replicas == 0 {
        return rounded_up(ratio);
    }
    if present.tolerance.holds(ratio) {
        return present.replicas;
    }
    let ready = present.pods.iter().filter(|pod| condition(pod).is_some_and(|one| one.status == "True")).count();
    rounded_up(ratio * count(ready))
}

/// So many that each one's part of what all of them share is `target`; `replicas` is how many there are.
pub(super) fn by_share(present: &Present<'_>, usage: i64, target: i64, replicas: i32) -> i32 {
    let ratio = quotient(usage, target) / f64::from(replicas);
    if present.tolerance.holds(ratio) { replicas } else { rounded_up(quotient(usage, target)) }
}

/// The number that a ratio of used to wanted asks for, with care for the pods of which too little is known.
fn wished(
    present: &Present<'_>,
    groups: Groups,
    ratio: impl Fn(&BTreeMap<String, i64>) -> Result<f64, String>,
    full: impl Fn(&str) -> i64,
) -> Result<i32, String> {
    let Groups { ready, unready, missing, mut values } = groups;
    let (tolerance, current) = (present.tolerance, present.replicas);
    let first = ratio(&values)?;
    let begins = !unready.is_empty() && first > 1.0;
    if !begins && missing.is_empty() {
        return Ok(if tolerance.holds(first) { current } else { rounded_up(first * count(ready)) });
    }
    for pod in missing {
        let supposed = if first < 1.0 { full(&pod) } else { 0 };
        values.insert(pod, supposed);
    }
    if begins {
        values.extend(unready.into_iter().map(|pod| (pod, 0)));
    }
    let careful = ratio(&values)?;
    let turned = (first < 1.0 && careful > 1.0) || (first > 1.0 && careful < 1.0);
    let replicas = rounded_up(careful * count(values.len()));
    let against = (careful < 1.0 && replicas > current) || (careful > 1.0 && replicas < current);
    Ok(if tolerance.holds(careful) || turned || against { current } else { replicas })
}

fn grouped(present: &Present<'_>, samples: &Samples, processor: bool) -> Result<Groups, String> {
    if present.pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let none = || (BTreeSet::new(), BTreeMap::new());
    let ((unready, values), missing) = (none(), BTreeSet::new());
    let mut groups = Groups { ready: 0, unready, missing, values };
    for pod in present.pods {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if is_ending(pod) || phase == Some("Failed") {
            continue;
        }
        let name = pod.name_any();
        match samples.get(&name) {
            _ if phase == Some("Pending") => drop(groups.unready.insert(name)),
            None => drop(groups.missing.insert(name)),
            Some(sample) if processor && begins(pod, sample, present.now) => drop(groups.unready.insert(name)),
            Some(sample) => {
                groups.ready += 1;
                groups.values.insert(name, sample.value);
            }
        }
    }
    if groups.values.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    Ok(groups)
}

/// Whether the processor time was spent on starting.
fn begins(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let start = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let (Some(start), Some(ready)) = (start, condition(pod)) else { return true };
    let since = ready.last_transition_time.as_ref().map_or(start, |time| time.0);
    if now.duration_since(start) < SETTLING {
        // Whether all of what was measured was measured while it was ready.
        return ready.status == "False" || sample.at.duration_since(since) < sample.window;
    }
    ready.status == "False" && since.duration_since(start) < FIRST_READINESS
}

fn condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|one| one.type_ == "Ready")
}

/// The sum, or the most that can be held: figures come from anywhere.
pub(super) fn sum(values: impl Iterator<Item = i64>) -> i64 {
    values.fold(0, i64::saturating_add)
}

#[expect(clippy::cast_precision_loss, reason = "15 digits are enough for a ratio")]
fn quotient(used: i64, target: i64) -> f64 {
    used as f64 / target as f64
}

fn count(pods: usize) -> f64 {
    f64::from(u32::try_from(pods).unwrap_or(u32::MAX))
}

#[expect(clippy::cast_possible_truncation, reason = "the conversion saturates")]
fn rounded_up(replicas: f64) -> i32 {
    replicas.ceil() as i32
}

#[cfg(test)]
mod tests;
