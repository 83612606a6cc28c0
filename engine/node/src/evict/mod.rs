//! Pods that use more of the node than it can give, or than they may, are ended
//! (https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/).
//!
//! The kernel tells nobody how full a folder is, so this looks: as often as a kubelet, and more often while there is a pod with
//! a limit of its own. One pod goes at a time for want of memory or disk; the next look shows whether that was enough.

mod local;
mod rank;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admit::Sentence;
use crate::capacity;
use crate::jobs::Shared;
use crate::machine::Host;
use crate::observed::run_id;
use crate::{log, pod};
use rank::Candidate;
pub(crate) use rank::Short;

/// A kubelet's period.
const PERIOD: Duration = Duration::from_secs(10);
/// While there is a pod with a limit of its own.
const CLOSER: Duration = Duration::from_secs(2);
/// A pod gets this long to be gone before another is looked for.
const SETTLES: u32 = 3;

/// Between two words.
const PAUSE: Duration = Duration::from_millis(200);

/// The newest word on a pod: its uid and why it is ended.
pub(crate) type Order = Option<(String, Sentence)>;

/// Looks from time to time until stopped.
pub(crate) async fn run(shared: Arc<Shared<Host>>, pods: reflector::Store<Pod>, stop: CancellationToken) {
    let mut rest = 0;
    loop {
        let limited = pods.state().iter().any(|pod| is_active(pod) && local::is_limited(pod));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(if limited { CLOSER } else { PERIOD }) => {}
        }
        let active: Vec<Arc<Pod>> = pods.state().into_iter().filter(|pod| is_active(pod)).collect();
        rest = look(&shared, active, rest).await;
    }
}

fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// One look; `rest` is for how many looks nobody goes for want of memory or disk.
async fn look(shared: &Arc<Shared<Host>>, active: Vec<Arc<Pod>>, rest: u32) -> u32 {
    let machine = shared.clone();
    let work = move || {
        let mut orders = Vec::new();
        for pod in active.iter().filter(|pod| local::is_limited(pod)) {
            let own = layers(&machine, pod);
            orders.extend(local::excess(pod, &machine.home, &own).map(|sentence| (pod.clone(), sentence)));
        }
        let victim = if rest == 0 { victim(&machine, &active) } else { None };
        let found = victim.is_some();
        orders.extend(victim);
        (orders, found)
    };
    let (orders, found) = match tokio::task::spawn_blocking(work).await {
        Ok(seen) => seen,
        Err(error) => {
            tracing::warn!(%error, "what pods use of the node was not looked at");
            return rest;
        }
    };
    let mut first = true;
    for (pod, sentence) in orders {
        if !std::mem::take(&mut first) {
            // Each pod's task reads its word before another takes the place.
            tokio::time::sleep(PAUSE).await;
        }
        tracing::info!(pod = pod::name(&pod), reason = sentence.message, "the pod is evicted");
        shared.tell(&pod, None, shipway_driver::EventKind::Warning, "Evicted", &sentence.message);
        shared.orders.send_replace(Some((pod::uid(&pod).to_owned(), sentence)));
    }
    if found { SETTLES } else { rest.saturating_sub(1) }
}

/// The pod that goes because the node is short of something.
fn victim(shared: &Shared<Host>, active: &[Arc<Pod>]) -> Option<(Arc<Pod>, Sentence)> {
    let short = capacity::shortage(&shared.home)?;
    let meter = shared.machine.runtime.meter().ok()?;
    let used = |pod: &Pod| match short {
        Short::Memory { .. } => meter.pod(pod::uid(pod)).map_or(0, |usage| usage.working_set()),
        Short::Disk { .. } => local::all(pod, &shared.home, &layers(shared, pod)),
    };
    let candidates = active.iter().map(|pod| Candidate::new(pod, short, used(pod)));
    let chosen = rank::first(candidates.collect())?;
    let pod = active.iter().find(|pod| pod::uid(pod) == chosen.uid)?.clone();
    Some((pod, Sentence { reason: "Evicted", message: chosen.words(short), disrupts: true }))
}

/// What the containers of a pod have written beside volumes: their own layers and logs, by container.
fn layers(shared: &Shared<Host>, pod: &Pod) -> Vec<(String, Vec<PathBuf>)> {
    let runs = shared.machine.runtime.own_layers(pod::uid(pod)).unwrap_or_default();
    let containers = pod::containers(pod).map(|container| {
        let newest = |run: &u32| runs.iter().find(|(id, _)| *id == run_id(&container.name, *run));
        let restarts = restarts(pod, &container.name);
        let layer = (0..=restarts + 1).rev().find_map(|run| newest(&run)).map(|(_, layer)| layer.clone());
        let logs = log::file(&shared.home, pod, &container.name, 0).parent().map(Path::to_owned);
        (container.name.clone(), layer.into_iter().chain(logs).collect())
    });
    containers.collect()
}

fn restarts(pod: &Pod, name: &str) -> u32 {
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let known = statuses.into_iter().find(|status| status.name == name).map_or(0, |status| status.restart_count);
    u32::try_from(known).unwrap_or(0)
}

/// What a pod's task hears of orders: the one for it.
pub(crate) fn heard(orders: &mut watch::Receiver<Order>, uid: &str) -> Option<Sentence> {
    let order = orders.borrow_and_update();
    order.as_ref().filter(|(whose, _)| whose == uid).map(|(_, sentence)| sentence.clone())
}
