//! JSON as expressions see it, and what they make as JSON.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube_cel::cel;
use kube_cel::cel::objects::{Key, Map, OptionalValue};
use serde_json::Value;

pub(super) fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(flag) => cel::Value::Bool(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => cel::Value::Int(number),
            (None, Some(number)) => cel::Value::UInt(number),
            (None, None) => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(items) => cel::Value::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let entries = fields.iter().map(|(key, value)| (Key::String(Arc::new(key.clone())), to_cel(value)));
            cel::Value::Map(Map { map: Arc::new(entries.collect()) })
        }
    }
}

/// A value as JSON; none for what is optional and not there.
pub(super) fn to_json(value: &cel::Value) -> Result<Option<Value>, String> {
    Ok(Some(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(flag) => (*flag).into(),
        cel::Value::Int(number) => (*number).into(),
        cel::Value::UInt(number) => (*number).into(),
        cel::Value::Float(number) => {
            serde_json::Number::from_f64(*number).map(Value::Number).ok_or_else(|| format!("{number} is no JSON"))?
        }
        cel::Value::String(text) => text.as_str().into(),
        cel::Value::Bytes(bytes) => BASE64_STANDARD.encode(bytes.as_slice()).into(),
        cel::Value::List(items) => {
            let items = items.iter().filter_map(|item| to_json(item).transpose());
            Value::Array(items.collect::<Result<_, String>>()?)
        }
        cel::Value::Map(map) => Value::Object(to_fields(map)?),
        cel::Value::Opaque(opaque) => match opaque.downcast_ref::<OptionalValue>() {
            Some(optional) => return optional.value().map_or(Ok(None), to_json),
            None => return Err(format!("{} is no JSON", opaque.runtime_type_name())),
        },
        other => return Err(format!("{} is no JSON", other.type_of())),
    }))
}

/// The entries of a map by name, so that the same map gives the same bytes.
fn to_fields(map: &Map) -> Result<serde_json::Map<String, Value>, String> {
    let mut fields: Vec<(String, Value)> = Vec::with_capacity(map.map.len());
    for (key, value) in map.map.iter() {
        let Key::String(key) = key else { return Err("the keys of an object are strings".into()) };
        fields.extend(to_json(value)?.map(|value| (key.to_string(), value)));
    }
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(fields.into_iter().collect())
}
