//! The one place that reads the wall clock.

use jiff::{SignedDuration, Timestamp};

/// Now.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// A time as objects carry it: whole seconds in UTC.
pub(crate) fn text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// So many seconds from now, as objects carry it.
pub(crate) fn in_seconds(seconds: i64) -> String {
    text(now().saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX))
}
