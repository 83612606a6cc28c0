//! Phases, conditions and container statuses as kubectl shows them.

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Value, json};

use super::*;
use crate::image::Image;
use crate::observed::{Happened, StartFailure};
use std::sync::Arc;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1}, "spec": spec,
        "status": {"conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "gate", "status": "False"}]}
    }))
    .expect("a pod")
}

fn at() -> (Instant, Timestamp) {
    (Instant::now(), "2026-01-01T00:00:00Z".parse().expect("a time"))
}

fn host() -> IpAddr {
    "192.0.2.9".parse().expect("an address")
}

fn of(pod: &Pod, observed: &Observed, at: (Instant, Timestamp)) -> PodStatus {
    status(pod, observed, pod.status.as_ref(), host(), at)
}

fn condition_of<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind).expect(kind)
}

/// Brings a container to where it runs.
fn run(observed: &mut Observed, pod: &Pod, name: &str, at: (Instant, Timestamp)) {
    let (now, wall) = at;
    observed.step(pod, now, wall);
    if observed.stage == Stage::Preparing {
        observed.take(Happened::Prepared(Ok(Some(Ipv4Addr::new(10, 0, 0, 1)))), now, wall);
    }
    let image = Image {
        name: "docker.io/library/i:1".to_owned(),
        id: "docker.io/library/i@sha256:0".to_owned(),
        ..Image::default()
    };
    observed.take(Happened::Fetched { container: name.to_owned(), result: Ok(Arc::new(image)) }, now, wall);
    observed.step(pod, now, wall);
    observed.take(Happened::Started { container: name.to_owned(), result: Ok((1, wall)) }, now, wall);
    observed.step(pod, now, wall);
}

fn exit(observed: &mut Observed, run: &str, code: i32, oom: bool, (now, wall): (Instant, Timestamp)) {
    let exit = crate::observed::Exit {
        code,
        signal: None,
        out_of_memory: oom,
        started_at: wall,
        finished_at: wall,
        message: Some("bye".to_owned()),
    };
    let exits = [(run.to_owned(), exit)].into();
    observed.take(Happened::Runtime { exits, lost: false }, now, wall);
}

#[tokio::test]
async fn a_pod_goes_from_pending_to_running_and_ready() {
    let (pod, at) = (pod(json!({"containers": [{"name": "a", "image": "i:1"}]})), at());
    let mut observed = Observed::fresh(&pod, at.1);
    let begun = of(&pod, &observed, at);
    assert_eq!(begun.phase.as_deref(), Some("Pending"));
    let container = &begun.container_statuses.as_ref().expect("statuses")[0];
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref()).expect("it waits");
    assert_eq!((waiting.reason.as_deref(), container.image.as_str()), (Some("ContainerCreating"), "i:1"));
    assert_eq!(condition_of(&begun, "Initialized").status, "True");
    let ready = condition_of(&begun, "Ready");
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("ContainersNotReady")));
    assert_eq!(ready.message.as_deref(), Some("containers with unready status: [a]"));

    run(&mut observed, &pod, "a", at);
    let status = of(&pod, &observed, at);
    assert_eq!((status.phase.as_deref(), status.pod_ip.as_deref()), (Some("Running"), Some("10.0.0.1")));
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] {
        assert_eq!(condition_of(&status, kind).status, "True", "{kind}");
    }
    let container = &status.container_statuses.as_ref().expect("statuses")[0];
    assert_eq!(container.container_id.as_deref(), Some("shipway://u/a-0"));
    assert_eq!(container.image_id, "docker.io/library/i@sha256:0");
    assert!(container.ready && container.started == Some(true));
}

#[tokio::test]
async fn a_condition_keeps_its_time_until_it_changes() {
    let (mut pod, at) = (pod(json!({"containers": [{"name": "a"}]})), at());
    let mut observed = Observed::fresh(&pod, at.1);
    pod.status = Some(of(&pod, &observed, at));
    let later = (at.0, at.1 + jiff::SignedDuration::from_secs(60));
    assert!(same(pod.status.as_ref().expect("a status"), &of(&pod, &observed, later)));
    run(&mut observed, &pod, "a", later);
    let status = of(&pod, &observed, later);
    let since = |kind| condition_of(&status, kind).last_transition_time.clone().map(|time| time.0);
    assert_eq!((since("Ready"), since("Initialized")), (Some(later.1), Some(at.1)));
}

#[tokio::test]
async fn conditions_of_others_are_neither_shown_nor_counted() {
    let (mut pod, at) =
        (pod(json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "gate"}]})), at());
    let mut observed = Observed::fresh(&pod, at.1);
    run(&mut observed, &pod, "a", at);
    let status = of(&pod, &observed, at);
    assert!(status.conditions.iter().flatten().all(|condition| condition.type_ != "gate"));
    assert_eq!(condition_of(&status, "Ready").reason.as_deref(), Some("ReadinessGatesNotReady"));
    assert_eq!(condition_of(&status, "ContainersReady").status, "True");
    pod.status = Some(PodStatus { conditions: Some(foreign_conditions(&pod).cloned().collect()), ..status.clone() });
    assert_eq!(foreign_conditions(&pod).count(), 2);
}

#[tokio::test]
async fn a_crash_loop_shows_the_wait_and_the_last_run() {
    let (pod, at) = (pod(json!({"containers": [{"name": "a"}]})), at());
    let mut observed = Observed::fresh(&pod, at.1);
    run(&mut observed, &pod, "a", at);
    exit(&mut observed, "a-0", 137, true, at);
    run(&mut observed, &pod, "a", at);
    let again = of(&pod, &observed, at).container_statuses.expect("statuses")[0].clone();
    let last = again.last_state.and_then(|state| state.terminated).expect("an end");
    assert_eq!(
        (last.reason.as_deref(), last.exit_code, last.message.as_deref()),
        (Some("OOMKilled"), 137, Some("bye"))
    );
    assert_eq!(again.restart_count, 1);

    exit(&mut observed, "a-1", 2, false, at);
    let status = of(&pod, &observed, at);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let looping = &status.container_statuses.expect("statuses")[0];
    let waiting = looping.state.clone().and_then(|state| state.waiting).expect("it waits");
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(waiting.message.as_deref(), Some("back-off 10s restarting failed container=a pod=p_n(u)"));
    let last = looping.last_state.clone().and_then(|state| state.terminated).expect("an end");
    assert_eq!((last.reason.as_deref(), last.exit_code), (Some("Error"), 2));
    assert_eq!(last.container_id.as_deref(), Some("shipway://u/a-1"));
}

#[tokio::test]
async fn completed_pods_succeed_or_fail() {
    for (codes, phase) in [([0, 0], "Succeeded"), ([0, 1], "Failed")] {
        let (pod, at) = (pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}]})), at());
        let mut observed = Observed::fresh(&pod, at.1);
        run(&mut observed, &pod, "a", at);
        run(&mut observed, &pod, "b", at);
        exit(&mut observed, "a-0", codes[0], false, at);
        assert_eq!(super::phase(&observed), "Running");
        exit(&mut observed, "b-0", codes[1], false, at);
        let status = of(&pod, &observed, at);
        assert_eq!(status.phase.as_deref(), Some(phase));
        let ready = condition_of(&status, "Ready");
        let reason = if phase == "Succeeded" { "PodCompleted" } else { "PodFailed" };
        assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some(reason)));
    }
}

#[tokio::test]
async fn containers_behind_an_init_container_are_initializing() {
    let (pod, at) = (pod(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]})), at());
    let mut observed = Observed::fresh(&pod, at.1);
    run(&mut observed, &pod, "i", at);
    let status = of(&pod, &observed, at);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let waiting =
        status.container_statuses.as_ref().expect("statuses")[0].state.clone().and_then(|state| state.waiting);
    assert_eq!(waiting.and_then(|waiting| waiting.reason).as_deref(), Some("PodInitializing"));
    assert_eq!(condition_of(&status, "Initialized").message.as_deref(), Some("containers with incomplete status: [i]"));
    exit(&mut observed, "i-0", 0, false, at);
    assert_eq!(condition_of(&of(&pod, &observed, at), "Initialized").status, "True");
}

#[tokio::test]
async fn what_is_missing_is_the_reason_to_wait() {
    let (pod, at) = (pod(json!({"containers": [{"name": "a"}]})), at());
    let mut observed = Observed::fresh(&pod, at.1);
    observed.step(&pod, at.0, at.1);
    observed.take(Happened::Prepared(Ok(None)), at.0, at.1);
    observed.take(Happened::Fetched { container: "a".to_owned(), result: Ok(Arc::default()) }, at.0, at.1);
    observed.step(&pod, at.0, at.1);
    let result = Err(StartFailure::Config("secret \"s\" not found".to_owned()));
    observed.take(Happened::Started { container: "a".to_owned(), result }, at.0, at.1);
    let status = of(&pod, &observed, at).container_statuses.expect("statuses")[0].clone();
    let waiting = status.state.and_then(|state| state.waiting).expect("it waits");
    assert_eq!(waiting.reason.as_deref(), Some("CreateContainerConfigError"));
    assert_eq!((waiting.message.as_deref(), status.restart_count), (Some("secret \"s\" not found"), 0));
    assert_eq!(status.container_id, None);
}

#[test]
fn the_class_of_a_pod_follows_its_requests_and_limits() {
    let class = |resources: Value| qos_class(&pod(json!({"containers": [{"name": "a", "resources": resources}]})));
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}})), "Guaranteed");
    let whole = |resources: Value| qos_class(&pod(json!({"resources": resources, "containers": [{"name": "a"}]})));
    assert_eq!(whole(json!({"limits": {"memory": "1Gi"}})), "Burstable");
    assert_eq!(whole(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
}

#[test]
fn news_of_a_resize_is_told_from_all_other_news() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "i:1"}]}));
    let at = at();
    let mut observed = Observed::fresh(&pod, at.1);
    run(&mut observed, &pod, "a", at);
    let before = of(&pod, &observed, at);
    let mut resized = before.clone();
    resized.observed_generation = Some(2);
    let condition = json!({"type": "PodResizeInProgress", "status": "True"});
    resized.conditions.as_mut().expect("conditions").push(serde_json::from_value(condition).expect("a condition"));
    resized.container_statuses.as_mut().expect("containers")[0].resources = Some(ResourceRequirements::default());
    assert!(same_but_resized(&before, &resized) && !same(&before, &resized));
    resized.container_statuses.as_mut().expect("containers")[0].restart_count = 1;
    assert!(!same_but_resized(&before, &resized));
}
