//! Events: the two versions differ in the names of fields alone.

use serde_json::{Map, Value};

use crate::lookup;

/// The fields of `v1`, and of `events.k8s.io/v1`, that are called otherwise in the other one.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// An event in the version that is named.
pub(crate) fn event(value: Value, api_version: &str) -> Value {
    if lookup::text(&value, "apiVersion") == api_version {
        return value;
    }
    let Value::Object(fields) = value else { return value };
    let to_new = api_version.starts_with("events.k8s.io/");
    let renamed = |name: String| {
        let found = NAMES.iter().find(|(old, new)| *(if to_new { old } else { new }) == name);
        found.map_or(name, |(old, new)| (*(if to_new { new } else { old })).to_owned())
    };
    let mut converted: Map<String, Value> = fields.into_iter().map(|(name, value)| (renamed(name), value)).collect();
    converted.insert("apiVersion".to_owned(), api_version.into());
    Value::Object(converted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_reads_alike_in_both_versions() {
        let old = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e" }, "involvedObject": { "kind": "Pod" }, "message": "m",
            "source": { "component": "c" }, "firstTimestamp": "t", "lastTimestamp": "t", "count": 2, "reportingComponent": "r",
            "reportingInstance": "i", "type": "Normal", "reason": "R", "action": "A",
        });
        let new = event(old.clone(), "events.k8s.io/v1");
        assert_eq!(new["regarding"]["kind"], "Pod");
        assert_eq!(
            [&new["note"], &new["deprecatedCount"], &new["reportingController"]],
            [&json!("m"), &json!(2), &json!("r")]
        );
        assert!(new.get("message").is_none());
        assert_eq!(event(new.clone(), "events.k8s.io/v1"), new);
        assert_eq!(event(new, "v1"), old);
        assert_eq!(event(json!(1), "v1"), json!(1));
    }
}
