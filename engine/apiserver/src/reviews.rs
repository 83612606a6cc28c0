//! Reviews: what am I, what may I or somebody else do, whose token is this. Answered from what is known; nothing is stored.

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::access;
use crate::authorize::{self, Attributes};
use crate::body::Body;
use crate::call::Call;
use crate::decode;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::path::ResourcePath;
use crate::reply;

/// Works out the `status` of a review from its `spec`.
type Answer = for<'a> fn(&'a Call, &'a ResourcePath, &'a Value) -> BoxFuture<'a, Result<Value, ApiError>>;

struct Review {
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
    answer: Answer,
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

const fn review(group: &'static str, plural: &'static str, kind: &'static str, answer: Answer) -> Review {
    Review { group, plural, kind, namespaced: false, answer }
}

#[rustfmt::skip]
const REVIEWS: [Review; 6] = [
    review(AUTHENTICATION, "selfsubjectreviews", "SelfSubjectReview",
        |call, _, _| async { Ok(json!({"userInfo": call.identity.info()})) }.boxed()),
    review(AUTHENTICATION, "tokenreviews", "TokenReview", |call, _, spec| token(call, spec).boxed()),
    review(AUTHORIZATION, "selfsubjectaccessreviews", "SelfSubjectAccessReview",
        |call, _, spec| async { access(call, &call.identity, spec).await }.boxed()),
    review(AUTHORIZATION, "selfsubjectrulesreviews", "SelfSubjectRulesReview",
        |call, _, spec| async { own_rules(call, spec).await }.boxed()),
    review(AUTHORIZATION, "subjectaccessreviews", "SubjectAccessReview",
        |call, _, spec| async { access(call, &subject(spec)?, spec).await }.boxed()),
    Review { namespaced: true, ..review(AUTHORIZATION, "localsubjectaccessreviews", "LocalSubjectAccessReview",
        |call, path, spec| async { local(call, path, spec).await }.boxed()) },
];

/// Whether the path is one of a review.
pub(crate) fn is_review(path: &ResourcePath) -> bool {
    matches!(path.group.as_str(), AUTHENTICATION | AUTHORIZATION)
}

/// Answers a review.
pub(crate) async fn answer(call: &Call, path: &ResourcePath) -> Result<Response<Body>, ApiError> {
    let found = REVIEWS.iter().find(|row| row.group == path.group && row.plural == path.plural);
    let row =
        found.filter(|row| path.version == "v1" && path.name.is_none() && row.namespaced == path.namespace.is_some());
    let row = row.ok_or(ApiError::NoSuchPath)?;
    if call.method != Method::POST {
        return Err(ApiError::MethodNotAllowed);
    }
    let given = decode::decode(call)?.value;
    let wrong = || ApiError::BadRequest(format!("expected an object of kind {}", row.kind));
    if !matches!(given["kind"].as_str(), None | Some("")) && given["kind"] != *row.kind {
        return Err(wrong());
    }
    let spec = given.as_object().ok_or_else(wrong)?.get("spec").cloned().unwrap_or_else(|| json!({}));
    let metadata = given["metadata"].as_object().cloned().unwrap_or_else(Map::new);
    let status = (row.answer)(call, path, &spec).await?;
    let mut review = json!({"kind": row.kind, "apiVersion": format!("{}/v1", path.group), "metadata": metadata});
    review["metadata"]["creationTimestamp"] = Value::Null;
    if row.kind != "SelfSubjectReview" {
        review["spec"] = spec;
    }
    review["status"] = status;
    Ok(reply::value(StatusCode::CREATED, &review, false))
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

async fn token(call: &Call, spec: &Value) -> Result<Value, ApiError> {
    let token = spec["token"].as_str().filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| ApiError::BadRequest("spec.token: Required value".into()))?;
    let found = access::bearer(&call.server, token, &texts(&spec["audiences"])).await;
    Ok(match found {
        Some((identity, audiences)) => {
            json!({"authenticated": true, "user": identity.info(), "audiences": audiences})
        }
        None => json!({"user": {}, "error": "invalid bearer token, or not for these audiences"}),
    })
}

fn subject(spec: &Value) -> Result<Identity, ApiError> {
    let user = spec["user"].as_str().unwrap_or_default().to_owned();
    let groups = texts(&spec["groups"]);
    if user.is_empty() && groups.is_empty() {
        return Err(ApiError::BadRequest(
            "spec.user: Invalid value: \"\": at least one of user or group must be specified".into(),
        ));
    }
    Ok(Identity { user, groups, ..Identity::default() })
}

async fn local(call: &Call, path: &ResourcePath, spec: &Value) -> Result<Value, ApiError> {
    let own = path.namespace.as_deref().unwrap_or_default();
    if spec["resourceAttributes"]["namespace"] != *own {
        let text = "spec.resourceAttributes.namespace: Invalid value: must match the namespace of the request";
        return Err(ApiError::BadRequest(text.into()));
    }
    access(call, &subject(spec)?, spec).await
}

/// Whether the identity may do what the spec asks about: a resource or a path, not both.
async fn access(call: &Call, identity: &Identity, spec: &Value) -> Result<Value, ApiError> {
    let (path, resource) = (&spec["nonResourceAttributes"], &spec["resourceAttributes"]);
    if path.is_object() == resource.is_object() {
        let text = "spec: exactly one of nonResourceAttributes or resourceAttributes must be specified";
        return Err(ApiError::BadRequest(text.into()));
    }
    call.server.cache().catch_up().await?;
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let (authorizer, cache) = (call.server.authorizer(), call.server.cache());
    let why = if path.is_object() {
        authorizer.decide_path(cache, identity, &text(path, "verb"), &text(path, "path"))
    } else {
        let fields = ["verb", "group", "resource", "subresource", "namespace", "name"].map(|key| text(resource, key));
        let [verb, group, resource, subresource, namespace, name] = &fields;
        authorizer.decide(
            cache,
            identity,
            &Attributes { verb, group, resource, subresource, namespace, name, ..Attributes::default() },
        )
    };
    Ok(match why {
        Some(why) => json!({"allowed": true, "reason": why.to_string()}),
        None => json!({"allowed": false}),
    })
}

async fn own_rules(call: &Call, spec: &Value) -> Result<Value, ApiError> {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(ApiError::BadRequest("no namespace on request".into()));
    }
    call.server.cache().catch_up().await?;
    let rules = authorize::held(&call.server, &call.identity, namespace);
    let (paths, resources): (Vec<_>, Vec<_>) = rules.into_iter().partition(|rule| !rule.urls.is_empty());
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": call.identity.as_node().is_some()}))
}
