//! What the rows of `metrics.k8s.io` say.

use serde_json::Value;

use super::{NAME, column};
use crate::lookup::{list, text};
use crate::quantity::Quantity;
use crate::resource::{Cell, Column};

pub(crate) const NODE_METRICS: &[Column] =
    &[NAME, column("CPU", Cell::Text("usage.cpu", "")), column("Memory", Cell::Text("usage.memory", "")), WINDOW];

pub(crate) const POD_METRICS: &[Column] = &[
    NAME,
    column("CPU", Cell::With(|pod, _| sum(pod, "usage.cpu"))),
    column("Memory", Cell::With(|pod, _| sum(pod, "usage.memory"))),
    WINDOW,
];

const WINDOW: Column = column("Window", Cell::Text("window", ""));

/// What all containers use together.
fn sum(pod: &Value, path: &str) -> Value {
    let amounts = list(pod, "containers").iter().filter_map(|one| Quantity::parse(text(one, path)).ok());
    amounts
        .reduce(|sum, one| sum.checked_add(&one).unwrap_or(sum))
        .map(|sum| sum.to_string())
        .unwrap_or_default()
        .into()
}
