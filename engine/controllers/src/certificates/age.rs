//! How long requests are kept: an hour when they are settled, a day when nobody settles them.

use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::jiff::Timestamp;

use super::{conditions, is_issued, said};

const SETTLED: Duration = Duration::from_hours(1);
const OPEN: Duration = Duration::from_hours(24);

/// What is left of a request's time; none for one that does not say when it was made.
pub(super) fn left(request: &CertificateSigningRequest, now: Timestamp) -> Option<Duration> {
    let told = conditions(request).iter().filter_map(|condition| condition.last_update_time.as_ref());
    let made = request.metadata.creation_timestamp.as_ref();
    let since = told.map(|time| time.0).max().or_else(|| made.map(|time| time.0))?;
    let is_settled = is_issued(request) || said(request, "Denied") || said(request, "Failed");
    let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(if is_settled { SETTLED } else { OPEN }.saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-02T00:00:00Z";

    fn minutes_left(status: &Value) -> Option<u64> {
        let request = json!({
            "metadata": {"creationTimestamp": "2026-01-01T12:00:00Z"},
            "spec": {"request": "", "signerName": "s"},
            "status": status,
        });
        let request: CertificateSigningRequest = serde_json::from_value(request).unwrap();
        left(&request, NOW.parse().unwrap()).map(|left| left.as_secs() / 60)
    }

    #[test]
    fn what_is_settled_goes_after_an_hour_and_what_is_forgotten_after_a_day() {
        let said = |kind: &str| json!({"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T23:30:00Z"});
        assert_eq!(minutes_left(&json!({})), Some(12 * 60));
        assert_eq!(minutes_left(&json!({"conditions": [said("Denied")]})), Some(30));
        assert_eq!(minutes_left(&json!({"conditions": [said("Approved"), said("Failed")]})), Some(30));
        assert_eq!(minutes_left(&json!({"conditions": [said("Approved")]})), Some(23 * 60 + 30));
        assert_eq!(minutes_left(&json!({"conditions": [said("Approved")], "certificate": "AAAA"})), Some(30));
        let old = json!({"type": "Denied", "status": "True", "lastUpdateTime": "2026-01-01T20:00:00Z"});
        assert_eq!(minutes_left(&json!({"conditions": [old]})), Some(0));
    }
}
