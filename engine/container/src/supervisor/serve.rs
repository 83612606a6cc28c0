//! The supervisor's loop: waits for output, ended children, requests and connections, and handles one after the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::attached::{Attached, Input};
use super::clients::Client;
use super::container::{Container, Phase, Waiter};
use crate::cgroup::Group;
use crate::disk;
use crate::error::{Failure, FailureKind};
use crate::layout::PodPaths;
use crate::leash::{self, Moment};
use crate::spec::SandboxSpec;
use crate::state::ContainerState;
use crate::wire::{Message, Operation, Outcome, Request};

/// After this, what has not ended is left to the engine's own sweep.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(8);

pub(super) struct Supervisor {
    pub(super) paths: PodPaths,
    pub(super) spec: SandboxSpec,
    listener: UnixListener,
    pub(super) signals: SignalFd,
    clients: Vec<Client>,
    connected: u64,
    /// Clients that become attached to a container once this round is over, and whether they feed it.
    attaching: Vec<(u64, String, bool)>,
    pub(super) containers: Vec<Container>,
    /// Ended children that belong to no container yet: process id and wait status.
    pub(super) strangers: Vec<(i32, i32)>,
    closing: Option<(Waiter, Instant)>,
    /// Log lines missing from containers that are forgotten.
    pub(super) dropped_lines: u64,
    /// Until when it may run, as it was last read.
    leave: Option<Moment>,
}

/// What poll(2) said about whom.
enum Ready {
    Output { container: usize, pipe: usize },
    Input { container: usize },
    Attached { container: usize, number: usize, flags: PollFlags },
    Children,
    Client { index: usize, flags: PollFlags },
    Connection,
}

impl Supervisor {
    pub(super) fn new(paths: PodPaths, spec: SandboxSpec, listener: UnixListener, signals: SignalFd) -> Self {
        Self {
            paths,
            spec,
            listener,
            signals,
            clients: Vec::new(),
            connected: 0,
            attaching: Vec::new(),
            containers: Vec::new(),
            strangers: Vec::new(),
            closing: None,
            dropped_lines: 0,
            leave: None,
        }
    }

    /// Runs until it is told to shut down; returns the exit code.
    pub(super) fn serve(mut self) -> i32 {
        loop {
            if !self.has_leave() {
                return self.stop_all();
            }
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    eprintln!("poll: {error}");
                    return 1;
                }
            };
            for one in ready {
                self.handle(&one);
            }
            self.finish_attaching();
            self.kill_overdue();
            self.clients.retain(Client::is_open);
            for container in &mut self.containers {
                container.let_go();
            }
            if let Some(code) = self.finish_closing() {
                return code;
            }
        }
    }

    /// Nobody knows of this pod.
    pub(super) fn abandon(self) -> i32 {
        if let Err(error) = disk::remove_file(&self.paths.socket).and_then(|()| disk::remove_folder(&self.paths.folder))
        {
            eprintln!("clean up: {error}");
        }
        1
    }

    fn wait(&self) -> nix::Result<Vec<Ready>> {
        let mut sources: Vec<(Ready, BorrowedFd<'_>, PollFlags)> = Vec::new();
        for (container, one) in self.containers.iter().enumerate() {
            // Attached clients first: what they have to be told lies before what they are told next.
            let hungry = one.is_hungry();
            sources.extend(one.attached.iter().enumerate().map(|(number, client)| {
                (Ready::Attached { container, number, flags: PollFlags::empty() }, client.fd(), client.flags(hungry))
            }));
            let input = one.input.as_ref().and_then(Input::interest);
            sources.extend(input.map(|fd| (Ready::Input { container }, fd, PollFlags::POLLOUT)));
            if !one.is_held_up() {
                let pipes = one.pipes().map(|(pipe, fd)| (Ready::Output { container, pipe }, fd, PollFlags::POLLIN));
                sources.extend(pipes);
            }
        }
        sources.push((Ready::Children, self.signals.as_fd(), PollFlags::POLLIN));
        for (index, client) in self.clients.iter().enumerate() {
            let (fd, flags) = client.interest();
            sources.push((Ready::Client { index, flags: PollFlags::empty() }, fd, flags));
        }
        sources.push((Ready::Connection, self.listener.as_fd(), PollFlags::POLLIN));
        let mut fds: Vec<_> = sources.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
        poll(&mut fds, self.patience())?;
        let flags: Vec<_> = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        let seen = sources.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty());
        let ready = seen.map(|((ready, _, _), flags)| match ready {
            Ready::Client { index, .. } => Ready::Client { index, flags },
            Ready::Attached { container, number, .. } => Ready::Attached { container, number, flags },
            other => other,
        });
        Ok(ready.collect())
    }

    /// Until the next deadline.
    fn patience(&self) -> PollTimeout {
        let creating = self.containers.iter().filter_map(|one| match one.phase {
            Phase::Creating { deadline, overdue: false, .. } => Some(deadline),
            _ => None,
        });
        let stuck = self.containers.iter().flat_map(|one| one.attached.iter().filter_map(Attached::deadline));
        let next = creating.chain(stuck).chain(self.closing.map(|(_, deadline)| deadline)).min();
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        let leave = self.leave.map(|end| Moment::now().until(end));
        let left = left.into_iter().chain(leave).min().map(|left| left + Duration::from_millis(1));
        left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))
    }

    /// Whether it may run. A leash is only read again when the last word of it has passed.
    fn has_leave(&mut self) -> bool {
        let Some(file) = &self.spec.leash else { return true };
        let passed = |end: Option<Moment>| end.is_none_or(|end| end <= Moment::now());
        if passed(self.leave) {
            self.leave = leash::end(file);
        }
        !passed(self.leave)
    }

    /// Ends everything at once, with nobody to tell; the engine finds a pod whose supervisor is gone.
    fn stop_all(&mut self) -> i32 {
        eprintln!("the node was silent for too long, the pod is stopped");
        self.kill_all();
        if let Err(error) = Group::new(&self.paths.cgroup).and_then(|group| group.kill()) {
            eprintln!("stop: {error}");
        }
        1
    }

    fn handle(&mut self, ready: &Ready) {
        match *ready {
            Ready::Output { container, pipe } => self.containers[container].read(pipe),
            Ready::Input { container } => self.containers[container].feed(|input| input.is_none_or(Input::write)),
            Ready::Attached { container, number, flags } => self.converse(container, number, flags),
            Ready::Children => self.reap(),
            Ready::Client { index, flags } => self.hear(index, flags),
            Ready::Connection => self.accept(),
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            self.connected += 1;
            match Client::new(self.connected, stream) {
                Ok(client) => self.clients.push(client),
                Err(error) => eprintln!("accept: {error}"),
            }
        }
    }

    fn hear(&mut self, index: usize, flags: PollFlags) {
        let client = &mut self.clients[index];
        if flags.contains(PollFlags::POLLOUT) {
            client.flush();
        }
        let number = client.number;
        for Request { sequence, operation } in client.read() {
            self.operate(Waiter { client: number, sequence }, operation);
        }
    }

    fn converse(&mut self, container: usize, number: usize, flags: PollFlags) {
        let container = &mut self.containers[container];
        if flags.contains(PollFlags::POLLOUT) {
            container.attached[number].flush();
        }
        if flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            container.hear(number);
        }
    }

    /// Turns the client into one that is attached; from then on it is no client any more.
    fn attach(&mut self, asked: Waiter, id: &str, feeds: bool) {
        let running = |one: &Container| one.id == id && matches!(one.phase, Phase::Running { .. });
        if !self.containers.iter().any(running) {
            let failure = Failure::new(FailureKind::NotFound, format!("container {id} does not run"));
            return self.answer(asked, Outcome::Failed(failure));
        }
        self.answer(asked, Outcome::Done);
        self.attaching.push((asked.client, id.to_owned(), feeds));
    }

    fn finish_attaching(&mut self) {
        for (number, id, feeds) in std::mem::take(&mut self.attaching) {
            let place = self.clients.iter().position(|client| client.number == number && client.is_open());
            let container = self.containers.iter_mut().find(|one| one.id == id);
            if let (Some(place), Some(container)) = (place, container) {
                let (stream, input, output) = self.clients.remove(place).into_parts();
                container.attach(Attached::new(stream, feeds, input, output));
            }
        }
    }

    fn operate(&mut self, asked: Waiter, operation: Operation) {
        match operation {
            Operation::Start { .. } if self.closing.is_some() => {
                self.answer(asked, Outcome::Failed(Failure::create("the pod is being destroyed")));
            }
            Operation::Start { id, log, log_limit, manner } => self.start(asked, id, (log, log_limit), manner),
            Operation::Attach { id, stdin } => self.attach(asked, &id, stdin),
            Operation::Signal { id, signal } => {
                let outcome = self.signal(&id, signal).map_or_else(Outcome::Failed, |()| Outcome::Done);
                self.answer(asked, outcome);
            }
            Operation::Forget { id } => self.forget(asked, &id),
            Operation::List => self.answer(asked, self.list()),
            Operation::Shutdown => self.close(asked),
        }
    }

    fn list(&self) -> Outcome {
        let states = self.containers.iter().map(|one| (one.id.clone(), one.state.clone())).collect();
        let dropped = self.containers.iter().map(|one| one.log.dropped()).sum::<u64>();
        Outcome::Listed { containers: states, dropped_lines: dropped + self.dropped_lines }
    }

    pub(super) fn answer(&mut self, asked: Waiter, outcome: Outcome) {
        // A client that went away is not waiting any more.
        if let Some(client) = self.clients.iter_mut().find(|client| client.number == asked.client) {
            client.send(&Message::Answer { sequence: asked.sequence, outcome });
        }
    }

    pub(super) fn announce(&mut self, id: &str, state: &ContainerState) {
        for client in &mut self.clients {
            client.send(&Message::Changed { id: id.to_owned(), state: state.clone() });
        }
    }

    fn close(&mut self, asked: Waiter) {
        if self.closing.is_some() {
            return self.answer(asked, Outcome::Done);
        }
        self.closing = Some((asked, Instant::now() + SHUTDOWN_PATIENCE));
        self.kill_all();
    }

    fn finish_closing(&mut self) -> Option<i32> {
        let (asked, deadline) = self.closing?;
        let all_ended = self.containers.iter().all(|one| matches!(one.phase, Phase::Exited));
        if !all_ended && Instant::now() < deadline {
            return None;
        }
        let swept = Group::new(&self.paths.cgroup).and_then(|pod| pod.remove());
        let outcome = swept.and_then(|()| disk::remove_file(&self.paths.socket)).map_or_else(
            |error: io::Error| Outcome::Failed(Failure::internal(format!("cannot clean up the pod: {error}"))),
            |()| Outcome::Done,
        );
        self.answer(asked, outcome);
        Some(0)
    }
}
