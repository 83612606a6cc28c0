//! Request bodies: JSON, YAML or protobuf into the one working form, and the check of its shape against the kind.

use serde_json::Value;
use shipway_schema::{Resource, Schema, check_types, decode_json, decode_protobuf, prune, prune_unknown};

use crate::call::{Call, Validation};
use crate::error::ApiError;

const MEDIA: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// A body in its working form.
pub(crate) struct Decoded {
    pub(crate) value: Value,
    /// The paths of keys that were given more than once.
    pub(crate) duplicates: Vec<String>,
}

/// Reads the body by its content type; a missing type means JSON.
pub(crate) fn decode(call: &Call) -> Result<Decoded, ApiError> {
    match call.content_type() {
        "" | "application/json" | "text/json" => json(&call.body),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml(&call.body),
        "application/vnd.kubernetes.protobuf" => {
            let value = decode_protobuf(&call.server.registry(), &call.body).map_err(|error| malformed(&error))?;
            Ok(Decoded { value, duplicates: Vec::new() })
        }
        _ => Err(ApiError::UnsupportedMediaType(MEDIA)),
    }
}

/// Reads JSON.
pub(crate) fn json(body: &[u8]) -> Result<Decoded, ApiError> {
    let (value, duplicates) = decode_json(body).map_err(|error| malformed(&error))?;
    Ok(Decoded { value, duplicates })
}

/// Reads YAML, or JSON where the body is that; a duplicate key in YAML is an error.
pub(crate) fn yaml(body: &[u8]) -> Result<Decoded, ApiError> {
    if body.trim_ascii_start().starts_with(b"{") {
        return json(body);
    }
    let value = serde_saphyr::from_slice(body).map_err(|error| malformed(&error))?;
    Ok(Decoded { value, duplicates: Vec::new() })
}

fn malformed(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::BadRequest(format!("the object provided is unrecognized (must be JSON, YAML or protobuf): {error}"))
}

/// Fills in `apiVersion` and `kind`, and refuses an object of another kind.
pub(crate) fn identify(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    let Some(fields) = object.as_object_mut() else {
        return Err(ApiError::BadRequest(format!("expected an object of kind {}", resource.kind)));
    };
    let own = [("apiVersion", resource.api_version()), ("kind", resource.kind.to_string())];
    for (field, own) in own {
        match fields.get(field).and_then(Value::as_str) {
            None | Some("") => {
                fields.insert(field.into(), own.into());
            }
            Some(given) if given == own => {}
            Some(given) if field == "kind" => {
                return Err(ApiError::BadRequest(format!(
                    "{given} in the data does not match the expected kind {own}"
                )));
            }
            Some(given) => {
                return Err(ApiError::BadRequest(format!(
                    "the API version in the data ({given}) does not match the expected API version ({own})"
                )));
            }
        }
    }
    if !fields.get("metadata").is_some_and(Value::is_object) {
        fields.insert("metadata".into(), Value::Object(serde_json::Map::new()));
    }
    Ok(())
}

/// Drops unknown fields and, as the request asks, refuses them, warns of them or stays silent. Wrong types are always
/// refused.
pub(crate) fn check_shape(
    call: &Call,
    resource: &Resource,
    object: &mut Value,
    duplicates: &[String],
) -> Result<(), ApiError> {
    check_with(prune, call, resource, object, duplicates)
}

/// The same for an applied configuration, in which `null` says that its field is to be empty and whose it is.
pub(crate) fn check_applied(
    call: &Call,
    resource: &Resource,
    object: &mut Value,
    duplicates: &[String],
) -> Result<(), ApiError> {
    check_with(prune_unknown, call, resource, object, duplicates)
}

fn check_with(
    prune: fn(&Schema, &mut Value) -> Vec<String>,
    call: &Call,
    resource: &Resource,
    object: &mut Value,
    duplicates: &[String],
) -> Result<(), ApiError> {
    let schema = resource.schema();
    // A custom resource's own fields are judged with its constraints, in their words.
    let types = if resource.is_custom() {
        check_types(schema, &serde_json::json!({"metadata": object["metadata"]}))
    } else {
        check_types(schema, object)
    };
    if !types.is_empty() {
        let lines: Vec<String> = types.iter().map(ToString::to_string).collect();
        return Err(unreadable(resource, &lines.join(", ")));
    }
    let unknown = prune(schema, object);
    let problems: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field {path:?}"))
        .chain(duplicates.iter().map(|path| format!("duplicate field {path:?}")))
        .collect();
    match call.validation()? {
        _ if problems.is_empty() => {}
        Validation::Ignore => {}
        Validation::Warn => problems.into_iter().for_each(|problem| call.warn(problem)),
        Validation::Strict => {
            return Err(unreadable(resource, &format!("strict decoding error: {}", problems.join(", "))));
        }
    }
    Ok(())
}

fn unreadable(resource: &Resource, why: &str) -> ApiError {
    let (kind, version) = (&resource.kind, &resource.version);
    ApiError::BadRequest(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
}
