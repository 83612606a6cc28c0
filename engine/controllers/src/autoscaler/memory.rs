//! What an autoscaler remembers between two looks, and how that slows it down: recommendations against trembling, and
//! changes against haste.

use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::figures::milli;

/// By how much a metric may be off when nobody says otherwise.
const TOLERANCE: f64 = 0.1;
/// How long the highest recommendation holds against fewer, when nobody says otherwise.
const CALM: i32 = 300;
/// No window and no period is longer: validation sees to it.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// The way that a number of replicas goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

/// How fast a way may be gone.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    direction: Direction,
    window: SignedDuration,
    select: String,
    policies: Vec<HPAScalingPolicy>,
    pub(super) tolerance: f64,
}

impl Rules {
    /// What an autoscaler says about a direction, and what is usual for the rest.
    pub(super) fn of(direction: Direction, said: Option<&HPAScalingRules>) -> Self {
        let said = said.cloned().unwrap_or_default();
        let usual = if direction == Direction::Up { 0 } else { CALM };
        let policy = |kind: &str, value| HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds: 15 };
        let policies = said.policies.filter(|policies| !policies.is_empty()).unwrap_or_else(|| match direction {
            Direction::Up => vec![policy("Percent", 100), policy("Pods", 4)],
            Direction::Down => vec![policy("Percent", 100)],
        });
        let tolerance = said.tolerance.and_then(|amount| milli(&amount));
        Self {
            direction,
            window: seconds(said.stabilization_window_seconds.unwrap_or(usual)),
            select: said.select_policy.unwrap_or_else(|| "Max".to_owned()),
            policies,
            #[expect(clippy::cast_precision_loss, reason = "a tolerance is a small number")]
            tolerance: tolerance.map_or(TOLERANCE, |tolerance| tolerance as f64 / 1000.0),
        }
    }
}

/// What was recommended and done, newest last; bounded by the longest window and one look in [`super::PERIOD`].
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    recommended: Vec<(Timestamp, i32)>,
    /// By how many the replicas were changed.
    changed: Vec<(Timestamp, i32)>,
}

impl Memory {
    /// Takes a recommendation in and gives what the recent ones make of it: the lowest of them on the way up, the highest on
    /// the way down.
    pub(super) fn stabilized(
        &mut self,
        (current, desired): (i32, i32),
        (up, down): (&Rules, &Rules),
        now: Timestamp,
    ) -> i32 {
        self.recommended.retain(|(at, _)| now.duration_since(*at) <= LONGEST);
        if self.recommended.is_empty() {
            self.recommended.push((now, current));
        }
        let recent = |rules: &Rules| {
            let window = rules.window;
            let fits = move |(at, _): &&(Timestamp, i32)| now.duration_since(*at) < window;
            self.recommended.iter().filter(fits).map(|(_, replicas)| *replicas)
        };
        let lowest = recent(up).chain([desired]).min().unwrap_or(desired);
        let highest = recent(down).chain([desired]).max().unwrap_or(desired);
        self.recommended.push((now, desired));
        // Not clamped: the lowest may be above the highest.
        current.max(lowest).min(highest)
    }

    /// Notes that the replicas were changed.
    pub(super) fn note(&mut self, by: i32, now: Timestamp) {
        self.changed.retain(|(at, _)| now.duration_since(*at) <= LONGEST);
        self.changed.push((now, by));
    }

    /// How far the policies of a direction let the replicas go from `current`; at least there.
    pub(super) fn limit(&self, current: i32, rules: &Rules, now: Timestamp) -> i32 {
        let up = rules.direction == Direction::Up;
        let proposals = rules.policies.iter().map(|policy| {
            let recent = self.changed.iter().filter(|(at, _)| now.duration_since(*at) < seconds(policy.period_seconds));
            let began = recent.fold(current, |began, (_, by)| began.saturating_sub(*by));
            let value = if up { policy.value } else { policy.value.saturating_neg() };
            if policy.type_ == "Pods" { began.saturating_add(value) } else { percent(began, value, up) }
        });
        // The policy that changes the most decides, or with `Min` the one that changes the least.
        let farthest = match rules.select.as_str() {
            "Disabled" => None,
            select if (select == "Min") == up => proposals.min(),
            _ => proposals.max(),
        };
        let farthest = farthest.unwrap_or(current);
        if up { farthest.max(current) } else { farthest.min(current) }
    }
}

/// So many hundredths more, rounded up, or fewer, rounded down.
fn percent(of: i32, by: i32, up: bool) -> i32 {
    let hundredths = i64::from(of) * (100 + i64::from(by));
    let whole =
        if up { hundredths.div_euclid(100) + i64::from(hundredths.rem_euclid(100) > 0) } else { hundredths / 100 };
    i32::try_from(whole).unwrap_or(i32::MAX)
}

fn seconds(count: i32) -> SignedDuration {
    SignedDuration::from_secs(count.into())
}
