//! A configuration laid over an object by schema, as a mutating policy applies it: nobody comes to own anything.
//!
//! What is replaced as a whole may not be named: whoever sets one field of it would take away all others.

use serde_json::Value;

use super::bounds::{check_depth, describe};
use super::error::PatchError;
use super::path::Path;
use super::typed_merge::{drop_nulls, merge};
use super::walk::check;
use crate::tree::{Kind, ListType, Schema};
use crate::walk::prune;

/// The object with the configuration merged over it. The object is taken to fit its schema.
pub fn overlay(schema: &Schema, object: &Value, configuration: &Value) -> Result<Value, PatchError> {
    if !configuration.is_object() {
        return Err(PatchError::NotAnObject { found: describe(configuration) });
    }
    check_depth(configuration)?;
    check(Some(schema), configuration, &Path::ROOT)?;
    if let Some(field) = prune(schema, &mut configuration.clone()).into_iter().next() {
        return Err(PatchError::UnknownField { field });
    }
    let mut atomic = Vec::new();
    find_atomic(schema, configuration, &Path::ROOT, &mut atomic);
    if !atomic.is_empty() {
        return Err(PatchError::Atomic { fields: atomic.join(", ") });
    }
    let mut merged = merge(Some(schema), object, configuration);
    drop_nulls(Some(schema), &mut merged);
    check_depth(&merged)?;
    Ok(merged)
}

/// The places of a configuration that would be replaced as a whole.
fn find_atomic(schema: &Schema, value: &Value, path: &Path<'_>, found: &mut Vec<String>) {
    match (schema.kind(), value) {
        (Kind::Object | Kind::Map, Value::Object(fields)) => {
            if schema.is_atomic_map() {
                found.push(format!(".{path}"));
            }
            for (name, inner) in fields {
                if let Some(below) = schema.field(name) {
                    find_atomic(&below, inner, &path.field(name), found);
                }
            }
        }
        (Kind::List, Value::Array(items)) => {
            if *schema.list_type() == ListType::Atomic {
                found.push(format!(".{path}"));
            }
            let Some(inner) = schema.inner() else { return };
            for (at, item) in items.iter().enumerate() {
                find_atomic(&inner, item, &path.item(at), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::patch::fixture::{deployment, workload};

    #[test]
    fn lists_with_keys_and_maps_merge() {
        let live = workload(&json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]));
        let applied = workload(&json!([{"name": "b", "image": "3"}, {"name": "c", "image": "4"}]));
        let merged = overlay(&deployment(), &live, &applied).unwrap();
        let expected = json!([{"name": "a", "image": "1"}, {"name": "b", "image": "3"}, {"name": "c", "image": "4"}]);
        assert_eq!(merged, workload(&expected));
        let labels = |labels: Value| json!({"metadata": {"labels": labels}});
        let merged = overlay(&deployment(), &labels(json!({"a": "1"})), &labels(json!({"b": "2"}))).unwrap();
        assert_eq!(merged, labels(json!({"a": "1", "b": "2"})));
    }

    #[test]
    fn what_is_replaced_as_a_whole_or_is_unknown_is_refused() {
        let refused =
            |configuration: &Value| overlay(&deployment(), &json!({}), configuration).unwrap_err().to_string();
        let atomic = refused(&json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}));
        assert_eq!(atomic, "may not mutate atomic arrays, maps or structs: .spec.selector");
        let atomic = refused(&workload(&json!([{"name": "a", "args": ["x"]}])));
        assert_eq!(atomic, "may not mutate atomic arrays, maps or structs: .spec.template.spec.containers[0].args");
        assert_eq!(refused(&json!({"spec": {"replica": 1}})), ".spec.replica: field not declared in schema");
        assert_eq!(refused(&json!([])), "the patch must be a JSON object, not a list");
    }
}
