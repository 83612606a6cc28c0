//! What differs between two versions of an object, as three field sets.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fieldset::{Element, FieldSet};
use super::walk::{Child, Place, fields_of, place};
use crate::tree::Schema;

/// The fields that differ between an old and a new value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Difference {
    fn put(&mut self, element: &Element, below: Self) {
        self.added.put(element.clone(), below.added);
        self.modified.put(element.clone(), below.modified);
        self.removed.put(element.clone(), below.removed);
    }

    /// What the new value has that the old one had not, or had otherwise.
    pub(super) fn taken(&self) -> FieldSet {
        self.added.union(&self.modified)
    }
}

/// Compares two values of one place, of which at most one may be missing.
pub(super) fn compare(schema: Option<&Schema>, old: Option<&Value>, new: Option<&Value>) -> Difference {
    let children = match (old.map(|old| place(schema, old)), new.map(|new| place(schema, new))) {
        (Some(Place::Fields(old)), Some(Place::Fields(new))) | (Some(Place::Items(old)), Some(Place::Items(new))) => {
            Some((old, new))
        }
        (Some(Place::Fields(old) | Place::Items(old)), None) => Some((old, Vec::new())),
        (None, Some(Place::Fields(new) | Place::Items(new))) => Some((Vec::new(), new)),
        _ => None,
    };
    match children {
        // Two empty containers are compared as leaves, which keeps `null` and `{}` apart.
        Some((before, after)) if !(before.is_empty() && after.is_empty()) => {
            let mut difference = compare_children(&before, &after);
            difference.added.own |= old.is_none();
            difference.removed.own |= new.is_none();
            difference
        }
        _ => compare_leaves(schema, old, new),
    }
}

fn compare_leaves(schema: Option<&Schema>, old: Option<&Value>, new: Option<&Value>) -> Difference {
    let mut difference = Difference::default();
    match (old, new) {
        (Some(old), Some(new)) if old == new => {}
        (Some(old), Some(new)) => {
            // One of them may have been a container: what was below it is gone, what is below it is new.
            let (before, after) = (fields_of(schema, old), fields_of(schema, new));
            difference.removed = before.difference(&after);
            difference.added = after.difference(&before);
            difference.removed.own = false;
            difference.added.own = false;
            difference.modified.own = true;
        }
        (Some(_), None) => difference.removed.own = true,
        (None, Some(_)) => difference.added.own = true,
        (None, None) => {}
    }
    difference
}

fn compare_children(old: &[Child<'_>], new: &[Child<'_>]) -> Difference {
    let mut pairs: BTreeMap<&Element, Pair<'_>> = BTreeMap::new();
    for (children, is_new) in [(old, false), (new, true)] {
        for child in children {
            let Some(element) = &child.element else { continue };
            let pair = pairs.entry(element).or_insert_with(|| Pair::new(child.schema.as_ref()));
            if is_new { pair.new.push(child.value) } else { pair.old.push(child.value) }
        }
    }
    let mut difference = Difference::default();
    for (element, pair) in pairs {
        difference.put(element, pair.compare());
    }
    difference
}

/// All values of one element before and after: one each, unless a list has items that share their keys.
struct Pair<'a> {
    schema: Option<&'a Schema>,
    old: Vec<&'a Value>,
    new: Vec<&'a Value>,
}

impl<'a> Pair<'a> {
    fn new(schema: Option<&'a Schema>) -> Self {
        Self { schema, old: Vec::new(), new: Vec::new() }
    }

    fn compare(&self) -> Difference {
        let (first_old, first_new) = (self.old.first().copied(), self.new.first().copied());
        match (self.old.len(), self.new.len()) {
            (0 | 1, 0 | 1) => compare(self.schema, first_old, first_new),
            (0 | 1, _) => {
                let mut difference = compare(self.schema, first_old, None);
                difference.added.own = true;
                difference
            }
            (_, 0 | 1) => {
                let mut difference = compare(self.schema, None, first_new);
                difference.removed.own = true;
                difference
            }
            _ => {
                let mut difference = Difference::default();
                difference.modified.own = self.old != self.new;
                difference
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::fixture::{deployment, workload};
    use serde_json::json;

    fn difference(old: &Value, new: &Value) -> [Vec<String>; 3] {
        let found = compare(Some(&deployment()), Some(old), Some(new));
        [found.added.paths(), found.modified.paths(), found.removed.paths()]
    }

    #[test]
    fn what_was_added_modified_and_removed_is_told_apart() {
        let old = json!({"spec": {"replicas": 1, "paused": true}, "metadata": {"labels": {"a": "b"}}});
        let new = json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}}, "metadata": {"labels": {"a": "b"}}});
        let [added, modified, removed] = difference(&old, &new);
        assert_eq!(added, [".spec.selector"]);
        assert_eq!(modified, [".spec.replicas"]);
        assert_eq!(removed, [".spec.paused"]);
    }

    #[test]
    fn items_are_compared_by_their_keys_wherever_they_stand() {
        let old = workload(&json!([{"name": "a", "image": "1"}, {"name": "b"}]));
        let new = workload(&json!([{"name": "c"}, {"name": "a", "image": "2"}]));
        let [added, modified, removed] = difference(&old, &new);
        let at = |rest: &str| format!(".spec.template.spec.containers{rest}");
        assert_eq!(added, [at("[name=\"c\"]"), at("[name=\"c\"].name")]);
        assert_eq!(modified, [at("[name=\"a\"].image")]);
        assert_eq!(removed, [at("[name=\"b\"]"), at("[name=\"b\"].name")]);
    }

    #[test]
    fn an_added_object_is_added_with_all_below_it() {
        let [added, modified, removed] = difference(&json!({}), &json!({"metadata": {"labels": {"a": "b"}}}));
        assert_eq!(added, [".metadata", ".metadata.labels", ".metadata.labels.a"]);
        assert!(modified.is_empty() && removed.is_empty());
    }

    #[test]
    fn a_value_that_changes_its_kind_is_modified_as_a_whole() {
        let [added, modified, removed] = difference(&json!({"free": {"a": {"b": 1}}}), &json!({"free": {"a": 1}}));
        assert_eq!(modified, [".free.a"]);
        assert_eq!(removed, [".free.a.b"]);
        assert!(added.is_empty());
    }

    #[test]
    fn items_that_share_their_keys_are_compared_together() {
        let list = |images: &[&str]| {
            let items: Vec<Value> = images.iter().map(|image| json!({"name": "a", "image": image})).collect();
            workload(&json!(items))
        };
        let item = ".spec.template.spec.containers[name=\"a\"]".to_owned();
        let [added, modified, removed] = difference(&list(&["1", "2"]), &list(&["1", "3"]));
        assert_eq!((added, modified, removed), (vec![], vec![item.clone()], vec![]));
        let [added, _, removed] = difference(&list(&["1", "2"]), &list(&["1"]));
        assert_eq!((added.contains(&item), removed), (true, vec![item]));
    }
}
