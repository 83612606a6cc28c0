//! The `scale` subresource: `autoscaling/v1` Scale as a view of a workload's replica count.

use serde_json::{Map, Value, json};
use shipway_schema::{ScalePaths, Schema};

use crate::call::Call;
use crate::commit::Place;
use crate::decode;
use crate::error::{About, ApiError};
use crate::meta;
use crate::object::Object;
use crate::patch::Patch;
use crate::write::{Change, Part, manager, modify};

/// The value at a dotted path.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, name| &value[name])
}

/// Sets the value at a dotted path, making the objects on the way.
pub(crate) fn put(value: &mut Value, path: &str, new: Value) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let Some(fields) = value.as_object_mut() else { return };
    let place = fields.entry(first).or_insert(Value::Null);
    match rest {
        None => *place = new,
        Some(rest) => {
            if !place.is_object() {
                *place = json!({});
            }
            put(place, rest, new);
        }
    }
}

/// The Scale of a workload.
pub(crate) fn view(paths: &ScalePaths, workload: &Value) -> Value {
    let own = &workload["metadata"];
    let metadata: Map<String, Value> = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), own.get(key)?.clone())))
        .collect();
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": at(workload, &paths.spec_replicas).as_i64().unwrap_or(0)},
        "status": {
            "replicas": at(workload, &paths.status_replicas).as_i64().unwrap_or(0),
            "selector": paths.selector.as_deref().map(|path| selector(at(workload, path))).unwrap_or_default(),
        },
    })
}

/// A label selector as text; of a custom resource it may be text already.
fn selector(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    // A replication controller's is nothing but labels.
    let labels = match selector.get("matchLabels").or_else(|| selector.get("matchExpressions")) {
        Some(_) => &selector["matchLabels"],
        None => selector,
    };
    let labels = labels.as_object().into_iter().flatten();
    let equal = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten().map(expression);
    equal.chain(expressions).collect::<Vec<_>>().join(",")
}

fn expression(expression: &Value) -> String {
    let key = expression["key"].as_str().unwrap_or_default();
    let values: Vec<&str> = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match expression["operator"].as_str() {
        Some("In") => format!("{key} in ({})", values.join(",")),
        Some("NotIn") => format!("{key} notin ({})", values.join(",")),
        Some("DoesNotExist") => format!("!{key}"),
        _ => key.to_owned(),
    }
}

/// GET.
pub(crate) fn get(place: &Place, object: &Object) -> Result<Value, ApiError> {
    let (paths, object) = (&place.resource().scale, object.value());
    if place.resource().is_custom() && at(&object, &paths.spec_replicas).is_null() {
        let text = format!("the spec replicas field \".{}\" does not exist", paths.spec_replicas);
        return Err(ApiError::Internal(text));
    }
    Ok(view(paths, &object))
}

/// PUT: the body is the Scale to have.
pub(crate) async fn replace(call: &Call, place: &Place) -> Result<Value, ApiError> {
    let body = decode::decode(call)?.value;
    write(call, place, &|_| Ok(body.clone())).await
}

/// PATCH: the body changes the Scale there is.
pub(crate) async fn patch(call: &Call, place: &Place) -> Result<Value, ApiError> {
    let schema: Schema = call
        .server
        .registry()
        .virtual_definition("Scale")
        .ok_or_else(|| ApiError::Internal("the Scale kind has no schema".into()))?;
    let (patch, _) = Patch::parse(call)?;
    match patch {
        Patch::Apply(applied) => {
            write(call, place, &|scale| {
                let mut scale = scale.clone();
                scale["spec"]["replicas"] = applied["spec"]["replicas"].clone();
                Ok(scale)
            })
            .await
        }
        patch => write(call, place, &|scale| patch.apply_to(&schema, scale)).await,
    }
}

async fn write(
    call: &Call,
    place: &Place,
    edit: &(dyn Fn(&Value) -> Result<Value, ApiError> + Send + Sync),
) -> Result<Value, ApiError> {
    let paths = &place.resource().scale;
    let edit = |workload: &Value| {
        let scale = edit(&view(paths, workload))?;
        let replicas = replicas(place, &scale)?;
        let mut workload = workload.clone();
        meta::metadata(&mut workload).insert("resourceVersion".into(), scale["metadata"]["resourceVersion"].clone());
        meta::metadata(&mut workload).insert("uid".into(), scale["metadata"]["uid"].clone());
        put(&mut workload, &paths.spec_replicas, replicas.into());
        Ok(workload)
    };
    let change = Change { part: Part::Main, manager: Some(manager(call, place, Some("scale"))?), edit: &edit };
    let written = modify(call, place, change).await?;
    get(place, &written)
}

/// The count asked for; left out means none, as upstream reads it.
fn replicas(place: &Place, scale: &Value) -> Result<i64, ApiError> {
    let name = scale["metadata"]["name"].as_str().unwrap_or_default();
    if !name.is_empty() && name != place.name {
        let text = format!("the name of the object ({name}) does not match the name on the URL ({})", place.name);
        return Err(ApiError::BadRequest(text));
    }
    let given = &scale["spec"]["replicas"];
    let count = if given.is_null() { Some(0) } else { given.as_i64() };
    count.filter(|count| (0..=i64::from(i32::MAX)).contains(count)).ok_or_else(|| {
        let about = About { group: "autoscaling".into(), resource: "Scale".into(), name: place.name.clone() };
        let message = format!("Invalid value: {given}: must be a number greater than or equal to 0");
        let error = shipway_schema::FieldError {
            field: "spec.replicas".into(),
            reason: shipway_schema::Reason::Invalid,
            message,
        };
        ApiError::Invalid(about, vec![error])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_reads_as_text() {
        let value = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"},
            {"key": "new", "operator": "Exists"},
        ]});
        assert_eq!(selector(&value), "app=web,tier in (a,b),!old,new");
    }
}
