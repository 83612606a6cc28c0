//! A pod as the engine holds it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connection::Connection;
use super::{exec, reclaim};
use crate::cgroup::Group;
use crate::disk;
use crate::error::{ContainerError, Failure, FailureKind};
use crate::layout::{PodPaths, check_name};
use crate::spec::{ContainerSpec, Resources};
use crate::state::{ContainerState, ExecOutput, PodState, Started};
use crate::wire::{Manner, Operation, Outcome};

/// Longer than a creator may take.
const START_LIMIT: Duration = Duration::from_secs(40);
/// Longer than a supervisor waits for killed containers.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// A handle on one pod; clones are the same pod. Dropping all of them leaves the pod as it is.
#[derive(Clone)]
pub struct Pod(Arc<Setup>);

/// What a handle is made of.
pub(super) struct Setup {
    pub(super) paths: PodPaths,
    pub(super) supervisor: i32,
    pub(super) connection: Option<Connection>,
    pub(super) state: watch::Receiver<PodState>,
    /// The supervisor, when this engine started it, so that it is reaped.
    pub(super) child: Option<Child>,
    pub(super) executable: Arc<OwnedFd>,
}

impl Pod {
    pub(super) fn new(mut setup: Setup) -> Self {
        if let Some(child) = setup.child.take() {
            reap_later(child);
        }
        Self(Arc::new(setup))
    }

    /// The uid it was created with.
    pub fn uid(&self) -> &str {
        &self.0.paths.uid
    }

    /// Process id of the supervisor; 0 when it was never known.
    pub fn supervisor_pid(&self) -> i32 {
        self.0.supervisor
    }

    /// The pod's network namespace, as long as the supervisor lives.
    pub fn network_namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.supervisor).into()
    }

    /// All containers' states, now and as they change.
    pub fn state(&self) -> watch::Receiver<PodState> {
        self.0.state.clone()
    }

    fn connection(&self) -> Result<&Connection, ContainerError> {
        self.0.connection.as_ref().ok_or_else(|| ContainerError::Lost { uid: self.uid().to_owned() })
    }

    /// Makes a container and starts its program. A failure leaves nothing of it.
    pub async fn start(&self, spec: ContainerSpec) -> Result<Started, ContainerError> {
        let connection = self.connection()?;
        check_name("container", &spec.id)?;
        spec.processes_of.as_ref().map_or(Ok(()), |other| check_name("container", other))?;
        self.write_spec(&spec)?;
        let manner = Manner {
            stdin: spec.stdin,
            stdin_once: spec.stdin_once,
            terminal: spec.terminal,
            joins: spec.processes_of.is_some(),
        };
        let ContainerSpec { id, log, log_limit, .. } = spec;
        let limit = || ContainerError::Timeout { what: format!("starting container {id}"), limit: START_LIMIT };
        let asked = connection.ask(Operation::Start { id: id.clone(), log, log_limit, manner });
        let outcome = timeout(START_LIMIT, asked).await.map_err(|_| limit()).flatten();
        match outcome {
            Ok(Outcome::Started(started)) => Ok(started),
            Ok(_) => Err(connection.nonsense("no process after start")),
            Err(error) => {
                // What failed before the creator began left the specification.
                let folder = self.0.paths.container(&id).folder;
                disk::remove_folder(&folder).map_err(ContainerError::io(format!("remove {}", folder.display())))?;
                Err(error)
            }
        }
    }

    fn write_spec(&self, spec: &ContainerSpec) -> Result<(), ContainerError> {
        let paths = self.0.paths.container(&spec.id);
        let tried = format!("make {}", paths.folder.display());
        let made = std::fs::create_dir_all(self.0.paths.containers()).and_then(|()| std::fs::create_dir(&paths.folder));
        made.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Failure::new(FailureKind::Exists, format!("container {} exists already", spec.id)).into()
            }
            _ => ContainerError::io(tried)(error),
        })?;
        disk::write(&paths.spec(), spec).map_err(ContainerError::io(format!("write {}", paths.spec().display())))
    }

    /// Changes what a container may use while it runs: all of it, or an error says what the kernel refused.
    pub async fn change(&self, id: &str, resources: Resources) -> Result<(), ContainerError> {
        check_name("container", id)?;
        let paths = self.0.paths.container(id);
        let change = move || {
            let mut spec: ContainerSpec = disk::read(&paths.spec())?;
            Group::new(&paths.cgroup)?.change(&resources)?;
            spec.resources = resources;
            disk::write(&paths.spec(), &spec)
        };
        let changed = tokio::task::spawn_blocking(change).await;
        changed
            .map_err(|error| Failure::internal(format!("changing the limits of {id}: {error}")))?
            .map_err(ContainerError::io(format!("change the limits of {id}")))
    }

    /// Sends a signal to the container's first process.
    pub async fn kill(&self, id: &str, signal: i32) -> Result<(), ContainerError> {
        self.connection()?.ask(Operation::Signal { id: id.to_owned(), signal }).await.map(drop)
    }

    /// Runs a command in a running container, with its user, rights, environment and working directory.
    pub async fn exec(&self, id: &str, args: &[String], limit: Duration) -> Result<ExecOutput, ContainerError> {
        check_name("container", id)?;
        let not_running = || Failure::new(FailureKind::NotFound, format!("container {id} does not run"));
        let running = matches!(self.0.state.borrow().containers.get(id), Some(ContainerState::Running { .. }));
        let process = reclaim::process_of(&self.0.paths, id).filter(|_| running).ok_or_else(not_running)?;
        exec::run(&self.0.executable, &self.0.paths.container(id), process, args, limit).await
    }

    /// Kills what is left of a container and removes all of it but its log. Idempotent.
    pub async fn remove_container(&self, id: &str) -> Result<(), ContainerError> {
        check_name("container", id)?;
        self.connection()?.ask(Operation::Forget { id: id.to_owned() }).await.map(drop)
    }

    /// Kills all containers and removes all of the pod but the logs, whether its supervisor lives or not. Idempotent.
    /// Files in the pod's folder that are not this crate's stay.
    pub async fn destroy(&self) -> Result<(), ContainerError> {
        if let Some(connection) = &self.0.connection {
            // Whatever it cannot do, or not in time, the sweep does.
            match timeout(SHUTDOWN_LIMIT, connection.ask(Operation::Shutdown)).await {
                Ok(Ok(_)) if self.gone().await => return reclaim::files(&self.0.paths).await,
                Ok(Ok(_)) => tracing::warn!(uid = self.uid(), "the supervisor does not end and is killed"),
                Ok(Err(ContainerError::Lost { .. })) => {}
                Ok(Err(error)) => tracing::warn!(uid = self.uid(), %error, "the supervisor could not shut down"),
                Err(_) => tracing::warn!(uid = self.uid(), "the supervisor does not shut down and is killed"),
            }
        }
        reclaim::pod(&self.0.paths).await
    }

    /// Waits until the supervisor has closed its end, which is the last thing it does.
    async fn gone(&self) -> bool {
        let mut state = self.state();
        // An error means that the connection has ended, too.
        timeout(SHUTDOWN_LIMIT, state.wait_for(|state| state.lost)).await.is_ok()
    }
}

/// Tokio reaps a child that is waited for; this one outlives handles, and may outlive the engine.
fn reap_later(mut child: Child) {
    let task = tokio::spawn(async move {
        if let Err(error) = child.wait().await {
            tracing::warn!(%error, "cannot reap a supervisor");
        }
    });
    drop(task);
}
