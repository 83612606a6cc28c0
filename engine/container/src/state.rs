//! What is observed: the states of a pod's containers, and the outcomes of starting one and of running a command in
//! one.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The life of one container, forwards only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Being made; its program does not run yet.
    Created,
    /// Its program runs.
    Running {
        /// Process id of its first process, as the host sees it.
        pid: i32,
        /// When the program was started.
        started_at: SystemTime,
    },
    /// Its first process is gone, and with it all others.
    Exited {
        /// Exit code; 128 + n after signal n.
        code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Whether the kernel killed a process of it for want of memory.
        out_of_memory: bool,
        /// When the program was started.
        started_at: SystemTime,
        /// When the supervisor saw the end.
        finished_at: SystemTime,
    },
}

/// All containers of a pod, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodState {
    /// Container id to state.
    pub containers: BTreeMap<String, ContainerState>,
    /// The supervisor is gone: states will not change any more and the pod can only be destroyed.
    pub lost: bool,
}

/// A program that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Process id of its first process, as the host sees it.
    pub pid: i32,
    /// When.
    pub started_at: SystemTime,
    /// One line for each thing asked for that this machine refused and that was clamped or left out.
    pub warnings: Vec<String>,
}

/// What a command in a container did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code; 128 + n after signal n.
    pub code: i32,
    /// Standard output and error as they came, at most the first 64 KiB.
    pub output: Vec<u8>,
}
