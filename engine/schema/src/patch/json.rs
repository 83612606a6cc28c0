//! JSON patch (RFC 6902) by the `json-patch` crate, with our bounds, our words, and the order of fields kept.

use json_patch::jsonptr::{Pointer, index::Index};
use json_patch::{PatchErrorKind, PatchOperation, patch_unsafe};
use serde::Deserialize;
use serde_json::Value;

use super::bounds::{MAX_DEPTH, MAX_OPERATIONS, describe, fits, weight};
use super::error::PatchError;

/// How many bytes all `copy` operations of one patch may add.
const COPY_LIMIT: usize = 3 << 20;

/// How many bytes all operations of one patch may move or shift: what few words ask for may be much to do.
const WORK_LIMIT: usize = 256 << 20;
/// About what a field or an item weighs that makes room for another one.
const SHIFTED: usize = 16;

/// Applies the operations in order; when one fails, the target is as before.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Array(operations) = patch else {
        return Err(PatchError::NotAList { found: describe(patch) });
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations { count: operations.len(), limit: MAX_OPERATIONS });
    }
    let mut run = Run { document: target.clone(), copied: 0, work: 0, index: 0 };
    for (index, operation) in operations.iter().enumerate() {
        run.index = index;
        let operation = PatchOperation::deserialize(operation)
            .map_err(|wrong| PatchError::MalformedOperation { index, reason: wrong.to_string() })?;
        run.step(operation)?;
    }
    *target = run.document;
    Ok(())
}

/// A patch half applied.
struct Run {
    document: Value,
    copied: usize,
    work: usize,
    index: usize,
}

impl Run {
    fn step(&mut self, operation: PatchOperation) -> Result<(), PatchError> {
        match &operation {
            PatchOperation::Add(add) => {
                check_depth(&add.path, &add.value)?;
                self.shift(&add.path)?;
            }
            PatchOperation::Replace(replace) => check_depth(&replace.path, &replace.value)?,
            PatchOperation::Copy(copy) => {
                let source = self.find(&copy.from)?;
                check_depth(&copy.path, source)?;
                self.copied += weight(source);
                self.shift(&copy.path)?;
                if self.copied > COPY_LIMIT {
                    return Err(PatchError::TooLarge { limit: COPY_LIMIT });
                }
            }
            PatchOperation::Remove(remove) => return self.take(&remove.path).map(drop),
            PatchOperation::Move(moved) => {
                if moved.path.starts_with(&moved.from) && moved.path.len() != moved.from.len() {
                    return Err(PatchError::MoveIntoItself { index: self.index, path: moved.from.to_string() });
                }
                let source = self.find(&moved.from)?;
                let weight = weight(source);
                check_depth(&moved.path, source)?;
                self.spend(weight)?;
                self.shift(&moved.path)?;
                let value = self.take(&moved.from)?;
                let add = json_patch::AddOperation { path: moved.path.clone(), value };
                return self.run(PatchOperation::Add(add));
            }
            PatchOperation::Test(_) => {}
        }
        self.run(operation)
    }

    fn run(&mut self, operation: PatchOperation) -> Result<(), PatchError> {
        let index = self.index;
        patch_unsafe(&mut self.document, &[operation]).map_err(|wrong| match wrong.kind {
            PatchErrorKind::TestFailed => PatchError::TestFailed { index, path: wrong.path.to_string() },
            _ => self.nothing_at(&wrong.path),
        })
    }

    /// Accounts for what makes room or closes the gap beside a place.
    fn shift(&mut self, path: &Pointer) -> Result<(), PatchError> {
        let beside = match path.split_back().and_then(|(parent, _)| self.document.pointer(parent.as_str())) {
            Some(Value::Array(items)) => items.len(),
            Some(Value::Object(fields)) => fields.len(),
            _ => 0,
        };
        self.spend(beside.saturating_mul(SHIFTED))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), PatchError> {
        self.work = self.work.saturating_add(bytes);
        if self.work > WORK_LIMIT { Err(PatchError::TooMuchWork { limit: WORK_LIMIT }) } else { Ok(()) }
    }

    fn find(&self, path: &Pointer) -> Result<&Value, PatchError> {
        self.document.pointer(path.as_str()).ok_or_else(|| self.nothing_at(path))
    }

    /// Takes a value out without changing the order of what stays, as the crate's own `remove` would.
    fn take(&mut self, path: &Pointer) -> Result<Value, PatchError> {
        let missing = self.nothing_at(path);
        self.shift(path)?;
        let Some((parent, last)) = path.split_back() else {
            return Err(missing);
        };
        let taken = match self.document.pointer_mut(parent.as_str()) {
            Some(Value::Object(fields)) => fields.shift_remove(last.decoded().as_ref()),
            Some(Value::Array(items)) => match last.to_index() {
                Ok(Index::Num(at)) if at < items.len() => Some(items.remove(at)),
                _ => None,
            },
            _ => None,
        };
        taken.ok_or(missing)
    }

    fn nothing_at(&self, path: &Pointer) -> PatchError {
        PatchError::NoSuchPath { index: self.index, path: path.to_string() }
    }
}

/// Refuses to put a value so deep that the document would exceed its bound.
fn check_depth(path: &Pointer, value: &Value) -> Result<(), PatchError> {
    let within = MAX_DEPTH.checked_sub(path.count()).is_some_and(|levels| fits(value, levels));
    if within { Ok(()) } else { Err(PatchError::TooDeep { limit: MAX_DEPTH }) }
}

#[cfg(test)]
mod rfc;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::fixture::{any_json, json_pointer};
    use proptest::prelude::*;
    use serde_json::json;

    fn patched(target: &Value, patch: &Value) -> Result<Value, PatchError> {
        let mut target = target.clone();
        json_patch(&mut target, patch).map(|()| target)
    }

    #[test]
    fn each_operation_does_what_the_rfc_says() {
        let table = [
            (json!({"op": "add", "path": "/b", "value": 1}), json!({"a": [1, 2], "b": 1})),
            (json!({"op": "add", "path": "/a/0", "value": 0}), json!({"a": [0, 1, 2]})),
            (json!({"op": "add", "path": "/a/-", "value": 3}), json!({"a": [1, 2, 3]})),
            (json!({"op": "remove", "path": "/a/0"}), json!({"a": [2]})),
            (json!({"op": "replace", "path": "/a", "value": null}), json!({"a": null})),
            (json!({"op": "move", "from": "/a/0", "path": "/c"}), json!({"a": [2], "c": 1})),
            (json!({"op": "copy", "from": "/a", "path": "/c"}), json!({"a": [1, 2], "c": [1, 2]})),
            (json!({"op": "test", "path": "/a/1", "value": 2}), json!({"a": [1, 2]})),
        ];
        for (operation, expected) in table {
            assert_eq!(patched(&json!({"a": [1, 2]}), &json!([operation])), Ok(expected), "{operation}");
        }
    }

    #[test]
    fn a_failing_operation_leaves_the_target_alone_and_says_which_it_was() {
        let target = json!({"a": 1});
        let table = [
            (json!({"op": "remove", "path": "/x"}), "operation 1 of the patch: there is nothing at \"/x\""),
            (json!({"op": "remove", "path": ""}), "nothing at \"\""),
            (json!({"op": "replace", "path": "/x", "value": 1}), "nothing at \"/x\""),
            (json!({"op": "add", "path": "/x/y", "value": 1}), "nothing at \"/x/y\""),
            (json!({"op": "copy", "from": "/x", "path": "/y"}), "nothing at \"/x\""),
            (json!({"op": "test", "path": "/a", "value": 2}), "\"/a\" is not the one tested for"),
            (json!({"op": "move", "from": "/a", "path": "/a/b"}), "would move \"/a\" into itself"),
            (json!({"op": "grow", "path": "/a"}), "operation 1 of the patch is malformed"),
            (json!({"op": "add", "path": "/a"}), "malformed"),
            (json!({"op": "add", "path": "a", "value": 1}), "malformed"),
            (json!("x"), "malformed"),
        ];
        for (operation, part) in table {
            let mut changed = target.clone();
            let patch = json!([{"op": "add", "path": "/b", "value": 1}, operation]);
            let wrong = json_patch(&mut changed, &patch).expect_err("refused").to_string();
            assert!(wrong.contains(part), "{operation} gave {wrong:?}");
            assert_eq!(changed, target);
        }
        assert_eq!(patched(&target, &json!({})), Err(PatchError::NotAList { found: "an object" }));
    }

    #[test]
    fn removing_a_field_keeps_the_order_of_the_others() {
        let target = json!({"a": 1, "b": 2, "c": 3});
        let after = patched(&target, &json!([{"op": "remove", "path": "/a"}])).unwrap();
        assert_eq!(after.to_string(), r#"{"b":2,"c":3}"#);
    }

    #[test]
    fn patches_that_multiply_the_object_are_refused() {
        let doubling: Vec<Value> =
            (0..64).map(|at| json!({"op": "copy", "from": "", "path": format!("/{at}")})).collect();
        assert!(matches!(patched(&json!({"a": "x"}), &json!(doubling)), Err(PatchError::TooLarge { .. })));
        let deeper: Vec<Value> = (0..200).map(|_| json!({"op": "copy", "from": "", "path": "/a"})).collect();
        assert!(matches!(patched(&json!({"a": 1}), &json!(deeper)), Err(PatchError::TooDeep { .. })));
        let many = vec![json!({"op": "test", "path": "", "value": 1}); MAX_OPERATIONS + 1];
        assert!(matches!(patched(&json!(1), &json!(many)), Err(PatchError::TooManyOperations { .. })));
    }

    fn operation() -> impl Strategy<Value = Value> {
        let name = prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test"]);
        (name, json_pointer(), json_pointer(), any_json())
            .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
    }

    proptest! {
        #[test]
        fn no_patch_makes_it_panic(target in any_json(), patch in prop::collection::vec(operation(), 0..6)) {
            let mut after = target.clone();
            if json_patch(&mut after, &Value::Array(patch)).is_err() {
                prop_assert_eq!(after, target);
            }
        }

        #[test]
        fn nothing_that_is_no_patch_makes_it_panic(target in any_json(), patch in any_json()) {
            let mut after = target;
            json_patch(&mut after, &patch).ok();
        }
    }
}
