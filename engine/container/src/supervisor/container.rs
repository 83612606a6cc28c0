//! One container as its supervisor knows it: which process, which pipes, who waits for what, who is attached.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Instant, SystemTime};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::attached::{Attached, Input};
use super::lines::Lines;
use super::log::Log;
use crate::attachment::{ERRORS, OUTPUT};
use crate::clock;
use crate::handover;
use crate::state::ContainerState;
use crate::wire::Manner;

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
    pub(super) manner: Manner,
    streams: [Option<Stream>; 2],
    /// Where its creator hands over its terminal.
    terminal: Option<UnixStream>,
    pub(super) input: Option<Input>,
    pub(super) attached: Vec<Attached>,
}

struct Stream {
    pipe: File,
    lines: Lines,
}

/// The supervisor's ends of a container's streams.
pub(super) struct Ends {
    pub(super) output: PipeReader,
    pub(super) errors: PipeReader,
    pub(super) input: Option<PipeWriter>,
    pub(super) terminal: Option<UnixStream>,
}

impl Container {
    pub(super) fn new(id: String, phase: Phase, log: Log, manner: Manner, ends: Ends) -> io::Result<Self> {
        let input = ends.input.map(|pipe| nonblocking(pipe.into())).transpose()?;
        let input = input.map(|pipe| Input::new(pipe, manner.stdin_once, false));
        let streams = [stream(ends.output.into(), "stdout")?, stream(ends.errors.into(), "stderr")?];
        let (forgetters, attached) = (Vec::new(), Vec::new());
        let (state, terminal) = (ContainerState::Created, ends.terminal);
        Ok(Self { id, phase, state, forgetters, log, manner, streams, terminal, input, attached })
    }

    /// Takes the terminal that the container's first process has handed over before it became its program.
    pub(super) fn take_terminal(&mut self) -> io::Result<()> {
        let Some(socket) = self.terminal.take() else { return Ok(()) };
        socket.set_nonblocking(true)?;
        let ours = handover::receive(&socket)?.ok_or_else(|| io::Error::other("no terminal was handed over"))?;
        self.streams[0] = stream(ours.try_clone()?, "stdout")?;
        // Without input of its own it still has a size.
        self.input = Some(Input::new(nonblocking(ours)?, false, true));
        Ok(())
    }

    /// Whether its output has to wait for somebody who is attached.
    pub(super) fn is_held_up(&self) -> bool {
        self.attached.iter().any(Attached::is_stuck)
    }

    /// Whether those who are attached are read from.
    pub(super) fn is_hungry(&self) -> bool {
        self.input.as_ref().is_none_or(Input::is_hungry)
    }

    pub(super) fn attach(&mut self, mut client: Attached) {
        client.flush();
        self.feed(|input| client.take_frames(input));
        self.attached.push(client);
    }

    /// Lets those go who left, were too slow, or have heard all there will be.
    pub(super) fn let_go(&mut self) {
        let over = matches!(self.phase, Phase::Exited);
        for client in &mut self.attached {
            client.cut_off_overdue();
        }
        let left = self.attached.extract_if(.., |client| !client.is_open() || (over && client.has_all()));
        if left.filter(Attached::feeds).count() > 0 {
            self.feed(|input| {
                input.is_none_or(|input| {
                    input.end();
                    input.write()
                })
            });
        }
    }

    /// Moves what a client says into the input.
    pub(super) fn hear(&mut self, number: usize) {
        let mut all = std::mem::take(&mut self.attached);
        if let Some(client) = all.get_mut(number) {
            self.feed(|input| client.read(input));
        }
        self.attached = all;
    }

    /// Moves what waits into the program.
    pub(super) fn feed(&mut self, mut more: impl FnMut(Option<&mut Input>) -> bool) {
        if !more(self.input.as_mut()) {
            self.input = None;
        }
    }

    /// The open pipes, by the number that [`Container::read`] takes.
    pub(super) fn pipes(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.streams.iter().enumerate().filter_map(|(number, one)| Some((number, one.as_ref()?.pipe.as_fd())))
    }

    /// Moves what one pipe holds into the log.
    pub(super) fn read(&mut self, number: usize) {
        self.copy(number, TURN);
    }

    /// Takes what the pipes still hold, and closes them. Who is attached gets the rest.
    pub(super) fn drain(&mut self) {
        for number in 0..self.streams.len() {
            self.copy(number, LAST_TURNS);
            self.close(number);
        }
        self.input = None;
    }

    fn copy(&mut self, number: usize, turns: usize) {
        let mut chunk = [0; CHUNK];
        for _ in 0..turns {
            let Some(stream) = &mut self.streams[number] else { return };
            match stream.pipe.read(&mut chunk) {
                Ok(0) => return self.close(number),
                Ok(length) => {
                    for client in &mut self.attached {
                        client.send(if number == 0 { OUTPUT } else { ERRORS }, &chunk[..length]);
                    }
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

fn stream(pipe: OwnedFd, name: &'static str) -> io::Result<Option<Stream>> {
    Ok(Some(Stream { pipe: nonblocking(pipe)?, lines: Lines::new(name) }))
}

fn nonblocking(descriptor: OwnedFd) -> io::Result<File> {
    fcntl(&descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(descriptor.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::{self, INPUT};

    fn container(folder: &std::path::Path) -> (Container, PipeReader, PipeWriter) {
        let [(output, writer), (errors, _), (program, input)] = [(); 3].map(|()| io::pipe().unwrap());
        let phase = Phase::Running { pid: 1, started_at: SystemTime::now() };
        let manner = Manner { stdin: true, stdin_once: true, ..Manner::default() };
        let ends = Ends { output, errors, input: Some(input), terminal: None };
        let log = Log::open(folder.join("log"), 0).unwrap();
        (Container::new("a".to_owned(), phase, log, manner, ends).unwrap(), program, writer)
    }

    fn attach(container: &mut Container, feeds: bool, said: &str) -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let mut input = Vec::new();
        attachment::push(INPUT, said.as_bytes(), &mut input);
        container.attach(Attached::new(far, feeds, input, Vec::new()));
        near
    }

    #[test]
    fn only_who_feeds_the_input_ends_it_wherever_its_leaving_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (mut container, mut program, mut writer) = container(folder.path());
        let holder = attach(&mut container, true, "typed");
        let looker = attach(&mut container, false, "ignored");
        // It is the program's output that shows that somebody is gone.
        drop(looker);
        io::Write::write_all(&mut writer, b"one\n").unwrap();
        container.read(0);
        container.let_go();
        assert!(container.input.is_some() && container.attached.len() == 1, "it did not feed the input");
        drop(holder);
        io::Write::write_all(&mut writer, b"two\n").unwrap();
        container.read(0);
        container.let_go();
        assert!(container.input.is_none() && container.attached.is_empty(), "the program waits for ever");
        let mut taken = String::new();
        program.read_to_string(&mut taken).unwrap();
        assert_eq!(taken, "typed");
    }
}
