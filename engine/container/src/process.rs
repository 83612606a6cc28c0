//! Processes by id: alive or not, the same as before or a stranger that got the number, ended for certain.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks after boot (proc_pid_stat(5), field 22).
    pub(crate) start: u64,
}

impl Identity {
    /// Of a process that is there now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        start_time(pid).map(|start| Self { pid, start })
    }

    /// A handle, if the process is still the same.
    pub(crate) fn open(self) -> Option<Handle> {
        let pid = Pid::from_raw(self.pid)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // After opening: from here on the handle cannot change its meaning.
        (start_time(self.pid) == Some(self.start)).then_some(Handle { fd })
    }
}

/// A pidfd.
pub(crate) struct Handle {
    fd: OwnedFd,
}

impl Handle {
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        let signal = named(signal)?;
        match pidfd_send_signal(&self.fd, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => other.map_err(Into::into),
        }
    }

    /// Whether the process ended within the time.
    pub(crate) fn wait(&self, limit: Duration) -> io::Result<bool> {
        let limit = Timespec::try_from(limit).map_err(|_| io::ErrorKind::InvalidInput)?;
        loop {
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match poll(&mut fds, Some(&limit)) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(ready) => return Ok(ready > 0),
            }
        }
    }

    pub(crate) fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }
}

pub(crate) fn named(signal: i32) -> io::Result<Signal> {
    Signal::from_named_raw(signal)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{signal} is no signal")))
}

fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so count from the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_number_is_not_the_same_process() {
        let me = i32::try_from(std::process::id()).unwrap();
        let identity = Identity::of(me).unwrap();
        assert!(identity.open().is_some());
        assert!(Identity { start: identity.start + 1, ..identity }.open().is_none());
    }

    #[test]
    fn a_process_that_was_never_there_has_no_identity() {
        assert_eq!(Identity::of(i32::MAX), None);
    }
}
