//! What libcontainer logs when it fails. Its errors lose their causes on the way between its processes; the first error
//! event, written into a pipe by whichever process it happens in, still names the cause.

use std::fmt::{Debug, Write as _};
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// One event never fills a pipe, and longer lines help nobody.
const HINT_MAX: usize = 400;

/// Receives the hints.
pub(super) struct Hints(File);

impl Hints {
    /// Installs the listener for this process and those it forks.
    pub(super) fn listen() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        tracing::subscriber::set_global_default(Listener { pipe: write }).map_err(io::Error::other)?;
        Ok(Self(read.into()))
    }

    /// The first one: later ones are consequences.
    pub(super) fn first(&mut self) -> Option<String> {
        fcntl(&self.0, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
        let mut text = [0; HINT_MAX];
        let length = self.0.read(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text[..length]);
        text.lines().next().map(str::to_owned)
    }
}

struct Listener {
    pipe: OwnedFd,
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR && metadata.is_event()
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut text = format!("{}{}", line.message, line.fields).replace('\n', " ").into_bytes();
        text.truncate(HINT_MAX - 1);
        text.push(b'\n');
        // A full or closed pipe only means fewer hints.
        drop(self.pipe.try_clone().and_then(|pipe| File::from(pipe).write_all(&text)));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, ", {name} {value:?}"),
        };
        written.expect("writing to a string does not fail");
    }
}
