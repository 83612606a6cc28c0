//! What is wrong with a field, in the words that `kubectl` shows.
//!
//! The wording is interface: client libraries and people's scripts match on it.

use std::fmt;

use serde_json::Value;

use crate::path::Path;

/// Why a field is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has to be there.
    Required,
    /// Its value breaks a rule.
    Invalid,
    /// Its value is none of those known.
    NotSupported,
    /// Its value is there already.
    Duplicate,
    /// It may not be there, or not be changed.
    Forbidden,
    /// It is longer than it may be.
    TooLong,
    /// It has more items than it may have.
    TooMany,
    /// It is of another type.
    TypeInvalid,
    /// It names something that is not there.
    NotFound,
}

impl Reason {
    /// The `reason` of a `StatusCause`.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotFound => "FieldValueNotFound",
        }
    }
}

/// One refused field. Displays as `field: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The path: `spec.template.spec.containers[0].image`.
    pub field: String,
    /// Why.
    pub reason: Reason,
    /// What follows the path: `Invalid value: -1: must be greater than or equal to 0`.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl FieldError {
    fn new(path: &Path<'_>, reason: Reason, head: &str, detail: &str) -> Self {
        let message = if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") };
        Self { field: path.to_string(), reason, message }
    }

    pub(crate) fn required(path: &Path<'_>, detail: &str) -> Self {
        Self::new(path, Reason::Required, "Required value", detail)
    }

    pub(crate) fn invalid(path: &Path<'_>, value: &Value, detail: &str) -> Self {
        Self::new(path, Reason::Invalid, &format!("Invalid value: {value}"), detail)
    }

    pub(crate) fn wrong_type(path: &Path<'_>, value: &Value, expected: &str) -> Self {
        let detail = format!("{path} in body must be of type {expected}: {value}");
        Self::new(path, Reason::TypeInvalid, &format!("Invalid value: \"{}\"", type_name(value)), &detail)
    }

    pub(crate) fn not_supported(path: &Path<'_>, value: &Value, supported: &[&str]) -> Self {
        let known: Vec<String> = supported.iter().map(|each| format!("{each:?}")).collect();
        let detail = format!("supported values: {}", known.join(", "));
        Self::new(path, Reason::NotSupported, &format!("Unsupported value: {value}"), &detail)
    }

    pub(crate) fn duplicate(path: &Path<'_>, value: &Value) -> Self {
        Self::new(path, Reason::Duplicate, &format!("Duplicate value: {value}"), "")
    }

    pub(crate) fn forbidden(path: &Path<'_>, detail: &str) -> Self {
        Self::new(path, Reason::Forbidden, "Forbidden", detail)
    }

    pub(crate) fn too_long(path: &Path<'_>, limit: usize) -> Self {
        Self::new(path, Reason::TooLong, "Too long", &format!("may not be more than {limit} bytes"))
    }

    pub(crate) fn too_many(path: &Path<'_>, actual: usize, limit: u64) -> Self {
        let detail = format!("must have at most {limit} items");
        Self::new(path, Reason::TooMany, &format!("Too many: {actual}"), &detail)
    }

    /// A value of another type, told by the name of its type.
    pub(crate) fn mistyped(path: &Path<'_>, value: &Value, expected: &str) -> Self {
        let given = type_name(value);
        let detail = format!("{path} in body must be of type {expected}: \"{given}\"");
        Self::new(path, Reason::TypeInvalid, &format!("Invalid value: \"{given}\""), &detail)
    }

    /// A refusal with a reason of the schema's choice.
    pub(crate) fn because(path: &Path<'_>, reason: Reason, value: &Value, detail: &str) -> Self {
        let head = match reason {
            Reason::Required => "Required value".to_owned(),
            Reason::Forbidden => "Forbidden".to_owned(),
            Reason::Duplicate => format!("Duplicate value: {value}"),
            _ => format!("Invalid value: {value}"),
        };
        Self::new(path, reason, &head, detail)
    }

    pub(crate) fn not_found(path: &Path<'_>, value: &Value) -> Self {
        Self::new(path, Reason::NotFound, &format!("Not found: {value}"), "")
    }
}

/// JSON Schema's word for the type of a value.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_read_as_kubectl_shows_them() {
        let spec = Path::Root.field("spec");
        let at = spec.field("replicas");
        let error = FieldError::invalid(&at, &json!(-1), "must be greater than or equal to 0");
        assert_eq!(error.to_string(), "spec.replicas: Invalid value: -1: must be greater than or equal to 0");
        let error = FieldError::not_supported(&at, &json!("x"), &["A", "B"]);
        assert_eq!(error.message, r#"Unsupported value: "x": supported values: "A", "B""#);
        assert_eq!(FieldError::required(&at, "").message, "Required value");
        let error = FieldError::wrong_type(&at, &json!("three"), "integer");
        assert_eq!(error.message, r#"Invalid value: "string": spec.replicas in body must be of type integer: "three""#);
    }
}
