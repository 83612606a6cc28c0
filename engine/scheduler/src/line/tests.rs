//! Who is tried when.

use serde_json::json;

use super::*;
use crate::reason::Filter;

fn pod(name: &str, priority: i32) -> Arc<Wanted> {
    let pod = json!({ "metadata": { "name": name, "namespace": "default", "uid": name },
        "spec": { "containers": [], "priority": priority } });
    Arc::new(Wanted::of(Arc::new(serde_json::from_value(pod).unwrap())))
}

fn key(name: &str) -> Key {
    ("default".to_owned(), name.to_owned())
}

fn next(line: &mut Line, now: Instant) -> Option<String> {
    line.next(now).map(|pod| pod.key().1)
}

fn by(filter: Filter) -> Filters {
    let mut filters = Filters::default();
    filters.add(filter);
    filters
}

#[test]
fn more_important_pods_go_first_then_who_came_first() {
    let (mut line, now) = (Line::default(), Instant::now());
    for (name, priority) in [("b", 0), ("a", 0), ("high", 10), ("low", -1)] {
        line.put(pod(name, priority), now);
    }
    let order: Vec<_> = std::iter::from_fn(|| next(&mut line, now)).collect();
    assert_eq!(order, ["high", "b", "a", "low"]);
}

#[test]
fn a_parked_pod_is_tried_only_for_what_could_help_it() {
    let (mut line, now) = (Line::default(), Instant::now());
    line.put(pod("a", 0), now);
    next(&mut line, now);
    line.park(&key("a"), by(Filter::Taints), now);
    let later = now + Duration::from_mins(1);
    assert_eq!(next(&mut line, later), None, "nothing happened");
    line.wake(later, |_, filters| filters.has(Filter::Ports));
    assert_eq!(next(&mut line, later), None, "it is not about ports");
    line.wake(later, |_, filters| filters.has(Filter::Taints));
    assert_eq!(next(&mut line, later).as_deref(), Some("a"));
}

#[test]
fn each_failure_doubles_the_wait_from_one_to_ten_seconds() {
    let (mut line, mut now) = (Line::default(), Instant::now());
    line.put(pod("a", 0), now);
    let mut waits = Vec::new();
    for _ in 0..6 {
        assert!(next(&mut line, now).is_some());
        line.park(&key("a"), by(Filter::Resources), now);
        line.wake(now, |_, _| true);
        let due = line.next_due().unwrap();
        assert_eq!(next(&mut line, due - Duration::from_millis(1)), None);
        waits.push((due - now).as_secs());
        now = due;
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn a_pod_that_waited_long_enough_is_tried_at_once_when_something_helps() {
    let (mut line, now) = (Line::default(), Instant::now());
    line.put(pod("a", 0), now);
    next(&mut line, now);
    line.park(&key("a"), by(Filter::Resources), now);
    let later = now + Duration::from_secs(2);
    line.wake(later, |_, _| true);
    assert_eq!(next(&mut line, later).as_deref(), Some("a"));
}

#[test]
fn only_a_change_of_what_it_asks_for_has_a_parked_pod_tried_again() {
    let (mut line, now) = (Line::default(), Instant::now());
    line.put(pod("a", 0), now);
    next(&mut line, now);
    line.park(&key("a"), by(Filter::Resources), now);
    let later = now + Duration::from_secs(2);
    let mut told = (*pod("a", 0).pod).clone();
    told.status = Some(serde_json::from_value(json!({ "phase": "Pending" })).unwrap());
    line.put(Arc::new(Wanted::of(Arc::new(told))), later);
    assert_eq!(next(&mut line, later), None, "it was only told something");
    line.put(pod("a", 5), later);
    assert_eq!(next(&mut line, later).as_deref(), Some("a"));
}

#[test]
fn a_pod_of_the_same_name_is_another_one() {
    let (mut line, now) = (Line::default(), Instant::now());
    line.put(pod("a", 0), now);
    next(&mut line, now);
    line.park(&key("a"), by(Filter::Resources), now);
    let mut other = (*pod("a", 0).pod).clone();
    other.metadata.uid = Some("other".to_owned());
    line.put(Arc::new(Wanted::of(Arc::new(other))), now);
    assert_eq!(next(&mut line, now).as_deref(), Some("a"));
    line.remove(&key("a"));
    assert!(!line.has(&key("a")));
}

#[test]
fn a_pod_that_is_being_tried_is_not_handed_out_twice() {
    let (mut line, now) = (Line::default(), Instant::now());
    line.put(pod("a", 0), now);
    assert!(next(&mut line, now).is_some());
    line.put(pod("a", 5), now);
    assert_eq!(next(&mut line, now), None);
    line.retry(&key("a"), now);
    assert_eq!(next(&mut line, now + Duration::from_secs(1)).as_deref(), Some("a"));
}
