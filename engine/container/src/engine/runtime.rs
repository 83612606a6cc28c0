//! The pods of one instance: made, found again after a restart, removed with all they left.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::timeout;

use super::attach::Attachment;
use super::connection::Connection;
use super::pod::{Pod, Setup};
use super::process::{Command, Process};
use super::reclaim;
use crate::cgroup::Group;
use crate::disk;
use crate::entry::SUPERVISE;
use crate::error::{ContainerError, Failure, FailureKind};
use crate::layout::{Layout, PodPaths, check_name};
use crate::process::Identity;
use crate::sealed;
use crate::spec::SandboxSpec;
use crate::state::PodState;
use crate::supervisor::Record;
use crate::wire::{Greeting, Operation, Outcome};

/// A supervisor that does not answer within this is killed, with all it made.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// A handle on the pods of one instance.
#[derive(Clone)]
pub struct Runtime {
    layout: Arc<Layout>,
    /// The executable on a read-only mount, see `sealed`.
    executable: Arc<OwnedFd>,
}

impl Runtime {
    /// Checks what this machine allows, and makes the folders. Needs root.
    pub fn new(layout: Layout) -> Result<Self, ContainerError> {
        if !rustix::process::geteuid().is_root() {
            return Err(ContainerError::Unsupported("containers need root: run with sudo".to_owned()));
        }
        crate::kernel::check()?;
        crate::layout::check_name("cgroup", &layout.cgroup)?;
        for folder in [&layout.state, &layout.run] {
            std::fs::create_dir_all(folder).map_err(ContainerError::io(format!("make {}", folder.display())))?;
        }
        let groups = crate::cgroup::hierarchies().map_err(ContainerError::io("look for control groups"))?;
        if groups.is_empty() {
            return Err(ContainerError::Unsupported("no control groups are mounted at /sys/fs/cgroup".to_owned()));
        }
        let tried = format!("open {} for the helpers", layout.executable.display());
        let executable = sealed::read_only(&layout.executable).map_err(ContainerError::io(tried))?;
        Ok(Self { layout: Arc::new(layout), executable: Arc::new(executable) })
    }

    pub(super) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Makes a pod: its namespaces exist and its supervisor listens. A failure leaves nothing.
    pub async fn create(&self, spec: SandboxSpec) -> Result<Pod, ContainerError> {
        let paths = self.layout.pod(&spec.uid)?;
        std::fs::create_dir_all(&paths.folder)
            .map_err(ContainerError::io(format!("make {}", paths.folder.display())))?;
        if paths.sandbox().exists() {
            let message = format!("pod {} exists already", spec.uid);
            return Err(Failure::new(FailureKind::Exists, message).into());
        }
        match self.bring_up(&spec, &paths).await {
            Ok(pod) => Ok(pod),
            Err(error) => {
                reclaim::pod(&paths).await?;
                Err(error)
            }
        }
    }

    async fn bring_up(&self, spec: &SandboxSpec, paths: &PodPaths) -> Result<Pod, ContainerError> {
        disk::write(&paths.sandbox(), spec).map_err(ContainerError::io("write the pod's specification"))?;
        limit(spec, paths)?;
        let mut supervisor = self.spawn(paths)?;
        let pid = supervisor.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| Failure::internal("the supervisor ended at once"))?;
        let ready = async {
            greeted(&mut supervisor).await?;
            self.connect(paths).await.map_err(ContainerError::io(format!("connect to {}", paths.socket.display())))
        };
        let what = || ContainerError::Timeout { what: "starting the supervisor".to_owned(), limit: READY_LIMIT };
        match timeout(READY_LIMIT, ready).await.map_err(|_| what()).flatten() {
            Ok((connection, state)) => Ok(self.pod(paths, pid, Some(connection), state, Some(supervisor))),
            Err(error) => {
                supervisor.kill().await.map_err(ContainerError::io("kill the supervisor"))?;
                Err(error)
            }
        }
    }

    fn spawn(&self, paths: &PodPaths) -> Result<Child, ContainerError> {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(paths.supervisor_log());
        let log = log.map_err(ContainerError::io(format!("open {}", paths.supervisor_log().display())))?;
        tokio::process::Command::new(sealed::path_of(&*self.executable))
            .arg0("shipway")
            .args([SUPERVISE, &paths.uid])
            .arg(&paths.folder)
            .arg(&paths.socket)
            .arg(&paths.cgroup)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(ContainerError::io(format!("start the supervisor of pod {}", paths.uid)))
    }

    async fn connect(&self, paths: &PodPaths) -> std::io::Result<(Connection, watch::Receiver<PodState>)> {
        let (publish, state) = watch::channel(PodState::default());
        Ok((Connection::open(&paths.uid, &paths.socket, publish).await?, state))
    }

    fn pod(
        &self,
        paths: &PodPaths,
        supervisor: i32,
        connection: Option<Connection>,
        state: watch::Receiver<PodState>,
        child: Option<Child>,
    ) -> Pod {
        let executable = Arc::clone(&self.executable);
        Pod::new(Setup { paths: paths.clone(), supervisor, connection, state, child, executable })
    }

    /// All pods that this or an earlier engine made and that are not destroyed. Those whose supervisor is gone are
    /// lost: their states are the last ones written, and they can only be destroyed.
    pub async fn adopt(&self) -> Result<Vec<Pod>, ContainerError> {
        let mut all = Vec::new();
        for uid in self.known()? {
            all.extend(self.find(&uid).await?);
        }
        Ok(all)
    }

    /// One of these pods; none if it was never made or is destroyed.
    pub async fn find(&self, uid: &str) -> Result<Option<Pod>, ContainerError> {
        let paths = self.layout.pod(uid)?;
        if !paths.sandbox().exists() {
            return Ok(None);
        }
        let record: Option<Record> = disk::read(&paths.supervisor()).ok();
        Ok(Some(match self.reach(&paths).await {
            Some((connection, state)) => {
                let pid = record.map_or(0, |record| record.process.pid);
                self.pod(&paths, pid, Some(connection), state, None)
            }
            None => self.lost(&paths, record.map(|record| record.process)),
        }))
    }

    async fn reach(&self, paths: &PodPaths) -> Option<(Connection, watch::Receiver<PodState>)> {
        let attempt = async {
            let (connection, state) = self.connect(paths).await.ok()?;
            match connection.ask(Operation::List).await {
                Ok(Outcome::Listed { dropped_lines, .. }) => {
                    if dropped_lines > 0 {
                        tracing::warn!(uid = paths.uid, dropped_lines, "log lines could not be written");
                    }
                    Some((connection, state))
                }
                _ => None,
            }
        };
        timeout(READY_LIMIT, attempt).await.ok().flatten()
    }

    fn lost(&self, paths: &PodPaths, supervisor: Option<Identity>) -> Pod {
        let containers = reclaim::last_states(paths);
        // Nobody publishes any more: the sender may go.
        let (_, state) = watch::channel(PodState { containers, lost: true });
        self.pod(paths, supervisor.map_or(0, |supervisor| supervisor.pid), None, state, None)
    }

    fn known(&self) -> Result<Vec<String>, ContainerError> {
        names(&self.layout.state).map_err(ContainerError::io(format!("list {}", self.layout.state.display())))
    }

    /// Starts a command in a running container, with its user, rights, environment and working directory. It lives as long
    /// as the handle: it is killed when that is dropped, or when the engine ends.
    pub async fn exec(&self, uid: &str, id: &str, command: &Command) -> Result<Process, ContainerError> {
        check_name("container", id)?;
        let paths = self.layout.pod(uid)?;
        let not_running = || Failure::new(FailureKind::NotFound, format!("container {id} does not run"));
        let process = reclaim::process_of(&paths, id).ok_or_else(not_running)?;
        Process::start(&self.executable, &paths.container(id), process, command).await
    }

    /// Attaches to a running container: its output from now on, and with `stdin` its input if it has one. An input that is
    /// wanted once ends with the first attachment that feeds it.
    pub async fn attach(&self, uid: &str, id: &str, stdin: bool) -> Result<Attachment, ContainerError> {
        check_name("container", id)?;
        let paths = self.layout.pod(uid)?;
        let attaching = timeout(READY_LIMIT, Attachment::open(uid, &paths.socket, id, stdin)).await;
        let late = || ContainerError::Timeout { what: format!("attaching to {id}"), limit: READY_LIMIT };
        attaching.map_err(|_| late()).flatten()
    }

    /// A pod's network namespace, as long as its supervisor lives.
    pub fn network_namespace(&self, uid: &str) -> Result<PathBuf, ContainerError> {
        let paths = self.layout.pod(uid)?;
        let record: Option<Record> = disk::read(&paths.supervisor()).ok();
        let alive = record.filter(|record| record.process.open().is_some());
        let record = alive.ok_or_else(|| ContainerError::Lost { uid: uid.to_owned() })?;
        Ok(format!("/proc/{}/ns/net", record.process.pid).into())
    }

    /// The layers under the root filesystems of all containers that are there, whatever their state, and of those of others
    /// that keep their state in the folders `beside`. They must stay.
    pub async fn layers_in_use(&self, beside: &[PathBuf]) -> Result<HashSet<PathBuf>, ContainerError> {
        let other = |state: &PathBuf| Layout { state: state.clone(), ..(*self.layout).clone() };
        let layouts: Vec<Layout> = std::iter::once(&self.layout.state).chain(beside).map(other).collect();
        let read = move || layouts.iter().try_fold(HashSet::new(), |all, layout| Ok(&all | &reclaim::layers(layout)?));
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|error| Failure::internal(format!("reading specifications: {error}")))?
            .map_err(ContainerError::io("read which layers are in use"))
    }

    /// Where each of a pod's containers writes what is in no volume: its id and the folder.
    pub fn own_layers(&self, uid: &str) -> Result<Vec<(String, PathBuf)>, ContainerError> {
        let paths = self.layout.pod(uid)?;
        let ids = names(&paths.containers()).map_err(ContainerError::io(format!("list the containers of {uid}")))?;
        Ok(ids.into_iter().map(|id| (id.clone(), paths.container(&id).upper())).collect())
    }

    /// Everything of this instance: processes, control groups, folders, sockets.
    pub async fn teardown(&self) -> Result<(), ContainerError> {
        let pods = self.adopt().await?;
        let mut tasks = tokio::task::JoinSet::new();
        for pod in pods {
            tasks.spawn(async move { pod.destroy().await });
        }
        while let Some(result) = tasks.join_next().await {
            result.map_err(|error| Failure::internal(format!("destroying a pod: {error}")))??;
        }
        let cgroup = self.layout.cgroup.clone();
        let swept = tokio::task::spawn_blocking(move || {
            // Killed first in all of it: pods whose folder is gone have no other mark.
            let group = Group::new(&cgroup)?;
            group.kill()?;
            group.remove()
        });
        swept
            .await
            .map_err(|error| Failure::internal(format!("sweeping control groups: {error}")))?
            .map_err(ContainerError::io("remove the instance's control groups"))
    }
}

/// Bounds the pod as a whole, where that is asked for.
fn limit(spec: &SandboxSpec, paths: &PodPaths) -> Result<(), ContainerError> {
    if spec.resources.cpu_limit_milli.is_none() && spec.resources.memory_limit.is_none() {
        return Ok(());
    }
    let limited = Group::new(&paths.cgroup).and_then(|group| {
        group.create()?;
        group.bound(&spec.resources)
    });
    limited.map_err(ContainerError::io(format!("limit pod {}", paths.uid)))
}

async fn greeted(supervisor: &mut Child) -> Result<(), ContainerError> {
    let output = supervisor.stdout.take().ok_or_else(|| Failure::internal("the supervisor has no output"))?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).await.map_err(ContainerError::io("hear from the supervisor"))?;
    match serde_json::from_str(&line) {
        Ok(Greeting::Ready) => Ok(()),
        Ok(Greeting::Failed(failure)) => Err(failure.into()),
        Err(_) => Err(Failure::internal("the supervisor ended before it was ready; see its log").into()),
    }
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        if let Ok(name) = entry?.file_name().into_string() {
            all.push(name);
        }
    }
    all.retain(|name| crate::layout::check_name("pod", name).is_ok());
    Ok(all)
}
