//! How server-side apply sees a value: as a leaf, as fields, or as items that are told apart.
//!
//! Field sets, comparison, merging and removal all descend through [`place`] and nothing else, so that they can never
//! disagree on what is owned as a whole. A value that does not fit its schema is a leaf; validation will refuse it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::bounds::describe;
use super::error::PatchError;
use super::fieldset::{Element, FieldSet, Scalar};
use super::path::Path;
use crate::tree::{Kind, ListType, Schema};

/// What lies directly below a value.
pub(super) enum Place<'a> {
    /// Owned as a whole: scalars, atomic lists, atomic objects.
    Leaf,
    /// The fields of an object or the entries of a map; none for `null`.
    Fields(Vec<Child<'a>>),
    /// The items of a set or of a list with keys; none for `null`.
    Items(Vec<Child<'a>>),
}

/// A value one step below another.
#[derive(Clone)]
pub(super) struct Child<'a> {
    /// `None` for an item that cannot be told apart, such as one without its keys.
    pub(super) element: Option<Element>,
    /// `None` where the schema says nothing.
    pub(super) schema: Option<Schema>,
    pub(super) value: &'a Value,
    /// Whether the schema knows the field by name, in contrast to keys of a map and to items.
    pub(super) named: bool,
}

/// How the items of a list are told apart.
pub(super) enum Identity<'s> {
    ByKeys(&'s [Box<str>]),
    ByValue,
}

/// Whether the place is a granular object or map, going by the schema and, where that is silent, by the value.
pub(super) fn is_granular_map(schema: Option<&Schema>, value: &Value) -> bool {
    let Some(schema) = schema else {
        return value.is_object();
    };
    match schema.kind() {
        Kind::Object | Kind::Map => !schema.is_atomic_map() && (value.is_object() || value.is_null()),
        Kind::Any => schema.preserves_unknown() && !schema.is_atomic_map() && value.is_object(),
        _ => false,
    }
}

/// How the items of the list at this place are told apart; `None` where it is no list or an atomic one.
pub(super) fn identity(schema: Option<&Schema>) -> Option<Identity<'_>> {
    let schema = schema.filter(|schema| schema.kind() == Kind::List)?;
    match schema.list_type() {
        ListType::Map(keys) if !keys.is_empty() => Some(Identity::ByKeys(keys)),
        ListType::Set => Some(Identity::ByValue),
        ListType::Map(_) | ListType::Atomic => None,
    }
}

/// Takes a value apart by one step.
pub(super) fn place<'a>(schema: Option<&Schema>, value: &'a Value) -> Place<'a> {
    if is_granular_map(schema, value) {
        let fields = value.as_object().into_iter().flatten();
        return Place::Fields(fields.map(|(name, value)| field(schema, name, value)).collect());
    }
    let (Some(identity), Value::Array(_) | Value::Null) = (identity(schema), value) else {
        return Place::Leaf;
    };
    let inner = schema.and_then(Schema::inner);
    let items = value.as_array().into_iter().flatten();
    Place::Items(items.map(|value| item(&identity, inner.as_ref(), value)).collect())
}

fn field<'a>(schema: Option<&Schema>, name: &str, value: &'a Value) -> Child<'a> {
    let inner = schema.and_then(|schema| schema.field(name));
    let named = inner.is_some() && schema.is_some_and(|schema| schema.kind() == Kind::Object);
    Child { element: Some(Element::Field(name.into())), schema: inner, value, named }
}

fn item<'a>(identity: &Identity<'_>, schema: Option<&Schema>, value: &'a Value) -> Child<'a> {
    let element = element_of(identity, schema, value);
    Child { element, schema: schema.cloned(), value, named: false }
}

/// The path element of an item; a key that is missing or `null` takes its field's default, and is left out where there
/// is none.
pub(super) fn element_of(identity: &Identity<'_>, schema: Option<&Schema>, value: &Value) -> Option<Element> {
    let Identity::ByKeys(keys) = identity else {
        return Scalar::of(value).filter(|_| !value.is_null()).map(Element::Item);
    };
    let fields = value.as_object()?;
    let mut found = Vec::with_capacity(keys.len());
    for key in *keys {
        let default = || schema?.field(key)?.default().and_then(Scalar::of);
        let scalar = match fields.get(&**key).filter(|value| !value.is_null()) {
            Some(value) => Some(Scalar::of(value)?),
            None => default(),
        };
        found.extend(scalar.map(|scalar| (key.clone(), scalar)));
    }
    (!found.is_empty()).then(|| Element::key(found))
}

/// The set of all fields of a value.
pub(super) fn fields_of(schema: Option<&Schema>, value: &Value) -> FieldSet {
    match place(schema, value) {
        Place::Leaf => FieldSet::leaf(),
        Place::Fields(children) => {
            let mut set = FieldSet::default();
            for child in children {
                let mut below = fields_of(child.schema.as_ref(), child.value);
                below.own |= !child.named || is_blank(child.value);
                if let Some(element) = child.element {
                    set.put(element, below);
                }
            }
            set
        }
        Place::Items(children) => {
            let mut set = FieldSet::default();
            for (element, items) in group(&children) {
                let mut below = match items.as_slice() {
                    [only] => fields_of(only.schema.as_ref(), only.value),
                    // Items that share their keys are owned together.
                    _ => FieldSet::default(),
                };
                below.own = true;
                set.put(element.clone(), below);
            }
            set
        }
    }
}

/// Whether there is nothing below the value that could be owned in its stead.
fn is_blank(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

/// The children by element; those that cannot be told apart are left out.
pub(super) fn group<'c, 'a>(children: &'c [Child<'a>]) -> BTreeMap<&'c Element, Vec<&'c Child<'a>>> {
    let mut groups: BTreeMap<&Element, Vec<&Child<'a>>> = BTreeMap::new();
    for child in children {
        if let Some(element) = &child.element {
            groups.entry(element).or_default().push(child);
        }
    }
    groups
}

/// The set with every field above a member a member too, where the schema knows that field by name.
pub(super) fn with_parents(schema: Option<&Schema>, set: &FieldSet) -> FieldSet {
    let mut all = FieldSet::default();
    all.own = set.own;
    for (element, child) in set.children() {
        let (inner, named) = match element {
            Element::Field(name) => {
                let inner = schema.and_then(|schema| schema.field(name));
                let named = inner.is_some() && schema.is_some_and(|schema| schema.kind() == Kind::Object);
                (inner, named)
            }
            Element::Key(_) | Element::Item(_) => (schema.and_then(Schema::inner), false),
        };
        let mut below = with_parents(inner.as_ref(), child);
        below.own |= named;
        all.put(element.clone(), below);
    }
    all
}

/// Refuses an applied configuration whose containers do not fit the schema or whose items cannot be told apart.
pub(super) fn check(schema: Option<&Schema>, value: &Value, path: &Path<'_>) -> Result<(), PatchError> {
    check_container(schema, value, path)?;
    match place(schema, value) {
        Place::Leaf => Ok(()),
        Place::Fields(_) => {
            let fields = value.as_object().into_iter().flatten();
            for (name, inner) in fields {
                check(schema.and_then(|schema| schema.field(name)).as_ref(), inner, &path.field(name))?;
            }
            Ok(())
        }
        Place::Items(children) => {
            let mut seen = std::collections::BTreeSet::new();
            for (at, child) in children.iter().enumerate() {
                let path = path.item(at);
                let element = child.element.as_ref().ok_or_else(|| not_an_item(schema, child.value, &path))?;
                if !seen.insert(element) {
                    return Err(PatchError::DuplicateItem { field: path.to_string(), item: element.to_string() });
                }
                check(child.schema.as_ref(), child.value, &path)?;
            }
            Ok(())
        }
    }
}

fn not_an_item(schema: Option<&Schema>, value: &Value, path: &Path<'_>) -> PatchError {
    let (field, found) = (path.to_string(), describe(value));
    match identity(schema) {
        Some(Identity::ByKeys(keys)) if value.is_object() => PatchError::MissingKey { field, key: keys.join(", ") },
        Some(Identity::ByKeys(_)) => PatchError::WrongType { field, expected: "an object", found },
        _ => PatchError::WrongType { field, expected: "a string, a number or a boolean", found },
    }
}

/// Refuses a list where an object belongs and the like; `null` fits everywhere.
pub(super) fn check_container(schema: Option<&Schema>, value: &Value, path: &Path<'_>) -> Result<(), PatchError> {
    let Some(schema) = schema.filter(|_| !value.is_null()) else {
        return Ok(());
    };
    let (expected, fits) = match schema.kind() {
        Kind::Any => return Ok(()),
        Kind::Object | Kind::Map => ("an object", value.is_object()),
        Kind::List => ("a list", value.is_array()),
        Kind::Boolean => ("a boolean", value.is_boolean()),
        Kind::Integer | Kind::Number => ("a number", !value.is_object() && !value.is_array()),
        Kind::String => ("a string", !value.is_object() && !value.is_array()),
        Kind::IntOrString => ("a number or a string", !value.is_object() && !value.is_array()),
    };
    if fits {
        return Ok(());
    }
    Err(PatchError::WrongType { field: path.to_string(), expected, found: describe(value) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::fixture::{deployment, workload};
    use serde_json::json;

    fn set_of(value: &Value) -> Value {
        fields_of(Some(&deployment()), value).to_value()
    }

    #[test]
    fn sets_follow_the_schema() {
        let table = [
            (json!({"spec": {"replicas": 1}}), json!({"f:spec": {"f:replicas": {}}})),
            (json!({"spec": {}}), json!({"f:spec": {}})),
            (json!({"spec": null}), json!({"f:spec": {}})),
            (json!({"metadata": {"labels": {"a": "b"}}}), json!({"f:metadata": {"f:labels": {"f:a": {}}}})),
            (json!({"metadata": {"finalizers": ["x"]}}), json!({"f:metadata": {"f:finalizers": {"v:\"x\"": {}}}})),
            (json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}), json!({"f:spec": {"f:selector": {}}})),
            (json!({"unknown": {"a": [1]}}), json!({"f:unknown": {".": {}, "f:a": {}}})),
            (json!({"spec": "wrong"}), json!({"f:spec": {}})),
            (json!({"raw": {"a": {"b": 1}}}), json!({"f:raw": {}})),
            (json!({"free": {"a": {"b": 1}}}), json!({"f:free": {"f:a": {".": {}, "f:b": {}}}})),
        ];
        for (value, fields) in table {
            assert_eq!(set_of(&value), fields, "{value}");
        }
    }

    #[test]
    fn items_are_told_apart_by_keys_with_their_defaults() {
        let containers =
            json!([{"name": "web", "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]}]);
        let ports = json!({
            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}},
            "k:{\"containerPort\":80,\"protocol\":\"UDP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}},
        });
        let web = json!({".": {}, "f:name": {}, "f:ports": ports});
        let expected = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": web}}}}});
        assert_eq!(set_of(&workload(&containers)), expected);
    }

    #[test]
    fn items_that_share_their_keys_are_owned_together() {
        let containers = json!([{"name": "a", "image": "1"}, {"name": "a", "image": "2"}, {"image": "3"}, 4]);
        let expected = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {}}}}}});
        assert_eq!(set_of(&workload(&containers)), expected);
    }

    #[test]
    fn configurations_that_cannot_be_walked_name_the_field() {
        let table = [
            (json!("x"), "spec.template.spec.containers: must be a list, not a string"),
            (json!(["x"]), "spec.template.spec.containers[0]: must be an object, not a string"),
            (json!([{"image": "x"}]), "spec.template.spec.containers[0]: the merge key name is missing"),
            (json!([{"name": null}]), "spec.template.spec.containers[0]: the merge key name is missing"),
            (json!([{"name": {}}]), "spec.template.spec.containers[0]: the merge key name is missing"),
            (json!([{"name": "a"}, {"name": "a"}]), "containers[1]: the item [name=\"a\"] is there more than once"),
            (json!([{"name": "a", "ports": [{"containerPort": []}]}]), "containers[0].ports[0]"),
            (json!([{"name": "a", "image": []}]), "containers[0].image: must be a string, not a list"),
        ];
        for (containers, part) in table {
            let wrong =
                check(Some(&deployment()), &workload(&containers), &Path::ROOT).expect_err("refused").to_string();
            assert!(wrong.contains(part), "{containers} gave {wrong:?}");
        }
    }
}
