//! When a node is alive: it renews its lease or its status, and what counts is when we saw that, by our own clock. Pure.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

/// What a lease's holder is given beyond its lease: clocks of two machines do not run at quite the same pace.
const MARGIN: Duration = Duration::from_secs(1);
/// How long a node without a lease may be silent.
const WITHOUT_LEASE: Duration = Duration::from_secs(50);
/// A longer lease than this is taken for this one.
const LONGEST: i32 = 3600;

/// What a node last showed of itself, and when we saw it.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    renewed: Option<Timestamp>,
    reported: Option<Timestamp>,
    since: Instant,
    grace: Duration,
    /// Whether it was ready when last looked at.
    pub(crate) ready: bool,
}

impl Life {
    /// A node that was just heard of: it has all of its grace before it, however old its last sign is.
    pub(crate) fn new(now: Instant) -> Self {
        Self { renewed: None, reported: None, since: now, grace: WITHOUT_LEASE, ready: false }
    }

    /// Takes note of what the watches show; any change is a sign of life.
    pub(crate) fn observe(&mut self, lease: Option<&Lease>, node: &Node, now: Instant) {
        let (renewed, reported) = (lease.and_then(renewal), reported(node));
        if (renewed, reported) != (self.renewed, self.reported) {
            (self.renewed, self.reported, self.since) = (renewed, reported, now);
        }
        self.grace = lease
            .and_then(|lease| lease.spec.as_ref()?.lease_duration_seconds)
            .map_or(WITHOUT_LEASE, |all| Duration::from_secs(all.clamp(1, LONGEST).unsigned_abs().into()) + MARGIN);
    }

    /// How long it may still be silent; none when it was for too long.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        let left = (self.since + self.grace).saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Whether the lease is still the one whose time we saw run out.
    pub(crate) fn is_last(&self, lease: Option<&Lease>) -> bool {
        lease.and_then(renewal) == self.renewed
    }
}

fn renewal(lease: &Lease) -> Option<Timestamp> {
    Some(lease.spec.as_ref()?.renew_time.as_ref()?.0)
}

fn reported(node: &Node) -> Option<Timestamp> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    ready.last_heartbeat_time.as_ref().map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lease(second: u32, duration: Option<i32>) -> Lease {
        let renewed = format!("2026-01-01T00:00:{second:02}.000000Z");
        let spec = json!({"holderIdentity": "a", "renewTime": renewed, "leaseDurationSeconds": duration});
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap()
    }

    fn node(second: u32) -> Node {
        let beat = format!("2026-01-01T00:00:{second:02}Z");
        let ready = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": beat});
        serde_json::from_value(json!({"metadata": {"name": "a"}, "status": {"conditions": [ready]}})).unwrap()
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_lives_as_long_as_its_lease_and_a_little_longer() {
        let start = Instant::now();
        let mut life = Life::new(start);
        life.observe(Some(&lease(0, Some(5))), &node(0), start);
        assert_eq!(life.left(after(start, 5)), Some(Duration::from_secs(1)));
        assert_eq!(life.left(after(start, 6)), None);
        life.observe(Some(&lease(1, Some(5))), &node(0), after(start, 4));
        assert_eq!(life.left(after(start, 9)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn its_status_is_a_sign_of_life_too_and_the_same_news_twice_is_none() {
        let start = Instant::now();
        let mut life = Life::new(start);
        life.observe(Some(&lease(0, Some(5))), &node(0), start);
        life.observe(Some(&lease(0, Some(5))), &node(3), after(start, 3));
        assert!(life.left(after(start, 8)).is_some());
        life.observe(Some(&lease(0, Some(5))), &node(3), after(start, 8));
        assert_eq!(life.left(after(start, 9)), None);
    }

    #[test]
    fn an_old_lease_that_is_seen_for_the_first_time_gets_its_time() {
        let start = Instant::now();
        let mut life = Life::new(start);
        life.observe(Some(&lease(0, Some(40))), &node(0), start);
        assert!(life.left(after(start, 40)).is_some() && life.left(after(start, 41)).is_none());
    }

    #[test]
    fn without_a_lease_the_status_has_to_do_and_a_senseless_lease_is_bounded() {
        let start = Instant::now();
        let mut life = Life::new(start);
        life.observe(None, &node(0), start);
        assert!(life.left(after(start, 49)).is_some() && life.left(after(start, 50)).is_none());
        life.observe(Some(&lease(0, Some(i32::MAX))), &node(0), start);
        assert_eq!(life.left(after(start, 3601)), None);
        life.observe(Some(&lease(0, Some(-5))), &node(0), start);
        assert_eq!(life.left(after(start, 2)), None);
    }

    #[test]
    fn only_the_lease_that_ran_out_is_the_last_one() {
        let mut life = Life::new(Instant::now());
        life.observe(Some(&lease(7, Some(5))), &node(0), Instant::now());
        assert!(life.is_last(Some(&lease(7, Some(5)))));
        assert!(!life.is_last(Some(&lease(8, Some(5)))) && !life.is_last(None));
    }
}
