//! What can go wrong on the way from a pod to its containers.

/// A failure of the node; each message names what was tried on what.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The API refused or could not be reached.
    #[error("{what}: {source}")]
    Api {
        /// What was asked for.
        what: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The runtime refused.
    #[error("{0}")]
    Runtime(String),
    /// The network refused.
    #[error("{0}")]
    Network(String),
    /// The node could not reach the API for longer than its lease holds, and can again.
    #[error("the node was away for longer than its lease")]
    Away,
}

impl NodeError {
    /// An API failure while doing `what`.
    pub(crate) fn api(what: impl Into<String>, source: kube::Error) -> Self {
        Self::Api { what: what.into(), source: Box::new(source) }
    }
}

/// Whether the API said that there is no such object.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the API said that the object is not as the caller believed (another version, another uid).
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
