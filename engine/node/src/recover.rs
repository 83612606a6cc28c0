//! What is known of a pod when the engine starts: from what the API was last told and from what the runtime finds on this
//! machine. Pure.
//!
//! A container that still runs keeps its process, its number of restarts and its readiness; one that is gone has ended and
//! is restarted as its policy says.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::image::Image;
use crate::observed::{Container, Drain, Ended, Exit, Observed, Phase, Shutdown, Stage, Why, unknown_end};

/// The runtime's account of one run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Run {
    /// Begun when the engine went down; it must not be trusted to start or not to start.
    HalfMade,
    Running {
        pid: i32,
        since: Timestamp,
    },
    Exited(Exit),
}

/// The runtime's account of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// By the runtime's names.
    pub(crate) runs: BTreeMap<String, Run>,
    pub(crate) lost: bool,
}

/// Puts together what is known. `found` is `None` when nothing of the pod is on this machine.
pub(crate) fn recover(pod: &Pod, found: Option<&Found>, now: Instant, wall: Timestamp) -> Observed {
    let mut observed = Observed::fresh(pod, wall);
    let status = pod.status.clone().unwrap_or_default();
    observed.address = status.pod_ip.as_deref().and_then(|ip| ip.parse().ok());
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let statuses: Vec<ContainerStatus> = status
        .init_container_statuses
        .into_iter()
        .chain(status.container_statuses)
        .chain(status.ephemeral_container_statuses)
        .flatten()
        .collect();
    for container in &mut observed.containers {
        if let Some(status) = statuses.iter().find(|status| status.name == container.name) {
            remember(container, status);
        }
        let alive = found.filter(|found| !found.lost && !over);
        match alive.and_then(|found| newest_run(found, &container.name)) {
            Some((attempt, run)) => resume(container, attempt, run, &statuses, now, wall),
            None => conclude(container, &statuses, now, wall),
        }
    }
    observed.stage = stage(&observed, found, over);
    if over {
        observed.settled = pod.status.clone().map(Box::new);
        observed.shutdown = Some(Shutdown { why: Why::Complete, drain: Drain::Done, since: now });
    }
    if matches!(observed.stage, Stage::Absent { .. }) {
        observed.address = None;
        observed.start_over();
    }
    observed
}

fn stage(observed: &Observed, found: Option<&Found>, over: bool) -> Stage {
    match found {
        None if over => Stage::Gone,
        None => Stage::Absent { retry: None },
        Some(_) if over => Stage::Lost,
        Some(found) if found.lost || found.runs.is_empty() => Stage::Lost,
        Some(_) if observed.containers.iter().all(|container| container.runs == 0) => Stage::Lost,
        Some(_) => Stage::Ready,
    }
}

/// What the API was told of earlier runs.
fn remember(container: &mut Container, status: &ContainerStatus) {
    let restarts = u32::try_from(status.restart_count).unwrap_or(0);
    let begun = status.container_id.as_ref().is_some_and(|id| !id.is_empty());
    container.runs = if begun { restarts + 1 } else { 0 };
    container.backoff = Backoff::after_restarts(restarts);
    if let Some(resources) = &status.resources {
        container.allotted = Some(resources.clone());
    }
    container.given.clone_from(&container.allotted);
    container.last = status
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref())
        .map(|run| ended(run, restarts.saturating_sub(1)));
    if !status.image_id.is_empty() {
        container.image =
            Some(Arc::new(Image { name: status.image.clone(), id: status.image_id.clone(), ..Image::default() }));
    }
}

fn newest_run<'a>(found: &'a Found, name: &str) -> Option<(u32, &'a Run)> {
    let attempt = |id: &str| id.strip_prefix(name)?.strip_prefix('-')?.parse::<u32>().ok();
    found.runs.iter().filter_map(|(id, run)| Some((attempt(id)?, run))).max_by_key(|(attempt, _)| *attempt)
}

/// Takes up a container where the runtime has it.
fn resume(
    container: &mut Container,
    attempt: u32,
    run: &Run,
    statuses: &[ContainerStatus],
    now: Instant,
    wall: Timestamp,
) {
    let told = statuses.iter().find(|status| status.name == container.name);
    let told_of_this_run = told.filter(|status| container.runs == attempt + 1 && !status.image_id.is_empty());
    if container.runs <= attempt
        && let Some(run) = told.and_then(|status| state_end(status.state.as_ref(), container.attempt()))
    {
        container.last = Some(run);
    }
    container.runs = attempt + 1;
    match run {
        Run::Running { pid, since } => {
            container.phase = Phase::Running { pid: *pid, since: *since };
            container.started =
                told_of_this_run.is_some_and(|status| status.started == Some(true)) || !container.awaits_startup;
            container.ready = told_of_this_run.is_some_and(|status| status.ready) || !container.awaits_readiness;
        }
        Run::Exited(exit) => {
            let run = exit.clone().into_ended(attempt);
            container.end(run, now);
        }
        Run::HalfMade => {
            let run = unknown_end(container, wall);
            container.end(run, now);
        }
    }
}

/// Decides what became of a container that is not on this machine any more.
fn conclude(container: &mut Container, statuses: &[ContainerStatus], now: Instant, wall: Timestamp) {
    if container.runs == 0 {
        return;
    }
    let told = statuses.iter().find(|status| status.name == container.name).and_then(|status| status.state.as_ref());
    let run = state_end(told, container.attempt()).unwrap_or_else(|| unknown_end(container, wall));
    container.end(run, now);
}

fn state_end(state: Option<&ContainerState>, attempt: u32) -> Option<Ended> {
    state?.terminated.as_ref().map(|run| ended(run, attempt))
}

fn ended(run: &ContainerStateTerminated, attempt: u32) -> Ended {
    Ended {
        attempt,
        code: run.exit_code,
        signal: run.signal,
        reason: run.reason.clone().unwrap_or_default(),
        message: run.message.clone(),
        started_at: run.started_at.as_ref().map(|time| time.0),
        finished_at: run.finished_at.as_ref().map(|time| time.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(policy: &str, status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"restartPolicy": policy, "containers": [{"name": "c", "readinessProbe": {"tcpSocket": {"port": 1}}}]},
            "status": {"phase": "Running", "podIP": "10.0.0.9", "containerStatuses": [status]}
        }))
        .expect("a pod")
    }

    fn running(restarts: i32) -> Value {
        json!({"name": "c", "image": "i", "imageID": "i@d", "containerID": format!("shipway://u/c-{restarts}"),
            "ready": true, "started": true, "restartCount": restarts,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
    }

    fn found(runs: &[(&str, Run)]) -> Found {
        Found { runs: runs.iter().map(|(id, run)| ((*id).to_owned(), run.clone())).collect(), lost: false }
    }

    fn at() -> (Instant, Timestamp) {
        (Instant::now(), "2026-01-01T01:00:00Z".parse().expect("a time"))
    }

    #[tokio::test]
    async fn a_running_container_keeps_process_restarts_and_readiness() {
        let (now, wall) = at();
        let run = Run::Running { pid: 42, since: wall };
        let observed =
            recover(&pod("Always", running(3)), Some(&found(&[("c-2", Run::HalfMade), ("c-3", run)])), now, wall);
        let container = &observed.containers[0];
        assert_eq!(observed.stage, Stage::Ready);
        assert_eq!((container.attempt(), container.is_ready()), (3, true));
        assert_eq!(container.phase, Phase::Running { pid: 42, since: wall });
    }

    #[tokio::test]
    async fn a_run_that_the_api_never_heard_of_is_found_by_its_name() {
        let (now, wall) = at();
        let run = Run::Running { pid: 42, since: wall };
        let observed = recover(&pod("Always", running(3)), Some(&found(&[("c-4", run)])), now, wall);
        assert_eq!((observed.containers[0].attempt(), observed.containers[0].is_ready()), (4, false));
    }

    #[tokio::test]
    async fn containers_of_a_lost_supervisor_are_restarted_and_counted() {
        let (now, wall) = at();
        let lost = Found { lost: true, ..Found::default() };
        let mut observed = recover(&pod("Always", running(0)), Some(&lost), now, wall);
        assert_eq!(observed.stage, Stage::Lost);
        let Phase::Ended { run, restart, .. } = &observed.containers[0].phase else { panic!("it has ended") };
        assert_eq!((run.code, run.reason.as_str(), *restart), (137, "ContainerStatusUnknown", Some(now)));
        assert_eq!(observed.step(&pod("Always", running(0)), now, wall), [crate::lifecycle::Action::Dismantle]);
        assert_eq!(observed.stage, Stage::Dismantling { again: true });
    }

    #[tokio::test]
    async fn a_pod_of_which_nothing_is_left_is_set_up_afresh_unless_it_must_not_be() {
        let (now, wall) = at();
        let observed = recover(&pod("Always", running(1)), None, now, wall);
        assert_eq!((observed.stage, observed.address), (Stage::Absent { retry: None }, None));
        let never = pod("Never", running(0));
        let mut observed = recover(&never, None, now, wall);
        assert_eq!(observed.step(&never, now, wall), []);
        assert_eq!((observed.stage, crate::status::phase(&observed)), (Stage::Gone, "Failed"));
    }

    #[tokio::test]
    async fn a_finished_pod_stays_finished() {
        let (now, wall) = at();
        let state = json!({"name": "c", "image": "i", "imageID": "i@d", "containerID": "shipway://u/c-0", "ready": false,
            "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let mut pod = pod("Never", state);
        pod.status.as_mut().expect("a status").phase = Some("Succeeded".to_owned());
        let observed = recover(&pod, None, now, wall);
        assert_eq!(observed.stage, Stage::Gone);
        assert!(observed.settled.is_some() && observed.shutdown.is_some());
    }
}
