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
    for (name, value) in patch {
        if value.is_null() {
            fields.shift_remove(name);
        } else {
            merge(fields.entry(name.as_str()).or_insert(Value::Null), value);
        }
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
    fn a_patch_nested_too_deeply_is_refused() {
        let deep = (0..200).fold(json!(1), |inner, _| json!({"a": inner}));
        assert!(matches!(merge_patch(&mut json!({}), &deep), Err(PatchError::TooDeep { .. })));
    }

    proptest! {
        #[test]
        fn no_patch_makes_it_panic_and_the_second_time_changes_nothing(mut target in any_json(), patch in any_json()) {
            merge_patch(&mut target, &patch).unwrap();
            let once = target.clone();
            merge_patch(&mut target, &patch).unwrap();
            prop_assert_eq!(target, once);
        }
    }
}
