//! What can happen to a pod on this machine, in the words that its life is told in.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;

use super::Ended;
use crate::admit::Sentence;
use crate::image::Image;
use crate::resize::{Allotment, Pending};

/// The end of a run as the runtime tells it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) out_of_memory: bool,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    /// The container's own last words (terminationMessagePath).
    pub(crate) message: Option<String>,
}

impl Exit {
    pub(crate) fn into_ended(self, attempt: u32) -> Ended {
        let code = self.signal.map_or(self.code, |signal| if self.code == 0 { 128 + signal } else { self.code });
        let reason = match (self.out_of_memory, code) {
            (true, _) => "OOMKilled",
            (false, 0) => "Completed",
            (false, _) => "Error",
        };
        Ended {
            attempt,
            code,
            signal: None,
            reason: reason.to_owned(),
            message: self.message,
            started_at: Some(self.started_at),
            finished_at: Some(self.finished_at),
        }
    }
}

/// What a probe came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// The startup probe passed.
    Started,
    /// The readiness probe changed its mind.
    Ready(bool),
    /// The liveness or startup probe gave the container up.
    Unhealthy {
        /// How long it may take to end.
        grace: Duration,
    },
}

/// Something that happened on this machine.
#[derive(Debug)]
pub(crate) enum Happened {
    /// The sandbox was made, or not.
    Prepared(Result<Option<Ipv4Addr>, String>),
    /// An image was found, or the reason and message why not.
    Fetched { container: String, result: Result<Arc<Image>, (String, String)> },
    /// A container was started.
    Started { container: String, result: Result<(i32, Timestamp), StartFailure> },
    /// The runtime's account of all runs that have ended, and whether the supervisor is gone.
    Runtime { exits: BTreeMap<String, Exit>, lost: bool },
    /// A probe of this run.
    Probed { container: String, attempt: u32, verdict: Verdict },
    /// No new connection comes to the pod any more.
    Drained,
    /// A preStop hook is over.
    HookDone { container: String },
    /// KILL could not be sent.
    NotKilled { container: String },
    /// Sandbox and network are gone.
    Dismantled,
    /// An object that the pod refers to has changed: waits on its account are over.
    ReferenceChanged,
    /// The object's removal was answered.
    Removed { gone: bool },
    /// Containers are to be given something else from now on, or not yet.
    Allotted(Result<Allotment, Pending>),
    /// A running container was given something else, or could not be.
    Resized { container: String, attempt: u32, result: Result<Option<ResourceRequirements>, String> },
    /// The node refuses the pod, or wants it gone.
    Condemned(Sentence),
    /// The object vanished from the API.
    Vanished,
}

/// Why a container could not be started.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StartFailure {
    /// What it needs is missing or contradicts itself; no run was begun.
    Config(String),
    /// Its surroundings could not be made; no run was begun.
    Create(String),
    /// Its program could not be executed: a run that failed.
    Run(String),
    /// Its postStart hook failed; it runs and has to be ended.
    Hook {
        /// Its first process.
        pid: i32,
        /// Since when it runs.
        since: Timestamp,
        /// How long it may take to end.
        grace: Duration,
    },
}
