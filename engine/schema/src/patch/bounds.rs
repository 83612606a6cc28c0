//! How much a patch may ask for, so that none of the recursive walks beside this file can run out of stack.

use serde_json::Value;

use super::error::PatchError;

/// How deeply a document may be nested, on either side of a patch.
///
/// `serde_json` reads 128 levels; what this module writes, and the field sets that mirror it, must stay readable.
pub const MAX_DEPTH: usize = 100;
/// How many operations a JSON patch may have.
pub const MAX_OPERATIONS: usize = 10_000;

/// Refuses a value of more than [`MAX_DEPTH`] levels.
pub(super) fn check_depth(value: &Value) -> Result<(), PatchError> {
    if fits(value, MAX_DEPTH) { Ok(()) } else { Err(PatchError::TooDeep { limit: MAX_DEPTH }) }
}

/// Whether the value has at most `levels` levels of objects and lists.
pub(super) fn fits(value: &Value, levels: usize) -> bool {
    match value {
        Value::Object(fields) => levels > 0 && fields.values().all(|inner| fits(inner, levels - 1)),
        Value::Array(items) => levels > 0 && items.iter().all(|inner| fits(inner, levels - 1)),
        _ => true,
    }
}

/// About as many bytes as the value has as JSON.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 2 + fields.iter().map(|(name, inner)| name.len() + 4 + weight(inner)).sum::<usize>(),
        Value::Array(items) => 2 + items.iter().map(|inner| 1 + weight(inner)).sum::<usize>(),
        Value::String(text) => 2 + text.len(),
        _ => 8,
    }
}

/// What a value is, for messages.
pub(super) fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
