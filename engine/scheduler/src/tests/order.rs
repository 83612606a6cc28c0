//! How events change what is known, and what follows for the pods that wait.

use std::time::Duration;

use shipway_driver::Change;
use tokio::time::Instant;

use super::*;
use crate::state::{Outcome, State};

fn applied(state: &mut State, pod: &Arc<Wanted>) {
    state.pod_changed(&Change::Applied(pod.pod.clone()), Instant::now());
}

fn on(name: &str, node: &str, cpu: &str) -> Arc<Wanted> {
    pod(name, over(asking(json!({ "cpu": cpu })), &json!({ "spec": { "nodeName": node } })))
}

/// A node of four cores.
fn state() -> State {
    let mut state = State::default();
    state.node_changed(&Change::Applied(node("n", json!({}))), Instant::now());
    state
}

fn attempt(state: &mut State) -> Option<(String, Outcome)> {
    let later = Instant::now() + Duration::from_mins(1);
    let next = state.line.next(later)?;
    let outcome = state.attempt(&next, Instant::now());
    Some((next.key().1, outcome))
}

#[test]
fn a_chosen_node_counts_before_the_watch_shows_it() {
    let mut state = state();
    for name in ["a", "b"] {
        applied(&mut state, &pod(name, asking(json!({ "cpu": "3" }))));
    }
    assert!(matches!(attempt(&mut state), Some((name, Outcome::Chosen(_))) if name == "a"));
    assert!(matches!(attempt(&mut state), Some((name, Outcome::Unfit(_))) if name == "b"));
    applied(&mut state, &pod("a", asking(json!({ "cpu": "3" }))));
    assert!(attempt(&mut state).is_none(), "a pod that is being bound is not tried again");
}

#[test]
fn a_binding_that_failed_gives_the_room_back() {
    let mut state = state();
    let (a, b) = (pod("a", asking(json!({ "cpu": "3" }))), pod("b", asking(json!({ "cpu": "3" }))));
    applied(&mut state, &a);
    attempt(&mut state);
    applied(&mut state, &b);
    attempt(&mut state);
    state.forget(&a, Instant::now());
    let chosen = attempt(&mut state).unwrap();
    assert!(matches!(chosen, (_, Outcome::Chosen(_))));
    assert!(matches!(attempt(&mut state), Some((_, Outcome::Unfit(_)))), "only one of them");
}

#[test]
fn a_pod_that_waits_is_tried_when_another_one_is_gone() {
    let mut state = state();
    let there = on("there", "n", "3");
    applied(&mut state, &there);
    applied(&mut state, &pod("p", asking(json!({ "cpu": "3" }))));
    assert!(matches!(attempt(&mut state), Some((_, Outcome::Unfit(_)))));
    assert!(attempt(&mut state).is_none());
    applied(&mut state, &there);
    assert!(attempt(&mut state).is_none(), "nothing changed");
    state.pod_changed(&Change::Deleted(there.pod.clone()), Instant::now());
    assert!(matches!(attempt(&mut state), Some((_, Outcome::Chosen(_)))));
}

#[test]
fn a_finished_pod_takes_nothing() {
    let mut state = state();
    applied(&mut state, &on("there", "n", "3"));
    let done = over(
        asking(json!({ "cpu": "3" })),
        &json!({ "spec": { "nodeName": "n" }, "status": { "phase": "Succeeded" } }),
    );
    applied(&mut state, &pod("there", done));
    applied(&mut state, &pod("p", asking(json!({ "cpu": "3" }))));
    assert!(matches!(attempt(&mut state), Some((_, Outcome::Chosen(_)))));
}

#[test]
fn a_node_that_reports_only_about_itself_wakes_nobody() {
    let mut state = state();
    applied(&mut state, &pod("p", json!({ "spec": { "nodeSelector": { "disk": "fast" } } })));
    assert!(matches!(attempt(&mut state), Some((_, Outcome::Unfit(_)))));
    let report = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
    state.node_changed(&Change::Applied(node("n", report)), Instant::now());
    assert!(attempt(&mut state).is_none());
    let labelled = json!({ "metadata": { "labels": { "disk": "fast" } } });
    state.node_changed(&Change::Applied(node("n", labelled)), Instant::now());
    assert!(matches!(attempt(&mut state), Some((_, Outcome::Chosen(_)))));
}

#[test]
fn gated_pods_and_pods_of_others_are_left_alone() {
    let mut state = state();
    applied(&mut state, &pod("gated", json!({ "spec": { "schedulingGates": [{ "name": "wait" }] } })));
    applied(&mut state, &pod("others", json!({ "spec": { "schedulerName": "other" } })));
    applied(&mut state, &pod("leaving", json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })));
    assert!(attempt(&mut state).is_none());
    assert_eq!(state.gated.len(), 1, "it is told");
    applied(&mut state, &pod("gated", json!({})));
    assert!(matches!(attempt(&mut state), Some((_, Outcome::Chosen(_)))));
}

#[test]
fn who_is_more_important_could_have_others_leave() {
    let mut state = state();
    applied(&mut state, &on("there", "n", "3"));
    let important = over(asking(json!({ "cpu": "3" })), &json!({ "spec": { "priority": 10 } }));
    applied(&mut state, &pod("p", important));
    assert!(matches!(attempt(&mut state), Some((_, Outcome::CouldPreempt(_)))));
}

#[test]
fn what_a_pod_is_told_has_both_parts() {
    let mut state = state();
    applied(&mut state, &on("there", "n", "3"));
    applied(&mut state, &pod("p", asking(json!({ "cpu": "3" }))));
    let Some((_, Outcome::Unfit(unfit))) = attempt(&mut state) else { panic!("it does not fit") };
    assert_eq!(
        unfit.to_string(),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
}

#[test]
fn pods_are_known_before_their_node() {
    let mut state = State::default();
    applied(&mut state, &on("there", "n", "3"));
    state.node_changed(&Change::Applied(node("n", json!({}))), Instant::now());
    applied(&mut state, &pod("p", asking(json!({ "cpu": "3" }))));
    assert!(matches!(attempt(&mut state), Some((_, Outcome::Unfit(_)))));
}
