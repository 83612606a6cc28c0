//! What holds after any writes by any managers in any order.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::patch::fixture::{deployment, valid_deployment};
use crate::patch::track::track_update;

/// One write: by whom, how, and of what.
#[derive(Clone, Debug)]
struct Write {
    manager: Manager,
    how: How,
    object: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Apply,
    Force,
    Update,
}

fn write() -> impl Strategy<Value = Write> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let how = prop::sample::select(vec![How::Apply, How::Force, How::Update]);
    let subresource = prop::option::weighted(0.2, Just("status".to_owned()));
    (name, subresource, how, valid_deployment()).prop_map(|(name, subresource, how, object)| {
        let manager = Manager { name: name.to_owned(), api_version: "apps/v1".to_owned(), subresource };
        Write { manager, how, object }
    })
}

/// The object after a write; as it was after one that is refused.
fn written(live: Option<Value>, write: &Write, second: usize) -> Option<Value> {
    let schema = deployment();
    let now = format!("2026-01-01T00:00:{second:02}Z");
    if write.how == How::Update {
        let mut new = write.object.clone();
        track_update(&schema, live.as_ref(), &mut new, &write.manager, &now);
        return Some(new);
    }
    let force = write.how == How::Force;
    match apply(&schema, live.as_ref(), &write.object, &write.manager, force, &now) {
        Ok(object) => Some(object),
        Err(PatchError::Conflicts(_)) if !force => live,
        Err(refused) => panic!("{refused}"),
    }
}

/// Every place of an object that can be owned.
fn present(object: &Value) -> FieldSet {
    let mut bare = object.clone();
    strip_managed(&mut bare);
    let schema = deployment();
    let all = compare(Some(&schema), Some(&json!({})), Some(&bare)).taken().union(&fields_of(Some(&schema), &bare));
    with_parents(Some(&schema), &all)
}

fn entry_of(object: &Value, write: &Write) -> FieldSet {
    let like = Entry::new(&write.manager, Operation::Apply);
    Managed::of(object).expect("readable").take(&like).map(|entry| entry.set).unwrap_or_default()
}

proptest! {
    #[test]
    fn nobody_owns_what_is_not_there(writes in prop::collection::vec(write(), 1..6)) {
        let mut live = None;
        for (second, one) in writes.iter().enumerate() {
            live = written(live, one, second);
            let Some(object) = &live else { continue };
            let lost = Managed::of(object).expect("readable").all().difference(&present(object));
            prop_assert!(lost.is_empty(), "{:?} after {:?}", lost.paths(), one);
        }
    }

    #[test]
    fn a_forced_apply_owns_and_sets_all_it_names(writes in prop::collection::vec(write(), 0..4), last in write()) {
        let live = writes.iter().enumerate().fold(None, |live, (second, one)| written(live, one, second));
        let last = Write { how: How::Force, ..last };
        let object = written(live, &last, 9).expect("a forced apply is never refused");
        let schema = deployment();
        prop_assert_eq!(entry_of(&object, &last), without_unowned(fields_of(Some(&schema), &last.object)));
        // Merging the configuration over the result changes no value.
        let again = merge(Some(&schema), &object, &last.object);
        prop_assert!(compare(Some(&schema), Some(&object), Some(&again)) == Difference::default());
    }

    #[test]
    fn an_apply_without_force_changes_no_value_that_others_own(writes in prop::collection::vec(write(), 1..4), last in write()) {
        let live = writes.iter().enumerate().fold(None, |live, (second, one)| written(live, one, second));
        let last = Write { how: How::Apply, ..last };
        let (Some(before), Some(after)) = (live.clone(), written(live, &last, 9)) else { return Ok(()) };
        let schema = deployment();
        let mut others = Managed::of(&before).expect("readable");
        others.take(&Entry::new(&last.manager, Operation::Apply));
        let bare = |object: &Value| {
            let mut object = object.clone();
            strip_managed(&mut object);
            object
        };
        let changed = compare(Some(&schema), Some(&bare(&before)), Some(&bare(&after))).taken();
        // Objects that nobody tracked before have no owners yet.
        let lost = others.all().intersection(&changed);
        prop_assert!(lost.is_empty(), "{:?}", lost.paths());
    }
}
