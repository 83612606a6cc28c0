//! Waiting in virtual time: for a condition, for quiet, for a while.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use shipway_store::{Commit, Range, Watcher};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::Cluster;

/// How long nothing may happen for [`Cluster::settle`] to call it quiet.
const QUIET: Duration = Duration::from_secs(15);
/// After this time something moves for ever.
const RESTLESS: Duration = Duration::from_hours(2);
/// How long to leave a store alone that is away.
const AWAY: Duration = Duration::from_millis(100);

impl Cluster {
    /// Lets time pass.
    pub async fn run_for(&self, time: Duration) {
        sleep(time).await;
    }

    /// Waits until `condition` holds, which is asked again after every change; fails when it does not `within` that time.
    pub async fn until(&self, what: &str, within: Duration, condition: impl AsyncFn(&Self) -> bool) {
        let deadline = Instant::now() + within;
        let mut changes = self.changes().await;
        loop {
            if condition(self).await {
                return;
            }
            assert!(Instant::now() < deadline, "not within {within:?}: {what}\n{}", self.picture().await);
            if let Ok(false) = timeout_at(deadline, changes.next(|_| true)).await {
                sleep(AWAY).await;
                changes = self.changes().await;
            }
        }
    }

    /// Fails if `condition` ceases to hold at any change in that time.
    pub async fn always(&self, what: &str, time: Duration, condition: impl AsyncFn(&Self) -> bool) {
        let end = Instant::now() + time;
        let mut changes = self.changes().await;
        loop {
            assert!(condition(self).await, "not any more: {what}\n{}", self.picture().await);
            match timeout_at(end, changes.next(|_| true)).await {
                Err(_) => return,
                Ok(true) => {}
                Ok(false) => {
                    sleep(AWAY).await;
                    changes = self.changes().await;
                }
            }
        }
    }

    /// Lets time pass until nothing but heartbeats and events has been written for a while (15 s).
    pub async fn settle(&self) {
        let began = Instant::now();
        let mut changes = self.changes().await;
        while let Ok(there) = timeout(QUIET, changes.next(matters)).await {
            assert!(began.elapsed() < RESTLESS, "no rest in {RESTLESS:?}\n{}", self.picture().await);
            if !there {
                sleep(AWAY).await;
                changes = self.changes().await;
            }
        }
    }

    async fn changes(&self) -> Changes {
        loop {
            if let Some(store) = self.store() {
                let watcher = store.watch(Range::all(), store.revision() + 1).await;
                return Changes(watcher.unwrap_or_else(|error| panic!("the store cannot be watched: {error}")));
            }
            sleep(AWAY).await;
        }
    }

    /// The pods as a test that fails shows them.
    async fn picture(&self) -> String {
        let pods: Vec<Pod> = self.list("", "").await;
        let mut lines = vec![format!("{:?} after the beginning:", self.elapsed())];
        lines.extend(pods.iter().map(line));
        lines.join("\n")
    }
}

fn line(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let holding: Vec<_> = conditions.into_iter().filter(|it| it.status == "True").map(|it| it.type_).collect();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let meta = &pod.metadata;
    let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let going = if meta.deletion_timestamp.is_some() { " going" } else { "" };
    format!("  {namespace}/{name} on {node:?}: {}{going} {holding:?}", status.phase.unwrap_or_default())
}

/// Whether a commit is more than a sign of life.
fn matters(commit: &Commit) -> bool {
    let idle = |key: &Bytes| {
        [&b"/leases/"[..], b"/events/", b"/minions/", b"/nodes/"]
            .iter()
            .any(|part| key.windows(part.len()).any(|window| window == *part))
    };
    !commit.events.iter().all(|event| idle(&event.kv.key))
}

/// The commits of the store.
struct Changes(Box<dyn Watcher>);

impl Changes {
    /// Waits for a commit that matters; false when the store went away.
    async fn next(&mut self, matters: impl Fn(&Commit) -> bool) -> bool {
        loop {
            let commit: Result<Arc<Commit>, _> = self.0.next().await;
            match commit {
                Ok(commit) if matters(&commit) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}
