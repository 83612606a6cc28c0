//! What pods have beyond other objects: being bound to a node, and logs, which their node keeps.

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use shipway_schema::{FieldError, Reason};
use tower::ServiceExt;

use crate::ApiServer;
use crate::admission::{self, Operation};
use crate::body::{Body, full};
use crate::call::Call;
use crate::clock;
use crate::commit::Place;
use crate::decode;
use crate::error::{About, ApiError};
use crate::path::ResourcePath;
use crate::query::{Query, escape};
use crate::reply;
use crate::service::NodeService;
use crate::write::{Change, Part, manager, modify};

/// The query parameters of a log request that the node understands.
const LOG_PARAMETERS: [&str; 8] =
    ["follow", "tailLines", "previous", "timestamps", "sinceSeconds", "sinceTime", "limitBytes", "stream"];

/// Whether the path is that of bindings, which name their pods themselves.
pub(crate) fn is_binding(target: &ResourcePath) -> bool {
    target.group.is_empty() && target.version == "v1" && target.plural == "bindings" && target.name.is_none()
}

/// Binds the pod that the binding is named for.
pub(crate) async fn bind_named(call: &Call, target: &ResourcePath) -> Result<Response<Body>, ApiError> {
    if call.method != Method::POST || target.namespace.is_none() {
        return Err(ApiError::MethodNotAllowed);
    }
    let binding = decode::decode(call)?.value;
    let name = binding["metadata"]["name"].as_str().filter(|name| !name.is_empty() && !name.contains('/'));
    let name = name.ok_or_else(|| ApiError::BadRequest("metadata.name: Required value".into()))?.to_owned();
    let resource = call.server.registry().find("", "v1", "pods").ok_or(ApiError::NoSuchPath)?;
    let table = call.server.cache().table(&resource);
    bind(call, &Place { resource, table, namespace: target.namespace.clone(), name }).await?;
    Ok(reply::success(StatusCode::CREATED, None))
}

/// Binds a pod to a node, once.
pub(crate) async fn bind(call: &Call, place: &Place) -> Result<(), ApiError> {
    let mut binding = decode::decode(call)?.value;
    admission::admit_below(call, place, Operation::Create, "binding", &mut binding).await?;
    let target = &binding["target"];
    let node = target["name"].as_str().filter(|name| !name.is_empty());
    let node = node.ok_or_else(|| ApiError::BadRequest("target.name: Required value".into()))?.to_owned();
    if !matches!(target["kind"].as_str(), None | Some("" | "Node")) {
        return Err(ApiError::BadRequest(format!(
            "target.kind: Unsupported value: {}: supported values: \"Node\"",
            target["kind"]
        )));
    }
    let uid = binding["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let edit = |pod: &Value| bound(place, pod, &binding, &node, &uid);
    let manager = manager(call, place, Some("binding"))?;
    let change = Change { part: Part::Binding, manager: Some(manager), edit: &edit };
    modify(call, place, change).await.map(drop)
}

fn bound(place: &Place, pod: &Value, binding: &Value, node: &str, uid: &str) -> Result<Value, ApiError> {
    let conflict = |text: String| ApiError::Conflict(place.about(), text);
    if let Some(own) = pod["spec"]["nodeName"].as_str().filter(|own| !own.is_empty()) {
        return Err(conflict(format!("pod {} is already assigned to node {own:?}", place.name)));
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return Err(conflict(format!("pod {} is being deleted, cannot be assigned to a host", place.name)));
    }
    if !uid.is_empty() && pod["metadata"]["uid"] != *uid {
        let text =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", pod["metadata"]["uid"]);
        return Err(conflict(text));
    }
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = node.into();
    for (key, value) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
        pod["metadata"]["annotations"][key] = value.clone();
    }
    set_scheduled(&mut pod);
    Ok(pod)
}

fn set_scheduled(pod: &mut Value) {
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        let now = clock::text(clock::now());
        conditions
            .push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
    }
}

/// Refuses options that contradict each other or make no sense.
fn check_log_options(query: &Query) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    let mut refuse = |field: &str, message: String| {
        errors.push(FieldError { field: field.into(), reason: Reason::Invalid, message });
    };
    for (field, least, rule) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
        ("limitBytes", 1, "must be greater than 0"),
    ] {
        if let Some(text) = query.get(field)
            && text.parse::<i64>().is_ok_and(|number| number < least)
        {
            refuse(field, format!("Invalid value: {text}: {rule}"));
        }
    }
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        refuse("", "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified".into());
    }
    match query.get("stream") {
        None | Some("All") => {}
        Some("Stdout" | "Stderr") if query.get("tailLines").is_none() => {}
        Some("Stdout" | "Stderr") => {
            refuse("", "Forbidden: `tailLines` and specific `stream` are mutually exclusive for now".into());
        }
        Some(other) => {
            let known = "supported values: \"All\", \"Stdout\", \"Stderr\"";
            refuse("stream", format!("Unsupported value: {other:?}: {known}"));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::Invalid(About { resource: "PodLogOptions".into(), ..About::default() }, errors))
}

/// Streams a container's log from the pod's node.
pub(crate) async fn log(call: &Call, place: &Place) -> Result<Response<Body>, ApiError> {
    check_log_options(&call.query)?;
    call.server.cache().catch_up().await?;
    let object = place.table.get(&place.key()).ok_or_else(|| ApiError::NotFound(place.about()))?;
    let pod = object.value();
    let container = container(&pod, &place.name, call.query.get("container"))?;
    let service = node(&call.server, &pod, &place.name)?;
    let namespace = place.namespace.as_deref().unwrap_or_default();
    let parameters: Vec<String> =
        LOG_PARAMETERS.iter().filter_map(|name| Some(format!("{name}={}", escape(call.query.get(name)?)))).collect();
    let path = format!("/containerLogs/{namespace}/{}/{container}?{}", place.name, parameters.join("&"));
    let request = Request::builder().method(Method::GET).uri(path).body(full(bytes::Bytes::new()));
    let request = request.map_err(|error| ApiError::BadRequest(error.to_string()))?;
    Ok(ask(service, request).await)
}

/// The service of the node that a pod runs on.
pub(crate) fn node(server: &ApiServer, pod: &Value, name: &str) -> Result<NodeService, ApiError> {
    let node = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty());
    let node = node.ok_or_else(|| ApiError::BadRequest(format!("pod {name} does not have a host assigned")))?;
    server.node(node).ok_or_else(|| ApiError::Unavailable(format!("node {node:?} is not connected")))
}

/// Boxed where the types are known, so that callers need not work out that it can be sent.
pub(crate) fn ask(service: NodeService, request: Request<Body>) -> BoxFuture<'static, Response<Body>> {
    service.oneshot(request).map(|reply| reply.unwrap_or_else(|never| match never {})).boxed()
}

/// The container that was asked for, or the only one there is.
pub(crate) fn container(pod: &Value, name: &str, asked: Option<&str>) -> Result<String, ApiError> {
    let named = |list: &str| -> Vec<&str> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str()).collect()
    };
    let (containers, init) = (named("containers"), named("initContainers"));
    let all =
        || init.iter().chain(&containers).chain(&named("ephemeralContainers")).copied().collect::<Vec<_>>().join(" ");
    let chosen = asked.or_else(|| pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str());
    match (chosen, containers.as_slice()) {
        (Some(asked), _) if all().split(' ').any(|own| own == asked) => Ok(asked.to_owned()),
        (Some(asked), _) => Err(ApiError::BadRequest(format!("container {asked} is not valid for pod {name}"))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, _) => Err(ApiError::BadRequest(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_of_a_log_is_found_or_asked_for() {
        let one = json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, "p", None).unwrap(), "a");
        assert_eq!(container(&one, "p", Some("i")).unwrap(), "i");
        assert_eq!(container(&one, "p", Some("x")).unwrap_err().to_string(), "container x is not valid for pod p");
        let two = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let text = "a container name must be specified for pod p, choose one of: [a b]";
        assert_eq!(container(&two, "p", None).unwrap_err().to_string(), text);
    }

    #[test]
    fn options_of_a_log_that_contradict_each_other_are_refused() {
        let check = |query: &str| check_log_options(&Query::parse(query).unwrap()).map_err(|error| error.to_string());
        assert_eq!(check("tailLines=0&sinceSeconds=1&limitBytes=1&stream=All&follow=true"), Ok(()));
        assert!(check("tailLines=-1").unwrap_err().contains("tailLines: Invalid value: -1"));
        assert!(check("limitBytes=0").unwrap_err().contains("must be greater than 0"));
        assert!(check("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z").unwrap_err().contains("at most one of"));
        assert!(check("stream=Stdout&tailLines=3").unwrap_err().contains("mutually exclusive"));
        assert!(check("stream=other").unwrap_err().contains("supported values"));
    }
}
