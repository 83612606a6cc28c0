//! From JSON to the values that expressions see: only what the schema describes, under names that expressions can say.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube_cel::cel::Value as Cel;
use kube_cel::cel::objects::{Key, Map};
use serde_json::Value;

use crate::duration::nanoseconds;
use crate::tree::{Kind, OBJECT_META, Schema};

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name of a field as expressions write it.
pub(super) fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

fn key(name: impl Into<String>) -> Key {
    Key::String(Arc::new(name.into()))
}

/// The value as an expression sees it.
pub(super) fn to_cel(schema: &Schema, value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) if schema.kind() == Kind::Number => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Cel::Int(whole),
            None if schema.kind() == Kind::Integer =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "a whole number that was checked to be one")]
                Cel::Int(number.as_f64().unwrap_or(0.0) as i64)
            }
            None => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => to_text(schema, text),
        Value::Array(items) => {
            let inner = schema.inner();
            let convert = |item| inner.as_ref().map_or_else(|| raw(item), |inner| to_cel(inner, item));
            Cel::List(Arc::new(items.iter().map(convert).collect()))
        }
        Value::Object(object) => {
            let mut map = HashMap::with_capacity(object.len());
            let metadata = schema.definition() == Some(OBJECT_META);
            for (name, value) in object {
                if metadata && !matches!(name.as_str(), "name" | "generateName") {
                    continue;
                }
                match (schema.kind(), schema.field(name)) {
                    (Kind::Map, Some(field)) => drop(map.insert(key(name.as_str()), to_cel(&field, value))),
                    (_, Some(field)) => drop(map.insert(key(escaped(name)), to_cel(&field, value))),
                    (Kind::Any | Kind::Map, None) => drop(map.insert(key(name.as_str()), raw(value))),
                    _ => {}
                }
            }
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

fn to_text(schema: &Schema, text: &str) -> Cel {
    let special = match schema.format().filter(|_| schema.kind() == Kind::String) {
        Some("date-time" | "datetime") => chrono::DateTime::parse_from_rfc3339(text).ok().map(Cel::Timestamp),
        Some("date") => chrono::DateTime::parse_from_rfc3339(&format!("{text}T00:00:00Z")).ok().map(Cel::Timestamp),
        Some("duration") => nanoseconds(text).map(|nanos| Cel::Duration(chrono::Duration::nanoseconds(nanos))),
        Some("byte") => STANDARD.decode(text).ok().map(|bytes| Cel::Bytes(Arc::new(bytes))),
        _ => None,
    };
    special.unwrap_or_else(|| Cel::String(Arc::new(text.to_owned())))
}

/// A value that no schema describes.
fn raw(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Cel::Float(number.as_f64().unwrap_or(f64::NAN)), Cel::Int)
        }
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(raw).collect())),
        Value::Object(object) => {
            let map = object.iter().map(|(name, value)| (key(name.as_str()), raw(value)));
            Cel::Map(Map { map: Arc::new(map.collect()) })
        }
    }
}
