//! What evaluating may cost, and the clock beside it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube_cel::cel::Value;
use kube_cel::cel::context::VariableResolver;
use shipway_schema::expression::LENT;

/// What one request's expressions may cost together. A step of a loop costs one, a value as much as it is large.
const BUDGET: i64 = 10_000_000;
/// What they may take together.
const TIME: Duration = Duration::from_secs(1);

/// The account of one request's expressions.
pub(super) struct Meter {
    left: AtomicI64,
    exhausted: AtomicBool,
    /// What of the time is used up, and since when the present expression runs.
    clock: Mutex<(Duration, Instant)>,
}

impl Default for Meter {
    fn default() -> Self {
        let clock = Mutex::new((Duration::ZERO, Instant::now()));
        Self { left: AtomicI64::new(BUDGET), exhausted: AtomicBool::new(false), clock }
    }
}

impl Meter {
    /// An expression begins.
    pub(super) fn begin(&self) {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).1 = Instant::now();
    }

    /// Charges a cost; false when nothing more may be done.
    pub(super) fn charge(&self, cost: usize) -> bool {
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(cost)));
        let left = left.unwrap_or_default();
        if left <= cost || self.is_late() {
            self.exhausted.store(true, Ordering::Relaxed);
        }
        !self.is_exhausted()
    }

    fn is_late(&self) -> bool {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let used = clock.0 + (now - clock.1);
        *clock = (used, now);
        used > TIME
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }
}

/// Every look at a variable is charged, and shows nothing when the account is empty.
impl VariableResolver for Meter {
    fn resolve(&self, name: &str) -> Option<Value> {
        (name != LENT && !self.charge(1)).then_some(Value::Null)
    }
}

/// About how large a value is.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => 1 + text.len(),
        Value::Bytes(bytes) => 1 + bytes.len(),
        Value::List(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Map(map) => 1 + map.map.values().map(|value| 8 + weight(value)).sum::<usize>(),
        _ => 1,
    }
}
