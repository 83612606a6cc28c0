//! Targets that read bytes or text: bodies, selectors, quantities.

use serde_json::Value;
use shipway_schema::quantity::Quantity;
use shipway_schema::selector::{FieldSelector, LabelSelector};
use shipway_schema::{MAX_DEPTH, decode_json as read_json, decode_protobuf as read_protobuf};

use super::targets::{depth, registry};

/// What is read is within bounds, and is read alike once written again.
pub fn decode_json(body: &[u8]) {
    let Ok((value, duplicates)) = read_json(body) else { return };
    assert!(depth(&value) <= MAX_DEPTH);
    let (again, none) = read_json(value.to_string().as_bytes()).expect("what was read can be written and read");
    assert!(again == value && none.is_empty());
    assert!(duplicates.iter().map(String::len).sum::<usize>() <= 2 * body.len() + (64 << 10));
}

/// What is read names its kind, is within bounds, and does not grow beyond reason.
pub fn decode_protobuf(body: &[u8]) {
    let Ok(value) = read_protobuf(registry(), body) else { return };
    assert!(value["apiVersion"].is_string() && value["kind"].is_string());
    assert!(depth(&value) <= MAX_DEPTH + 1);
    read_json(value.to_string().as_bytes()).expect("what was read can be written and read");
}

/// Printing and reading again gives the same selector, in both notations.
pub fn label_selector(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let selector = match serde_json::from_str::<Value>(text) {
        Ok(value) => LabelSelector::from_value(&value),
        Err(_) => LabelSelector::parse(text),
    };
    let Ok(selector) = selector else { return };
    selector.matches(|key| (key.len() % 2 == 0).then_some("5"));
    if selector == LabelSelector::nothing() {
        return;
    }
    assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
}

/// Printing and reading again gives the same selector.
pub fn field_selector(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(selector) = FieldSelector::parse(text) else { return };
    selector.matches(|field| (field.len() % 2 == 0).then(|| field.to_owned()));
    assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector));
}

/// Printing and reading again gives the same amount, and prints the same.
pub fn quantity(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(amount) = Quantity::parse(text) else { return };
    let printed = amount.to_string();
    let again = Quantity::parse(&printed).expect("what was printed can be read");
    assert_eq!((again, again.to_string()), (amount, printed));
    assert!(amount.to_units().unsigned_abs() <= amount.to_milli().unsigned_abs());
    assert_eq!(amount.checked_sub(&again), Some(Quantity::ZERO));
    assert!(amount.checked_add(&again).is_none_or(|double| double.is_negative() == amount.is_negative()));
}
