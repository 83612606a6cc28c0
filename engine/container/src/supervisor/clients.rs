//! The engines connected to a supervisor: lines in, lines out, nobody waits for a slow reader.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::poll::PollFlags;

use crate::wire::{LINE_MAX, Message, Request};

/// Unread news beyond this closes the connection; the client connects again and lists.
const BACKLOG_MAX: usize = 1024 * 1024;

pub(super) struct Client {
    pub(super) number: u64,
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    open: bool,
}

impl Client {
    pub(super) fn new(number: u64, stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { number, stream, input: Vec::new(), output: Vec::new(), open: true })
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        let writable = if self.output.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        (self.stream.as_fd(), PollFlags::POLLIN | writable)
    }

    /// Gives up the connection for another use: the stream, and what is left to read and to write.
    pub(super) fn into_parts(self) -> (UnixStream, Vec<u8>, Vec<u8>) {
        (self.stream, self.input, self.output)
    }

    /// Reads what is there; returns the requests that are complete.
    pub(super) fn read(&mut self) -> Vec<Request> {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break self.open = false,
                Ok(length) => self.input.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break self.open = false,
            }
            if self.input.len() > LINE_MAX {
                self.open = false;
                break;
            }
        }
        self.requests()
    }

    fn requests(&mut self) -> Vec<Request> {
        let mut all = Vec::new();
        // What follows a request to attach is no request any more.
        while !all.last().is_some_and(Request::is_last)
            && let Some(end) = self.input.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(request) => all.push(request),
                // Whatever follows cannot be trusted to be in step.
                Err(_) => self.open = false,
            }
        }
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        all
    }

    pub(super) fn send(&mut self, message: &Message) {
        serde_json::to_writer(&mut self.output, message).expect("messages are plain data");
        self.output.push(b'\n');
        self.flush();
        self.open &= self.output.len() <= BACKLOG_MAX;
    }

    pub(super) fn flush(&mut self) {
        while self.open && !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.open = false,
            }
        }
        self.output = Vec::new();
    }
}
