//! Our own facts about fields: how they merge, and where a zero value means something.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

/// `core.v1.Pod` in full.
fn definition_name(short: &str) -> String {
    match short.split_once('.') {
        Some(("meta", rest)) => format!("io.k8s.apimachinery.pkg.apis.meta.{rest}"),
        Some(("apiextensions", rest)) => format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{rest}"),
        _ => format!("io.k8s.api.{short}"),
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Writes the facts of `keys.txt` into the definitions as `x-kubernetes-*`.
pub(crate) fn annotate(definitions: &mut Map<String, Value>, keys: &str) {
    for line in lines(keys) {
        let mut words = line.split_whitespace();
        let place = words.next().expect("the line is not empty");
        let target = find(definitions, place).unwrap_or_else(|| panic!("keys.txt names no field: {line}"));
        let target = target.as_object_mut().expect("a schema is an object");
        let mut words = words.peekable();
        let mut first_key = None;
        while let Some(word) = words.next() {
            match word.split_once('=').unwrap_or((word, "")) {
                ("atomic", _) => insert(target, "map-type", json!("atomic")),
                ("set", _) => insert(target, "list-type", json!("set")),
                ("map", _) => {
                    let keys: Vec<&str> = words.next().expect("map is followed by its keys").split(',').collect();
                    first_key = keys.first().copied();
                    insert(target, "list-type", json!("map"));
                    insert(target, "list-map-keys", json!(keys));
                }
                ("smp", key) => {
                    if let Some(key) = Some(key).filter(|key| !key.is_empty()).or(first_key) {
                        insert(target, "patch-merge-key", json!(key));
                    }
                    strategy(target, "merge");
                }
                ("retain", _) => strategy(target, "retainKeys"),
                ("replace", _) => strategy(target, "replace"),
                ("default", value) => {
                    target.insert("default".into(), value.into());
                }
                _ => panic!("keys.txt: unknown word {word} in: {line}"),
            }
        }
    }
}

fn insert(target: &mut Map<String, Value>, key: &str, value: Value) {
    target.insert(format!("x-kubernetes-{key}"), value);
    wrap(target);
}

/// A reference that gains siblings has to become an `allOf`.
fn wrap(target: &mut Map<String, Value>) {
    if let Some(reference) = target.shift_remove("$ref") {
        target.insert("allOf".into(), json!([{ "$ref": reference }]));
    }
}

fn strategy(target: &mut Map<String, Value>, word: &str) {
    let key = "x-kubernetes-patch-strategy";
    let joined = match target.get(key).and_then(Value::as_str) {
        Some(before) => format!("{before},{word}"),
        None => word.to_owned(),
    };
    insert(target, "patch-strategy", json!(joined));
}

fn find<'a>(definitions: &'a mut Map<String, Value>, place: &str) -> Option<&'a mut Value> {
    let whole = definition_name(place);
    if definitions.contains_key(&whole) {
        return definitions.get_mut(&whole);
    }
    let (definition, field) = place.rsplit_once('.')?;
    definitions.get_mut(&definition_name(definition))?.get_mut("properties")?.get_mut(field)
}

/// The `(definition, field)` pairs of `pointers.txt`.
pub(crate) fn pointers(definitions: &Map<String, Value>, text: &str) -> HashSet<(String, String)> {
    let mut pointers = HashSet::new();
    for line in lines(text) {
        let mut words = line.split_whitespace();
        let name = definition_name(words.next().expect("the line is not empty"));
        let properties = definitions.get(&name).and_then(|definition| definition.get("properties"));
        for field in words {
            assert!(properties.is_some_and(|all| all.get(field).is_some()), "pointers.txt: {name} has no {field}");
            pointers.insert((name.clone(), field.to_owned()));
        }
    }
    pointers
}
