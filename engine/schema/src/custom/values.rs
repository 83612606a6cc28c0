//! Whether a value satisfies a custom resource's schema, and where it does not.
//!
//! What an update leaves as it was is not judged again: an object that was valid under an older schema can still be
//! changed elsewhere. Members of objects and maps, and the items of keyed lists, are compared one by one; other lists as a
//! whole.

use serde_json::{Map, Number, Value};

use super::formats;
use crate::invalid::{FieldError, type_name};
use crate::path::Path;
use crate::tree::{Checks, Kind, ListType, Schema};

/// After so many errors the rest is not looked for.
const ENOUGH: usize = 64;

/// A value in a message is shown up to so many bytes; of a larger one only its type is told.
const SHOWN: usize = 8 * 1024;

/// Everything that is wrong with a value; `old` is what it replaces.
pub(crate) fn check(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Found::Listed(Vec::new());
    walk(schema, value, old, &Path::Root, &mut errors);
    errors.list()
}

/// The same at a path of a larger document.
pub(crate) fn check_at(schema: &Schema, value: &Value, path: &Path<'_>) -> Vec<FieldError> {
    let mut errors = Found::Listed(Vec::new());
    walk(schema, value, None, path, &mut errors);
    errors.list()
}

/// Whether a value satisfies a schema, without words.
fn fits(schema: &Schema, value: &Value) -> bool {
    let mut errors = Found::Asked(false);
    walk(schema, value, None, &Path::Root, &mut errors);
    matches!(errors, Found::Asked(false))
}

/// What was found: errors in words, or only whether there is one, where alternatives are tried.
enum Found {
    Listed(Vec<FieldError>),
    Asked(bool),
}

impl Found {
    fn push(&mut self, error: impl FnOnce() -> FieldError) {
        match self {
            Self::Listed(errors) => errors.push(error()),
            Self::Asked(any) => *any = true,
        }
    }

    /// Whether there is no reason to look any further.
    fn is_enough(&self) -> bool {
        match self {
            Self::Listed(errors) => errors.len() >= ENOUGH,
            Self::Asked(any) => *any,
        }
    }

    fn list(self) -> Vec<FieldError> {
        match self {
            Self::Listed(errors) => errors,
            Self::Asked(_) => Vec::new(),
        }
    }
}

fn invalid(path: &Path<'_>, value: &Value, detail: &str) -> FieldError {
    let large = (value.is_object() || value.is_array()) && value.to_string().len() > SHOWN;
    let named = if large { type_name(value).into() } else { Value::Null };
    FieldError::invalid(path, if large { &named } else { value }, detail)
}

fn walk(schema: &Schema, value: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut Found) {
    if errors.is_enough() || old == Some(value) || (value.is_null() && schema.nullable()) {
        return;
    }
    if let Some(error) = type_error(schema, value, path) {
        return errors.push(|| error);
    }
    if let Some(checks) = schema.checks() {
        own(checks, value, path, errors);
        combined(schema, checks, value, path, errors);
    }
    match value {
        Value::Object(object) => members(schema, object, old, path, errors),
        Value::Array(items) => list(schema, items, old, path, errors),
        _ => {}
    }
}

fn type_error(schema: &Schema, value: &Value, path: &Path<'_>) -> Option<FieldError> {
    let expected = match (schema.kind(), value) {
        (Kind::Any, _)
        | (Kind::Boolean, Value::Bool(_))
        | (Kind::Number, Value::Number(_))
        | (Kind::String, Value::String(_))
        | (Kind::Object | Kind::Map, Value::Object(_))
        | (Kind::List, Value::Array(_)) => return formats::error(schema, value, path),
        (Kind::Integer, Value::Number(number)) if is_whole(number) => return formats::error(schema, value, path),
        (Kind::IntOrString, Value::String(_)) => return None,
        (Kind::IntOrString, Value::Number(number)) if is_whole(number) => return None,
        (Kind::Boolean, _) => "boolean",
        (Kind::Integer, _) => "integer",
        (Kind::Number, _) => "number",
        (Kind::String, _) => "string",
        (Kind::IntOrString, _) => "integer,string",
        (Kind::List, _) => "array",
        (Kind::Object | Kind::Map, _) => "object",
    };
    Some(FieldError::mistyped(path, value, expected))
}

fn is_whole(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// The constraints on the value itself.
fn own(checks: &Checks, value: &Value, path: &Path<'_>, errors: &mut Found) {
    let mut refuse = |detail: String| errors.push(|| invalid(path, value, &format!("{path} in body {detail}")));
    match value {
        Value::Number(number) => {
            for detail in number_problems(checks, number) {
                refuse(detail);
            }
        }
        Value::String(text) => {
            let length = text.chars().count() as u64;
            if let Some(least) = checks.lengths.least.filter(|least| length < *least) {
                refuse(format!("should be at least {least} chars long"));
            }
            if let Some(pattern) = checks.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
                refuse(format!("should match '{}'", pattern.text));
            }
            if let Some(most) = checks.lengths.most.filter(|most| length > *most) {
                errors.push(|| FieldError::too_long(path, usize::try_from(most).unwrap_or(usize::MAX)));
            }
        }
        Value::Array(items) => {
            if let Some(least) = checks.items.least.filter(|least| (items.len() as u64) < *least) {
                refuse(format!("should have at least {least} items"));
            }
            if let Some(most) = checks.items.most.filter(|most| items.len() as u64 > *most) {
                errors.push(|| FieldError::too_many(path, items.len(), most));
            }
        }
        Value::Object(object) => {
            if let Some(least) = checks.properties.least.filter(|least| (object.len() as u64) < *least) {
                refuse(format!("should have at least {least} properties"));
            }
            if let Some(most) = checks.properties.most.filter(|most| object.len() as u64 > *most) {
                errors.push(|| FieldError::too_many(path, object.len(), most));
            }
        }
        _ => {}
    }
    if !checks.allowed.is_empty() && !checks.allowed.iter().any(|allowed| same(allowed, value)) {
        errors.push(|| unsupported(path, value, &checks.allowed));
    }
}

fn unsupported(path: &Path<'_>, value: &Value, allowed: &[Value]) -> FieldError {
    let words: Vec<String> =
        allowed.iter().map(|each| each.as_str().map_or_else(|| each.to_string(), str::to_owned)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    FieldError::not_supported(path, value, &words)
}

/// JSON does not tell `1` from `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn number_problems(checks: &Checks, number: &Number) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some((least, excluded)) = &checks.minimum
        && (less(number, least) || (*excluded && !less(least, number)))
    {
        let or_equal = if *excluded { "" } else { "or equal to " };
        problems.push(format!("should be greater than {or_equal}{least}"));
    }
    if let Some((most, excluded)) = &checks.maximum
        && (less(most, number) || (*excluded && !less(number, most)))
    {
        let or_equal = if *excluded { "" } else { "or equal to " };
        problems.push(format!("should be less than {or_equal}{most}"));
    }
    if let Some(step) = checks.multiple_of.as_ref().filter(|step| !is_multiple(number, step)) {
        problems.push(format!("should be a multiple of {step}"));
    }
    problems
}

fn less(a: &Number, b: &Number) -> bool {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a < b,
        _ => a.as_f64().unwrap_or(f64::NAN) < b.as_f64().unwrap_or(f64::NAN),
    }
}

fn is_multiple(number: &Number, step: &Number) -> bool {
    match (number.as_i64(), step.as_i64()) {
        (Some(number), Some(step)) if step != 0 => number.checked_rem(step).unwrap_or(0) == 0,
        _ => {
            let times = number.as_f64().unwrap_or(f64::NAN) / step.as_f64().unwrap_or(f64::NAN);
            (times - times.round()).abs() < 1e-9
        }
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn combined(schema: &Schema, checks: &Checks, value: &Value, path: &Path<'_>, errors: &mut Found) {
    let mut refuse = |detail: String| {
        errors.push(|| invalid(path, value, &format!("{:?} {detail}", path.to_string())));
    };
    let fitting = |branches: &[u32]| schema.branches(branches).filter(|branch| fits(branch, value)).count();
    if checks.not.is_some_and(|not| fitting(&[not]) == 1) {
        refuse("must not validate the schema (not)".into());
    }
    if !checks.any_of.is_empty() && !schema.branches(&checks.any_of).any(|branch| fits(&branch, value)) {
        refuse("must validate at least one schema (anyOf)".into());
    }
    if !checks.one_of.is_empty() {
        match fitting(&checks.one_of) {
            1 => {}
            0 => refuse("must validate one and only one schema (oneOf). Found none valid".into()),
            several => {
                refuse(format!("must validate one and only one schema (oneOf). Found {several} valid alternatives"));
            }
        }
    }
    for branch in schema.branches(&checks.all_of) {
        walk(&branch, value, None, path, errors);
    }
}

fn members(schema: &Schema, object: &Map<String, Value>, old: Option<&Value>, path: &Path<'_>, errors: &mut Found) {
    for name in schema.required() {
        if !object.contains_key(&**name) {
            errors.push(|| FieldError::required(&path.field(name), ""));
        }
    }
    if schema.is_embedded_resource() {
        embedded(object, path, errors);
    }
    for (name, value) in object {
        // The metadata of an object is judged elsewhere, in its own words.
        if let Some(field) = schema.field(name).filter(|field| field.definition().is_none()) {
            walk(&field, value, old.and_then(|old| old.get(name)), &path.field(name), errors);
        }
    }
}

/// An object within the object has to say what it is.
fn embedded(object: &Map<String, Value>, path: &Path<'_>, errors: &mut Found) {
    for name in ["apiVersion", "kind"] {
        if object.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
            errors.push(|| FieldError::required(&path.field(name), "must not be empty"));
        }
    }
}

fn list(schema: &Schema, items: &[Value], old: Option<&Value>, path: &Path<'_>, errors: &mut Found) {
    let Some(inner) = schema.inner() else { return };
    let before = old.and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
    match schema.list_type() {
        ListType::Map(keys) => {
            let before = Keyed::of(before, keys);
            let mut seen = Keyed::default();
            for (index, item) in items.iter().enumerate() {
                let key = key_of(item, keys);
                if seen.0.insert(key.clone(), item).is_some() {
                    errors.push(|| FieldError::duplicate(&path.index(index), &described(item, keys)));
                }
                walk(&inner, item, before.0.get(&key).copied(), &path.index(index), errors);
            }
        }
        kind => {
            let mut seen = std::collections::HashSet::new();
            for (index, item) in items.iter().enumerate() {
                if *kind == ListType::Set && !seen.insert(item.to_string()) {
                    errors.push(|| FieldError::duplicate(&path.index(index), item));
                }
                walk(&inner, item, None, &path.index(index), errors);
            }
        }
    }
}

/// The items of a keyed list by their keys.
#[derive(Default)]
struct Keyed<'a>(std::collections::HashMap<String, &'a Value>);

impl<'a> Keyed<'a> {
    fn of(items: &'a [Value], keys: &[Box<str>]) -> Self {
        Self(items.iter().map(|item| (key_of(item, keys), item)).collect())
    }
}

/// What tells an item of a keyed list from the others.
pub(crate) fn key_of(item: &Value, keys: &[Box<str>]) -> String {
    let values: Vec<String> = keys.iter().map(|key| item.get(&**key).unwrap_or(&Value::Null).to_string()).collect();
    values.join("\u{0}")
}

/// The keys of an item, for a message.
fn described(item: &Value, keys: &[Box<str>]) -> Value {
    let own = keys.iter().filter_map(|key| Some((key.to_string(), item.get(&**key)?.clone())));
    Value::Object(own.collect())
}

#[cfg(test)]
mod tests;
