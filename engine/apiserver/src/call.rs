//! One request on its way through the server: who asks, for what, and how the answer should look.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Method};
use tokio_util::sync::CancellationToken;

use crate::ApiServer;
use crate::accept::Accept;
use crate::audit::Notes;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::query::Query;

/// The largest request body, in bytes.
pub(crate) const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// The parts of a request that every handler needs.
pub(crate) struct Call {
    pub(crate) server: ApiServer,
    pub(crate) identity: Arc<Identity>,
    pub(crate) method: Method,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    /// The request body, read whole.
    pub(crate) body: Bytes,
    /// Ends long replies when the server stops.
    pub(crate) stop: CancellationToken,
    pub(crate) warnings: Mutex<Vec<String>>,
    /// For the audit log.
    pub(crate) notes: Notes,
}

/// What to do with unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validation {
    Ignore,
    Warn,
    Strict,
}

impl Call {
    /// Adds a `Warning` header to the reply.
    pub(crate) fn warn(&self, text: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    pub(crate) fn accept(&self) -> Result<Accept, ApiError> {
        Accept::parse(&self.headers)
    }

    /// The media type of the body, without parameters.
    pub(crate) fn content_type(&self) -> &str {
        let header = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        header.split(';').next().unwrap_or_default().trim()
    }

    /// Whether to go through all motions but the last.
    pub(crate) fn is_dry_run(&self) -> Result<bool, ApiError> {
        match self.query.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => {
                Err(ApiError::BadRequest(format!("dryRun: Unsupported value: {other:?}: supported values: \"All\"")))
            }
        }
    }

    /// `fieldValidation`; upstream's default is to warn.
    pub(crate) fn validation(&self) -> Result<Validation, ApiError> {
        match self.query.get("fieldValidation") {
            None | Some("Warn") => Ok(Validation::Warn),
            Some("Ignore") => Ok(Validation::Ignore),
            Some("Strict") => Ok(Validation::Strict),
            Some(other) => Err(ApiError::BadRequest(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }

    /// Who owns what this request writes: `fieldManager`, or the program's name from `User-Agent`.
    pub(crate) fn field_manager(&self) -> Result<String, ApiError> {
        let given = self.query.get("fieldManager");
        if given.is_some_and(|name| name.len() > 128 || name.chars().any(char::is_control)) {
            return Err(ApiError::BadRequest("fieldManager: at most 128 printable characters".into()));
        }
        let agent = || self.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let program = || agent().split('/').next().filter(|name| !name.is_empty()).unwrap_or("unknown");
        Ok(given.unwrap_or_else(program).chars().take(128).collect())
    }
}
