//! The documented cases of one metric, and what is careful about missing ones.

use super::*;
use serde_json::{Value, json};

const NOW: i64 = 1_000_000;

fn at(seconds_ago: i64) -> Timestamp {
    Timestamp::from_second(NOW - seconds_ago).unwrap()
}

/// Running and ready for long.
fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "status": {"phase": "Running", "startTime": at(9000),
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(8000)}]},
    })
}

fn with(mut pod: Value, path: &str, value: Value) -> Value {
    *pod.pointer_mut(path).unwrap() = value;
    pod
}

fn pending(name: &str) -> Value {
    with(pod(name), "/status/phase", json!("Pending"))
}

fn pods(all: Vec<Value>) -> Vec<Arc<Pod>> {
    all.into_iter().map(|pod| Arc::new(serde_json::from_value(pod).unwrap())).collect()
}

fn many(count: usize) -> Vec<Value> {
    (0..count).map(|number| pod(&format!("p{number}"))).collect()
}

fn samples(values: &[i64]) -> Samples {
    let sample = |value| Sample { value, at: at(5), window: SignedDuration::from_secs(10) };
    values.iter().enumerate().map(|(number, value)| (format!("p{number}"), sample(*value))).collect()
}

fn present(pods: &[Arc<Pod>]) -> Present<'_> {
    let replicas = i32::try_from(pods.len()).unwrap();
    Present { replicas, pods, tolerance: Tolerance { down: 0.1, up: 0.1 }, now: at(0) }
}

/// With 1000 requested by each pod.
fn utilization(all: Vec<Value>, values: &[i64], target: i32) -> Result<Averaged, String> {
    let pods = pods(all);
    let requests = pods.iter().map(|pod| (pod.name_any(), 1000)).collect();
    by_utilization(&present(&pods), &samples(values), &requests, (target, "cpu"))
}

#[test]
fn replicas_follow_the_ratio_of_used_to_wanted_rounded_up() {
    let table = [
        // (pods, usage of each, target in hundredths, replicas, utilization)
        (3, vec![300, 500, 700], 30, 5, 50),
        (3, vec![300, 500, 700], 50, 3, 50),
        (5, vec![100, 300, 500, 250, 250], 50, 3, 28),
        (3, vec![1010, 1030, 1020], 100, 3, 102),
        (2, vec![900, 900], 50, 4, 90),
        (4, vec![0, 0, 0, 0], 50, 0, 0),
        (1, vec![5000], 50, 10, 500),
    ];
    for (count, values, target, replicas, share) in table {
        let wished = utilization(many(count), &values, target).unwrap();
        assert_eq!((wished.replicas, wished.utilization), (replicas, Some(share)), "{values:?} of {target}");
    }
}

#[test]
fn a_ratio_within_the_tolerance_changes_nothing() {
    for (usage, replicas) in [(540, 4), (560, 5), (460, 4), (440, 4), (370, 3)] {
        assert_eq!(utilization(many(4), &[usage; 4], 50).unwrap().replicas, replicas, "{usage}");
    }
    let pods = pods(many(4));
    let narrow = Present { tolerance: Tolerance { down: 0.5, up: 0.01 }, ..present(&pods) };
    let requests = (0..4).map(|number| (format!("p{number}"), 1000)).collect();
    for (usage, replicas) in [(520, 5), (300, 4), (240, 2)] {
        let wished = by_utilization(&narrow, &samples(&[usage; 4]), &requests, (50, "cpu")).unwrap();
        assert_eq!(wished.replicas, replicas, "each direction has its own: {usage}");
    }
}

#[test]
fn a_pod_without_figures_is_idle_on_the_way_up_and_full_on_the_way_down() {
    // Two of three say: 90 hundredths each of 50. With an idle third it is 60, not 90.
    assert_eq!(utilization(many(3), &[900, 900], 50).unwrap().replicas, 4);
    // With a full third it is 46, within the tolerance.
    assert_eq!(utilization(many(3), &[200, 200], 50).unwrap().replicas, 3);
    // Full means all that was requested, or the target where that is more.
    assert_eq!(utilization(many(4), &[100, 100, 100], 80).unwrap().replicas, 2);
    // What the others say is turned around by the missing ones: nothing is done.
    assert_eq!(utilization(many(4), &[600, 600], 50).unwrap().replicas, 4);
    assert_eq!(utilization(many(3), &[900, 900], 50).unwrap().utilization, Some(90), "told is what was measured");
}

#[test]
fn a_pod_that_begins_holds_an_increase_back_and_never_a_decrease() {
    let begin = |name: &str| {
        let begun = with(pod(name), "/status/startTime", json!(at(60)));
        with(begun, "/status/conditions/0/status", json!("False"))
    };
    let two = |third: Value| vec![pod("p0"), pod("p1"), third];
    // The processor time of the one that starts is not counted: 90 and 90 of 50 and an idle one.
    assert_eq!(utilization(two(begin("p2")), &[900, 900, 1000], 50).unwrap().replicas, 4);
    assert_eq!(utilization(two(pending("p2")), &[900, 900], 50).unwrap().replicas, 4);
    assert_eq!(utilization(two(pod("p2")), &[900, 900, 1000], 50).unwrap().replicas, 6);
    assert_eq!(utilization(two(begin("p2")), &[200, 200, 1000], 50).unwrap().replicas, 1);
    // Ready, but what was measured was measured before.
    let fresh = with(pod("p2"), "/status/startTime", json!(at(60)));
    let fresh = with(fresh, "/status/conditions/0/lastTransitionTime", json!(at(8)));
    assert_eq!(utilization(two(fresh.clone()), &[900, 900, 1000], 50).unwrap().replicas, 4);
    let measured = with(fresh, "/status/conditions/0/lastTransitionTime", json!(at(30)));
    assert_eq!(utilization(two(measured), &[900, 900, 1000], 50).unwrap().replicas, 6);
    // Once ready and not any more: what it uses counts.
    let broken = with(pod("p2"), "/status/conditions/0/status", json!("False"));
    assert_eq!(utilization(two(broken), &[900, 900, 1000], 50).unwrap().replicas, 6);
    // Never ready, however old.
    let never = with(pod("p2"), "/status/conditions/0/status", json!("False"));
    let never = with(never, "/status/conditions/0/lastTransitionTime", json!(at(8990)));
    assert_eq!(utilization(two(never), &[900, 900, 1000], 50).unwrap().replicas, 4);
}

#[test]
fn memory_counts_from_the_first_moment() {
    let begun = with(pod("p1"), "/status/conditions/0/status", json!("False"));
    let pods = pods(vec![pod("p0"), with(begun, "/status/startTime", json!(at(10)))]);
    let requests = BTreeMap::from([("p0".to_owned(), 1000), ("p1".to_owned(), 1000)]);
    let wished = by_utilization(&present(&pods), &samples(&[1000, 1000]), &requests, (50, "memory")).unwrap();
    assert_eq!(wished.replicas, 4);
}

#[test]
fn pods_that_end_or_have_failed_do_not_count() {
    let going = {
        let mut going = pod("p1");
        going["metadata"]["deletionTimestamp"] = json!(at(1));
        going
    };
    let failed = with(pod("p2"), "/status/phase", json!("Failed"));
    let wished = utilization(vec![pod("p0"), going, failed], &[1000, 0, 0], 50).unwrap();
    assert_eq!((wished.replicas, wished.utilization), (2, Some(100)));
}

#[test]
fn what_cannot_be_worked_out_is_said() {
    let table = [
        (utilization(vec![], &[], 50), "no pods returned by selector while calculating replica count"),
        (utilization(many(2), &[], 50), "did not receive metrics for targeted pods (pods might be unready)"),
        (
            utilization(vec![pending("p0")], &[100], 50),
            "did not receive metrics for targeted pods (pods might be unready)",
        ),
    ];
    for (wished, message) in table {
        assert_eq!(wished.unwrap_err(), message);
    }
    let pods = pods(many(1));
    let unknown = by_utilization(&present(&pods), &samples(&[1]), &BTreeMap::new(), (50, "cpu"));
    assert_eq!(unknown.unwrap_err(), "no metrics returned matched known pods");
}

#[test]
fn an_average_needs_no_request() {
    let table = [
        // (pods that say something, of so many, target, replicas, average)
        (vec![10_000, 20_000, 30_000], 3, 10_000, 6, 20_000),
        (vec![10_000, 10_000, 10_000], 3, 10_000, 3, 10_000),
        (vec![2000, 3000, 4000], 3, 10_000, 1, 3000),
        // The third is supposed to be idle, then to be as busy as wanted.
        (vec![20_000, 20_000], 3, 10_000, 4, 20_000),
        (vec![1000, 1000], 3, 10_000, 2, 1000),
    ];
    for (values, count, target, replicas, average) in table {
        let pods = pods(many(count));
        let wished = by_average(&present(&pods), &samples(&values), (target, "")).unwrap();
        assert_eq!(wished, Averaged { replicas, average, utilization: None }, "{values:?}");
    }
}

#[test]
fn what_all_share_is_divided_among_the_ready_ones() {
    let unready = with(pod("p2"), "/status/conditions/0/status", json!("False"));
    let pods = pods(vec![pod("p0"), pod("p1"), unready]);
    let present = present(&pods);
    for (usage, replicas) in [(10_000, 3), (10_900, 3), (20_000, 4), (5000, 1), (0, 0)] {
        assert_eq!(by_total(&present, usage, 10_000), replicas, "{usage}");
    }
    let none = Present { replicas: 0, ..present };
    assert_eq!(by_total(&none, 25_000, 10_000), 3);
    for (usage, replicas) in [(30_000, 3), (32_000, 3), (50_000, 5), (51_000, 6), (9000, 1), (0, 0)] {
        assert_eq!(by_share(&present, usage, 10_000, 3), replicas, "{usage}");
    }
    assert_eq!(by_share(&none, 25_000, 10_000, 0), 3);
}

#[test]
fn figures_without_measure_break_nothing() {
    let most = i64::MAX;
    let wished = utilization(many(2), &[most, most], 1).unwrap();
    assert_eq!((wished.replicas, wished.utilization), (i32::MAX, Some(i32::MAX)));
    let pods = pods(many(2));
    let present = present(&pods);
    assert_eq!(by_average(&present, &samples(&[most, most]), (1, "")).unwrap().replicas, i32::MAX);
    assert_eq!(by_total(&present, most, 1), i32::MAX);
    assert_eq!(by_share(&present, most, 1, 0), i32::MAX);
    assert_eq!(by_share(&present, 0, 1, 0), 0);
}
