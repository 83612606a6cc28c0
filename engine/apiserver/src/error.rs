//! What can go wrong with a request, and the one place that words it as a Kubernetes `Status`.
//!
//! Handlers return [`ApiError`]; nothing else in the crate builds a failure reply. The texts follow what `kubectl` and
//! the client libraries match on, so they are part of the interface.

use serde_json::{Map, Value, json};
use shipway_schema::FieldError;
use shipway_store::StoreError;
use thiserror::Error;

/// The resource a failure is about, as `details` names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// API group, empty for the core group.
    pub group: String,
    /// Plural name of the resource; the kind where upstream uses it (`Invalid`).
    pub resource: String,
    /// Name of the object, empty for a collection.
    pub name: String,
}

impl About {
    /// `deployments.apps`, or `pods` for the core group.
    fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.clone() } else { format!("{}.{}", self.resource, self.group) }
    }

    fn named(&self) -> String {
        if self.name.is_empty() { self.qualified() } else { format!("{} {:?}", self.qualified(), self.name) }
    }
}

/// One field that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerConflict {
    /// Who owns it, worded for the reader: `"kubectl" using apps/v1`.
    pub manager: String,
    /// The field, with a leading dot.
    pub field: String,
}

/// The words in which a webhook or a policy refused a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Denial {
    /// HTTP status code, 400 to 599.
    pub code: u16,
    /// `reason` of the Status; may be empty.
    pub reason: String,
    /// `message` of the Status.
    pub message: String,
    /// `details` of the Status.
    pub details: Option<Value>,
}

/// Why a request failed.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The named object does not exist.
    #[error("{about} not found", about = .0.named())]
    NotFound(About),
    /// No resource is served under the path.
    #[error("the server could not find the requested resource")]
    NoSuchPath,
    /// A create found the name taken.
    #[error("{about} already exists", about = .0.named())]
    AlreadyExists(About),
    /// The object changed, or a precondition does not hold.
    #[error("Operation cannot be fulfilled on {about}: {1}", about = .0.named())]
    Conflict(About, String),
    /// Fields of an apply belong to other managers.
    #[error("{text}", text = conflict_message(.0))]
    ManagerConflicts(Vec<ManagerConflict>),
    /// The object breaks a rule of its kind; `About::resource` is the kind.
    #[error("{text}", text = invalid_message(.0, .1))]
    Invalid(About, Vec<FieldError>),
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// A patch that is well-formed and does not fit the object.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Unprocessable(String),
    /// The credential presented is not valid.
    #[error("Unauthorized")]
    Unauthorized,
    /// The caller may not do that.
    #[error("{about} is forbidden: {1}", about = .0.named())]
    Forbidden(About, String),
    /// The caller may not read that path.
    #[error("forbidden: {0}")]
    ForbiddenPath(String),
    /// The namespace takes no new objects because it is going away.
    #[error(
        "{about} is forbidden: unable to create new content in namespace {1} because it is being terminated",
        about = .0.named()
    )]
    NamespaceTerminating(About, String),
    /// The kind takes no new objects because its definition is going away.
    #[error("create not allowed while custom resource definition is terminating")]
    DefinitionTerminating,
    /// A webhook or a policy refused the request.
    #[error("{}", .0.message)]
    Denied(Box<Denial>),
    /// The path exists, the method does not fit it.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// No media type of `Accept` can be produced.
    #[error("only the following media types are accepted: application/json, application/yaml")]
    NotAcceptable,
    /// The body's media type cannot be read.
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(&'static str),
    /// The body is longer than the limit in bytes.
    #[error("Request entity too large: limit is {0}")]
    TooLarge(usize),
    /// A patch asks for more than may be asked for at once.
    #[error("Request entity too large: {0}")]
    PatchTooLarge(String),
    /// The request line is longer than the limit in bytes.
    #[error("request URI is longer than {0} bytes")]
    UriTooLong(usize),
    /// Too much is in flight.
    #[error("Too many requests, please try again later.")]
    TooManyRequests,
    /// The revision asked for is no longer kept; a token to go on without consistency may come with it.
    #[error("{message}")]
    Expired {
        /// What expired.
        message: String,
        /// A continue token that reads the rest at the newest revision.
        resume: Option<String>,
    },
    /// The revision asked for has not come up in time.
    #[error("Too large resource version: {asked}, current: {current}")]
    FutureRevision {
        /// What the client asked for.
        asked: u64,
        /// What there is.
        current: u64,
    },
    /// Something behind the server does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// Something behind the server does not answer in time.
    #[error("{0}")]
    Timeout(String),
    /// A fault of the server itself.
    #[error("Internal error occurred: {0}")]
    Internal(String),
    /// The store failed.
    #[error("Internal error occurred: {0}")]
    Store(#[from] StoreError),
    /// A certificate or key could not be made or read.
    #[error("certificates in {path}: {message}")]
    Pki {
        /// The folder.
        path: String,
        /// What failed.
        message: String,
    },
}

impl ApiError {
    /// `the object has been modified`, in the words that clients retry on.
    pub(crate) fn modified(about: About) -> Self {
        let text = "the object has been modified; please apply your changes to the latest version and try again";
        Self::Conflict(about, text.into())
    }

    /// The HTTP status code and the `reason` of the Status.
    fn code(&self) -> (u16, &str) {
        match self {
            Self::Denied(denial) => (denial.code, &denial.reason),
            Self::NotFound(_) | Self::NoSuchPath => (404, "NotFound"),
            Self::AlreadyExists(_) => (409, "AlreadyExists"),
            Self::Conflict(..) | Self::ManagerConflicts(_) => (409, "Conflict"),
            Self::Invalid(..) | Self::Unprocessable(_) => (422, "Invalid"),
            Self::BadRequest(_) => (400, "BadRequest"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden(..) | Self::ForbiddenPath(_) | Self::NamespaceTerminating(..) => (403, "Forbidden"),
            Self::MethodNotAllowed | Self::DefinitionTerminating => (405, "MethodNotAllowed"),
            Self::NotAcceptable => (406, "NotAcceptable"),
            Self::UnsupportedMediaType(_) => (415, "UnsupportedMediaType"),
            Self::TooLarge(_) | Self::PatchTooLarge(_) => (413, "RequestEntityTooLarge"),
            Self::UriTooLong(_) => (414, "BadRequest"),
            Self::TooManyRequests => (429, "TooManyRequests"),
            Self::Expired { .. } => (410, "Expired"),
            Self::FutureRevision { .. } | Self::Timeout(_) => (504, "Timeout"),
            Self::Unavailable(_) => (503, "ServiceUnavailable"),
            Self::Internal(_) | Self::Store(_) | Self::Pki { .. } => (500, "InternalError"),
        }
    }

    /// The HTTP status code and the `v1` Status to send with it.
    pub(crate) fn status(&self) -> (u16, Value) {
        let (code, reason) = self.code();
        let mut metadata = Map::new();
        if let Self::Expired { resume: Some(token), .. } = self {
            metadata.insert("continue".into(), token.as_str().into());
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.to_string(),
            "reason": reason,
        });
        if reason.is_empty() {
            status.as_object_mut().expect("it was made as an object").shift_remove("reason");
        }
        if let Some(details) = self.details() {
            status["details"] = details;
        }
        status["code"] = code.into();
        (code, status)
    }

    fn details(&self) -> Option<Value> {
        match self {
            Self::NotFound(about)
            | Self::AlreadyExists(about)
            | Self::Conflict(about, _)
            | Self::Forbidden(about, _) => Some(describe(about, &[])),
            Self::Denied(denial) => denial.details.clone(),
            Self::NamespaceTerminating(about, namespace) => {
                let message = format!("namespace {namespace} is being terminated");
                Some(describe(about, &[cause("NamespaceTerminating", &message, "metadata.namespace")]))
            }
            Self::Invalid(about, errors) => {
                let causes: Vec<Value> =
                    errors.iter().map(|error| cause(error.reason.cause(), &error.message, &error.field)).collect();
                Some(describe(about, &causes))
            }
            Self::ManagerConflicts(conflicts) => {
                let causes: Vec<Value> = conflicts
                    .iter()
                    .map(|one| cause("FieldManagerConflict", &format!("conflict with {}", one.manager), &one.field))
                    .collect();
                Some(json!({ "causes": causes }))
            }
            Self::FutureRevision { .. } => Some(json!({
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            })),
            Self::NoSuchPath => Some(json!({})),
            Self::Internal(message) => Some(json!({ "causes": [{ "message": message }] })),
            Self::Store(error) => Some(json!({ "causes": [{ "message": error.to_string() }] })),
            Self::Unavailable(_) | Self::TooManyRequests => Some(json!({ "retryAfterSeconds": 1 })),
            _ => None,
        }
    }
}

fn describe(about: &About, causes: &[Value]) -> Value {
    let mut details = Map::new();
    for (key, value) in [("name", &about.name), ("group", &about.group), ("kind", &about.resource)] {
        if !value.is_empty() {
            details.insert(key.into(), value.as_str().into());
        }
    }
    if !causes.is_empty() {
        details.insert("causes".into(), causes.into());
    }
    Value::Object(details)
}

fn cause(reason: &str, message: &str, field: &str) -> Value {
    json!({ "reason": reason, "message": message, "field": field })
}

fn invalid_message(about: &About, errors: &[FieldError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match lines.as_slice() {
        [only] => format!("{} {:?} is invalid: {only}", about.qualified(), about.name),
        several => format!("{} {:?} is invalid: [{}]", about.qualified(), about.name, several.join(", ")),
    }
}

/// One conflict in a line, several grouped by their manager, as `kubectl` prints them.
fn conflict_message(conflicts: &[ManagerConflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.field);
    }
    let mut managers: Vec<&str> = conflicts.iter().map(|one| one.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let groups: Vec<String> = managers
        .iter()
        .map(|manager| {
            let fields =
                conflicts.iter().filter(|one| one.manager == **manager).map(|one| format!("\n- {}", one.field));
            format!("conflicts with {manager}:{}", fields.collect::<String>())
        })
        .collect();
    format!("Apply failed with {} conflicts: {}", conflicts.len(), groups.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipway_schema::Reason;

    fn deployment() -> About {
        About { group: "apps".into(), resource: "deployments".into(), name: "web".into() }
    }

    #[test]
    fn a_missing_object_is_named_with_its_group() {
        let (code, status) = ApiError::NotFound(deployment()).status();
        assert_eq!(code, 404);
        assert_eq!(status["message"], r#"deployments.apps "web" not found"#);
        assert_eq!(status["details"], json!({"name": "web", "group": "apps", "kind": "deployments"}));
    }

    #[test]
    fn several_invalid_fields_are_listed_in_brackets() {
        let error = |field: &str| FieldError {
            field: field.into(),
            reason: Reason::Required,
            message: "Required value".into(),
        };
        let about = About { group: "apps".into(), resource: "Deployment".into(), name: "web".into() };
        let (code, status) = ApiError::Invalid(about, vec![error("spec.a"), error("spec.b")]).status();
        assert_eq!(code, 422);
        let message = r#"Deployment.apps "web" is invalid: [spec.a: Required value, spec.b: Required value]"#;
        assert_eq!(status["message"], message);
        assert_eq!(status["details"]["causes"][1]["field"], "spec.b");
        assert_eq!(status["details"]["causes"][0]["reason"], "FieldValueRequired");
    }

    #[test]
    fn several_manager_conflicts_are_grouped() {
        let one = |field: &str| ManagerConflict { manager: r#""helm" using apps/v1"#.into(), field: field.into() };
        let error = ApiError::ManagerConflicts(vec![one(".spec.replicas"), one(".spec.paused")]);
        let message =
            "Apply failed with 2 conflicts: conflicts with \"helm\" using apps/v1:\n- .spec.replicas\n- .spec.paused";
        assert_eq!(error.to_string(), message);
    }
}
