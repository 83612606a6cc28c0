//! Taking fields out of an object by a field set.

use serde_json::Value;

use super::fieldset::{Element, FieldSet};
use super::walk::{element_of, identity, is_granular_map};
use crate::tree::Schema;

/// Removes the members of the set, each with everything below it. Containers that become empty stay.
pub(super) fn remove(schema: Option<&Schema>, value: &mut Value, set: &FieldSet) {
    if set.is_empty() {
        return;
    }
    let granular = is_granular_map(schema, value);
    match value {
        Value::Object(fields) if granular => fields.retain(|name, inner| {
            let Some(below) = set.child(&Element::Field(name.as_str().into())) else {
                return true;
            };
            if !below.own {
                remove(schema.and_then(|schema| schema.field(name)).as_ref(), inner, below);
            }
            !below.own
        }),
        Value::Array(items) => {
            let Some(identity) = identity(schema) else { return };
            let inner = schema.and_then(Schema::inner);
            items.retain_mut(|item| {
                let element = element_of(&identity, inner.as_ref(), item);
                let Some(below) = element.and_then(|element| set.child(&element)) else {
                    return true;
                };
                if !below.own {
                    remove(inner.as_ref(), item, below);
                }
                !below.own
            });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::fixture::{deployment, workload};
    use serde_json::json;

    #[test]
    fn members_go_with_all_below_them_and_the_rest_stays() {
        let mut object =
            workload(&json!([{"name": "a", "image": "1", "ports": [{"containerPort": 1}]}, {"name": "b"}]));
        object["metadata"] = json!({"finalizers": ["x", "y"], "labels": {"a": "b"}});
        let item = json!({"f:ports": {"k:{\"containerPort\":1,\"protocol\":\"TCP\"}": {}}});
        let containers = json!({"k:{\"name\":\"a\"}": item, "k:{\"name\":\"b\"}": {".": {}, "f:name": {}}});
        let set = json!({
            "f:metadata": {"f:finalizers": {"v:\"x\"": {}}, "f:labels": {"f:a": {}, "f:gone": {}}},
            "f:spec": {"f:template": {"f:spec": {"f:containers": containers}}},
        });
        remove(Some(&deployment()), &mut object, &FieldSet::from_value(&set).unwrap());
        let mut expected = workload(&json!([{"name": "a", "image": "1", "ports": []}]));
        expected["metadata"] = json!({"finalizers": ["y"], "labels": {}});
        assert_eq!(object, expected);
    }
}
