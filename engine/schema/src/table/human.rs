//! Durations as people read them: `12s`, `5m3s`, `3h20m`, `2d`, with ever less detail.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// A duration in seconds as `kubectl` prints it. Clocks that differ a little make `0s`, more is `<invalid>`.
pub fn human_duration(seconds: i64) -> String {
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds, MINUTE, "m", 1, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(seconds, HOUR, "h", MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(seconds, DAY, "d", HOUR, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(seconds, YEAR, "y", DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// Whole units and what is left in a smaller one, if anything is.
fn two(seconds: i64, unit: i64, name: &str, smaller: i64, smaller_name: &str) -> String {
    match seconds % unit / smaller {
        0 => format!("{}{name}", seconds / unit),
        rest => format!("{}{name}{rest}{smaller_name}", seconds / unit),
    }
}

/// The time since a moment in RFC 3339; `<unknown>` when there is none.
pub(super) fn since(moment: &str, now: Timestamp) -> String {
    match moment.parse::<Timestamp>() {
        // Whole seconds, and the fraction of `now` counts: nothing is older than it is.
        Ok(moment) => human_duration(now.duration_since(moment).as_secs()),
        Err(_) => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_lose_detail_as_they_grow() {
        for (seconds, printed) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 20 * MINUTE, "3h20m"),
            (8 * HOUR, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + 5 * HOUR, "2d5h"),
            (8 * DAY, "8d"),
            (729 * DAY, "729d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + 3 * DAY, "2y3d"),
            (8 * YEAR, "8y"),
        ] {
            assert_eq!(human_duration(seconds), printed, "{seconds}");
        }
    }

    #[test]
    fn no_moment_is_an_unknown_age() {
        let now: Timestamp = "2024-01-01T00:01:00Z".parse().expect("a time");
        assert_eq!(since("", now), "<unknown>");
        assert_eq!(since("2024-01-01T00:00:00Z", now), "60s");
    }
}
