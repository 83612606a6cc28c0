//! `serviceaccounts/<name>/token`: tokens, on the way out.
//!
//! A token may be bound to a pod, a secret or a node, and ends with it. A node gets tokens for its own pods only.

use std::sync::Arc;

use serde_json::{Value, json};
use shipway_schema::{FieldError, Reason};

use super::ISSUER;
use super::jwt::{Bound, Claims, Reference};
use crate::admission::{self, Operation};
use crate::call::Call;
use crate::clock;
use crate::commit::Place;
use crate::decode;
use crate::error::{About, ApiError};
use crate::identity::Identity;
use crate::object::Object;

const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;
const USUAL: i64 = 3600;
/// What injected volumes ask for, an odd number to be known by. Such a token goes on being good for a year, for programs that read it only once.
pub(crate) const INJECTED: i64 = 3607;
const YEAR: i64 = 365 * 24 * 3600;

/// What was asked for.
struct Asked {
    audiences: Vec<String>,
    seconds: i64,
    /// Kind, name and uid; an empty uid is any.
    object: Option<(String, String, String)>,
}

/// Answers a TokenRequest with a token.
pub(crate) async fn issue(call: &Call, place: &Place) -> Result<Value, ApiError> {
    let mut request = decode::decode(call)?.value;
    Asked::read(place, &request)?;
    admission::admit_below(call, place, Operation::Create, "token", &mut request).await?;
    let asked = Asked::read(place, &request)?;
    call.server.cache().catch_up().await?;
    let account = call.server.accounts().account(&place.key()).ok_or_else(|| ApiError::NotFound(place.about()))?;
    let bound = bind(call, place, &account, &asked)?;
    check_node(call, place, &bound, &asked)?;
    let now = clock::now();
    let mut claims = Claims {
        sub: Identity::account(&bound.namespace, &bound.serviceaccount.name).user,
        aud: asked.audiences.clone(),
        iss: ISSUER.into(),
        jti: uuid::Uuid::new_v4().to_string(),
        iat: now.as_second(),
        nbf: now.as_second(),
        exp: now.as_second() + asked.seconds,
        bound,
    };
    let shown = clock::in_seconds(asked.seconds);
    if asked.seconds == INJECTED && claims.bound.pod.is_some() && claims.aud == [ISSUER] {
        claims.bound.warnafter = Some(claims.exp);
        claims.exp = claims.iat + YEAR;
    }
    let token = if call.is_dry_run()? { String::new() } else { call.server.accounts().key().sign(&claims)? };
    let mut reply = answer(&request, place, &asked);
    reply["status"] = json!({"token": token, "expirationTimestamp": shown});
    Ok(reply)
}

/// The request with what was filled in.
fn answer(request: &Value, place: &Place, asked: &Asked) -> Value {
    let mut reply = json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": place.name,
            "namespace": place.namespace,
            "creationTimestamp": clock::text(clock::now()),
        },
        "spec": {"audiences": asked.audiences, "expirationSeconds": asked.seconds},
    });
    if request["spec"]["boundObjectRef"].is_object() {
        reply["spec"]["boundObjectRef"] = request["spec"]["boundObjectRef"].clone();
    }
    reply
}

impl Asked {
    fn read(place: &Place, request: &Value) -> Result<Self, ApiError> {
        let invalid = |field: &str, message: String| {
            let about =
                About { group: "authentication.k8s.io".into(), resource: "TokenRequest".into(), name: String::new() };
            ApiError::Invalid(about, vec![FieldError { field: field.into(), reason: Reason::Invalid, message }])
        };
        let metadata = &request["metadata"];
        let own = [("name", place.name.as_str()), ("namespace", place.namespace.as_deref().unwrap_or_default())];
        for (field, own) in own {
            if metadata[field].as_str().is_some_and(|given| !given.is_empty() && given != own) {
                return Err(ApiError::BadRequest(format!(
                    "metadata.{field}: must be that of the service account, {own:?}"
                )));
            }
        }
        let spec = &request["spec"];
        if !request.is_object()
            || !(spec.is_null() || spec.is_object())
            || !matches!(request["kind"].as_str(), None | Some("" | "TokenRequest"))
        {
            return Err(ApiError::BadRequest("expected an object of kind TokenRequest".into()));
        }
        let seconds = match &spec["expirationSeconds"] {
            Value::Null => USUAL,
            given => given.as_i64().ok_or_else(|| {
                invalid("spec.expirationSeconds", format!("Invalid value: {given}: must be a number"))
            })?,
        };
        if seconds < SHORTEST {
            let text = format!("Invalid value: {seconds}: may not specify a duration less than 10 minutes");
            return Err(invalid("spec.expirationSeconds", text));
        }
        if seconds > LONGEST {
            let text = format!("Invalid value: {seconds}: may not specify a duration larger than 2^32 seconds");
            return Err(invalid("spec.expirationSeconds", text));
        }
        let given = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut audiences: Vec<String> = given.map(str::to_owned).collect();
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        let reference = &spec["boundObjectRef"];
        let text = |key: &str| reference[key].as_str().unwrap_or_default().to_owned();
        let object = reference.is_object().then(|| (text("kind"), text("name"), text("uid")));
        Ok(Self { audiences, seconds, object })
    }
}

/// What the token will be bound to, as it is at this moment.
fn bind(call: &Call, place: &Place, account: &Object, asked: &Asked) -> Result<Bound, ApiError> {
    let accounts = call.server.accounts();
    let namespace = place.namespace.clone().unwrap_or_default();
    let mut bound = Bound { namespace, serviceaccount: reference(account), ..Bound::default() };
    let Some((kind, name, uid)) = &asked.object else { return Ok(bound) };
    let key = format!("{}/{name}", bound.namespace);
    let found = |plural: &str, object: Option<Arc<Object>>| {
        let about = About { group: String::new(), resource: plural.into(), name: name.clone() };
        let object = object.ok_or_else(|| ApiError::NotFound(about.clone()))?;
        if !uid.is_empty() && *object.uid != **uid {
            let text = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
                 been deleted and then recreated"
            );
            return Err(ApiError::Conflict(about, text));
        }
        Ok(object)
    };
    match kind.as_str() {
        "Pod" => {
            let pod = found("pods", accounts.pod(&key))?;
            let value = pod.value();
            if value["spec"]["serviceAccountName"] != *place.name {
                return Err(ApiError::BadRequest(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    place.name
                )));
            }
            let node = value["spec"]["nodeName"].as_str().unwrap_or_default();
            let uid = accounts.node(node).map(|node| node.uid.to_string()).unwrap_or_default();
            bound.node = (!node.is_empty()).then(|| Reference { name: node.to_owned(), uid });
            bound.pod = Some(reference(&pod));
        }
        "Secret" => bound.secret = Some(reference(&*found("secrets", accounts.secret(&key))?)),
        "Node" => bound.node = Some(reference(&*found("nodes", accounts.node(name))?)),
        other => return Err(ApiError::BadRequest(format!("cannot bind token to object of type {other:?}"))),
    }
    Ok(bound)
}

fn reference(object: &Object) -> Reference {
    Reference { name: object.name().to_owned(), uid: object.uid.to_string() }
}

/// A node gets tokens that are bound to a pod of its own, for audiences that the pod asks for.
fn check_node(call: &Call, place: &Place, bound: &Bound, asked: &Asked) -> Result<(), ApiError> {
    let Some(node) = call.identity.as_node() else { return Ok(()) };
    let refuse = |text: String| Err(ApiError::Forbidden(place.about(), text));
    let Some(pod) = &bound.pod else { return refuse(format!("node {node:?} requested token not bound to a pod")) };
    if bound.node.as_ref().is_none_or(|own| own.name != node) {
        return refuse(format!("node {node:?} requested token bound to a pod scheduled on a different node"));
    }
    if asked.object.as_ref().is_none_or(|(_, _, uid)| uid.is_empty()) {
        return refuse(format!("node {node:?} requested token with a pod binding without a uid"));
    }
    let pod = call.server.accounts().pod(&format!("{}/{}", bound.namespace, pod.name)).map(|pod| pod.value());
    let pod = pod.unwrap_or_default();
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    let wanted: Vec<&str> = sources.filter_map(|source| source["serviceAccountToken"]["audience"].as_str()).collect();
    match asked.audiences.iter().find(|one| *one != ISSUER && !wanted.contains(&one.as_str())) {
        Some(other) => refuse(format!("audience {other:?} not found in pod spec volume")),
        None => Ok(()),
    }
}
