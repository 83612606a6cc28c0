//! Strategic merge patch: a merge patch that knows from the schema which lists merge, and by which key.
//!
//! Directives: `$patch` (merge, replace, delete), `$retainKeys`, `$setElementOrder/<field>` and
//! `$deleteFromPrimitiveList/<field>`. Directives and nulls never reach the result. Where the schema does not know a
//! field, it merges like a merge patch.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::bounds::{check_depth, describe};
use super::error::PatchError;
use super::merge::remove_nulls;
use super::path::Path;
use super::walk::check_container;
use crate::tree::Schema;

mod list;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

/// Applies the patch; when it is refused, the target is as before. A target that is no object counts as empty.
pub fn strategic(schema: &Schema, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    check_depth(patch)?;
    let Value::Object(patch) = patch else {
        return Err(PatchError::NotAnObject { found: describe(patch) });
    };
    let mut fields = target.as_object().cloned().unwrap_or_default();
    merge_object(Some(schema), &mut fields, patch, &Path::ROOT)?;
    *target = Value::Object(fields);
    Ok(())
}

/// What `$patch` says of the object that holds it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

impl Directive {
    fn of(patch: &Map<String, Value>, place: &Path<'_>) -> Result<Self, PatchError> {
        let Some(directive) = patch.get(PATCH) else {
            return Ok(Self::Merge);
        };
        match directive.as_str() {
            Some("merge") => Ok(Self::Merge),
            Some("replace") => Ok(Self::Replace),
            Some("delete") => Ok(Self::Delete),
            _ => Err(PatchError::UnknownDirective { field: place.to_string(), directive: directive.to_string() }),
        }
    }
}

/// What a name in a patch stands for.
enum Name<'a> {
    Field,
    /// Speaks of the whole object; read elsewhere.
    OfObject,
    Order(&'a str),
    Deletions(&'a str),
}

impl<'a> Name<'a> {
    fn of(name: &'a str) -> Self {
        if name == PATCH || name == RETAIN_KEYS {
            return Self::OfObject;
        }
        if let Some(field) = name.strip_prefix(SET_ELEMENT_ORDER) {
            return Self::Order(field);
        }
        name.strip_prefix(DELETE_FROM_LIST).map_or(Self::Field, Self::Deletions)
    }
}

fn merge_object(
    schema: Option<&Schema>,
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    place: &Path<'_>,
) -> Result<(), PatchError> {
    match Directive::of(patch, place)? {
        Directive::Merge => {}
        Directive::Replace => target.clear(),
        Directive::Delete => {
            target.clear();
            return Ok(());
        }
    }
    retain_keys(target, patch, place)?;
    remove_nulls(target, patch);
    for (name, value) in patch {
        let at = place.field(name);
        match Name::of(name) {
            Name::Field => {
                let order = patch.get(&format!("{SET_ELEMENT_ORDER}{name}"));
                merge_field(schema, target, name, Change { value, order }, &at)?;
            }
            Name::Order(field) if !patch.contains_key(field) => reorder(schema, target, field, value, &at)?,
            Name::Order(_) | Name::OfObject | Name::Deletions(_) => {}
        }
    }
    for (name, value) in patch {
        if let Name::Deletions(field) = Name::of(name) {
            delete_from_list(target, field, value, &place.field(name))?;
        }
    }
    Ok(())
}

/// The new value of a field, and the order of its items where one is given.
#[derive(Clone, Copy)]
struct Change<'a> {
    value: &'a Value,
    order: Option<&'a Value>,
}

fn merge_field(
    schema: Option<&Schema>,
    target: &mut Map<String, Value>,
    name: &str,
    change: Change<'_>,
    place: &Path<'_>,
) -> Result<(), PatchError> {
    let inner = schema.and_then(|schema| schema.field(name));
    let inner = inner.as_ref();
    check_container(inner, change.value, place)?;
    match change.value {
        // Removed before, with all others.
        Value::Null => {}
        Value::Object(patch) => {
            let absent = !target.contains_key(name);
            if absent && Directive::of(patch, place)? == Directive::Delete {
                return Ok(());
            }
            let replace = inner.is_some_and(|inner| inner.patch_strategy().replace);
            let present = target.entry(name).or_insert(Value::Null);
            if replace || !present.is_object() {
                *present = Value::Object(Map::new());
            }
            if let Value::Object(fields) = present {
                merge_object(inner, fields, patch, place)?;
            }
        }
        Value::Array(items) => {
            let live = target.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let merged = list::merge(inner, live, items, change.order, place)?;
            target.insert(name.to_owned(), Value::Array(merged));
        }
        scalar => drop(target.insert(name.to_owned(), scalar.clone())),
    }
    Ok(())
}

/// `$setElementOrder` for a list that the patch does not change otherwise.
fn reorder(
    schema: Option<&Schema>,
    target: &mut Map<String, Value>,
    field: &str,
    order: &Value,
    place: &Path<'_>,
) -> Result<(), PatchError> {
    let inner = schema.and_then(|schema| schema.field(field));
    let merges = inner.as_ref().is_some_and(|inner| inner.patch_strategy().merge);
    let Some(Value::Array(live)) = target.get(field).filter(|_| merges) else {
        return Ok(());
    };
    let ordered = list::merge(inner.as_ref(), live, &[], Some(order), place)?;
    target.insert(field.to_owned(), Value::Array(ordered));
    Ok(())
}

/// Drops the fields that `$retainKeys` does not name.
fn retain_keys(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    place: &Path<'_>,
) -> Result<(), PatchError> {
    let Some(keys) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let keys = as_list(keys, &place.field(RETAIN_KEYS))?;
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let named = |name: &String| keys.contains(name.as_str());
    for (name, value) in patch {
        if matches!(Name::of(name), Name::Field) && !value.is_null() && !named(name) {
            return Err(PatchError::NotRetained { field: place.field(name).to_string() });
        }
    }
    target.retain(|name, _| named(name));
    Ok(())
}

fn delete_from_list(
    target: &mut Map<String, Value>,
    field: &str,
    gone: &Value,
    place: &Path<'_>,
) -> Result<(), PatchError> {
    let gone: HashSet<String> = as_list(gone, place)?.iter().map(Value::to_string).collect();
    if let Some(Value::Array(items)) = target.get_mut(field) {
        items.retain(|item| !gone.contains(&item.to_string()));
    }
    Ok(())
}

fn as_list<'a>(value: &'a Value, place: &Path<'_>) -> Result<&'a [Value], PatchError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| PatchError::WrongType {
        field: place.to_string(),
        expected: "a list",
        found: describe(value),
    })
}

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
