//! Sets of fields, the currency of server-side apply, and their `FieldsV1` form.
//!
//! A set is a tree of path elements. A place is a member when it says so itself (`own`), whatever lies below it; a
//! place without members is not in the tree at all, which is what makes equality and emptiness cheap.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Number, Value};

/// A scalar inside a path element.
#[derive(Clone, Debug)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Box<str>),
}

/// One step from a place to one below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    /// A field of an object or a key of a map.
    Field(Box<str>),
    /// An item of a list, by its keys in alphabetical order.
    Key(Vec<(Box<str>, Scalar)>),
    /// An item of a set, by its value.
    Item(Scalar),
}

/// A set of fields at and below one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    pub(super) own: bool,
    children: BTreeMap<Element, FieldSet>,
}

impl FieldSet {
    /// The set of just the place itself.
    pub(super) fn leaf() -> Self {
        Self { own: true, children: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.own && self.children.is_empty()
    }

    /// The set below one step; `None` when it would be empty.
    pub(super) fn child(&self, element: &Element) -> Option<&Self> {
        self.children.get(element)
    }

    pub(super) fn children(&self) -> impl Iterator<Item = (&Element, &Self)> {
        self.children.iter()
    }

    /// Puts a set below one step, in union with what is there.
    pub(super) fn put(&mut self, element: Element, child: Self) {
        if child.is_empty() {
            return;
        }
        match self.children.get_mut(&element) {
            Some(present) => present.absorb(child),
            None => drop(self.children.insert(element, child)),
        }
    }

    /// Takes the set below a field out.
    pub(super) fn take_field(&mut self, name: &str) -> Self {
        self.children.remove(&Element::Field(name.into())).unwrap_or_default()
    }

    /// Adds all members of another set.
    pub(super) fn absorb(&mut self, other: Self) {
        self.own |= other.own;
        for (element, child) in other.children {
            self.put(element, child);
        }
    }

    #[must_use]
    pub(super) fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.absorb(other.clone());
        all
    }

    /// The members that the other set lacks.
    #[must_use]
    pub(super) fn difference(&self, other: &Self) -> Self {
        let children = self.children.iter().filter_map(|(element, child)| {
            let left = match other.children.get(element) {
                Some(theirs) => child.difference(theirs),
                None => child.clone(),
            };
            (!left.is_empty()).then(|| (element.clone(), left))
        });
        Self { own: self.own && !other.own, children: children.collect() }
    }

    /// The members of both.
    #[must_use]
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let children = self.children.iter().filter_map(|(element, child)| {
            let both = child.intersection(other.children.get(element)?);
            (!both.is_empty()).then(|| (element.clone(), both))
        });
        Self { own: self.own && other.own, children: children.collect() }
    }

    /// The members as paths in the notation of conflicts: `.spec.containers[name="web"].image`.
    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<String> {
        self.paths_within(usize::MAX)
    }

    /// The first of the paths: one at least, and no further ones once they have so many bytes together.
    pub(super) fn paths_within(&self, bytes: usize) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths(&mut String::new(), &mut paths, &mut { bytes });
        paths
    }

    fn collect_paths(&self, prefix: &mut String, into: &mut Vec<String>, left: &mut usize) {
        if self.own && (*left > 0 || into.is_empty()) {
            *left = left.saturating_sub(prefix.len());
            into.push(prefix.clone());
        }
        for (element, child) in &self.children {
            if *left == 0 && !into.is_empty() {
                return;
            }
            let length = prefix.len();
            prefix.push_str(&element.to_string());
            child.collect_paths(prefix, into, left);
            prefix.truncate(length);
        }
    }

    /// The `FieldsV1` form.
    pub(super) fn to_value(&self) -> Value {
        let mut fields = Map::new();
        if self.own && !self.children.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            fields.insert(element.to_key(), child.to_value());
        }
        Value::Object(fields)
    }

    /// Reads the `FieldsV1` form of a whole object; `None` when it is not one. Steps by index are passed over.
    pub(super) fn from_value(fields: &Value) -> Option<Self> {
        let mut set = Self::read(fields)?;
        set.own = false;
        Some(set)
    }

    fn read(fields: &Value) -> Option<Self> {
        let fields = fields.as_object()?;
        let mut set = Self { own: fields.is_empty(), children: BTreeMap::new() };
        for (key, inner) in fields {
            match key.as_str() {
                "." => set.own = true,
                key if key.starts_with("i:") => {}
                key => set.put(Element::from_key(key)?, Self::read(inner)?),
            }
        }
        Some(set)
    }
}

impl Element {
    fn to_key(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => {
                let keys: Map<String, Value> =
                    keys.iter().map(|(name, value)| (name.to_string(), value.to_value())).collect();
                format!("k:{}", Value::Object(keys))
            }
            Self::Item(value) => format!("v:{}", value.to_value()),
        }
    }

    fn from_key(key: &str) -> Option<Self> {
        let (prefix, rest) = key.split_once(':')?;
        match prefix {
            "f" => Some(Self::Field(rest.into())),
            "v" => Some(Self::Item(Scalar::of(&serde_json::from_str(rest).ok()?)?)),
            "k" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).ok()?;
                let keys = keys.iter().map(|(name, value)| Some((name.as_str().into(), Scalar::of(value)?)));
                Some(Self::key(keys.collect::<Option<Vec<_>>>()?))
            }
            _ => None,
        }
    }

    /// An item of a list by its keys, in any order.
    pub(super) fn key(mut keys: Vec<(Box<str>, Scalar)>) -> Self {
        keys.sort();
        Self::Key(keys)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Item(value) => write!(f, "[={}]", value.to_value()),
            Self::Key(keys) => {
                f.write_str("[")?;
                for (at, (name, value)) in keys.iter().enumerate() {
                    write!(f, "{}{name}={}", if at > 0 { "," } else { "" }, value.to_value())?;
                }
                f.write_str("]")
            }
        }
    }
}

impl Scalar {
    /// `None` for objects and lists.
    pub(super) fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::String(text) => Self::Text(text.as_str().into()),
            Value::Number(number) => Self::of_number(number),
            Value::Array(_) | Value::Object(_) => return None,
        })
    }

    fn of_number(number: &Number) -> Self {
        if let Some(integer) = number.as_i64() {
            return Self::Integer(integer.into());
        }
        if let Some(integer) = number.as_u64() {
            return Self::Integer(integer.into());
        }
        Self::Float(number.as_f64().unwrap_or_default())
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Text(text) => Value::String(text.to_string()),
            Self::Float(float) => Number::from_f64(*float).map_or(Value::Null, Value::Number),
            Self::Integer(integer) => match (i64::try_from(*integer), u64::try_from(*integer)) {
                (Ok(signed), _) => signed.into(),
                (_, Ok(unsigned)) => unsigned.into(),
                // Read from neither; see `of_number`.
                _ => Value::Null,
            },
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Integer(_) => 2,
            Self::Float(_) => 3,
            Self::Text(_) => 4,
        }
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn set(fields: &Value) -> FieldSet {
        FieldSet::from_value(fields).expect("FieldsV1")
    }

    #[test]
    fn fields_v1_is_read_and_written_alike() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app.kubernetes.io/name": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"web\"}": {
                    ".": {}, "f:image": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                }},
                "f:finalizers": {"v:\"a:b\"": {}, "v:1": {}, "v:1.5": {}, "v:true": {}},
            },
        });
        assert_eq!(set(&fields).to_value(), fields);
        assert_eq!(set(&json!({})), FieldSet::default());
    }

    #[test]
    fn what_is_no_fields_v1_is_refused() {
        for wrong in [
            json!(null),
            json!([]),
            json!({"f:a": 1}),
            json!({"x:a": {}}),
            json!({"spec": {}}),
            json!({"k:[": {}}),
            json!({"v:{}": {}}),
        ] {
            assert_eq!(FieldSet::from_value(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn paths_are_written_as_conflicts_show_them() {
        let fields = set(&json!({"f:spec": {
            "f:replicas": {},
            "f:containers": {"k:{\"protocol\":\"TCP\",\"containerPort\":80}": {".": {}, "f:x": {}}},
            "f:finalizers": {"v:\"a\"": {}},
        }}));
        let expected = [
            ".spec.containers[containerPort=80,protocol=\"TCP\"]",
            ".spec.containers[containerPort=80,protocol=\"TCP\"].x",
            ".spec.finalizers[=\"a\"]",
            ".spec.replicas",
        ];
        assert_eq!(fields.paths(), expected);
    }

    fn any_set() -> impl Strategy<Value = FieldSet> {
        let element = prop_oneof![
            "[a-c]".prop_map(|name| Element::Field(name.into())),
            any::<i8>().prop_map(|number| Element::Item(Scalar::Integer(number.into()))),
            ("[a-b]", any::<bool>()).prop_map(|(text, flag)| {
                Element::key(vec![("y".into(), Scalar::Text(text.into())), ("x".into(), Scalar::Bool(flag))])
            }),
        ];
        let leaf = Just(FieldSet::leaf());
        leaf.prop_recursive(4, 24, 4, move |inner| {
            (any::<bool>(), prop::collection::vec((element.clone(), inner), 0..4)).prop_map(|(own, children)| {
                let mut set = FieldSet { own, children: BTreeMap::new() };
                for (element, child) in children {
                    set.put(element, child);
                }
                set
            })
        })
        .prop_map(|set| FieldSet { own: false, children: set.children })
    }

    proptest! {
        #[test]
        fn fields_v1_round_trips(set in any_set()) {
            prop_assert_eq!(FieldSet::from_value(&set.to_value()), Some(set));
        }

        #[test]
        fn the_operations_obey_the_laws_of_sets(a in any_set(), b in any_set()) {
            prop_assert_eq!(a.union(&b), b.union(&a));
            prop_assert_eq!(a.intersection(&b), b.intersection(&a));
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert!(a.difference(&b).intersection(&b).is_empty());
            let members: std::collections::BTreeSet<_> = a.paths().into_iter().chain(b.paths()).collect();
            prop_assert_eq!(a.union(&b).paths().into_iter().collect::<std::collections::BTreeSet<_>>(), members);
        }
    }
}
