//! Amounts in thousandths, which is how figures are compared.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use shipway_schema::quantity::Quantity;

/// Thousandths of what is written.
pub(super) fn milli(written: &Written) -> Option<i64> {
    read(&written.0)
}

/// Thousandths of a text.
pub(super) fn read(text: &str) -> Option<i64> {
    i64::try_from(Quantity::parse(text).ok()?.to_milli()).ok()
}

/// So many thousandths, as they are written.
pub(super) fn written(milli: i64) -> Written {
    Written(Quantity::from_milli(milli).to_string())
}
