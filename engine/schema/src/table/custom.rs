//! The cells of a custom resource's columns: a value that a path found, printed as the column's type says.

use jiff::Timestamp;
use serde_json::Value;

use super::human;

/// A cell; nothing there is `null`, which `kubectl` shows as `<none>`.
pub(super) fn cell(kind: &str, found: Option<&Value>, now: Timestamp) -> Value {
    let Some(value) = found.filter(|value| !value.is_null()) else { return Value::Null };
    match (kind, value) {
        ("string", Value::String(text)) => text.as_str().into(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(number)) => {
            #[expect(clippy::cast_possible_truncation, reason = "a fraction is cut off, as upstream does")]
            let whole = number.as_i64().or_else(|| number.as_f64().map(|number| number as i64));
            whole.map_or(Value::Null, Value::from)
        }
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(_) => human::since(text, now).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cell_is_of_its_columns_type_or_nothing() {
        let now: Timestamp = "2024-01-01T00:01:00Z".parse().expect("a time");
        let print = |kind: &str, value: Value| cell(kind, Some(&value), now);
        assert_eq!(print("string", json!({ "a": 1 })), json!(r#"{"a":1}"#));
        assert_eq!(print("string", json!(3)), json!("3"));
        assert_eq!(print("integer", json!(2.7)), json!(2));
        assert_eq!(print("integer", json!("2")), Value::Null);
        assert_eq!(print("date", json!("2024-01-01T00:00:00Z")), json!("60s"));
        assert_eq!(print("date", json!("soon")), json!("<invalid>"));
        assert_eq!(print("boolean", json!(true)), json!(true));
        assert_eq!(cell("string", None, now), Value::Null);
    }
}
