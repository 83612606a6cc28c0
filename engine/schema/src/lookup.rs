//! Reading places of a document by dotted path.
//!
//! A missing place, a `null` on the way and a value of another type all read as absent: documents that break their
//! schema are refused elsewhere, and nothing here may panic on them.

use serde_json::{Map, Value};

/// The value at `spec.template.spec`; list items are named by their index.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let found = path.split('.').try_fold(value, |value, name| match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        other => other.get(name),
    })?;
    Some(found).filter(|found| !found.is_null())
}

/// The text at a path, empty if there is none.
pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or("")
}

/// The whole number at a path.
pub(crate) fn integer(value: &Value, path: &str) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// Whether `true` stands at a path.
pub(crate) fn flag(value: &Value, path: &str) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The items of the list at a path.
pub(crate) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The entries of the object at a path.
pub(crate) fn entries<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
    at(value, path).and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// The value at a path, to change.
pub(crate) fn at_mut<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').try_fold(value, |value, name| value.get_mut(name))
}

/// The items of the list at a path, to change.
pub(crate) fn list_mut<'a>(value: &'a mut Value, path: &str) -> &'a mut [Value] {
    match at_mut(value, path) {
        Some(Value::Array(items)) => items,
        _ => &mut [],
    }
}

/// The object under a name, made if there is none; `None` where `value` or what it holds is something else.
pub(crate) fn make_object<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    let place = value.as_object_mut()?.entry(name).or_insert(Value::Null);
    if place.is_null() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut()
}

/// Sets a field of an object.
pub(crate) fn set(value: &mut Value, name: &str, new: impl Into<Value>) {
    if let Some(object) = value.as_object_mut() {
        object.insert(name.to_owned(), new.into());
    }
}

/// Removes a field, keeping the order of the others.
pub(crate) fn remove(value: &mut Value, name: &str) -> Option<Value> {
    value.as_object_mut()?.shift_remove(name)
}

/// Sets a field that is missing, whatever value it might have: what a Go pointer is for.
pub(crate) fn fill(value: &mut Value, name: &str, default: impl Into<Value>) {
    if value.get(name).is_none_or(Value::is_null) {
        set(value, name, default);
    }
}

/// Sets a field that is missing or holds its type's zero value: what a plain Go field is.
pub(crate) fn fill_zero(value: &mut Value, name: &str, default: impl Into<Value>) {
    let zero = match value.get(name) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(_) => false,
    };
    if zero {
        set(value, name, default);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_of_another_type_read_as_absent() {
        let value = json!({ "spec": { "replicas": "x", "containers": [{ "name": "a" }], "none": null } });
        assert_eq!(text(&value, "spec.containers.0.name"), "a");
        assert_eq!(integer(&value, "spec.replicas"), None);
        assert_eq!(at(&value, "spec.none"), None);
        assert!(list(&value, "spec.replicas").is_empty());
        assert_eq!(text(&value, "spec.replicas.more"), "");
    }

    #[test]
    fn zero_values_are_filled_only_where_they_mean_nothing() {
        let mut value = json!({ "a": "", "b": 0 });
        fill(&mut value, "a", "x");
        fill_zero(&mut value, "b", 7);
        assert_eq!(value, json!({ "a": "", "b": 7 }));
    }
}
