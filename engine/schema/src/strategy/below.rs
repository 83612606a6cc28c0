//! What a write to a subresource may change: the rest stays as it is stored.

use serde_json::{Map, Value};

use crate::lookup;

/// What each subresource that is a part of its object writes: the fields on the way, and the last one.
const PARTS: [(&str, &[&str]); 4] = [
    ("approval", &["status", "conditions"]),
    ("ephemeralcontainers", &["spec", "ephemeralContainers"]),
    ("finalize", &["spec", "finalizers"]),
    ("status", &["status"]),
];

/// The fields of a container that a resize writes.
const RESIZED: [&str; 2] = ["resizePolicy", "resources"];

/// The live object with the part that a subresource writes taken from the wished one; `None` for a subresource that is
/// no part of its object.
pub fn isolate(subresource: &str, wished: &Value, live: &Value) -> Option<Value> {
    let mut next = live.clone();
    if subresource == "resize" {
        for list in ["containers", "initContainers"] {
            resize(&mut next, &wished["spec"][list], list);
        }
        return Some(next);
    }
    let (_, part) = PARTS.iter().find(|(name, _)| *name == subresource)?;
    take(&mut next, wished, part);
    Some(next)
}

fn take(next: &mut Value, wished: &Value, part: &[&str]) {
    let [first, rest @ ..] = part else { return };
    let found = wished.get(first).filter(|value| !value.is_null());
    match (found, rest.is_empty()) {
        (Some(value), true) => lookup::set(next, first, value.clone()),
        (None, true) => drop(lookup::remove(next, first)),
        (found, false) => {
            lookup::fill(next, first, Map::new());
            if let Some(inner) = next.get_mut(first) {
                take(inner, found.unwrap_or(&Value::Null), rest);
            }
        }
    }
}

fn resize(next: &mut Value, wished: &Value, list: &str) {
    let Some(spec) = next.get_mut("spec") else { return };
    for container in lookup::list_mut(spec, list) {
        let mut all = wished.as_array().into_iter().flatten();
        let Some(wish) = all.find(|each| each.get("name") == container.get("name")) else { continue };
        for field in RESIZED {
            take(container, wish, &[field]);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_subresource_writes_its_part_and_nothing_else() {
        let live = json!({ "metadata": { "name": "a" }, "spec": { "x": 1, "finalizers": ["f"] }, "status": { "y": 1, "conditions": [1] } });
        let wished =
            json!({ "metadata": { "name": "b" }, "spec": { "x": 2 }, "status": { "y": 2, "conditions": [2] } });
        let with = |pointer: &str, value: Value| {
            let mut next = live.clone();
            *next.pointer_mut(pointer).expect("it is there") = value;
            Some(next)
        };
        assert_eq!(isolate("status", &wished, &live), with("/status", json!({ "y": 2, "conditions": [2] })));
        assert_eq!(isolate("approval", &wished, &live), with("/status/conditions", json!([2])));
        assert_eq!(isolate("finalize", &wished, &live), with("/spec", json!({ "x": 1 })));
        assert_eq!(isolate("log", &wished, &live), None);
        assert_eq!(isolate("approval", &json!({}), &json!({ "status": 1 })), Some(json!({ "status": 1 })));
    }

    #[test]
    fn a_resize_changes_resources_by_name() {
        let pod = |cpu: &str, image: &str| json!({ "spec": { "containers": [{ "name": "a", "image": "x" }, { "name": "b", "image": image, "resources": { "limits": { "cpu": cpu } } }] } });
        assert_eq!(isolate("resize", &pod("2", "other"), &pod("1", "y")), Some(pod("2", "y")));
    }
}
