//! Object metadata on the write path: what a new object gets, and what an update may not change.

use serde_json::{Map, Value};
use shipway_schema::{FieldError, Reason, Resource};

use crate::clock;
use crate::error::{About, ApiError};

/// Letters of generated names: no vowels, nothing that looks alike.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// What the server sets and a client cannot change.
const OURS: [&str; 5] = ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// A text field of `metadata`; empty when missing.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata` for change; `decode::identify` has made sure that it is there.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    object["metadata"].as_object_mut().expect("metadata is an object from decoding on")
}

/// The finalizers.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether deletion has begun.
pub(crate) fn is_terminating(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Whether nothing holds back the end of an object whose deletion has begun.
pub(crate) fn may_go(object: &Value) -> bool {
    let held =
        object["spec"]["finalizers"].as_array().is_some_and(|spec| object["kind"] == "Namespace" && !spec.is_empty());
    is_terminating(object)
        && finalizers(object).is_empty()
        && !held
        && object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

/// Whether the kind counts changes of its `spec`.
pub(crate) fn counts_generations(resource: &Resource) -> bool {
    if resource.is_custom() {
        return true;
    }
    let kind_counts = !resource.group.is_empty() || resource.kind == "Pod";
    kind_counts && resource.subresource("status").is_some() && resource.schema().field("spec").is_some()
}

/// Whether two states of an object differ in what its generation counts: its `spec`; of a custom object everything beside
/// metadata and, where that is a subresource, the status.
pub(crate) fn is_another_generation(resource: &Resource, old: &Value, new: &Value) -> bool {
    if !resource.is_custom() {
        return new["spec"] != old["spec"];
    }
    let status = resource.subresource("status").is_some();
    let counted = |object: &Value| -> Vec<(String, Value)> {
        let fields = object.as_object().into_iter().flatten();
        let counted = fields.filter(|(key, _)| *key != "metadata" && !(status && *key == "status"));
        let mut counted: Vec<_> = counted.map(|(key, value)| (key.clone(), value.clone())).collect();
        counted.sort_by(|a, b| a.0.cmp(&b.0));
        counted
    };
    counted(old) != counted(new)
}

/// Checks name and namespace of a new object against its path, and gives it identity and birth.
pub(crate) fn begin(resource: &Resource, namespace: Option<&str>, object: &mut Value) -> Result<(), ApiError> {
    if !text(object, "resourceVersion").is_empty() {
        return Err(ApiError::BadRequest("resourceVersion should not be set on objects to be created".into()));
    }
    place(namespace, object)?;
    let counts = counts_generations(resource);
    let metadata = metadata(object);
    for field in OURS {
        metadata.shift_remove(field);
    }
    metadata.shift_remove("selfLink");
    metadata.shift_remove("resourceVersion");
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), clock::text(clock::now()).into());
    if counts {
        metadata.insert("generation".into(), 1.into());
    }
    Ok(())
}

/// Sets the namespace of the path; refuses another one.
pub(crate) fn place(namespace: Option<&str>, object: &mut Value) -> Result<(), ApiError> {
    let given = text(object, "namespace");
    match namespace {
        Some(namespace) if given.is_empty() => {
            metadata(object).insert("namespace".into(), namespace.into());
        }
        Some(namespace) if given == namespace => {}
        Some(_) => {
            let text = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(ApiError::BadRequest(text.into()));
        }
        None => {
            metadata(object).shift_remove("namespace");
        }
    }
    Ok(())
}

/// A name from `generateName`.
pub(crate) fn generate_name(base: &str) -> String {
    let base: String = base.chars().take(58).collect();
    let letters = (0..5).map(|_| char::from(ALPHABET[fastrand::usize(..ALPHABET.len())]));
    base.chars().chain(letters).collect()
}

/// Carries over what an update may not change; refuses an update of another object's identity.
pub(crate) fn carry(about: &About, old: &Value, new: &mut Value) -> Result<(), ApiError> {
    let (old_uid, new_uid) = (text(old, "uid"), text(new, "uid"));
    if !new_uid.is_empty() && new_uid != old_uid {
        let text = format!("Precondition failed: UID in precondition: {new_uid}, UID in object meta: {old_uid}");
        return Err(ApiError::Conflict(about.clone(), text));
    }
    let name = text(new, "name");
    if !name.is_empty() && name != about.name {
        let text = format!("the name of the object ({name}) does not match the name on the URL ({})", about.name);
        return Err(ApiError::BadRequest(text));
    }
    let own = &old["metadata"];
    let metadata = metadata(new);
    metadata.shift_remove("selfLink");
    for field in OURS.into_iter().chain(["name", "generateName"]) {
        match own.get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.shift_remove(field),
        };
    }
    Ok(())
}

/// Checks what only a comparison with the live object can tell; the rest of metadata is the strategy's to check.
pub(crate) fn check(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(old) = old.filter(|old| is_terminating(old)) {
        let before = finalizers(old);
        let added: Vec<&str> = finalizers(object).into_iter().filter(|name| !before.contains(name)).collect();
        if !added.is_empty() {
            let message = format!(
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.push(FieldError { field: "metadata.finalizers".into(), reason: Reason::Forbidden, message });
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn generated_names_keep_their_base_and_stay_short() {
        let name = generate_name(&"x".repeat(80));
        assert_eq!(name.len(), 63);
        assert_ne!(generate_name("web-"), generate_name("web-"));
        assert!(generate_name("web-").starts_with("web-"));
    }

    #[test]
    fn an_update_cannot_change_identity_or_deletion() {
        let about = About { group: String::new(), resource: "pods".into(), name: "a".into() };
        let old = json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "t", "creationTimestamp": "c"}});
        let mut new = json!({"metadata": {"labels": {}, "creationTimestamp": "x", "generation": 9}});
        carry(&about, &old, &mut new).unwrap();
        let expected =
            json!({"labels": {}, "uid": "1", "creationTimestamp": "c", "deletionTimestamp": "t", "name": "a"});
        assert_eq!(new["metadata"], expected);
        let mut other = json!({"metadata": {"uid": "2"}});
        assert!(matches!(carry(&about, &old, &mut other), Err(ApiError::Conflict(..))));
        let mut other = json!({"metadata": {"name": "b"}});
        assert!(matches!(carry(&about, &old, &mut other), Err(ApiError::BadRequest(_))));
    }

    #[test]
    fn finalizers_cannot_be_added_while_an_object_goes() {
        let old = json!({"metadata": {"deletionTimestamp": "t", "finalizers": ["a/b"]}});
        let new = json!({"metadata": {"deletionTimestamp": "t", "finalizers": ["a/b", "a/c"]}});
        assert_eq!(check(&new, Some(&old))[0].field, "metadata.finalizers");
        assert!(check(&old, Some(&new)).is_empty());
    }
}
