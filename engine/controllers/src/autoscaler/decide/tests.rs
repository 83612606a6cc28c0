//! Bounds, windows, policies and tolerances over looks that follow each other.

use super::*;
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn bounds(least: i32, most: i32, behavior: &Value) -> Bounds {
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let spec = json!({"minReplicas": least, "maxReplicas": most, "scaleTargetRef": target, "behavior": behavior});
    Bounds::of(&serde_json::from_value(spec).unwrap())
}

/// An autoscaler and what it has scaled.
struct Scaled {
    bounds: Bounds,
    memory: Memory,
    replicas: i32,
    conditions: Conditions,
}

impl Scaled {
    fn new(replicas: i32, (least, most): (i32, i32), behavior: &Value) -> Self {
        let conditions = Conditions::new(Vec::new(), at(0));
        Self { bounds: bounds(least, most, behavior), memory: Memory::default(), replicas, conditions }
    }

    /// One look, at which the metrics ask for so many; gives how many there are afterwards.
    fn look(&mut self, second: i64, wanted: i32) -> i32 {
        let wanted = Wanted { replicas: wanted, metric: "cpu".to_owned() };
        let now = at(second);
        let decision = self.bounds.decide(self.replicas, &wanted, &mut self.memory, (&mut self.conditions, now));
        if decision.replicas != self.replicas {
            self.memory.note(decision.replicas - self.replicas, now);
            self.replicas = decision.replicas;
        }
        self.replicas
    }

    /// Looks every 15 seconds.
    fn looks(&mut self, begin: i64, wanted: &[i32]) -> Vec<i32> {
        wanted.iter().zip(0..).map(|(wanted, number)| self.look(begin + 15 * number, *wanted)).collect()
    }

    fn reason(&self, kind: &str) -> (String, String) {
        let all = self.conditions.clone().into_all();
        let one = all.iter().find(|one| one.type_ == kind).unwrap();
        (one.status.clone(), one.reason.clone().unwrap())
    }
}

#[test]
fn a_number_out_of_the_bounds_is_brought_back_whatever_the_metrics_say() {
    let bounds = bounds(2, 5, &Value::Null);
    let enforced = |current| bounds.enforced(current).map(|decision| (decision.replicas, decision.reason));
    assert_eq!(enforced(9), Some((5, "Current number of replicas above Spec.MaxReplicas".to_owned())));
    assert_eq!(enforced(1), Some((2, "Current number of replicas below Spec.MinReplicas".to_owned())));
    assert!([2, 3, 5].into_iter().all(|current| enforced(current).is_none()));
}

#[test]
fn the_way_up_is_free_of_waiting_and_at_most_doubles_or_adds_four() {
    let mut scaled = Scaled::new(1, (1, 100), &Value::Null);
    assert_eq!(scaled.looks(0, &[100; 6]), [5, 10, 20, 40, 80, 100]);
    let mut scaled = Scaled::new(1, (1, 100), &Value::Null);
    assert_eq!(scaled.look(0, 50), 5);
    assert_eq!(scaled.reason(LIMITED), ("True".to_owned(), "ScaleUpLimit".to_owned()));
    assert_eq!(scaled.look(5, 50), 5, "not again within the period");
    assert_eq!(scaled.look(16, 6), 6);
    assert_eq!(scaled.reason(LIMITED), ("False".to_owned(), "DesiredWithinRange".to_owned()));
}

#[test]
fn more_than_the_most_and_less_than_the_least_is_not_done() {
    let mut scaled = Scaled::new(3, (2, 5), &json!({"scaleDown": {"stabilizationWindowSeconds": 0}}));
    assert_eq!(scaled.look(0, 9), 5);
    assert_eq!(scaled.reason(LIMITED), ("True".to_owned(), "TooManyReplicas".to_owned()));
    assert_eq!(scaled.look(60, 0), 2);
    assert_eq!(scaled.reason(LIMITED), ("True".to_owned(), "TooFewReplicas".to_owned()));
}

#[test]
fn the_way_down_waits_for_the_highest_recommendation_of_five_minutes() {
    let mut scaled = Scaled::new(10, (1, 10), &Value::Null);
    assert_eq!(scaled.look(0, 10), 10);
    assert_eq!(scaled.reason(ABLE), ("True".to_owned(), "ReadyForNewScale".to_owned()));
    assert_eq!(scaled.look(15, 4), 10);
    assert_eq!(scaled.reason(ABLE), ("True".to_owned(), "ScaleDownStabilized".to_owned()));
    assert_eq!(scaled.look(100, 6), 10);
    assert_eq!(scaled.look(299, 2), 10);
    assert_eq!(scaled.look(300, 2), 6, "the ten is forgotten");
    assert_eq!(scaled.look(400, 2), 2, "and so is the six");
}

#[test]
fn an_autoscaler_that_forgot_everything_begins_with_what_there_is() {
    let mut scaled = Scaled::new(8, (1, 10), &Value::Null);
    assert_eq!(scaled.look(0, 1), 8);
    assert_eq!(scaled.look(299, 1), 8);
    assert_eq!(scaled.look(301, 1), 1);
}

#[test]
fn a_window_on_the_way_up_takes_the_lowest() {
    let behavior = json!({"scaleUp": {"stabilizationWindowSeconds": 60}});
    let mut scaled = Scaled::new(2, (1, 10), &behavior);
    assert_eq!(scaled.look(0, 6), 2);
    assert_eq!(scaled.reason(ABLE), ("True".to_owned(), "ScaleUpStabilized".to_owned()));
    assert_eq!(scaled.look(30, 5), 2);
    assert_eq!(scaled.look(60, 6), 5, "two is forgotten, five is the lowest");
    assert_eq!(scaled.look(90, 6), 6);
}

#[test]
fn policies_bound_the_change_of_a_period() {
    let up = |policies: Value, select: &str| {
        let rules = json!({"policies": policies, "selectPolicy": select});
        json!({"scaleUp": rules})
    };
    let pods = json!({"type": "Pods", "value": 2, "periodSeconds": 60});
    let percent = json!({"type": "Percent", "value": 50, "periodSeconds": 15});
    let table = [
        (up(json!([pods]), "Max"), [12, 12, 12, 12, 14, 14]),
        (up(json!([percent]), "Max"), [15, 23, 35, 53, 80, 100]),
        (up(json!([pods, percent]), "Max"), [15, 23, 35, 53, 80, 100]),
        (up(json!([pods, percent]), "Min"), [12, 12, 12, 12, 14, 14]),
        (up(json!([percent]), "Disabled"), [10; 6]),
    ];
    for (behavior, expected) in table {
        assert_eq!(Scaled::new(10, (1, 100), &behavior).looks(0, &[100; 6]), expected, "{behavior}");
    }
}

#[test]
fn policies_bound_the_way_down_as_well() {
    let down = |policies: Value, select: &str| {
        let rules = json!({"policies": policies, "selectPolicy": select, "stabilizationWindowSeconds": 0});
        json!({"scaleDown": rules})
    };
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 60});
    let percent = json!({"type": "Percent", "value": 10, "periodSeconds": 60});
    let table = [
        (down(json!([pods, percent]), "Max"), [72, 72, 72, 72, 64, 64]),
        (down(json!([pods, percent]), "Min"), [76, 76, 76, 76, 72, 72]),
        (down(json!([pods]), "Max"), [76, 76, 76, 76, 72, 72]),
        (down(json!([percent]), "Disabled"), [80; 6]),
        (down(json!([]), "Max"), [1; 6]),
    ];
    for (behavior, expected) in table {
        assert_eq!(Scaled::new(80, (1, 100), &behavior).looks(0, &[1; 6]), expected, "{behavior}");
    }
    let mut scaled = Scaled::new(80, (1, 100), &down(json!([pods]), "Max"));
    scaled.look(0, 1);
    assert_eq!(scaled.reason(LIMITED), ("True".to_owned(), "ScaleDownLimit".to_owned()));
}

#[test]
fn what_went_down_may_come_up_again_by_as_much() {
    let behavior = json!({
        "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]},
        "scaleDown": {"stabilizationWindowSeconds": 0},
    });
    let mut scaled = Scaled::new(10, (1, 100), &behavior);
    assert_eq!(scaled.look(0, 4), 4);
    assert_eq!(scaled.look(15, 100), 12, "ten at the beginning of the period, and two");
    assert_eq!(scaled.look(30, 100), 12);
}

#[test]
fn a_tolerance_may_be_set_for_each_direction() {
    let usual = bounds(1, 2, &Value::Null).tolerance();
    assert_eq!(usual, Tolerance { down: 0.1, up: 0.1 });
    let own = bounds(1, 2, &json!({"scaleUp": {"tolerance": "0.05"}, "scaleDown": {"tolerance": "200m"}})).tolerance();
    assert_eq!(own, Tolerance { down: 0.2, up: 0.05 });
}

#[test]
fn a_condition_keeps_the_time_of_its_last_turn() {
    let mut conditions = Conditions::new(Vec::new(), at(0));
    conditions.set(ABLE, true, "A", "a");
    let later = at(0) + SignedDuration::from_secs(90);
    let mut conditions = Conditions::new(conditions.into_all(), later);
    conditions.set(ABLE, true, "B", "b");
    conditions.set(LIMITED, false, "C", "c");
    let all = conditions.clone().into_all();
    let times: Vec<_> = all.iter().map(|one| one.last_transition_time.as_ref().unwrap().0).collect();
    assert_eq!((times, all[0].reason.as_deref()), (vec![at(0), later], Some("B")));
    conditions.set(ABLE, false, "D", "d");
    assert_eq!(conditions.into_all()[0].last_transition_time.as_ref().unwrap().0, later);
}
