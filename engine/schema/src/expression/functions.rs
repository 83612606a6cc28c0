//! The functions that expanded macros call, and those that the library lacks.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::extractors::This;
use kube_cel::cel::objects::{Key, Map, OptionalValue};
use kube_cel::cel::{Context, ExecutionError, Value};

/// A list's places and items, or a map's keys and values in their order.
pub(super) const PAIRS: &str = "@pairs";
/// A map with one entry more.
pub(super) const INSERT: &str = "@insert";
/// A map with the entries of another.
pub(super) const MERGE: &str = "@merge";
/// A list in the order of the keys in another list.
pub(super) const SORT: &str = "@sortBy";
/// What an optional holds, as a list.
pub(super) const PRESENT: &str = "@present";
/// The only item of a list as an optional.
pub(super) const ONLY: &str = "@only";
/// The only item of the only list in a list as an optional.
pub(super) const INNER: &str = "@inner";

/// Whether only expanded macros call the function; its name cannot be written.
pub fn is_expanded(function: &str) -> bool {
    [PAIRS, INSERT, MERGE, SORT, PRESENT, ONLY, INNER].contains(&function)
}

type Made = Result<Value, ExecutionError>;

/// Adds the functions to a context.
pub fn register(context: &mut Context<'_>) {
    context.add_function(PAIRS, |over: Value| pairs(&over));
    context.add_function(INSERT, |into: Value, key: Value, value: Value| insert(into, &[(key, value)]));
    context.add_function(MERGE, |into: Value, more: Value| {
        let entries: Vec<(Value, Value)> = match more {
            Value::Map(map) => map.map.iter().map(|(key, value)| (key_value(key), value.clone())).collect(),
            _ => return Err(ExecutionError::NoSuchOverload),
        };
        insert(into, &entries)
    });
    // The library gives a named format as it is, which is documented to be an optional.
    context.add_function("hasValue", |This(this): This<Value>| -> Result<bool, ExecutionError> {
        Ok(is_format(&this) || <&OptionalValue>::try_from(&this)?.value().is_some())
    });
    context.add_function("value", |This(this): This<Value>| -> Made {
        if is_format(&this) {
            return Ok(this);
        }
        let held = <&OptionalValue>::try_from(&this)?.value().cloned();
        held.ok_or_else(|| ExecutionError::function_error("value", "optional.none() dereference"))
    });
    context.add_function(SORT, |list: Value, keys: Value| sort(&list, &keys));
    context.add_function(PRESENT, |optional: Value| -> Made {
        let held = <&OptionalValue>::try_from(&optional)?.value().cloned();
        Ok(Value::List(Arc::new(held.into_iter().collect())))
    });
    context.add_function(ONLY, |list: Value| -> Made { Ok(wrapped(items(&list)?.first())) });
    context.add_function(INNER, |list: Value| -> Made {
        let inner = items(&list)?.first().map(|inner| items(inner)).transpose()?;
        Ok(wrapped(inner.and_then(<[Value]>::first)))
    });
}

fn is_format(value: &Value) -> bool {
    matches!(value, Value::Opaque(held) if held.runtime_type_name() == "kubernetes.Format")
}

fn items(value: &Value) -> Result<&[Value], ExecutionError> {
    match value {
        Value::List(items) => Ok(items.as_slice()),
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

fn wrapped(value: Option<&Value>) -> Value {
    Value::Opaque(Arc::new(value.map_or_else(OptionalValue::none, |value| OptionalValue::of(value.clone()))))
}

fn key_value(key: &Key) -> Value {
    match key {
        Key::Int(number) => Value::Int(*number),
        Key::Uint(number) => Value::UInt(*number),
        Key::Bool(flag) => Value::Bool(*flag),
        Key::String(text) => Value::String(text.clone()),
    }
}

fn pairs(over: &Value) -> Made {
    let pair = |key: Value, value: &Value| Value::List(Arc::new(vec![key, value.clone()]));
    let pairs = match over {
        Value::List(items) => {
            let place = |at: usize| Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
            items.iter().enumerate().map(|(at, item)| pair(place(at), item)).collect()
        }
        Value::Map(map) => {
            let mut entries: Vec<(&Key, &Value)> = map.map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            entries.into_iter().map(|(key, value)| pair(key_value(key), value)).collect()
        }
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    Ok(Value::List(Arc::new(pairs)))
}

fn insert(into: Value, entries: &[(Value, Value)]) -> Made {
    let Value::Map(map) = into else { return Err(ExecutionError::NoSuchOverload) };
    let mut map: HashMap<Key, Value> = Arc::unwrap_or_clone(map.map);
    for (key, value) in entries {
        let key: Key = key.clone().try_into().map_err(|_: Value| ExecutionError::NoSuchOverload)?;
        let text = key.to_string();
        if map.insert(key, value.clone()).is_some() {
            let text: String = text.chars().take(64).collect();
            return Err(ExecutionError::function_error(
                "insert",
                format!("insert failed: key '{text}' already exists"),
            ));
        }
    }
    Ok(Value::Map(Map { map: Arc::new(map) }))
}

/// Keys must be of one type that has an order.
fn sort(list: &Value, keys: &Value) -> Made {
    let (items, keys) = (items(list)?, items(keys)?);
    let mut order: Vec<(&Value, &Value)> = keys.iter().zip(items).collect();
    let alike = |key: &Value| std::mem::discriminant(key) == std::mem::discriminant(&keys[0]);
    if !keys.iter().all(|key| alike(key) && key.partial_cmp(key).is_some()) {
        return Err(ExecutionError::function_error("sortBy", "keys must be comparable and of one type"));
    }
    order.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    Ok(Value::List(Arc::new(order.into_iter().map(|(_, item)| item.clone()).collect())))
}
