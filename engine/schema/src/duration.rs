//! Durations as Go writes them: `1h30m`, `1.5s`, `-250ms`.

/// Every unit with its nanoseconds; one that begins like another comes first.
const UNITS: [(&str, f64); 7] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
/// What no longer fits.
const TOO_LONG: f64 = 9.2e18;

/// The nanoseconds of a duration; none where it is not written so, or longer than some 290 years.
pub fn nanoseconds(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (if text.starts_with('-') { -1.0 } else { 1.0 }, rest),
        None => (1.0, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let amount: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let (unit, factor) = UNITS.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += amount * factor;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
    (total < TOO_LONG).then(|| (sign * total).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("5ms1us", Some(5_001_000)),
            ("-1m1s", Some(-61_000_000_000)),
            ("+2ns", Some(2)),
            ("0", Some(0)),
            ("99999999999h", None),
            ("", None),
            ("-", None),
            ("5", None),
            ("5mm", None),
            ("1.2.3s", None),
            ("1d", None),
        ] {
            assert_eq!(nanoseconds(text), expected, "{text}");
        }
    }
}
