//! The metrics of one autoscaler: each is fetched, and asks for a number of replicas; the highest number wins.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, ContainerResourceMetricStatus, ExternalMetricSource, ExternalMetricStatus,
    MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricSource,
    ObjectMetricStatus, PodsMetricSource, PodsMetricStatus, ResourceMetricSource, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::decide::Wanted;
use super::figures::{milli, written};
use super::replicas::{self, Averaged, Present, Tolerance};
use super::source::Source;
use super::target::{Target, resource};

/// What is needed to measure a target.
pub(super) struct Measure<'a> {
    pub(super) client: &'a kube::Client,
    pub(super) namespace: &'a str,
    pub(super) target: &'a Target,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) tolerance: Tolerance,
    pub(super) now: Timestamp,
}

/// What came of all metrics.
pub(super) struct Measured {
    pub(super) wanted: Result<Wanted, String>,
    pub(super) statuses: Vec<MetricStatus>,
    /// What could not be measured: the reason and the message of its event.
    pub(super) failures: Vec<(&'static str, String)>,
}

/// What came of one metric.
struct One {
    wanted: Wanted,
    status: MetricStatus,
}

impl One {
    fn new(replicas: i32, metric: String, status: MetricStatus) -> Self {
        Self { wanted: Wanted { replicas, metric }, status }
    }
}

impl Measure<'_> {
    /// Measures them all. One that fails keeps the others from asking for fewer replicas than there are.
    pub(super) async fn all(&self, specs: &[MetricSpec]) -> Measured {
        let (mut statuses, mut failures) = (Vec::new(), Vec::new());
        let mut most: Option<Wanted> = None;
        for spec in specs {
            match self.one(spec).await {
                Ok(one) => {
                    statuses.push(one.status);
                    if most.as_ref().is_none_or(|most| one.wanted.replicas > most.replicas) {
                        most = Some(one.wanted);
                    }
                }
                Err(failure) => failures.push(failure),
            }
        }
        let (asked, failed) = (self.target.asked(), failures.len());
        let wanted = most.filter(|most| failed == 0 || most.replicas >= asked).ok_or_else(|| {
            let first = failures.first().map_or("", |(_, error)| error.as_str());
            format!("invalid metrics ({failed} invalid out of {}), first error is: {first}", specs.len())
        });
        Measured { wanted, statuses, failures }
    }

    async fn one(&self, spec: &MetricSpec) -> Result<One, (&'static str, String)> {
        match spec {
            MetricSpec { resource: Some(own), .. } => {
                self.resource(own).await.map_err(|error| ("FailedGetResourceMetric", error))
            }
            MetricSpec { container_resource: Some(own), .. } => {
                self.container(own).await.map_err(|error| ("FailedGetContainerResourceMetric", error))
            }
            MetricSpec { pods: Some(own), .. } => {
                self.pods_metric(own).await.map_err(|error| ("FailedGetPodsMetric", error))
            }
            MetricSpec { object: Some(own), .. } => {
                self.object(own).await.map_err(|error| ("FailedGetObjectMetric", error))
            }
            MetricSpec { external: Some(own), .. } => {
                self.external(own).await.map_err(|error| ("FailedGetExternalMetric", error))
            }
            other => Err(("InvalidMetricSourceType", format!("unknown metric source type \"{}\"", other.type_))),
        }
    }

    async fn resource(&self, own: &ResourceMetricSource) -> Result<One, String> {
        let (averaged, words) = self.of_resource(&own.name, None, &own.target).await?;
        let current = averages(&averaged);
        let status = MetricStatus {
            type_: "Resource".to_owned(),
            resource: Some(ResourceMetricStatus { name: own.name.clone(), current }),
            ..MetricStatus::default()
        };
        Ok(One::new(averaged.replicas, format!("{} resource{words}", own.name), status))
    }

    async fn container(&self, own: &ContainerResourceMetricSource) -> Result<One, String> {
        let (averaged, words) = self.of_resource(&own.name, Some(&own.container), &own.target).await?;
        let current = averages(&averaged);
        let (name, container) = (own.name.clone(), own.container.clone());
        let status = MetricStatus {
            type_: "ContainerResource".to_owned(),
            container_resource: Some(ContainerResourceMetricStatus { container, current, name }),
            ..MetricStatus::default()
        };
        Ok(One::new(averaged.replicas, format!("{} container resource{words}", own.name), status))
    }

    /// Of pods, or of one container of each: how many replicas, and how the metric's name goes on.
    async fn of_resource(
        &self,
        name: &str,
        container: Option<&str>,
        target: &MetricTarget,
    ) -> Result<(Averaged, &'static str), String> {
        let samples = self.source().resource(name, container, self.target.selector()).await;
        if let Some(average) = &target.average_value {
            let about = |error| format!("failed to get {name} usage: {error}");
            let wanted = (amount(Some(average), "averageValue")?, name);
            let averaged = samples.and_then(|samples| replicas::by_average(&self.present(), &samples, wanted));
            return Ok((averaged.map_err(about)?, ""));
        }
        let about = |error| format!("failed to get {name} utilization: {error}");
        let share = target.average_utilization.filter(|share| *share > 0);
        let share =
            share.ok_or("invalid resource metric source: neither an average utilization nor an average value")?;
        let averaged = samples.and_then(|samples| {
            let requests = requests(self.pods, name, container)?;
            replicas::by_utilization(&self.present(), &samples, &requests, (share, name))
        });
        Ok((averaged.map_err(about)?, " utilization (percentage of request)"))
    }

    async fn pods_metric(&self, own: &PodsMetricSource) -> Result<One, String> {
        let name = &own.metric.name;
        let about = |error| format!("failed to get pods metric value: unable to get metric {name}: {error}");
        let target = (amount(own.target.average_value.as_ref(), "averageValue")?, "");
        let samples = self.source().pods(name, own.metric.selector.as_ref(), self.target.selector()).await;
        let averaged = samples.and_then(|samples| replicas::by_average(&self.present(), &samples, target));
        let averaged = averaged.map_err(about)?;
        let status = MetricStatus {
            type_: "Pods".to_owned(),
            pods: Some(PodsMetricStatus { current: averages(&averaged), metric: own.metric.clone() }),
            ..MetricStatus::default()
        };
        Ok(One::new(averaged.replicas, format!("pods metric {name}"), status))
    }

    async fn object(&self, own: &ObjectMetricSource) -> Result<One, String> {
        let (name, described) = (&own.metric.name, &own.described_object);
        let about = |error| format!("failed to get object metric value: unable to get metric {name}: {error}");
        let kind = resource(self.client, described).await.map_err(about)?;
        let plural = if kind.group.is_empty() { kind.plural } else { format!("{}.{}", kind.plural, kind.group) };
        let usage = self.source().object(name, own.metric.selector.as_ref(), (&plural, &described.name)).await;
        let (replicas, current) = self.of_total(usage.map_err(about)?, &own.target)?;
        let status = ObjectMetricStatus { current, described_object: described.clone(), metric: own.metric.clone() };
        let status = MetricStatus { type_: "Object".to_owned(), object: Some(status), ..MetricStatus::default() };
        Ok(One::new(replicas, format!("{} metric {name}", described.kind), status))
    }

    async fn external(&self, own: &ExternalMetricSource) -> Result<One, String> {
        let MetricIdentifier { name, selector } = &own.metric;
        let about = |error| format!("failed to get external metric {name}: {error}");
        let usage = self.source().external(name, selector.as_ref()).await.map_err(about)?;
        let (replicas, current) = self.of_total(usage, &own.target)?;
        let status = MetricStatus {
            type_: "External".to_owned(),
            external: Some(ExternalMetricStatus { current, metric: own.metric.clone() }),
            ..MetricStatus::default()
        };
        Ok(One::new(replicas, format!("external metric {name}"), status))
    }

    /// Of something that all replicas share.
    fn of_total(&self, usage: i64, target: &MetricTarget) -> Result<(i32, MetricValueStatus), String> {
        let present = self.present();
        if let Some(average) = &target.average_value {
            let there = self.target.there();
            let replicas = replicas::by_share(&present, usage, amount(Some(average), "averageValue")?, there);
            let each = i64::from(there.max(1));
            let average = usage.div_euclid(each) + i64::from(usage.rem_euclid(each) > 0);
            return Ok((replicas, MetricValueStatus { average_value: Some(written(average)), ..Default::default() }));
        }
        let replicas = replicas::by_total(&present, usage, amount(target.value.as_ref(), "value")?);
        Ok((replicas, MetricValueStatus { value: Some(written(usage)), ..Default::default() }))
    }

    fn source(&self) -> Source<'_> {
        Source { client: self.client, namespace: self.namespace }
    }

    fn present(&self) -> Present<'_> {
        Present { replicas: self.target.asked(), pods: self.pods, tolerance: self.tolerance, now: self.now }
    }
}

fn amount(target: Option<&Quantity>, field: &str) -> Result<i64, String> {
    let amount = target.and_then(milli).filter(|amount| *amount > 0);
    amount.ok_or_else(|| format!("invalid metric target: {field} is no positive amount"))
}

fn averages(averaged: &Averaged) -> MetricValueStatus {
    MetricValueStatus {
        average_utilization: averaged.utilization,
        average_value: Some(written(averaged.average)),
        value: None,
    }
}

/// What each pod requests of a resource, in thousandths.
fn requests(pods: &[Arc<Pod>], resource: &str, container: Option<&str>) -> Result<BTreeMap<String, i64>, String> {
    pods.iter().map(|pod| Ok((pod.name_any(), request(pod, resource, container)?))).collect()
}

/// The sum of what a pod's containers request. Of a container without any request only the status may know.
fn request(pod: &Pod, resource: &str, container: Option<&str>) -> Result<i64, String> {
    let spec = pod.spec.as_ref();
    let amount = |resources: Option<&k8s_openapi::api::core::v1::ResourceRequirements>| {
        resources?.requests.as_ref()?.get(resource).and_then(milli)
    };
    if container.is_none()
        && let Some(whole) = amount(spec.and_then(|spec| spec.resources.as_ref()))
    {
        return Ok(whole);
    }
    let sidecar = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
    let kept = spec
        .into_iter()
        .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar)));
    let kept: BTreeMap<&str, Option<i64>> =
        kept.map(|one| (one.name.as_str(), amount(one.resources.as_ref()))).collect();
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let reported = statuses.into_iter().flatten().map(|status| status.name.as_str());
    let mut names: Vec<&str> = kept.keys().copied().chain(reported).chain(container).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| container.is_none_or(|wanted| wanted == *name));
    let missing = |name: &str| format!("missing request for {resource} in container {name} of Pod {}", pod.name_any());
    if names.is_empty() {
        return Err(format!("missing request for {resource} in Pod {}", pod.name_any()));
    }
    let amounts = names.into_iter().map(|name| kept.get(name).copied().flatten().ok_or_else(|| missing(name)));
    Ok(replicas::sum(amounts.collect::<Result<Vec<_>, _>>()?.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: &serde_json::Value, statuses: &[&str]) -> Arc<Pod> {
        let statuses: Vec<_> = statuses
            .iter()
            .map(|name| json!({"name": name, "image": "i", "imageID": "", "ready": true, "restartCount": 0}))
            .collect();
        let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": {"containerStatuses": statuses}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn asks(name: &str, cpu: &str) -> serde_json::Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn a_pod_requests_what_all_of_its_containers_do() {
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}});
        let spec =
            json!({"containers": [asks("a", "100m"), asks("b", "1")], "initContainers": [asks("i", "3"), sidecar]});
        let pod = pod(&spec, &["a", "b"]);
        assert_eq!(request(&pod, "cpu", None), Ok(1150));
        assert_eq!(request(&pod, "cpu", Some("b")), Ok(1000));
        let text = "missing request for memory in container a of Pod p";
        assert_eq!(request(&pod, "memory", None).unwrap_err(), text);
        assert_eq!(request(&pod, "cpu", Some("x")).unwrap_err(), "missing request for cpu in container x of Pod p");
    }

    #[test]
    fn a_container_that_the_cache_left_out_requests_nothing() {
        let spec = json!({"containers": [asks("a", "100m")]});
        assert_eq!(request(&pod(&spec, &["a"]), "cpu", None), Ok(100));
        let text = "missing request for cpu in container idle of Pod p";
        assert_eq!(request(&pod(&spec, &["a", "idle"]), "cpu", None).unwrap_err(), text);
        assert!(request(&pod(&json!({"containers": []}), &[]), "cpu", None).is_err());
    }

    #[test]
    fn a_pod_may_request_as_a_whole() {
        let spec = json!({"containers": [], "resources": {"requests": {"cpu": "2"}}});
        assert_eq!(request(&pod(&spec, &["a"]), "cpu", None), Ok(2000));
    }
}
