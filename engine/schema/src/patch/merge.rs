//! JSON merge patch (RFC 7396): objects merge, `null` removes, everything else replaces. The order of fields is kept.

use serde_json::{Map, Value};

use super::bounds::check_depth;
use super::error::PatchError;

/// Applies the patch; refuses only one that is nested too deeply.
pub fn merge_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    check_depth(patch)?;
    merge(target, patch);
    Ok(())
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else {
        return;
    };
    remove_nulls(fields, patch);
    for (name, value) in patch.iter().filter(|(_, value)| !value.is_null()) {
        merge(fields.entry(name.as_str()).or_insert(Value::Null), value);
    }
}

/// Removes the fields that are `null` in the patch, all in one go: one by one, each would move all that follow it.
pub(super) fn remove_nulls(fields: &mut Map<String, Value>, patch: &Map<String, Value>) {
    if patch.values().any(Value::is_null) {
        fields.retain(|name, _| !patch.get(name).is_some_and(Value::is_null));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::fixture::any_json;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_examples_of_the_rfc_hold() {
        let table = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (mut target, patch, expected) in table {
            merge_patch(&mut target, &patch).unwrap();
            assert_eq!(target, expected, "{patch}");
        }
    }

    #[test]
    fn the_document_of_the_rfc_is_changed_as_it_says() {
        let mut target = json!({"title": "Goodbye!", "author": {"givenName": "John", "familyName": "Doe"},
            "tags": ["example", "sample"], "content": "This will be unchanged"});
        let patch = json!({"title": "Hello!", "phoneNumber": "+01-123-456-7890", "author": {"familyName": null},
            "tags": ["example"]});
        merge_patch(&mut target, &patch).unwrap();
        let expected = json!({"title": "Hello!", "author": {"givenName": "John"}, "tags": ["example"],
            "content": "This will be unchanged", "phoneNumber": "+01-123-456-7890"});
        assert_eq!(target, expected);
    }

    #[test]
    fn a_patch_nested_too_deeply_is_refused() {
        let deep = (0..200).fold(json!(1), |inner, _| json!({"a": inner}));
        assert!(matches!(merge_patch(&mut json!({}), &deep), Err(PatchError::TooDeep { .. })));
    }

    /// The patch that makes one object of another; neither holds a null, which no patch could put in.
    fn diff(old: &Value, new: &Value) -> Value {
        let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
        let mut patch = Map::new();
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            patch.insert(name.clone(), Value::Null);
        }
        for (name, value) in new.iter().filter(|(name, value)| old.get(*name) != Some(value)) {
            patch.insert(name.clone(), diff(old.get(name).unwrap_or(&Value::Null), value));
        }
        Value::Object(patch)
    }

    fn without_nulls(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
                kept.map(|(name, value)| (name, without_nulls(value))).collect()
            }
            other => other,
        }
    }

    proptest! {
        #[test]
        fn the_difference_of_two_objects_makes_one_of_the_other(old in any_json(), new in any_json()) {
            let (mut target, new) = (without_nulls(json!({"a": old})), without_nulls(json!({"a": new})));
            let patch = diff(&target, &new);
            merge_patch(&mut target, &patch).unwrap();
            prop_assert_eq!(target, new);
        }

        #[test]
        fn no_patch_makes_it_panic_and_the_second_time_changes_nothing(mut target in any_json(), patch in any_json()) {
            merge_patch(&mut target, &patch).unwrap();
            let once = target.clone();
            merge_patch(&mut target, &patch).unwrap();
            prop_assert_eq!(target, once);
        }
    }
}
