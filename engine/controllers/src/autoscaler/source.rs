//! Where figures come from: `metrics.k8s.io`, and `custom.metrics.k8s.io` and `external.metrics.k8s.io` where somebody
//! serves them. Asked by plain requests; what comes back is bounded by nothing but the API server.

use std::fmt::Display;

use http::Request;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::Selector;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::figures::read;
use super::replicas::{Sample, Samples, sum};

const CUSTOM: &str = "custom.metrics.k8s.io";
const EXTERNAL: &str = "external.metrics.k8s.io";
/// What a figure without a window was measured over.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// Who is asked for the figures of one namespace.
pub(super) struct Source<'a> {
    pub(super) client: &'a kube::Client,
    pub(super) namespace: &'a str,
}

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Named,
    timestamp: Timestamp,
    window: String,
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    usage: std::collections::BTreeMap<String, String>,
}

/// A `MetricValue` or an `ExternalMetricValue`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    described_object: Option<Named>,
    timestamp: Timestamp,
    window_seconds: Option<i64>,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: Version,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

impl Source<'_> {
    /// What the selected pods, or one container of each, use of a resource.
    pub(super) async fn resource(
        &self,
        resource: &str,
        container: Option<&str>,
        pods: &str,
    ) -> Result<Samples, String> {
        let namespace = self.namespace;
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={}", escaped(pods));
        let about = |error: String| format!("unable to get metrics for resource {resource}: {error}");
        let list: List<PodMetrics> = self
            .get(&path)
            .await
            .map_err(|error| about(format!("unable to fetch metrics from resource metrics API: {error}")))?;
        if list.items.is_empty() {
            return Err(about("no metrics returned from resource metrics API".to_owned()));
        }
        Ok(list.items.into_iter().filter_map(|pod| sample(pod, resource, container)).collect())
    }

    /// What the selected pods say of a metric of their own.
    pub(super) async fn pods(
        &self,
        metric: &str,
        labels: Option<&LabelSelector>,
        pods: &str,
    ) -> Result<Samples, String> {
        let version = self.version(CUSTOM).await?;
        let path = format!(
            "/apis/{CUSTOM}/{version}/namespaces/{}/pods/*/{}?labelSelector={}{}",
            self.namespace,
            escaped(metric),
            escaped(pods),
            chosen("&metricLabelSelector", labels)?,
        );
        let list: List<Measured> =
            self.get(&path).await.map_err(|error| unable("custom", format!("unable to fetch metrics: {error}")))?;
        let samples: Samples = list
            .items
            .into_iter()
            .filter_map(|value| {
                let sample = Sample { value: read(&value.value)?, at: value.timestamp, window: value.window() };
                Some((value.described_object?.name, sample))
            })
            .collect();
        if samples.is_empty() {
            return Err(unable("custom", "no metrics returned"));
        }
        Ok(samples)
    }

    /// What an object's metric says; `resource` is its plural with its group.
    pub(super) async fn object(
        &self,
        metric: &str,
        labels: Option<&LabelSelector>,
        (resource, name): (&str, &str),
    ) -> Result<i64, String> {
        let version = self.version(CUSTOM).await?;
        let (name, metric) = (escaped(name), escaped(metric));
        let object = if resource == "namespaces" {
            // A namespace is itself what it would lie in.
            format!("namespaces/{name}/metrics/{metric}")
        } else {
            format!("namespaces/{}/{resource}/{name}/{metric}", self.namespace)
        };
        let path = format!("/apis/{CUSTOM}/{version}/{object}{}", chosen("?metricLabelSelector", labels)?);
        let list: List<Measured> =
            self.get(&path).await.map_err(|error| unable("custom", format!("unable to fetch metrics: {error}")))?;
        let first = list.items.first().and_then(|value| read(&value.value));
        first.ok_or_else(|| unable("custom", "no metrics returned"))
    }

    /// The sum of what an external metric says.
    pub(super) async fn external(&self, metric: &str, labels: Option<&LabelSelector>) -> Result<i64, String> {
        let version = self.version(EXTERNAL).await?;
        let path = format!(
            "/apis/{EXTERNAL}/{version}/namespaces/{}/{}{}",
            self.namespace,
            escaped(metric),
            chosen("?labelSelector", labels)?,
        );
        let list: List<Measured> =
            self.get(&path).await.map_err(|error| unable("external", format!("unable to fetch metrics: {error}")))?;
        if list.items.is_empty() {
            return Err(unable("external", "no metrics returned"));
        }
        Ok(sum(list.items.iter().filter_map(|value| read(&value.value))))
    }

    /// The version in which somebody serves the group.
    async fn version(&self, group: &str) -> Result<String, String> {
        let kind = group.split('.').next().unwrap_or_default();
        let found: Result<Group, kube::Error> = self.get(&format!("/apis/{group}")).await;
        match found {
            Ok(found) => Ok(found.preferred_version.version),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                Err(unable(kind, format!("no {kind} metrics API ({group}) registered")))
            }
            Err(error) => Err(unable(kind, error)),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, kube::Error> {
        let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }
}

impl Measured {
    fn window(&self) -> SignedDuration {
        self.window_seconds.map_or(MINUTE, SignedDuration::from_secs)
    }
}

/// What a pod uses; none when one of its containers, or the one that counts, does not say.
fn sample(pod: PodMetrics, resource: &str, container: Option<&str>) -> Option<(String, Sample)> {
    let counts = |own: &&ContainerMetrics| container.is_none_or(|name| name == own.name);
    let values: Vec<i64> =
        pod.containers.iter().filter(counts).map(|own| read(own.usage.get(resource)?)).collect::<Option<_>>()?;
    let value = (!values.is_empty()).then(|| sum(values.into_iter()))?;
    let window = pod.window.parse().unwrap_or(MINUTE);
    Some((pod.metadata.name, Sample { value, at: pod.timestamp, window }))
}

fn unable(kind: &str, error: impl Display) -> String {
    format!("unable to fetch metrics from {kind} metrics API: {error}")
}

/// A query parameter that chooses by labels, where something is to be chosen.
fn chosen(parameter: &str, labels: Option<&LabelSelector>) -> Result<String, String> {
    let Some(labels) = labels else { return Ok(String::new()) };
    let selector = Selector::try_from(labels.clone()).map_err(|error| format!("invalid metric selector: {error}"))?;
    Ok(format!("{parameter}={}", escaped(&selector.to_string())))
}

/// A text as a part of a path or a query.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_counts_when_all_of_it_was_measured() {
        let pod = || {
            serde_json::from_value::<PodMetrics>(json!({
                "metadata": {"name": "p"}, "timestamp": "2026-01-01T00:00:00Z", "window": "10.5s",
                "containers": [{"name": "a", "usage": {"cpu": "250000001n", "memory": "1Mi"}}, {"name": "b", "usage": {"cpu": "100m"}}],
            }))
            .unwrap()
        };
        let value = |resource, container| sample(pod(), resource, container).map(|(_, sample)| sample.value);
        assert_eq!(value("cpu", None), Some(351));
        assert_eq!(value("cpu", Some("b")), Some(100));
        assert_eq!(value("memory", None), None, "b does not say");
        assert_eq!(value("memory", Some("a")), Some((1 << 20) * 1000));
        assert_eq!(value("cpu", Some("c")), None);
        assert_eq!(sample(pod(), "cpu", None).unwrap().1.window, SignedDuration::from_millis(10_500));
    }

    #[test]
    fn what_is_asked_for_is_escaped() {
        assert_eq!(escaped("app=web,tier in (a)"), "app%3Dweb%2Ctier%20in%20%28a%29");
        let labels: LabelSelector = serde_json::from_value(json!({"matchLabels": {"a": "b"}})).unwrap();
        assert_eq!(chosen("?labelSelector", Some(&labels)).unwrap(), "?labelSelector=a%3Db");
        assert_eq!(chosen("?labelSelector", None).unwrap(), "");
    }

    /// A client of servers that know these paths alone.
    fn client(known: &'static [(&'static str, &'static str)]) -> kube::Client {
        let service = tower::service_fn(move |request: Request<kube::client::Body>| async move {
            let asked = request.uri().path_and_query().map_or("", |both| both.as_str());
            let found = known.iter().find(|(path, _)| *path == asked);
            let missing = || json!({"kind": "Status", "status": "Failure", "code": 404, "message": asked}).to_string();
            let (code, text) = found.map_or_else(|| (404, missing()), |(_, text)| (200, (*text).to_owned()));
            let body = kube::client::Body::from(text.into_bytes());
            http::Response::builder().status(code).body(body)
        });
        kube::Client::new(service, "shop")
    }

    const GROUP: &str = r#"{"preferredVersion": {"groupVersion": "x/v1beta2", "version": "v1beta2"}}"#;
    const ITEMS: &str = r#"{"items": [
        {"describedObject": {"name": "a"}, "timestamp": "2026-01-01T00:00:00Z", "windowSeconds": 30, "value": "500m"},
        {"describedObject": {"name": "b"}, "timestamp": "2026-01-01T00:00:00Z", "value": "2"}]}"#;

    #[tokio::test]
    async fn other_servers_are_asked_in_the_version_that_they_prefer() {
        let client = client(&[
            ("/apis/custom.metrics.k8s.io", GROUP),
            ("/apis/external.metrics.k8s.io", GROUP),
            ("/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/hits?labelSelector=app%3Dweb", ITEMS),
            ("/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/ingresses.networking.k8s.io/web/hits", ITEMS),
            ("/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/metrics/hits?metricLabelSelector=verb%3DGET", ITEMS),
            ("/apis/external.metrics.k8s.io/v1beta2/namespaces/shop/queue%7Clength?labelSelector=verb%3DGET", ITEMS),
        ]);
        let source = Source { client: &client, namespace: "shop" };
        let labels: LabelSelector = serde_json::from_value(json!({"matchLabels": {"verb": "GET"}})).unwrap();
        let pods = source.pods("hits", None, "app=web").await.unwrap();
        let values: Vec<_> = pods.iter().map(|(pod, own)| (pod.as_str(), own.value, own.window.as_secs())).collect();
        assert_eq!(values, [("a", 500, 30), ("b", 2000, 60)]);
        assert_eq!(source.object("hits", None, ("ingresses.networking.k8s.io", "web")).await, Ok(500));
        assert_eq!(source.object("hits", Some(&labels), ("namespaces", "shop")).await, Ok(500));
        assert_eq!(source.external("queue|length", Some(&labels)).await, Ok(2500), "a sum");
        let missing = source.external("other", None).await.unwrap_err();
        assert!(
            missing.starts_with("unable to fetch metrics from external metrics API: unable to fetch metrics: "),
            "{missing}"
        );
    }

    #[tokio::test]
    async fn a_group_that_nobody_serves_is_named() {
        let client = client(&[]);
        let source = Source { client: &client, namespace: "shop" };
        let text =
            "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered";
        assert_eq!(source.pods("hits", None, "a=b").await.unwrap_err(), text);
        assert!(source.resource("cpu", None, "a=b").await.unwrap_err().contains("resource metrics API"));
    }
}
