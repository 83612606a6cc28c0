//! Config maps and secrets: keyed data, optionally frozen.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::metadata::{self, text_rule};
use super::{IMMUTABLE, Strategy, checks};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// The most bytes that the values of one object may have together.
const LIMIT: usize = 1024 * 1024;

/// `v1` `ConfigMap`
pub(crate) struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_subdomain, &mut errors);
        let text_size = keys(object, "data", &mut errors);
        let keys_of_text: BTreeSet<&str> = lookup::entries(object, "data").map(|(key, _)| key).collect();
        for (key, _) in lookup::entries(object, "binaryData").filter(|(key, _)| keys_of_text.contains(key)) {
            let path = Path::Root.field("data");
            errors.push(FieldError::invalid(&path.key(key), &key.into(), "duplicate of key present in binaryData"));
        }
        let size = text_size + keys(object, "binaryData", &mut errors);
        if size > LIMIT {
            errors.push(FieldError::too_long(&Path::Root, LIMIT));
        }
        frozen(object, old, &["data", "binaryData"], &mut errors);
        errors
    }
}

/// `v1` `Secret`
pub(crate) struct Secret;

/// The keys that a secret of a well-known type must hold.
const TYPES: [(&str, &[&str]); 4] = [
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

impl Strategy for Secret {
    fn default(&self, object: &mut Value) {
        lookup::fill_zero(object, "type", "Opaque");
        let Some(Value::Object(given)) = lookup::remove(object, "stringData") else { return };
        if let Some(data) = lookup::make_object(object, "data") {
            for (key, value) in given {
                data.insert(key, STANDARD.encode(value.as_str().unwrap_or("")).into());
            }
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        // A secret that is replaced without saying its type keeps it.
        if lookup::text(object, "type").is_empty() {
            super::keep(object, old, "type");
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_subdomain, &mut errors);
        let data = Path::Root.field("data");
        if keys(object, "data", &mut errors) / 4 * 3 > LIMIT {
            errors.push(FieldError::too_long(&data, LIMIT));
        }
        if let Some((_, required)) = TYPES.iter().find(|(name, _)| *name == lookup::text(object, "type")) {
            let missing = required.iter().filter(|key| object.get("data").and_then(|data| data.get(**key)).is_none());
            errors.extend(missing.map(|key| FieldError::required(&data.key(key), "")));
        }
        if old.is_some_and(|old| old.get("type") != object.get("type")) {
            errors.push(FieldError::invalid(&Path::Root.field("type"), &object["type"], IMMUTABLE));
        }
        frozen(object, old, &["data"], &mut errors);
        errors
    }
}

/// Checks the keys under a field; gives the bytes of the values.
fn keys(object: &Value, field: &str, errors: &mut Vec<FieldError>) -> usize {
    let path = Path::Root.field(field);
    let mut size = 0;
    for (key, value) in lookup::entries(object, field) {
        text_rule(&path.key(key), key, checks::data_key, errors);
        size += value.as_str().map_or(0, str::len);
    }
    size
}

/// What `immutable` forbids.
fn frozen(object: &Value, old: Option<&Value>, fields: &[&str], errors: &mut Vec<FieldError>) {
    let Some(old) = old.filter(|old| lookup::flag(old, "immutable")) else { return };
    let detail = "field is immutable when `immutable` is set";
    if !lookup::flag(object, "immutable") {
        errors.push(FieldError::forbidden(&Path::Root.field("immutable"), detail));
    }
    for field in fields.iter().filter(|field| lookup::at(object, field) != lookup::at(old, field)) {
        errors.push(FieldError::forbidden(&Path::Root.field(field), detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::strategy::testing::{admit, errors, valid};

    #[test]
    fn plain_text_is_folded_into_a_secrets_data() {
        let secret = valid(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" },
            "data": { "a": "b2xk", "b": "b2xk" }, "stringData": { "a": "new" },
        }));
        assert_eq!(secret["data"], json!({ "a": "bmV3", "b": "b2xk" }));
        assert_eq!(secret["type"], "Opaque");
        assert!(secret.get("stringData").is_none());
    }

    #[test]
    fn a_secrets_type_stays_and_names_its_keys() {
        let tls = |data| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" }, "type": "kubernetes.io/tls", "data": data });
        assert_eq!(errors(tls(json!({ "tls.crt": "" }))), ["data[tls.key]: Required value"]);
        let old = valid(tls(json!({ "tls.crt": "", "tls.key": "" })));
        let mut new = old.clone();
        new["type"] = json!("Opaque");
        assert_eq!(admit(new, Some(&old)).1, [r#"type: Invalid value: "Opaque": field is immutable"#]);
    }

    #[test]
    fn what_is_frozen_stays() {
        let old = valid(
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "k": "1" }, "immutable": true }),
        );
        let mut new = old.clone();
        new["data"]["k"] = json!("2");
        new["immutable"] = json!(false);
        assert_eq!(
            admit(new, Some(&old)).1,
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
    }

    #[test]
    fn keys_have_to_serve_as_file_names() {
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "a/x": "" }, "binaryData": { "b": "" } });
        let found = errors(map);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with(r#"data[a/x]: Invalid value: "a/x": a valid config key"#), "{found:?}");
    }
}
