//! The supervisor's children: creators that make containers, and the containers' first processes, which it inherits.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Kept;
use super::container::{Container, Ends, Phase, Waiter};
use super::log::Log;
use super::serve::Supervisor;
use crate::cgroup::Group;
use crate::clock;
use crate::disk;
use crate::entry::CREATE;
use crate::error::{Context, Failure, FailureKind};
use crate::layout::{ContainerPaths, check_name};
use crate::process::{Identity, named};
use crate::state::{ContainerState, Started};
use crate::wire::{Manner, Outcome};

/// A creator that takes longer is killed, with all it made.
const CREATION_LIMIT: Duration = Duration::from_secs(30);
/// Remembered ended children whose container is not known yet; older ones are forgotten first.
const STRANGERS_MAX: usize = 64;

impl Supervisor {
    pub(super) fn start(&mut self, asked: Waiter, id: String, log: (PathBuf, u64), manner: Manner) {
        if let Err(failure) = self.try_start(asked, id, log, manner) {
            self.answer(asked, Outcome::Failed(failure));
        }
    }

    fn try_start(
        &mut self,
        asked: Waiter,
        id: String,
        (log, limit): (PathBuf, u64),
        manner: Manner,
    ) -> Result<(), Failure> {
        check_name("container", &id).map_err(|error| Failure::create(error.to_string()))?;
        if self.containers.iter().any(|one| one.id == id) {
            return Err(Failure::new(FailureKind::Exists, format!("container {id} exists already")));
        }
        let shown = log.display().to_string();
        let log = Log::open(log, limit).or_fail(FailureKind::CreateContainer, || format!("open the log {shown}"))?;
        let (container, creator) = self.spawn(asked, id, log, manner).or_internal(|| "start the creator".into())?;
        tracing::debug!(creator, "creator started");
        let (id, state) = (container.id.clone(), container.state.clone());
        self.containers.push(container);
        self.announce(&id, &state);
        Ok(())
    }

    fn spawn(&self, asked: Waiter, id: String, log: Log, manner: Manner) -> io::Result<(Container, i32)> {
        let (output, output_end) = io::pipe()?;
        let (errors, errors_end) = io::pipe()?;
        let (mut input, mut terminal) = (None, None);
        let stdin = if manner.terminal {
            let (ours, theirs) = UnixStream::pair()?;
            terminal = Some(ours);
            Stdio::from(OwnedFd::from(theirs))
        } else if manner.stdin {
            let (theirs, ours) = io::pipe()?;
            input = Some(ours);
            Stdio::from(theirs)
        } else {
            Stdio::null()
        };
        let child = Command::new("/proc/self/exe")
            .arg0("shipway")
            .args([CREATE, &self.paths.uid])
            .arg(&self.paths.folder)
            .arg(&self.paths.socket)
            .args([&self.paths.cgroup, &id])
            .env_clear()
            .stdin(stdin)
            .stdout(output_end)
            .stderr(errors_end)
            .spawn()?;
        let creator = i32::try_from(child.id()).expect("process ids are positive integers");
        let deadline = Instant::now() + CREATION_LIMIT;
        let phase = Phase::Creating { creator, deadline, overdue: false, asked };
        let ends = Ends { output, errors, input, terminal };
        Ok((Container::new(id, phase, log, manner, ends)?, creator))
    }

    pub(super) fn signal(&mut self, id: &str, signal: i32) -> Result<(), Failure> {
        let not_running = || Failure::new(FailureKind::NotFound, format!("container {id} does not run"));
        let container = self.containers.iter().find(|one| one.id == id).ok_or_else(not_running)?;
        let Phase::Running { pid, .. } = container.phase else { return Err(not_running()) };
        let pid = rustix::process::Pid::from_raw(pid).ok_or_else(not_running)?;
        let signal = named(signal).or_internal(|| format!("send signal {signal}"))?;
        // The number is ours until it is reaped, so it cannot mean another process.
        rustix::process::kill_process(pid, signal).or_internal(|| format!("signal container {id}"))
    }

    pub(super) fn forget(&mut self, asked: Waiter, id: &str) {
        let Some(index) = self.containers.iter().position(|one| one.id == id) else {
            return self.answer(asked, Outcome::Done);
        };
        self.containers[index].forgetters.push(asked);
        self.kill_one(index);
        self.forget_if_ended(index);
    }

    pub(super) fn kill_all(&mut self) {
        for index in 0..self.containers.len() {
            self.kill_one(index);
        }
    }

    /// Its end is noticed like any other.
    fn kill_one(&self, index: usize) {
        let pid = match self.containers[index].phase {
            Phase::Creating { creator, .. } => creator,
            Phase::Running { pid, .. } => pid,
            Phase::Exited => return,
        };
        if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
            eprintln!("kill {pid}: {error}");
        }
    }

    pub(super) fn kill_overdue(&mut self) {
        for index in 0..self.containers.len() {
            if let Phase::Creating { deadline, overdue, .. } = &mut self.containers[index].phase
                && !*overdue
                && Instant::now() >= *deadline
            {
                *overdue = true;
                self.kill_one(index);
            }
        }
    }

    #[expect(unsafe_code, reason = "the safe wrapper refuses statuses of real-time signals")]
    /// Takes the status of every child that ended.
    pub(super) fn reap(&mut self) {
        // The signal only says that there is something; one may stand for many.
        while matches!(self.signals.read_signal(), Ok(Some(_))) {}
        loop {
            let mut status = 0;
            // SAFETY: `status` is a valid place for one int during the call.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            match pid {
                0 => return,
                -1 if Errno::last() == Errno::EINTR => {}
                -1 => return,
                pid => self.ended(pid, status),
            }
        }
    }

    fn ended(&mut self, pid: i32, status: i32) {
        for index in 0..self.containers.len() {
            match self.containers[index].phase {
                Phase::Creating { creator, overdue, asked, .. } if creator == pid => {
                    return self.created(index, asked, overdue, status);
                }
                Phase::Running { pid: running, started_at } if running == pid => {
                    return self.exited(index, started_at, status);
                }
                _ => {}
            }
        }
        // Perhaps the first process of a container whose creator is just ending; else an orphan of no interest.
        if self.containers.iter().any(|one| matches!(one.phase, Phase::Creating { .. })) {
            if self.strangers.len() == STRANGERS_MAX {
                self.strangers.remove(0);
            }
            self.strangers.push((pid, status));
        }
    }

    fn created(&mut self, index: usize, asked: Waiter, overdue: bool, status: i32) {
        let paths = self.paths.container(&self.containers[index].id);
        match disk::read(&paths.outcome()) {
            Ok(Outcome::Started(started)) if !overdue => self.started(index, asked, &paths, started),
            Ok(Outcome::Failed(failure)) => self.discard(index, asked, &paths, failure),
            _ => {
                let failure = silent(&paths, overdue, status);
                self.discard(index, asked, &paths, failure);
            }
        }
    }

    fn started(&mut self, index: usize, asked: Waiter, paths: &ContainerPaths, started: Started) {
        let Started { pid, started_at, .. } = started;
        let container = &mut self.containers[index];
        container.phase = Phase::Running { pid, started_at };
        container.state = ContainerState::Running { pid, started_at };
        if let Err(error) = container.take_terminal() {
            eprintln!("take the terminal of {}: {error}", container.id);
        }
        self.keep(index, paths, Identity::of(pid));
        let (id, state) = (self.containers[index].id.clone(), self.containers[index].state.clone());
        self.announce(&id, &state);
        self.answer(asked, Outcome::Started(started));
        if let Some(place) = self.strangers.iter().position(|(stranger, _)| *stranger == pid) {
            let (_, status) = self.strangers.remove(place);
            self.exited(index, started_at, status);
        } else if !self.containers[index].forgetters.is_empty() {
            self.kill_one(index);
        }
    }

    /// Leaves nothing of a container that did not come to be.
    fn discard(&mut self, index: usize, asked: Waiter, paths: &ContainerPaths, mut failure: Failure) {
        let mut container = self.containers.remove(index);
        // A program that runs already goes on writing as long as it lives.
        if let Err(error) = Group::new(&paths.cgroup).and_then(|group| group.kill()) {
            eprintln!("discard: {error}");
        }
        container.drain();
        self.dropped_lines += container.log.dropped();
        if let Err(error) = erase(paths) {
            failure.message = format!("{failure}; and cannot clean up: {error}");
        }
        self.answer(asked, Outcome::Failed(failure));
        for waiter in container.forgetters {
            self.answer(waiter, Outcome::Done);
        }
    }

    fn exited(&mut self, index: usize, started_at: SystemTime, status: i32) {
        let paths = self.paths.container(&self.containers[index].id);
        let group = Group::new(&paths.cgroup);
        // In a namespace of its own the kernel has ended the rest already.
        let shares = self.spec.host_pid || self.spec.share_processes || self.containers[index].manner.joins;
        if shares
            && let Err(error) =
                group.as_ref().map_err(ToString::to_string).and_then(|group| group.kill().map_err(|e| e.to_string()))
        {
            eprintln!("sweep: {error}");
        }
        let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        let code = signal.map_or_else(|| libc::WEXITSTATUS(status), |signal| 128 + signal);
        let kills = group.map_or(0, |group| group.out_of_memory_kills());
        let container = &mut self.containers[index];
        container.drain();
        container.phase = Phase::Exited;
        let (out_of_memory, finished_at) = (code != 0 && kills > 0, clock::now());
        container.state = ContainerState::Exited { code, signal, out_of_memory, started_at, finished_at };
        self.keep(index, &paths, None);
        let (id, state) = (self.containers[index].id.clone(), self.containers[index].state.clone());
        self.announce(&id, &state);
        self.forget_if_ended(index);
    }

    fn forget_if_ended(&mut self, index: usize) {
        let container = &self.containers[index];
        if container.forgetters.is_empty() || !matches!(container.phase, Phase::Exited) {
            return;
        }
        let container = self.containers.remove(index);
        self.dropped_lines += container.log.dropped();
        let erased = erase(&self.paths.container(&container.id));
        for waiter in container.forgetters {
            let outcome = erased.as_ref().map_or_else(
                |error| {
                    Outcome::Failed(Failure::internal(format!("cannot remove container {}: {error}", container.id)))
                },
                |()| Outcome::Done,
            );
            self.answer(waiter, outcome);
        }
    }

    /// For an engine that finds this supervisor dead.
    fn keep(&self, index: usize, paths: &ContainerPaths, process: Option<Identity>) {
        let state = self.containers[index].state.clone();
        if let Err(error) = disk::write(&paths.state(), &Kept { process, state }) {
            eprintln!("write {}: {error}", paths.state().display());
        }
    }
}

fn silent(paths: &ContainerPaths, overdue: bool, status: i32) -> Failure {
    if overdue {
        return Failure::create(format!("the container was not created within {CREATION_LIMIT:?}"));
    }
    if Group::new(&paths.cgroup).map_or(0, |group| group.out_of_memory_kills()) > 0 {
        return Failure::create("the memory limit is too small to create the container");
    }
    Failure::internal(format!("the creator ended without an answer (wait status {status:#x})"))
}

fn erase(paths: &ContainerPaths) -> io::Result<()> {
    Group::new(&paths.cgroup)?.remove()?;
    disk::remove_folder(&paths.folder)
}
