//! What can go wrong with a pod or a container, as the engine sees it, and as the helper processes report it.
//!
//! A [`Failure`] crosses process borders as data; its kind is what a node maps to a waiting or terminated reason.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The stage that failed; named for the reason a kubelet reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// `CreateContainerError`: the specification cannot be carried out on this machine (mounts, root filesystem,
    /// seccomp).
    CreateContainer,
    /// `RunContainerError`: the container was made but its program cannot be run (no such executable, bad directory).
    RunContainer,
    /// `StartError`: the container was ready, and starting its program failed at the last step.
    Start,
    /// There is no such container, or it does not run.
    NotFound,
    /// A container of that name exists already.
    Exists,
    /// A fault of this crate or of the machine, not of what was asked.
    Internal,
}

/// One thing that failed, in one line that says what, where and, if it can be mended, how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The stage.
    pub kind: FailureKind,
    /// One line for the user.
    pub message: String,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self { kind, message: message.replace('\n', "; ") }
    }

    pub(crate) fn create(message: impl Into<String>) -> Self {
        Self::new(FailureKind::CreateContainer, message)
    }

    pub(crate) fn run(message: impl Into<String>) -> Self {
        Self::new(FailureKind::RunContainer, message)
    }

    pub(crate) fn start(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Start, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Internal, message)
    }
}

/// Turns any error into a failure whose message starts with what was tried.
pub(crate) trait Context<T> {
    /// `cannot <tried>: <error>`.
    fn or_fail(self, kind: FailureKind, tried: impl FnOnce() -> String) -> Result<T, Failure>;

    /// The same, for faults that are not the user's.
    fn or_internal(self, tried: impl FnOnce() -> String) -> Result<T, Failure>
    where
        Self: Sized,
    {
        self.or_fail(FailureKind::Internal, tried)
    }
}

impl<T, E: std::error::Error> Context<T> for Result<T, E> {
    fn or_fail(self, kind: FailureKind, tried: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(kind, format!("cannot {}: {}", tried(), chain(&error))))
    }
}

/// An error and all its causes, without saying the same twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

/// What the engine is told.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The supervisor, or a helper, says why it could not do what was asked.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The pod's supervisor is gone; the pod can only be destroyed.
    #[error("the supervisor of pod {uid} is gone")]
    Lost {
        /// The pod.
        uid: String,
    },
    /// A command in a container took too long and was killed.
    #[error("command timed out after {0:?}")]
    ExecTimeout(Duration),
    /// A helper process or the kernel did not finish in time.
    #[error("{what} did not finish within {limit:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// A name that cannot be used in paths and cgroups.
    #[error("\"{name}\" is not usable as the id of a {what}: use letters, digits, '.', '_' and '-'")]
    Name {
        /// Pod or container.
        what: &'static str,
        /// What was given.
        name: String,
    },
    /// The path of the supervisor's socket does not fit the kernel's limit of 107 bytes.
    #[error("the run folder is too long for a socket: {}", path.display())]
    SocketPath {
        /// The socket.
        path: PathBuf,
    },
    /// The machine refuses what every container needs.
    #[error("this machine cannot run containers: {0}")]
    Unsupported(String),
    /// A file or a folder of ours.
    #[error("cannot {tried}: {source}")]
    Io {
        /// What was tried on what.
        tried: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The supervisor's answer makes no sense, for instance because another version wrote it.
    #[error("the supervisor of pod {uid} answered nonsense: {detail}")]
    Protocol {
        /// The pod.
        uid: String,
        /// What was read.
        detail: String,
    },
}

impl ContainerError {
    /// The stage that failed; [`FailureKind::Internal`] where there is none.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Failed(failure) => failure.kind,
            Self::Name { .. } | Self::Unsupported(_) => FailureKind::CreateContainer,
            _ => FailureKind::Internal,
        }
    }

    pub(crate) fn io(tried: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let tried = tried.into();
        move |source| Self::Io { tried, source }
    }
}
