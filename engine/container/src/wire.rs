//! The supervisor's protocol: one JSON object a line over a unix socket, requests one way, answers and news the other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::process::Identity;
use crate::state::{ContainerState, Started};

/// A line longer than this closes the connection.
pub(crate) const LINE_MAX: usize = 64 * 1024;

/// What the engine asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Repeated in the answer.
    pub(crate) sequence: u64,
    pub(crate) operation: Operation,
}

impl Request {
    /// Whether the connection speaks another language after it.
    pub(crate) fn is_last(&self) -> bool {
        matches!(self.operation, Operation::Attach { .. })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Operation {
    /// Start the container whose specification lies in its folder; answered when its program runs.
    Start {
        id: String,
        log: PathBuf,
        log_limit: u64,
        #[serde(default)]
        manner: Manner,
    },
    /// Turn this connection into the container's streams, see [`crate::attachment`].
    Attach {
        id: String,
        /// Whether it feeds the container's input: an input that is wanted once ends when such a client leaves.
        #[serde(default)]
        stdin: bool,
    },
    /// Send a signal to its first process.
    Signal { id: String, signal: i32 },
    /// Kill what is left of it, and remove its folder and cgroups.
    Forget { id: String },
    /// All states.
    List,
    /// Kill and forget all, answer, end.
    Shutdown,
}

/// What of a container's specification its supervisor has to know.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the specification")]
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Manner {
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) terminal: bool,
    /// It lives in another container's process namespace.
    pub(crate) joins: bool,
}

/// What the supervisor says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// To one request.
    Answer { sequence: u64, outcome: Outcome },
    /// To everybody connected.
    Changed { id: String, state: ContainerState },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done,
    Started(Started),
    Listed {
        containers: BTreeMap<String, ContainerState>,
        /// Log lines that could not be written.
        dropped_lines: u64,
    },
    Failed(Failure),
}

/// The one line that a supervisor writes to its standard output once it listens, or cannot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Greeting {
    Ready,
    Failed(Failure),
}

/// What the exec helper is asked, over its standard input, which is a socket. Before it comes the byte that may carry the
/// command's standard input; where there is a terminal, the helper's first byte back carries our end of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    /// The container's first process.
    pub(crate) pid: Identity,
    pub(crate) args: Vec<String>,
    /// None is for ever.
    pub(crate) timeout_ms: Option<u64>,
    #[serde(default)]
    pub(crate) terminal: bool,
    /// The container's folder, for its specification.
    pub(crate) folder: PathBuf,
    pub(crate) cgroup: String,
}

/// The exec helper's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ExecOutcome {
    Exited(i32),
    TimedOut,
    Failed(Failure),
}
