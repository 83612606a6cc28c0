//! What is counted about queues, under the names that upstream's control loops have (`workqueue_*`), by the loop's name.
//!
//! Whoever serves metrics gets the registry; the names of loops come from the code, so that nobody can make the series grow.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::queue::{Queue, drive};

/// Upper bounds of the times, in seconds.
const SECONDS: [f64; 10] = [0.000_1, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 100.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Loop {
    name: String,
}

type Times = Family<Loop, Histogram, fn() -> Histogram>;

/// The counts of all queues; cheap to clone.
#[derive(Clone, Debug)]
pub struct Meters {
    registry: Arc<Registry>,
    depth: Family<Loop, Gauge>,
    adds: Family<Loop, Counter>,
    retries: Family<Loop, Counter>,
    waited: Times,
    worked: Times,
}

impl Default for Meters {
    fn default() -> Self {
        let times = || Times::new_with_constructor(|| Histogram::new(SECONDS));
        let (depth, adds, retries) =
            (Family::<Loop, Gauge>::default(), Family::<Loop, Counter>::default(), Family::<Loop, Counter>::default());
        let (waited, worked) = (times(), times());
        let mut registry = Registry::default();
        registry.register("workqueue_depth", "Keys that wait to be worked on", depth.clone());
        registry.register("workqueue_adds", "Keys that were put into the queue", adds.clone());
        registry.register("workqueue_retries", "Keys that are worked on again after a failure", retries.clone());
        registry.register("workqueue_queue_duration_seconds", "Seconds that keys have waited", waited.clone());
        registry.register("workqueue_work_duration_seconds", "Seconds that work on a key has taken", worked.clone());
        Self { registry: Arc::new(registry), depth, adds, retries, waited, worked }
    }
}

impl Meters {
    /// What a loop's queue counts with.
    pub fn of(&self, name: &str) -> Meter {
        let name = Loop { name: name.to_owned() };
        Meter {
            depth: self.depth.get_or_create_owned(&name),
            adds: self.adds.get_or_create_owned(&name),
            retries: self.retries.get_or_create_owned(&name),
            waited: self.waited.get_or_create_owned(&name),
            worked: self.worked.get_or_create_owned(&name),
        }
    }

    /// All of it, to be served.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }
}

/// The counts of one queue.
#[derive(Clone, Debug)]
pub struct Meter {
    depth: Gauge,
    adds: Counter,
    retries: Counter,
    waited: Histogram,
    worked: Histogram,
}

impl Meter {
    /// Runs [`drive`] over a queue that is counted.
    pub async fn drive<K, F, Fut, E>(self, queue: Arc<Queue<K>>, workers: usize, stop: CancellationToken, reconcile: F)
    where
        K: Clone + Eq + Hash + Debug + Send + Sync + 'static,
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<Duration>, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        queue.measure(self);
        drive(queue, workers, stop, reconcile).await;
    }

    pub(crate) fn added(&self) {
        self.depth.inc();
        self.adds.inc();
    }

    pub(crate) fn taken(&self, waited: Duration) {
        self.depth.dec();
        self.waited.observe(waited.as_secs_f64());
    }

    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    pub(crate) fn worked(&self, time: Duration) {
        self.worked.observe(time.as_secs_f64());
    }

    /// Keys that waited already when counting began.
    pub(crate) fn begin(&self, waiting: usize) {
        (0..waiting).for_each(|_| self.added());
    }
}
