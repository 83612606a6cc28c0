//! What a simulated pod does, step by step.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::time::{Instant, advance};

use super::machine::Machine;

const MINUTE: Duration = Duration::from_mins(1);

fn pod(annotations: &Value, mut spec: Value) -> Pod {
    spec["containers"] = json!([{"name": "main", "image": "app"}]);
    serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "a", "uid": "u", "annotations": annotations},
        "spec": spec,
    }))
    .unwrap()
}

fn machine() -> Machine {
    Machine::new(0, Duration::from_millis(500), None, super::Ledger::default())
}

/// Lets the machine run the pod so long. Returns what was published: phase, whether ready, restarts and state.
async fn run(machine: &mut Machine, pod: &Arc<Pod>, time: Duration) -> Vec<(String, bool, i32, String)> {
    let end = Instant::now() + time;
    let mut shown = Vec::new();
    loop {
        let due = machine.step(&("default".into(), "a".into()), Some(pod));
        if let Some((_, status)) = due.publish {
            let container = &status.container_statuses.as_ref().unwrap()[0];
            let state = serde_json::to_value(container.state.as_ref().unwrap()).unwrap();
            let (name, details) = state.as_object().unwrap().iter().next().unwrap();
            let reason = details["reason"].as_str().unwrap_or(name).to_owned();
            shown.push((status.phase.clone().unwrap(), container.ready, container.restart_count, reason));
            machine.published("u", status);
        }
        match due.wake.filter(|at| *at <= end) {
            Some(at) => advance(at - Instant::now()).await,
            None => return shown,
        }
    }
}

fn seen(expected: &[(&str, bool, i32, &str)]) -> Vec<(String, bool, i32, String)> {
    expected.iter().map(|(phase, ready, count, state)| ((*phase).into(), *ready, *count, (*state).into())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_comes_up_and_is_ready_when_told() {
    let pod = Arc::new(pod(&json!({"sim/ready-after": "3s"}), json!({})));
    let shown = run(&mut machine(), &pod, MINUTE).await;
    let expected =
        [("Pending", false, 0, "ContainerCreating"), ("Running", false, 0, "running"), ("Running", true, 0, "running")];
    assert_eq!(shown, seen(&expected));
}

#[tokio::test(start_paused = true)]
async fn a_failing_container_is_started_again_later_and_later() {
    let pod = Arc::new(pod(&json!({"sim/exits-by-attempt": "1,1,-"}), json!({})));
    let began = Instant::now();
    let shown = run(&mut machine(), &pod, MINUTE).await;
    assert_eq!(shown.last(), seen(&[("Running", true, 2, "running")]).last());
    assert!(shown.iter().any(|it| it.3 == "CrashLoopBackOff"));
    assert_eq!(began.elapsed(), Duration::from_millis(500) + Duration::from_secs(1 + 1 + 10));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_started_again_ends_the_pod() {
    for (policy, code, phase, state) in [
        ("Never", "1", "Failed", "Error"),
        ("Never", "0", "Succeeded", "Completed"),
        ("OnFailure", "0", "Succeeded", "Completed"),
    ] {
        let pod = Arc::new(pod(&json!({"sim/exit": code, "sim/after": "5s"}), json!({"restartPolicy": policy})));
        let shown = run(&mut machine(), &pod, MINUTE).await;
        assert_eq!(shown.last(), seen(&[(phase, false, 0, state)]).last(), "{policy} {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_takes_too_long_to_end_is_killed_and_removed() {
    let mut machine = machine();
    let mut pod = pod(&json!({"sim/stop-after": "1m"}), json!({"terminationGracePeriodSeconds": 7}));
    run(&mut machine, &Arc::new(pod.clone()), Duration::from_secs(5)).await;
    pod.metadata.deletion_timestamp = serde_json::from_value(json!("2030-01-01T00:00:00Z")).unwrap();
    let (pod, told) = (Arc::new(pod), Instant::now());
    assert!(machine.step(&("default".into(), "a".into()), Some(&pod)).remove.is_none());
    run(&mut machine, &pod, MINUTE).await;
    assert_eq!(told.elapsed(), Duration::from_secs(7));
    assert!(machine.step(&("default".into(), "a".into()), Some(&pod)).remove.is_some());
    assert!(machine.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_ends_containers_and_they_are_started_again() {
    let mut machine = machine();
    let pod = Arc::new(pod(&json!({}), json!({})));
    run(&mut machine, &pod, Duration::from_secs(5)).await;
    machine.kill();
    assert!(machine.running().is_empty());
    let shown = run(&mut machine, &pod, Duration::from_secs(5)).await;
    assert_eq!(shown.last(), seen(&[("Running", true, 1, "running")]).last());
}
