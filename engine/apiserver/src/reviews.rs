//! Reviews: what am I, what may I do. Answered from the identity and the table of rights; nothing is stored.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::authorize::{Attributes, allowed, may_read_path, rules};
use crate::body::Body;
use crate::call::Call;
use crate::decode;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::path::ResourcePath;
use crate::reply;

/// Whether the path is one of a review.
pub(crate) fn is_review(path: &ResourcePath) -> bool {
    matches!(path.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io")
}

/// Answers a review.
pub(crate) fn answer(call: &Call, path: &ResourcePath) -> Result<Response<Body>, ApiError> {
    if path.version != "v1" || path.name.is_some() {
        return Err(ApiError::NoSuchPath);
    }
    let kind = match (path.group.as_str(), path.plural.as_str()) {
        ("authentication.k8s.io", "selfsubjectreviews") => "SelfSubjectReview",
        ("authorization.k8s.io", "selfsubjectaccessreviews") => "SelfSubjectAccessReview",
        ("authorization.k8s.io", "selfsubjectrulesreviews") => "SelfSubjectRulesReview",
        ("authorization.k8s.io", "subjectaccessreviews") => "SubjectAccessReview",
        ("authorization.k8s.io", "localsubjectaccessreviews") if path.namespace.is_some() => "LocalSubjectAccessReview",
        _ => return Err(ApiError::NoSuchPath),
    };
    if call.method != http::Method::POST {
        return Err(ApiError::MethodNotAllowed);
    }
    let mut review = decode::decode(call)?.value;
    if !review.is_object() {
        return Err(ApiError::BadRequest(format!("expected an object of kind {kind}")));
    }
    review["apiVersion"] = format!("{}/v1", path.group).into();
    review["kind"] = kind.into();
    review["status"] = match kind {
        "SelfSubjectReview" => json!({"userInfo": user(&call.identity)}),
        "SelfSubjectRulesReview" => own_rules(&call.identity, &review["spec"]),
        "SelfSubjectAccessReview" => access(&call.identity, &review["spec"]),
        _ => access(&subject(&review["spec"]), &review["spec"]),
    };
    Ok(reply::value(StatusCode::CREATED, &review, false))
}

fn user(identity: &Identity) -> Value {
    json!({"username": identity.user, "groups": identity.all_groups()})
}

fn subject(spec: &Value) -> Identity {
    let groups = spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Identity { user: spec["user"].as_str().unwrap_or_default().to_owned(), groups: groups.map(str::to_owned).collect() }
}

fn access(identity: &Identity, spec: &Value) -> Value {
    let text = |value: &'_ Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let allowed = if spec["nonResourceAttributes"].is_object() {
        let asked = &spec["nonResourceAttributes"];
        text(asked, "verb") == "get" && may_read_path(identity, &text(asked, "path"))
            || identity.is_in(crate::identity::MASTERS)
    } else {
        let asked = &spec["resourceAttributes"];
        let fields = ["verb", "group", "resource", "subresource", "namespace", "name"].map(|key| text(asked, key));
        let [verb, group, resource, subresource, namespace, name] = &fields;
        allowed(identity, &Attributes { verb, group, resource, subresource, namespace, name })
    };
    let mut status = json!({"allowed": allowed});
    if !allowed {
        status["reason"] = "no rule allows it".into();
    }
    status
}

fn own_rules(identity: &Identity, spec: &Value) -> Value {
    let (resources, paths) = rules(identity, spec["namespace"].as_str().unwrap_or_default());
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
