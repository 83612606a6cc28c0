//! A pod's status as the API shows it, computed from what was observed. Pure; phases, conditions and reasons follow
//! https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/.
//!
//! Only the node's own conditions are here; those of others (PodScheduled, readiness gates) are left to their owners.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodStatus, ResourceRequirements, VolumeMount, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::Instant;

use crate::observed::{Container, Ended, Observed, Phase, Resizing, Role, Stage, Why, run_id};
use crate::pod;

/// The status of `pod` now; `before` is the status that the API was last given.
pub(crate) fn status(
    pod: &Pod,
    observed: &Observed,
    before: Option<&PodStatus>,
    host: IpAddr,
    (now, wall): (Instant, Timestamp),
) -> PodStatus {
    if let Some(settled) = &observed.settled {
        return PodStatus::clone(settled);
    }
    let (phase, over) = told_phase(observed, before);
    let address = address(pod, observed, host);
    let statuses = |wanted: fn(Role) -> bool| -> Vec<ContainerStatus> {
        let of_role = observed.containers.iter().filter(|container| wanted(container.role));
        of_role.map(|container| container_status(pod, observed, container, now)).collect()
    };
    let init = statuses(|role| matches!(role, Role::Init | Role::Sidecar));
    let ephemeral = statuses(|role| role == Role::Ephemeral);
    let (reason, message) = if over { end_reason(observed) } else { (None, None) };
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(pod, observed, before, phase, wall)),
        reason,
        message,
        host_ip: Some(host.to_string()),
        host_ips: Some(vec![HostIP { ip: host.to_string() }]),
        pod_ip: address.clone(),
        pod_ips: address.map(|ip| vec![PodIP { ip }]),
        start_time: Some(Time(observed.start_time)),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        container_statuses: Some(statuses(|role| role == Role::Main)),
        qos_class: Some(qos_class(pod).to_owned()),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

/// What is told of the phase: nobody hears that a pod is over while something of it runs. The second says whether the
/// phase is the pod's own.
fn told_phase<'a>(observed: &Observed, before: Option<&'a PodStatus>) -> (&'a str, bool) {
    let now = phase(observed);
    let over = matches!(now, "Succeeded" | "Failed");
    let running = observed.stage == Stage::Ready && observed.containers.iter().any(Container::alive);
    if !(over && running) {
        return (now, true);
    }
    (before.and_then(|before| before.phase.as_deref()).unwrap_or("Running"), false)
}

/// Whether the node would write the same; conditions of others do not count.
pub(crate) fn same(before: &PodStatus, after: &PodStatus) -> bool {
    let own = |status: &PodStatus| {
        let conditions = status.conditions.iter().flatten().filter(|condition| is_own(condition));
        PodStatus { conditions: Some(conditions.cloned().collect()), ..status.clone() }
    };
    own(before) == own(after)
}

/// Whether the node would write the same, but for how far it is with giving the pod other resources.
pub(crate) fn same_but_resized(before: &PodStatus, after: &PodStatus) -> bool {
    let rest = |status: &PodStatus| {
        let mut rest = status.clone();
        (rest.observed_generation, rest.resources, rest.allocated_resources) = (None, None, None);
        let lists = [&mut rest.container_statuses, &mut rest.init_container_statuses];
        for container in lists.into_iter().flatten().flatten() {
            (container.resources, container.allocated_resources) = (None, None);
        }
        let conditions = rest.conditions.get_or_insert_default();
        conditions.retain(|condition| !condition.type_.starts_with("PodResize"));
        for condition in conditions {
            condition.observed_generation = None;
        }
        rest
    };
    same(&rest(before), &rest(after))
}

fn address(pod: &Pod, observed: &Observed, host: IpAddr) -> Option<String> {
    if pod::host_network(pod) {
        let begun = !matches!(observed.stage, Stage::Absent { .. } | Stage::Preparing);
        return begun.then(|| host.to_string());
    }
    observed.address.as_ref().map(Ipv4Addr::to_string)
}

fn end_reason(observed: &Observed) -> (Option<String>, Option<String>) {
    if let Some(sentence) = &observed.condemned {
        return (Some(sentence.reason.to_owned()), Some(sentence.message.clone()));
    }
    match observed.shutdown {
        Some(shutdown) if shutdown.why == Why::Deadline => (
            Some("DeadlineExceeded".to_owned()),
            Some("Pod was active on the node longer than the specified deadline".to_owned()),
        ),
        _ => (None, None),
    }
}

/// Pending, Running, Succeeded or Failed.
pub(crate) fn phase(observed: &Observed) -> &'static str {
    if observed.condemned.is_some() || observed.shutdown.is_some_and(|shutdown| shutdown.why == Why::Deadline) {
        return "Failed";
    }
    let ended = observed.stage == Stage::Gone;
    let init_failed =
        observed.of_role(Role::Init).any(|container| container.finished().is_some_and(|run| !run.succeeded()));
    if init_failed {
        return "Failed";
    }
    let mains: Vec<&Container> = observed.of_role(Role::Main).collect();
    let last_run = |container: &Container| match &container.phase {
        Phase::Ended { run, .. } => Some(run.clone()),
        Phase::Waiting(_) | Phase::Fetching | Phase::Fetched | Phase::Starting => container.last.clone(),
        Phase::Running { .. } => None,
    };
    let over =
        |container: &&Container| if ended { last_run(container).is_some() } else { container.finished().is_some() };
    if !mains.is_empty() && mains.iter().all(over) {
        let succeeded = mains.iter().all(|container| last_run(container).is_some_and(|run| run.succeeded()));
        return if succeeded { "Succeeded" } else { "Failed" };
    }
    if ended {
        return "Failed";
    }
    let begun = |container: &&Container| container.running() || last_run(container).is_some();
    if observed.initialized() && mains.iter().all(begun) { "Running" } else { "Pending" }
}

fn container_status(pod: &Pod, observed: &Observed, container: &Container, now: Instant) -> ContainerStatus {
    let spec = pod::any_container(pod, &container.name);
    let image = container.image.as_ref();
    let begun = container.runs > 0 && container.phase != Phase::Starting;
    let done_well = container.role == Role::Init && container.finished().is_some_and(Ended::succeeded);
    let mounts = spec.as_ref().and_then(|spec| spec.volume_mounts.as_ref());
    let mounts = mounts.map(|mounts| mounts.iter().map(mount_status).collect::<Vec<_>>());
    let asked = spec.and_then(|spec| spec.image.clone()).unwrap_or_default();
    ContainerStatus {
        name: container.name.clone(),
        image: image.map_or(asked, |image| image.name.clone()),
        image_id: image.map(|image| image.id.clone()).unwrap_or_default(),
        container_id: begun.then(|| container_id(pod, &container.name, container.attempt())),
        ready: (container.is_ready() && container.role != Role::Ephemeral) || done_well,
        started: Some(container.running() && container.started),
        restart_count: i32::try_from(container.attempt()).unwrap_or(i32::MAX),
        state: Some(state(pod, observed, container, now)),
        last_state: last_state(pod, container, now),
        resources: container.given.clone().filter(|_| container.running()).or_else(|| container.allotted.clone()),
        allocated_resources: container.allotted.as_ref().and_then(|allotted| allotted.requests.clone()),
        volume_mounts: mounts.filter(|mounts| !mounts.is_empty()),
        ..ContainerStatus::default()
    }
}

fn mount_status(mount: &VolumeMount) -> VolumeMountStatus {
    let read_only = mount.read_only == Some(true);
    VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: read_only.then_some(true),
        // What is mounted below is read-only, too, wherever that is asked for or not.
        recursive_read_only: read_only.then(|| {
            let asked = mount.recursive_read_only.as_deref().is_some_and(|asked| asked != "Disabled");
            if asked { "Enabled" } else { "Disabled" }.to_owned()
        }),
        ..VolumeMountStatus::default()
    }
}

/// The status' name of one run.
pub(crate) fn container_id(pod: &Pod, name: &str, attempt: u32) -> String {
    format!("shipway://{}/{}", pod::uid(pod), run_id(name, attempt))
}

fn state(pod: &Pod, observed: &Observed, container: &Container, now: Instant) -> ContainerState {
    if let Phase::Running { since, .. } = &container.phase {
        let running = Some(ContainerStateRunning { started_at: Some(Time(*since)) });
        return ContainerState { running, ..ContainerState::default() };
    }
    if let Some((_, wait)) = container.crash(now).filter(|(_, wait)| !wait.is_zero()) {
        let message = format!(
            "back-off {}s restarting failed container={} pod={}_{}({})",
            wait.as_secs(),
            container.name,
            pod::name(pod),
            pod::namespace(pod),
            pod::uid(pod)
        );
        return waiting("CrashLoopBackOff", Some(message));
    }
    if let Phase::Ended { run, restart, .. } = &container.phase {
        if restart.is_some() && run.reason == "StartError" {
            return waiting("RunContainerError", run.message.clone());
        }
        return terminated(pod, container, run);
    }
    if let Some((reason, message)) = container.shown_obstacle(now) {
        return waiting(reason, Some(message.to_owned()));
    }
    if observed.stage == Stage::Gone
        && let Some(run) = &container.last
    {
        return terminated(pod, container, run);
    }
    waiting(&waiting_reason(observed, container), None)
}

/// Why a container that was never begun does not run.
pub(crate) fn waiting_reason(observed: &Observed, container: &Container) -> String {
    if let Some((reason, _)) = container.shown_obstacle(Instant::now()) {
        return reason.to_owned();
    }
    if blocked(observed, container) { "PodInitializing".to_owned() } else { "ContainerCreating".to_owned() }
}

/// Whether it waits for init containers before it.
fn blocked(observed: &Observed, container: &Container) -> bool {
    let before = observed.containers.iter().take_while(|each| each.name != container.name);
    let has_init = observed.containers.iter().any(|each| matches!(each.role, Role::Init | Role::Sidecar));
    let waits = container.role == Role::Main || before.into_iter().any(|each| !Observed::lets_pass(each));
    has_init && container.role != Role::Ephemeral && waits
}

fn last_state(pod: &Pod, container: &Container, now: Instant) -> Option<ContainerState> {
    let crashed = container.crash(now).filter(|(_, wait)| !wait.is_zero()).map(|(run, _)| run);
    let run = crashed.or(container.last.as_ref())?;
    Some(terminated(pod, container, run))
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message });
    ContainerState { waiting, ..ContainerState::default() }
}

fn terminated(pod: &Pod, container: &Container, run: &Ended) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id: Some(container_id(pod, &container.name, run.attempt)),
        exit_code: run.code,
        signal: run.signal,
        reason: Some(run.reason.clone()),
        message: run.message.clone(),
        started_at: run.started_at.map(Time),
        finished_at: run.finished_at.map(Time),
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

struct Finding {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

fn conditions(
    pod: &Pod,
    observed: &Observed,
    before: Option<&PodStatus>,
    phase: &str,
    wall: Timestamp,
) -> Vec<PodCondition> {
    let old = before.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let disrupted = observed.condemned.iter().filter(|sentence| sentence.disrupts).map(|sentence| Finding {
        kind: "DisruptionTarget",
        holds: true,
        reason: Some("TerminationByKubelet"),
        message: Some(sentence.message.clone()),
    });
    let all = findings(pod, observed, phase).into_iter().chain(resizes(observed)).chain(disrupted);
    all.map(|finding| condition(pod, &finding, old, wall)).collect()
}

/// What stands in the way of what the pod asks for by now.
fn resizes(observed: &Observed) -> Vec<Finding> {
    let mut all = Vec::new();
    if let Some(pending) = &observed.pending {
        let (reason, message) = pending.words();
        let message = Some(message.to_owned());
        all.push(Finding { kind: "PodResizePending", holds: true, reason: Some(reason), message });
    }
    if observed.containers.iter().any(Container::is_misfit) {
        let failed = observed.containers.iter().find_map(|container| match &container.resizing {
            Resizing::Failed { message, .. } => Some(message.clone()),
            _ => None,
        });
        let reason = failed.is_some().then_some("Error");
        all.push(Finding { kind: "PodResizeInProgress", holds: true, reason, message: failed });
    }
    all
}

/// Whether somebody has said in the node's place that the pod is not ready, since the node was silent.
pub(crate) fn is_disowned(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Ready" && it.reason.as_deref() == Some("NodeNotReady"))
}

/// The conditions that others have set on the pod.
pub(crate) fn foreign_conditions(pod: &Pod) -> impl Iterator<Item = &PodCondition> {
    let all = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    all.filter(|condition| !is_own(condition))
}

fn is_own(condition: &PodCondition) -> bool {
    const OWN: [&str; 6] = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodResizePending",
        "PodResizeInProgress",
    ];
    OWN.contains(&condition.type_.as_str()) || crate::leash::is_own(condition)
}

fn findings(pod: &Pod, observed: &Observed, phase: &str) -> Vec<Finding> {
    let over = phase == "Succeeded" || phase == "Failed";
    let sandbox = observed.stage == Stage::Ready;
    let names = |list: Vec<&Container>| list.iter().map(|each| each.name.as_str()).collect::<Vec<_>>().join(" ");
    let incomplete: Vec<&Container> = observed.containers.iter().filter(|each| !Observed::lets_pass(each)).collect();
    let initialized = incomplete.is_empty() || phase == "Succeeded";
    let unready: Vec<&Container> = observed
        .containers
        .iter()
        .filter(|each| matches!(each.role, Role::Main | Role::Sidecar) && !each.is_ready())
        .collect();
    let containers_ready = !over && unready.is_empty() && initialized;
    let why = match phase {
        "Succeeded" => "PodCompleted",
        "Failed" => "PodFailed",
        _ => "ContainersNotReady",
    };
    let unready = (!over).then(|| format!("containers with unready status: [{}]", names(unready)));
    let closed = closed_gates(pod);
    let not_ready = |holds: bool| (!holds).then_some(why);
    let mut ready = Finding {
        kind: "Ready",
        holds: containers_ready && closed.is_empty(),
        reason: not_ready(containers_ready),
        message: unready.clone().filter(|_| !containers_ready),
    };
    if containers_ready && !closed.is_empty() {
        ready.reason = Some("ReadinessGatesNotReady");
        ready.message =
            Some(format!("corresponding condition of pod readiness gate \"{}\" is not True.", closed.join("\", \"")));
    }
    vec![
        Finding { kind: "PodReadyToStartContainers", holds: sandbox, reason: None, message: None },
        Finding {
            kind: "Initialized",
            holds: initialized,
            reason: (!initialized).then_some("ContainersNotInitialized"),
            message: (!initialized).then(|| format!("containers with incomplete status: [{}]", names(incomplete))),
        },
        ready,
        Finding {
            kind: "ContainersReady",
            holds: containers_ready,
            reason: not_ready(containers_ready),
            message: unready.filter(|_| !containers_ready),
        },
    ]
}

/// The readiness gates that are not open.
fn closed_gates(pod: &Pod) -> Vec<String> {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let open = |kind: &str| foreign_conditions(pod).any(|each| each.type_ == kind && each.status == "True");
    gates.iter().map(|gate| gate.condition_type.clone()).filter(|kind| !open(kind)).collect()
}

fn condition(pod: &Pod, finding: &Finding, old: &[PodCondition], wall: Timestamp) -> PodCondition {
    let status = if finding.holds { "True" } else { "False" };
    let before = old.iter().find(|condition| condition.type_ == finding.kind && condition.status == status);
    PodCondition {
        type_: finding.kind.to_owned(),
        status: status.to_owned(),
        reason: finding.reason.map(str::to_owned),
        message: finding.message.clone(),
        last_transition_time: before.and_then(|each| each.last_transition_time.clone()).or(Some(Time(wall))),
        last_probe_time: None,
        observed_generation: pod.metadata.generation,
    }
}

/// Guaranteed, Burstable or BestEffort, by the pod's requests and limits: those of the pod as a whole where it has any, else
/// those of its containers.
pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    let amounts = |resources: Option<&ResourceRequirements>| {
        ["cpu", "memory"].map(|kind| crate::resize::amounts_of(resources, kind))
    };
    let whole = amounts(pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()));
    let all: Vec<(Option<u64>, Option<u64>)> = if whole == [(None, None); 2] {
        pod::containers(pod).flat_map(|container| amounts(container.resources.as_ref())).collect()
    } else {
        whole.to_vec()
    };
    let any = all.iter().any(|amounts| *amounts != (None, None));
    let guaranteed = all.iter().all(|(request, limit)| limit.is_some() && request == limit);
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests;
