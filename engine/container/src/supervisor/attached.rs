//! Who is attached to a container: they get a copy of its output and may feed its input.
//!
//! A client that takes no output stops the program from writing, as a terminal would, but not for ever: after
//! [`PATIENCE`] it is cut off. What is fed waits in the pipe and in one buffer; then the client is not read from.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::attachment::{self, CONTENT_MAX, INPUT, RESIZE};
use crate::terminal;

/// Output that a client has not taken yet; beyond it, the program's output is not read.
const BACKLOG_MAX: usize = 256 * 1024;
/// Input that the program has not taken yet; beyond it, clients are not read from.
const UNREAD_MAX: usize = 2 * CONTENT_MAX;
/// How long a client may hold up the program.
const PATIENCE: Duration = Duration::from_secs(30);

/// A container's input, as long as it is open.
pub(super) struct Input {
    file: File,
    waiting: Vec<u8>,
    /// Whether it ends with the first attachment.
    once: bool,
    /// Whether it is our end of a terminal.
    pub(super) terminal: bool,
    /// It is closed when nothing waits any more.
    ending: bool,
}

impl Input {
    pub(super) fn new(file: File, once: bool, terminal: bool) -> Self {
        Self { file, waiting: Vec::new(), once, terminal, ending: false }
    }

    /// Whether clients are read from.
    pub(super) fn is_hungry(&self) -> bool {
        self.waiting.len() < UNREAD_MAX
    }

    /// When there is something to write.
    pub(super) fn interest(&self) -> Option<BorrowedFd<'_>> {
        (!self.waiting.is_empty()).then(|| self.file.as_fd())
    }

    /// Writes what waits; `false` when it is closed.
    pub(super) fn write(&mut self) -> bool {
        while !self.waiting.is_empty() {
            match self.file.write(&self.waiting) {
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.waiting = Vec::new();
        !self.ending
    }

    /// Somebody who feeds it says no more.
    pub(super) fn end(&mut self) {
        // A terminal has no end of input; its users type one.
        self.ending |= self.once && !self.terminal;
    }
}

/// One client.
pub(super) struct Attached {
    stream: UnixStream,
    /// Whether what it says is input for the program.
    feeds: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Since when it holds up the program.
    stuck: Option<Instant>,
    open: bool,
}

impl Attached {
    /// `output` is what it has still to be told before, `input` what it has said already.
    pub(super) fn new(stream: UnixStream, feeds: bool, input: Vec<u8>, output: Vec<u8>) -> Self {
        Self { stream, feeds, input, output, stuck: None, open: true }
    }

    pub(super) fn feeds(&self) -> bool {
        self.feeds
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// `hungry`: whether the container takes more input.
    pub(super) fn flags(&self, hungry: bool) -> PollFlags {
        let read = if hungry { PollFlags::POLLIN } else { PollFlags::empty() };
        let write = if self.output.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        read | write
    }

    /// Whether the container's output has to wait for it.
    pub(super) fn is_stuck(&self) -> bool {
        self.output.len() > BACKLOG_MAX
    }

    /// Whether it has taken all that it was told.
    pub(super) fn has_all(&self) -> bool {
        self.output.is_empty()
    }

    /// When it is cut off.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.stuck.map(|since| since + PATIENCE)
    }

    pub(super) fn cut_off_overdue(&mut self) {
        self.open &= self.deadline().is_none_or(|deadline| Instant::now() < deadline);
    }

    pub(super) fn send(&mut self, kind: u8, content: &[u8]) {
        for part in content.chunks(CONTENT_MAX) {
            attachment::push(kind, part, &mut self.output);
        }
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        while self.open && !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(length) => {
                    self.output.drain(..length);
                    self.stuck = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.open = false,
            }
        }
        if self.output.is_empty() {
            self.output = Vec::new();
        }
        if self.is_stuck() {
            self.stuck.get_or_insert_with(Instant::now);
        }
    }

    /// Reads what is there, at most a few frames, and hands it to the container's input; `false` when the input ends by it.
    pub(super) fn read(&mut self, input: Option<&mut Input>) -> bool {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.open = false,
            Ok(length) => self.input.extend_from_slice(&chunk[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.open = false,
        }
        self.take_frames(input)
    }

    /// What it said before it was known to be attached, too.
    pub(super) fn take_frames(&mut self, mut input: Option<&mut Input>) -> bool {
        loop {
            match attachment::first(&self.input) {
                Err(_) => break self.open = false,
                Ok(None) => break,
                Ok(Some((kind, content, length))) => {
                    if let Some(input) = input.as_deref_mut() {
                        take(kind, content, self.feeds, input);
                    }
                    self.input.drain(..length);
                }
            }
        }
        input.is_none_or(Input::write)
    }
}

/// `feeds`: whether the client may say more than its terminal's size.
fn take(kind: u8, content: &[u8], feeds: bool, input: &mut Input) {
    match kind {
        INPUT if !feeds => {}
        INPUT if content.is_empty() => input.end(),
        INPUT => input.waiting.extend_from_slice(content),
        RESIZE if input.terminal => {
            if let Some(size) = attachment::size(content)
                && let Err(error) = terminal::resize(&input.file, size)
            {
                eprintln!("resize: {error}");
            }
        }
        _ => {}
    }
}
