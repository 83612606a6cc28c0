//! Component statuses: a kind that is not stored but seen. Whether the parts of the control plane work is told from what
//! this server knows of them: a part that follows the API holds a watch open.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Value, json};
use shipway_schema::Resource;

use crate::ApiServer;
use crate::body::Body;
use crate::call::Call;
use crate::error::{About, ApiError};
use crate::list::Page;
use crate::object::Object;
use crate::select::Selection;
use crate::view::View;

/// The parts, and the users that they are; the store has none.
const PARTS: [(&str, Option<&str>); 3] = [
    ("controller-manager", Some("system:serviceaccount:kube-system:shared-informers")),
    ("etcd-0", None),
    ("scheduler", Some("system:kube-scheduler")),
];

/// Whether it is a kind that this module answers for.
pub(crate) fn is_seen(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.kind == "ComponentStatus"
}

/// One status, or all that are selected.
pub(crate) fn answer(call: &Call, resource: &Arc<Resource>, name: Option<&str>) -> Result<Response<Body>, ApiError> {
    let view = View::of(call, resource.clone())?;
    if let Some(name) = name {
        let about = || About { group: String::new(), resource: resource.plural.to_string(), name: name.to_owned() };
        let found = PARTS.iter().find(|(own, _)| *own == name).ok_or_else(|| ApiError::NotFound(about()))?;
        return Ok(view.object(StatusCode::OK, &status(&call.server, *found)));
    }
    let selection = Selection::parse(resource, None, &call.query)?;
    let all = PARTS.iter().map(|part| Arc::new(status(&call.server, *part)));
    let objects = all.filter(|object| selection.matches(resource, object)).collect();
    Ok(view.list(Page { objects, revision: call.server.cache().revision(), next: None, remaining: None }))
}

fn status(server: &ApiServer, (name, user): (&str, Option<&str>)) -> Object {
    let problem = match user {
        Some(user) => (!server.flight().is_watching(user)).then_some("it follows nothing"),
        None => (!server.cache().is_following()).then_some("the store can no longer be read"),
    };
    Object::draft(name, &document(name, problem))
}

fn document(name: &str, problem: Option<&str>) -> Value {
    let condition = match problem {
        None => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Some(problem) => json!({"type": "Healthy", "status": "False", "error": problem}),
    };
    let metadata = json!({"name": name, "creationTimestamp": null});
    json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": metadata, "conditions": [condition]})
}
