//! `AdmissionReview`: what a webhook is asked, and what its answer means.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use serde_json::{Value, json};
use shipway_schema::Resource;

use super::{Request, rules};
use crate::error::{ApiError, Denial};

/// The most bytes of a warning, and of all warnings of one answer.
const WARNING: usize = 256;
const WARNINGS: usize = 4096;

/// The question about a request. `resource` is the version to ask in, where that is not the request's own.
pub(super) fn ask(request: &Request<'_>, object: Option<&Value>, resource: Option<&Resource>, uid: &str) -> Value {
    let own = request.place.resource();
    let shown = resource.unwrap_or(own);
    let kind = |[group, version, kind]: [String; 3]| json!({"group": group, "version": version, "kind": kind});
    let path = |one: &Resource| json!({"group": one.group, "version": one.version, "resource": one.plural});
    let document = |object: Option<&Value>| {
        object.map_or(Value::Null, |object| rules::shown(request, object, resource).into_owned())
    };
    let mut asked = json!({
        "uid": uid,
        "kind": kind(request.kind_in(shown)),
        "resource": path(shown),
        "requestKind": kind(request.kind()),
        "requestResource": path(own),
        "operation": request.operation.text(),
        "userInfo": request.identity().info(),
        "object": document(object),
        "oldObject": document(request.old),
        "dryRun": request.dry_run,
        "options": request.options(),
    });
    let texts = [("name", &*request.place.name), ("namespace", request.namespace().unwrap_or_default())];
    let below = [("subResource", request.subresource), ("requestSubResource", request.subresource)];
    for (field, text) in texts.into_iter().chain(below).filter(|(_, text)| !text.is_empty()) {
        asked[field] = text.into();
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": asked})
}

/// An answer that makes sense.
pub(super) struct Answer {
    pub(super) denial: Option<Denial>,
    /// A JSON patch.
    pub(super) patch: Option<Value>,
    pub(super) warnings: Vec<String>,
    /// For the audit log.
    pub(super) annotations: Vec<(String, String)>,
}

/// Reads an answer; fails with what is wrong with it.
pub(super) fn read(reply: &Value, uid: &str, webhook: &str) -> Result<Answer, String> {
    let (version, kind) = (&reply["apiVersion"], &reply["kind"]);
    if version != "admission.k8s.io/v1" || kind != "AdmissionReview" {
        return Err(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}",
            version.as_str().unwrap_or_default(),
            kind.as_str().unwrap_or_default()
        ));
    }
    let response = &reply["response"];
    if !response.is_object() {
        return Err("webhook response is missing".into());
    }
    if response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response["uid"].as_str().unwrap_or_default()));
    }
    let patch = match response["patch"].as_str().filter(|patch| !patch.is_empty()) {
        None => None,
        Some(_) if response["patchType"] != "JSONPatch" => {
            return Err("webhook returned response.patch but not a known response.patchType".into());
        }
        Some(text) => Some(decode(text)?),
    };
    let denial = (response["allowed"] != true).then(|| denial(&response["status"], webhook));
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    let annotations = annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    Ok(Answer { denial, patch, warnings: warnings(&response["warnings"]), annotations })
}

fn decode(text: &str) -> Result<Value, String> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| format!("response.patch is no base64: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("response.patch is no JSON: {error}"))
}

fn denial(status: &Value, webhook: &str) -> Denial {
    let text = |field: &str| status[field].as_str().filter(|text| !text.is_empty());
    let by = format!("admission webhook {webhook:?} denied the request");
    let message = match (text("message"), text("reason")) {
        (Some(message), _) => format!("{by}: {message}"),
        (None, Some(reason)) => format!("{by}: {reason}"),
        (None, None) => format!("{by} without explanation"),
    };
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code) && StatusCode::from_u16(*code).is_ok()).unwrap_or(400);
    let details = status.get("details").filter(|details| details.is_object()).cloned();
    Denial { code, reason: text("reason").unwrap_or_default().to_owned(), message, details }
}

/// Warnings, cut where they are too long.
fn warnings(given: &Value) -> Vec<String> {
    let mut left = WARNINGS;
    let texts = given.as_array().into_iter().flatten().filter_map(Value::as_str);
    let cut = texts.map(|text| text.chars().take(WARNING).collect::<String>());
    cut.take_while(|text| {
        let fits = text.len() <= left;
        left = left.saturating_sub(text.len());
        fits
    })
    .collect()
}

impl From<Denial> for ApiError {
    fn from(denial: Denial) -> Self {
        Self::Denied(Box::new(denial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(response: Value) -> Value {
        let (version, kind) = ("admission.k8s.io/v1", "AdmissionReview");
        Value::Object(
            [("apiVersion", version.into()), ("kind", kind.into()), ("response", response)]
                .map(|(key, value)| (key.to_owned(), value))
                .into_iter()
                .collect(),
        )
    }

    #[test]
    fn answers_that_make_no_sense_are_refused() {
        let table = [
            (json!({}), "got , Kind="),
            (json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}), "missing"),
            (reply(json!({"uid": "2", "allowed": true})), "expected response.uid=\"1\", got \"2\""),
            (reply(json!({"uid": "1", "allowed": true, "patch": "W10="})), "patchType"),
            (reply(json!({"uid": "1", "allowed": true, "patch": "!", "patchType": "JSONPatch"})), "base64"),
            (reply(json!({"uid": "1", "allowed": true, "patch": "ew==", "patchType": "JSONPatch"})), "no JSON"),
        ];
        for (document, part) in table {
            let error = read(&document, "1", "w").err().unwrap();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_denial_says_who_and_why() {
        let denied =
            |status: Value| read(&reply(json!({"uid": "1", "status": status})), "1", "w.x").unwrap().denial.unwrap();
        let one = denied(json!({"message": "no", "code": 403, "reason": "Forbidden"}));
        assert_eq!((one.code, one.reason.as_str()), (403, "Forbidden"));
        assert_eq!(one.message, r#"admission webhook "w.x" denied the request: no"#);
        let bare = denied(json!({"code": 200}));
        assert_eq!(
            (bare.code, bare.message.as_str()),
            (400, r#"admission webhook "w.x" denied the request without explanation"#)
        );
    }

    #[test]
    fn long_warnings_are_cut() {
        let many: Vec<Value> = (0..100).map(|_| "x".repeat(1000).into()).collect();
        let kept = warnings(&many.into());
        assert_eq!((kept.len(), kept[0].len()), (WARNINGS / WARNING, WARNING));
    }
}
