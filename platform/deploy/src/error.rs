//! What can go wrong between a specification and a running app, each as one line that says how to mend it.

use thiserror::Error;

/// A failure of this crate.
#[derive(Debug, Error)]
pub enum DeployError {
    /// The cluster refused or could not be reached.
    #[error("cannot {what}: {reason}")]
    Api {
        /// What was tried, on what.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The program ended instead of running on.
    #[error("the program exited with code {code} instead of running on{}", quoted(.output))]
    Exited {
        /// Its exit code; 128 + N after signal N.
        code: i32,
        /// The last lines it wrote.
        output: Vec<String>,
    },
    /// A container cannot be made or started.
    #[error("pod {pod} cannot start: {reason}: {message}")]
    CannotStart {
        /// The pod.
        pod: String,
        /// The container's waiting reason, such as `CreateContainerError`.
        reason: String,
        /// The engine's message.
        message: String,
    },
    /// No node has room.
    #[error("no node can take pod {pod}: {message}")]
    Unschedulable {
        /// The pod.
        pod: String,
        /// The scheduler's message.
        message: String,
    },
    /// Another program or service has the port.
    #[error("port {port} is already taken on this machine; publish another one, such as --port {}:{target}", next_port(*.port))]
    PortTaken {
        /// The port outside.
        port: u16,
        /// The port that the program listens on.
        target: u16,
    },
    /// There is no such app.
    #[error("there is no app {name:?}; `shipway ps` lists those there are")]
    NoSuchApp {
        /// The name asked for.
        name: String,
    },
    /// Pods do not go.
    #[error("pods of {name} are still there after {seconds} s; look at `kubectl get pods -l app={name}`")]
    Lingering {
        /// Name of the app.
        name: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The rollout made no progress for a long time.
    #[error("the app is not ready after {seconds} s: {ready} of {wanted} replicas are; look at `shipway logs {name}`")]
    TimedOut {
        /// Name of the app.
        name: String,
        /// How long was waited.
        seconds: u64,
        /// Replicas ready.
        ready: u32,
        /// Replicas wanted.
        wanted: u32,
    },
}

impl DeployError {
    pub(crate) fn api(what: &str, source: kube::Error) -> Self {
        let reason = match source {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        };
        Self::Api { what: what.to_owned(), reason }
    }
}

fn next_port(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(port - 1)
}

fn quoted(output: &[String]) -> String {
    if output.is_empty() {
        return "; it wrote nothing".to_owned();
    }
    format!("; its last lines:\n  {}", output.join("\n  "))
}
