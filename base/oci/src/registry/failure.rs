//! Turns what the registry client says into this crate's errors, by kind and not by text wherever the kind is known.

use oci_client::errors::{OciDistributionError, OciErrorCode};

use crate::{Error, Reference};

/// What kind of failure it was.
pub(super) enum Failure {
    Unreachable(String),
    Unauthorized(String),
    NotFound,
    RateLimited(String),
    Other(String),
}

impl Failure {
    pub(super) fn of(error: &OciDistributionError) -> Self {
        match error {
            OciDistributionError::RequestError(e) => match e.status().map(|status| status.as_u16()) {
                Some(status) => Self::of_status(status, e.to_string()),
                None => Self::Unreachable(root_cause(e)),
            },
            OciDistributionError::AuthenticationFailure(reason) => Self::Unauthorized(plain(reason)),
            OciDistributionError::UnauthorizedError { .. } => Self::Unauthorized("authentication required".into()),
            OciDistributionError::ImageManifestNotFoundError(_) => Self::NotFound,
            OciDistributionError::RegistryError { envelope, .. } => match envelope.errors.first() {
                Some(first) => Self::of_code(&first.code, &first.message),
                None => Self::Other(error.to_string()),
            },
            OciDistributionError::ServerError { code, message, .. } => Self::of_status(*code, plain(message)),
            other => Self::Other(other.to_string()),
        }
    }

    fn of_code(code: &OciErrorCode, message: &str) -> Self {
        match code {
            OciErrorCode::Unauthorized | OciErrorCode::Denied => Self::Unauthorized(message.to_owned()),
            OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound => Self::NotFound,
            OciErrorCode::Toomanyrequests => Self::RateLimited(message.to_owned()),
            other => Self::Other(format!("{other:?}: {message}")),
        }
    }

    fn of_status(status: u16, reason: String) -> Self {
        match status {
            401 | 403 => Self::Unauthorized(if reason.is_empty() { format!("status {status}") } else { reason }),
            404 => Self::NotFound,
            429 => Self::RateLimited(reason),
            _ => Self::Other(format!("status {status}: {reason}")),
        }
    }

    pub(super) fn about(self, reference: &Reference) -> Error {
        let registry = reference.registry().to_owned();
        match self {
            Self::Unreachable(reason) => Error::Unreachable { registry, reason },
            Self::Unauthorized(reason) => {
                Error::Unauthorized { registry, repository: reference.repository().to_owned(), reason }
            }
            Self::NotFound => Error::NotFound { reference: reference.clone().into() },
            Self::RateLimited(reason) => Error::RateLimited { registry, reason },
            Self::Other(reason) => Error::Registry { registry, reason },
        }
    }
}

/// The innermost error: "connection refused" says more than the request that met it.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error.source();
    let mut text = error.to_string();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

/// The message within a registry's JSON answer, or the answer on one line.
fn plain(answer: &str) -> String {
    let message = serde_json::from_str::<serde_json::Value>(answer).ok().and_then(|value| {
        let found = value.pointer("/errors/0/message").or_else(|| value.pointer("/details"))?.as_str()?;
        Some(found.to_owned())
    });
    message.unwrap_or_else(|| answer.split_whitespace().take(30).collect::<Vec<_>>().join(" "))
}
