//! What was asked, by whom and with what outcome, as lines of `audit.k8s.io/v1` Events in a file.
//!
//! A policy says how much of which request is written down. Bodies of secrets and tokens are written only where a rule names
//! them. The queue to the file is bounded ([`sink`]): what does not fit is dropped and counted, so that requests never wait
//! for the disk of the log.

mod policy;
mod record;
mod sink;

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::ApiError;

pub(crate) use record::{Notes, begin, decided, tell};

/// Where audit events go, and which.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// An `audit.k8s.io/v1` Policy, as YAML or JSON.
    pub policy: PathBuf,
    /// The file that events are appended to.
    pub path: PathBuf,
    /// The file is put aside when it has so many bytes.
    pub rotate_bytes: u64,
    /// How many files put aside are kept.
    pub kept_files: usize,
}

impl AuditConfig {
    /// With upstream's usual bounds: 100 MiB a file, ten files put aside.
    pub fn new(policy: PathBuf, path: PathBuf) -> Self {
        Self { policy, path, rotate_bytes: 100 * 1024 * 1024, kept_files: 10 }
    }
}

/// The audit log of a server.
pub(crate) struct Audit {
    policy: policy::Policy,
    sink: Arc<sink::Sink>,
}

impl Audit {
    pub(crate) fn open(config: &AuditConfig) -> Result<Self, ApiError> {
        let failed = |error: &dyn std::fmt::Display| {
            ApiError::Internal(format!("the audit policy {}: {error}", config.policy.display()))
        };
        let text = std::fs::read(&config.policy).map_err(|error| failed(&error))?;
        let policy = policy::Policy::parse(&text).map_err(|error| failed(&error))?;
        let sink = sink::Sink::open(config)
            .map_err(|error| ApiError::Internal(format!("the audit log {}: {error}", config.path.display())))?;
        Ok(Self { policy, sink: Arc::new(sink) })
    }

    /// Writes what is queued and lets go of the file.
    pub(crate) async fn close(&self) {
        let sink = self.sink.clone();
        if tokio::task::spawn_blocking(move || sink.close()).await.is_err() {
            tracing::error!("the audit log was not closed in order");
        }
    }
}
