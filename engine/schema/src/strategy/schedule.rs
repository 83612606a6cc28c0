//! When a cron job runs: the five fields of cron, its shorthands, and the name of a time zone.

/// The fields of a schedule: what they are called, their range, and names that stand for numbers.
const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    ("month", 1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    ("day of week", 0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

const SHORTHANDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// `*/5 8-17 * * mon-fri`, `@daily` or `@every 1h30m`.
pub(super) fn cron(text: &str) -> Result<(), String> {
    let text = text.trim();
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        return Err("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".to_owned());
    }
    if let Some(duration) = text.strip_prefix("@every ") {
        return every(duration);
    }
    if text.starts_with('@') {
        let known = SHORTHANDS.contains(&text);
        return if known { Ok(()) } else { Err(format!("unrecognized descriptor: {text}")) };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, (name, least, most, names)) in fields.into_iter().zip(FIELDS) {
        for part in field.split(',') {
            range(part, least, most, names).map_err(|problem| format!("{problem} in the {name}: {field}"))?;
        }
    }
    Ok(())
}

/// `*`, `?`, `3`, `1-5`, any of them with `/2` behind.
fn range(text: &str, low: u32, high: u32, names: &[&str]) -> Result<(), String> {
    let (span, step) = match text.split_once('/') {
        Some((span, step)) => (span, Some(step)),
        None => (text, None),
    };
    if step.is_some_and(|step| digits(step).is_none_or(|step| step == 0)) {
        return Err(format!("a step has to be a number above 0, not {text:?}"));
    }
    if matches!(span, "*" | "?") {
        return Ok(());
    }
    let number = |text: &str| {
        let known = names.iter().position(|name| name.eq_ignore_ascii_case(text)).and_then(|at| u32::try_from(at).ok());
        let number = known.map(|at| at + low).or_else(|| digits(text));
        number.ok_or_else(|| format!("failed to parse {text:?} as a number"))
    };
    let (begin, end) = span.split_once('-').unwrap_or((span, span));
    let (begin, end) = (number(begin)?, number(end)?);
    if begin < low || end > high || begin > end {
        return Err(format!("{span} is not within {low} to {high}"));
    }
    Ok(())
}

fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A duration such as `1h30m` or `1.5s`.
fn every(text: &str) -> Result<(), String> {
    let problem = || format!("failed to parse duration {text:?}");
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(problem)?;
        let (amount, behind) = rest.split_at(number);
        let unit = behind.find(|letter: char| letter.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit);
        if amount.parse::<f64>().is_err() || !matches!(unit, "ns" | "us" | "ms" | "s" | "m" | "h") {
            return Err(problem());
        }
        rest = behind;
    }
    if text.is_empty() { Err(problem()) } else { Ok(()) }
}

/// `Europe/Berlin`: as the machine knows it; where it knows none at all, whatever looks like a name.
pub(super) fn time_zone(text: &str) -> Result<(), String> {
    if text.eq_ignore_ascii_case("local") {
        return Err("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned());
    }
    let letters = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-_".contains(&byte))
    };
    let database = jiff::tz::db();
    let known = database.is_definitively_empty() || database.get(text).is_ok();
    let plain = text.len() <= 64 && text.split('/').all(letters);
    if plain && (text == "UTC" || known) { Ok(()) } else { Err(format!("unknown time zone {text}")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn schedules_are_told_from_other_text() {
        for good in [
            "* * * * *",
            "*/5 0-23/2 1,15 JAN-dec Sun",
            "0 0 ? * 1-5",
            "@daily",
            "@every 1h30m",
            "@every 1.5s",
            " 5 4 * * * ",
        ] {
            assert_eq!(cron(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "1,, * * * *",
            "@often",
            "@every",
            "@every x",
            "TZ=UTC * * * * *",
            "+1 * * * *",
        ] {
            assert!(cron(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zones_are_names() {
        assert_eq!(time_zone("UTC"), Ok(()));
        for bad in ["Local", "../etc/passwd", "a//b", "x y", ""] {
            assert!(time_zone(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[*/0-9,a-z@ ?-]{0,20}|\\PC{0,12}") {
            drop(cron(&text));
            drop(every(&text));
            drop(time_zone(&text));
        }
    }
}
