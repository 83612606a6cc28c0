//! What is counted about requests, watches and the process, in the text form that Prometheus reads.
//!
//! Names follow upstream where the thing counted is the same. Labels come from resources that are served, never from
//! what a client wrote, so that nobody can make the series grow.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use shipway_schema::Resource;

use crate::cache::Cache;

/// The content type of the text form.
pub(crate) const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the latency histogram, in seconds.
const SECONDS: [f64; 14] = [0.0001, 0.0003, 0.001, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

/// What tells one series of requests from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Asked {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stored {
    group: String,
    resource: String,
}

impl Asked {
    /// A request for a resource that is served.
    pub(crate) fn of(verb: &'static str, resource: &Resource, subresource: Option<&str>) -> Self {
        let known = subresource.and_then(|name| resource.subresource(name));
        Self {
            verb,
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            resource: resource.plural.to_string(),
            subresource: known.map(|known| known.name.to_owned()).unwrap_or_default(),
        }
    }

    /// What was asked for, as people say it.
    pub(crate) fn words(&self) -> String {
        let Self { verb, group, resource, subresource, .. } = self;
        if resource.is_empty() {
            return "what is no resource of ours".to_owned();
        }
        let below = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
        let of = if group.is_empty() { String::new() } else { format!(".{group}") };
        format!("{verb} {resource}{of}{below}")
    }

    fn answered(self, code: u16) -> Answered {
        let Self { verb, group, version, resource, subresource } = self;
        Answered { verb, group, version, resource, subresource, code }
    }
}

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    /// What others count.
    others: Vec<Arc<Registry>>,
    requests: Family<Answered, Counter>,
    seconds: Family<Asked, Histogram, fn() -> Histogram>,
    watches: Gauge,
    objects: Family<Stored, Gauge>,
    revision: Gauge,
    memory: Gauge,
    descriptors: Gauge,
}

/// Counts a request that lasts for as long as it lives.
pub(crate) struct Lasting(Gauge);

impl Drop for Lasting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn new(others: Vec<Arc<Registry>>) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            others,
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            watches: Gauge::default(),
            objects: Family::default(),
            revision: Gauge::default(),
            memory: Gauge::default(),
            descriptors: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("apiserver_request", "Requests answered", metrics.requests.clone());
        let help = "Seconds from a request to the head of its reply";
        registry.register("apiserver_request_duration_seconds", help, metrics.seconds.clone());
        registry.register("apiserver_longrunning_requests", "Watches that run", metrics.watches.clone());
        registry.register("apiserver_resource_objects", "Objects stored", metrics.objects.clone());
        registry.register("shipway_store_revision", "The newest revision of the store", metrics.revision.clone());
        registry.register("process_resident_memory_bytes", "Resident memory", metrics.memory.clone());
        registry.register("process_open_fds", "Open file descriptors", metrics.descriptors.clone());
        metrics
    }

    /// Counts a request that was answered.
    pub(crate) fn answered(&self, asked: Asked, code: u16, taken: Duration) {
        self.seconds.get_or_create(&asked).observe(taken.as_secs_f64());
        self.requests.get_or_create(&asked.answered(code)).inc();
    }

    /// Counts a watch until it is dropped.
    pub(crate) fn watch(&self) -> Lasting {
        self.watches.inc();
        Lasting(self.watches.clone())
    }

    /// The text that is scraped.
    pub(crate) fn text(&self, cache: &Cache) -> String {
        for (group, resource, count) in cache.counts() {
            self.objects.get_or_create(&Stored { group, resource }).set(count);
        }
        self.revision.set(cache.revision().try_into().unwrap_or(i64::MAX));
        self.memory.set(resident().unwrap_or_default());
        self.descriptors.set(descriptors().unwrap_or_default());
        let mut text = String::new();
        let mut all = std::iter::once(&self.registry).chain(self.others.iter().map(|other| &**other));
        let written = all.try_for_each(|registry| encode_registry(&mut text, registry));
        written.and_then(|()| encode_eof(&mut text)).expect("a String takes any text");
        text
    }
}

/// Bytes of this process in memory.
fn resident() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<i64>().ok()? * 1024)
}

fn descriptors() -> Option<i64> {
    i64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}
