//! The merge of server-side apply: an applied configuration over the live object, by schema.
//!
//! Expects a configuration that `walk::check` passed. A `null` in it stays in the result, so that comparison sees the
//! change; [`drop_nulls`] takes it out at the end.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Map, Value};

use super::fieldset::Element;
use super::walk::{Child, Place, identity, is_granular_map, place};
use crate::tree::{Kind, Schema};

/// The live value with the applied one over it.
pub(super) fn merge(schema: Option<&Schema>, live: &Value, applied: &Value) -> Value {
    if is_granular_map(schema, live) && is_granular_map(schema, applied) {
        let is_empty = |value: &Value| value.as_object().is_none_or(Map::is_empty);
        if is_empty(live) && is_empty(applied) {
            return applied.clone();
        }
        return Value::Object(merge_fields(schema, live, applied));
    }
    match (place(schema, live), place(schema, applied)) {
        (Place::Items(before), Place::Items(after)) if !(before.is_empty() && after.is_empty()) => {
            Value::Array(merge_items(&before, &after))
        }
        _ => applied.clone(),
    }
}

fn merge_fields(schema: Option<&Schema>, live: &Value, applied: &Value) -> Map<String, Value> {
    let mut merged = live.as_object().cloned().unwrap_or_default();
    for (name, value) in applied.as_object().into_iter().flatten() {
        match merged.get_mut(name) {
            Some(present) => {
                let inner = schema.and_then(|schema| schema.field(name));
                *present = merge(inner.as_ref(), present, value);
            }
            None => drop(merged.insert(name.clone(), value.clone())),
        }
    }
    merged
}

/// The applied items in their order, with the items that only the live list has at the places they had between them.
fn merge_items(live: &[Child<'_>], applied: &[Child<'_>]) -> Vec<Value> {
    Interleave::new(live, applied).run()
}

/// Both lists with a finger in each.
struct Interleave<'a> {
    live: &'a [Child<'a>],
    applied: &'a [Child<'a>],
    /// The live value of each element; `None` for one that several items share: the applied item replaces them all.
    live_values: BTreeMap<&'a Element, Option<&'a Value>>,
    /// The applied elements that are live too, in the applied order, from the next one on.
    shared: VecDeque<&'a Element>,
    applied_elements: BTreeMap<&'a Element, bool>,
}

impl<'a> Interleave<'a> {
    fn new(live: &'a [Child<'a>], applied: &'a [Child<'a>]) -> Self {
        let mut live_values = BTreeMap::new();
        for child in live {
            if let Some(element) = &child.element {
                live_values.entry(element).and_modify(|value| *value = None).or_insert(Some(child.value));
            }
        }
        let elements = || applied.iter().filter_map(|child| child.element.as_ref());
        let shared = elements().filter(|element| live_values.contains_key(element)).collect();
        let applied_elements = elements().map(|element| (element, false)).collect();
        Self { live, applied, live_values, shared, applied_elements }
    }

    fn run(mut self) -> Vec<Value> {
        let mut merged = Vec::with_capacity(self.live.len().max(self.applied.len()));
        while let Some((child, rest)) = self.live.split_first() {
            let element = child.element.as_ref();
            let done = element.and_then(|element| self.applied_elements.get(element)).copied();
            match done {
                // Only live: it stays where it is.
                None => merged.push(child.value.clone()),
                // Shared, and the next of the shared ones: the applied items up to it come first.
                Some(false) if self.shared.front().copied() == element => {
                    merged.push(self.next_applied());
                    if self.applied_elements.get(element.expect("a shared item has an element")) == Some(&false) {
                        continue;
                    }
                }
                // Its turn has come already, or another shared item comes before it in the applied order.
                Some(_) => {}
            }
            self.live = rest;
        }
        while !self.applied.is_empty() {
            merged.push(self.next_applied());
        }
        merged
    }

    fn next_applied(&mut self) -> Value {
        let (child, rest) = self.applied.split_first().expect("the caller saw an applied item");
        self.applied = rest;
        let Some(element) = &child.element else {
            return child.value.clone();
        };
        self.applied_elements.insert(element, true);
        if self.shared.front() == Some(&element) {
            self.shared.pop_front();
        }
        match self.live_values.get(element) {
            Some(Some(live)) => merge(child.schema.as_ref(), live, child.value),
            _ => child.value.clone(),
        }
    }
}

/// Removes the fields that are `null` where the schema does not take `null` for a value.
pub(super) fn drop_nulls(schema: Option<&Schema>, value: &mut Value) {
    let Some(schema) = schema else { return };
    if is_granular_map(Some(schema), value) {
        let described = matches!(schema.kind(), Kind::Object | Kind::Map);
        let Value::Object(fields) = value else { return };
        fields.retain(|name, inner| {
            let below = schema.field(name);
            drop_nulls(below.as_ref(), inner);
            !inner.is_null() || !described || below.is_none_or(|below| below.nullable())
        });
    } else if let (Some(_), Value::Array(items)) = (identity(Some(schema)), value) {
        let inner = schema.inner();
        for item in items {
            drop_nulls(inner.as_ref(), item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::fixture::{deployment, workload};
    use serde_json::json;

    fn merged_names(live: &[&str], applied: &[&str]) -> String {
        let list =
            |names: &[&str]| workload(&json!(names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()));
        let merged = merge(Some(&deployment()), &list(live), &list(applied));
        let containers = merged["spec"]["template"]["spec"]["containers"].as_array().expect("a list").clone();
        containers.iter().map(|container| container["name"].as_str().expect("a name")).collect()
    }

    #[test]
    fn items_keep_the_applied_order_and_live_ones_their_place() {
        let table = [
            (&["a", "b"][..], &["b", "a"][..], "ba"),
            (&["a", "b", "c"], &["b"], "abc"),
            (&["a", "b"], &["c"], "abc"),
            (&[], &["b", "a"], "ba"),
            (&["a"], &[], "a"),
            (&["a", "x", "b"], &["n", "a", "b"], "naxb"),
            (&["a", "b"], &["a", "n", "b"], "anb"),
            (&["a", "x", "b", "y"], &["b", "a"], "xbya"),
            (&["a", "a", "b"], &["a"], "ab"),
        ];
        for (live, applied, expected) in table {
            assert_eq!(merged_names(live, applied), expected, "{live:?} {applied:?}");
        }
    }

    #[test]
    fn objects_merge_and_leaves_are_replaced() {
        let live = json!({"spec": {"replicas": 1, "paused": true, "selector": {"matchLabels": {"a": "b", "c": "d"}}}});
        let applied = json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"a": "x"}}}});
        let expected = json!({"spec": {"replicas": 2, "paused": true, "selector": {"matchLabels": {"a": "x"}}}});
        assert_eq!(merge(Some(&deployment()), &live, &applied), expected);
    }

    #[test]
    fn a_null_empties_a_leaf_but_leaves_what_is_granular() {
        let live = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}});
        let applied = json!({"metadata": {"labels": null}, "spec": {"replicas": null, "paused": null}});
        let mut merged = merge(Some(&deployment()), &live, &applied);
        assert_eq!(merged, json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": null, "paused": null}}));
        drop_nulls(Some(&deployment()), &mut merged);
        assert_eq!(merged, json!({"metadata": {"labels": {"a": "b"}}, "spec": {}}));
    }
}
