//! One container as its supervisor knows it: which process, which pipes, who waits for what.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Instant, SystemTime};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::lines::Lines;
use super::log::Log;
use crate::clock;
use crate::state::ContainerState;

/// Read at once; small, for it lies on every supervisor's stack.
const CHUNK: usize = 8 * 1024;
/// Read from one stream before others get their turn.
const TURN: usize = 16;
/// Read from one stream at the end of its program: more than a pipe holds, but not for as long as somebody writes.
const LAST_TURNS: usize = 256;

/// A client and the number of its request.
#[derive(Clone, Copy)]
pub(super) struct Waiter {
    pub(super) client: u64,
    pub(super) sequence: u64,
}

pub(super) enum Phase {
    /// The creator works; `overdue` once it was killed for taking too long.
    Creating {
        creator: i32,
        deadline: Instant,
        overdue: bool,
        asked: Waiter,
    },
    Running {
        pid: i32,
        started_at: SystemTime,
    },
    Exited,
}

pub(super) struct Container {
    pub(super) id: String,
    pub(super) phase: Phase,
    pub(super) state: ContainerState,
    /// Who wants to hear that it was forgotten.
    pub(super) forgetters: Vec<Waiter>,
    pub(super) log: Log,
    streams: [Option<Stream>; 2],
}

struct Stream {
    pipe: PipeReader,
    lines: Lines,
}

impl Container {
    pub(super) fn new(id: String, phase: Phase, log: Log, output: PipeReader, errors: PipeReader) -> io::Result<Self> {
        for pipe in [&output, &errors] {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let stream = |pipe, name| Some(Stream { pipe, lines: Lines::new(name) });
        let streams = [stream(output, "stdout"), stream(errors, "stderr")];
        Ok(Self { id, phase, state: ContainerState::Created, forgetters: Vec::new(), log, streams })
    }

    /// The open pipes, by the number that [`Container::read`] takes.
    pub(super) fn pipes(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.streams.iter().enumerate().filter_map(|(number, one)| Some((number, one.as_ref()?.pipe.as_fd())))
    }

    /// Moves what one pipe holds into the log.
    pub(super) fn read(&mut self, number: usize) {
        self.copy(number, TURN);
    }

    /// Takes what the pipes still hold, and closes them.
    pub(super) fn drain(&mut self) {
        for number in 0..self.streams.len() {
            self.copy(number, LAST_TURNS);
            self.close(number);
        }
    }

    fn copy(&mut self, number: usize, turns: usize) {
        let mut chunk = [0; CHUNK];
        for _ in 0..turns {
            let Some(stream) = &mut self.streams[number] else { return };
            match stream.pipe.read(&mut chunk) {
                Ok(0) => return self.close(number),
                Ok(length) => {
                    let mut out = Vec::with_capacity(length + 64);
                    let lines = stream.lines.push(&chunk[..length], &clock::timestamp(clock::now()), &mut out);
                    if lines > 0 {
                        self.log.write(&out, lines);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.close(number),
            }
        }
    }

    fn close(&mut self, number: usize) {
        let Some(mut stream) = self.streams[number].take() else { return };
        let mut out = Vec::new();
        let lines = stream.lines.finish(&clock::timestamp(clock::now()), &mut out);
        if lines > 0 {
            self.log.write(&out, lines);
        }
    }
}
