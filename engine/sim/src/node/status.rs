//! The status of a simulated pod, as a node reports it. Pure but for the time of changed conditions.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::Instant;

use super::plan::Plan;
use super::sandbox::{Container, Exit, Now, Role, Sandbox, Why};

/// The conditions that are the node's to say.
pub(super) const OWN: [&str; 4] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];

/// The status of the sandbox now, on a node with that address.
pub(super) fn status(sandbox: &Sandbox, host: &str, now: Instant) -> PodStatus {
    let phase = phase(sandbox);
    let begun = sandbox.containers.iter().any(|it| !matches!(it.now, Now::Waiting));
    let host_network = sandbox.pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let ip = begun.then(|| if host_network { host.to_owned() } else { sandbox.address.to_string() });
    let statuses = |main: bool| {
        let of = sandbox.containers.iter().filter(|it| (it.role == Role::Main) == main);
        of.map(|it| container_status(sandbox, it, now)).collect::<Vec<_>>()
    };
    let deadline = sandbox.ending == Some(Why::Deadline);
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: deadline.then(|| "DeadlineExceeded".to_owned()),
        message: deadline.then(|| "Pod was active on the node longer than the specified deadline".to_owned()),
        conditions: Some(conditions(sandbox, phase, begun, now)),
        host_ip: Some(host.to_owned()),
        host_ips: Some(vec![HostIP { ip: host.to_owned() }]),
        pod_ip: ip.clone(),
        pod_ips: ip.map(|ip| vec![PodIP { ip }]),
        start_time: Some(Time(whole(sandbox.started))),
        init_container_statuses: Some(statuses(false)).filter(|all| !all.is_empty()),
        container_statuses: Some(statuses(true)),
        observed_generation: sandbox.pod.metadata.generation,
        ..PodStatus::default()
    }
}

/// To the second, as the API keeps times.
fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn phase(sandbox: &Sandbox) -> &'static str {
    let main = || sandbox.containers.iter().filter(|it| it.role == Role::Main);
    let good = main().all(|it| matches!(it.now, Now::Ended(Exit { code: 0, .. })));
    let initialized = main().any(|it| !matches!(it.now, Now::Waiting));
    match () {
        () if sandbox.is_finished() && good && sandbox.ending != Some(Why::Deadline) => "Succeeded",
        () if sandbox.is_finished() => "Failed",
        () if initialized => "Running",
        () => "Pending",
    }
}

fn conditions(sandbox: &Sandbox, phase: &str, begun: bool, now: Instant) -> Vec<PodCondition> {
    let plan = Plan(&sandbox.pod);
    let finished = matches!(phase, "Succeeded" | "Failed");
    let containers = || sandbox.containers.iter().filter(|it| it.role != Role::Init);
    let initialized = containers().filter(|it| it.role == Role::Main).any(|it| !matches!(it.now, Now::Waiting));
    let ready = !finished && initialized && containers().all(|it| it.is_ready(&plan, now));
    let unready = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => Some("ContainersNotReady"),
    };
    let gated = ready && gates_open(&sandbox.pod);
    let said = [
        (begun && !finished, None),
        (initialized, Some("ContainersNotInitialized")),
        (gated, if ready { Some("ReadinessGatesNotReady") } else { unready }),
        (ready, unready),
    ];
    OWN.into_iter().zip(said).map(|(kind, (holds, reason))| condition(sandbox, kind, holds, reason)).collect()
}

/// Whether every readiness gate's condition holds.
fn gates_open(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let holds = |kind: &str| conditions.iter().any(|it| it.type_ == kind && it.status == "True");
    gates.into_iter().all(|gate| holds(&gate.condition_type))
}

fn condition(sandbox: &Sandbox, kind: &str, holds: bool, reason: Option<&str>) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let before = sandbox.published.iter().flat_map(|status| status.conditions.iter().flatten());
    let before = before.into_iter().find(|it| it.type_ == kind && it.status == status);
    let since = before.and_then(|it| it.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.filter(|_| !holds).map(str::to_owned),
        last_transition_time: since.or_else(|| Some(Time(whole(Timestamp::now())))),
        observed_generation: sandbox.pod.metadata.generation,
        ..PodCondition::default()
    }
}

fn container_status(sandbox: &Sandbox, container: &Container, now: Instant) -> ContainerStatus {
    let plan = Plan(&sandbox.pod);
    let running = matches!(container.now, Now::Running { .. });
    let id = format!(
        "sim://{}/{}/{}",
        sandbox.pod.metadata.uid.as_deref().unwrap_or_default(),
        container.name,
        container.restarts
    );
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone(),
        image_id: format!("sim://{}", container.image),
        container_id: (!matches!(container.now, Now::Waiting)).then_some(id),
        ready: container.is_ready(&plan, now),
        started: Some(running),
        restart_count: container.restarts.try_into().unwrap_or(i32::MAX),
        state: Some(state(sandbox, &container.now, plan.waiting())),
        last_state: container.last.as_ref().map(terminated),
        ..ContainerStatus::default()
    }
}

fn state(sandbox: &Sandbox, now: &Now, held: Option<&str>) -> ContainerState {
    let waiting = |reason: &str| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message: None }),
        ..ContainerState::default()
    };
    match now {
        Now::Waiting => {
            let first = sandbox.containers.iter().all(|it| it.role == Role::Main);
            waiting(held.unwrap_or(if first { "ContainerCreating" } else { "PodInitializing" }))
        }
        Now::BackOff(_) => waiting("CrashLoopBackOff"),
        Now::Running { wall, .. } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(whole(*wall))) }),
            ..ContainerState::default()
        },
        Now::Ended(exit) => terminated(exit),
    }
}

fn terminated(exit: &Exit) -> ContainerState {
    let reason = if exit.code == 0 { "Completed" } else { "Error" };
    let terminated = ContainerStateTerminated {
        exit_code: exit.code,
        reason: Some(reason.to_owned()),
        started_at: Some(Time(whole(exit.began))),
        finished_at: Some(Time(whole(exit.ended))),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}
