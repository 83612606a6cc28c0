//! Terminals: made inside a container, in its own devpts, so that programs find theirs by name; their other end is held
//! outside.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, getpid, getsid, setsid};
use rustix::fs::{FsWord, Mode, OFlags, fstatfs, open};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::error::{Context, Failure, FailureKind};
use crate::spec::User;

const MULTIPLEXER: &str = "/dev/pts/ptmx";
/// `DEVPTS_SUPER_MAGIC` (statfs(2)).
const DEVPTS: FsWord = 0x1cd1;
/// Width and height in characters.
pub(crate) type Size = (u16, u16);

/// A new terminal of the container whose root this process sees: our end, and the end of its programs.
pub(crate) fn make(user: &User) -> Result<(OwnedFd, OwnedFd), Failure> {
    try_make(user).or_fail(FailureKind::CreateContainer, || "make a terminal".into())
}

fn try_make(user: &User) -> io::Result<(OwnedFd, OwnedFd)> {
    // The container may have put anything in its place: nothing is followed, waited for or taken over.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let ours = open(MULTIPLEXER, flags, Mode::empty())?;
    if fstatfs(&ours)?.f_type != DEVPTS {
        return Err(io::Error::other(format!("{MULTIPLEXER} is not the kernel's")));
    }
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    fchown(&theirs, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))?;
    Ok((ours, theirs))
}

/// Makes it the controlling terminal of this process's session, and its standard streams.
pub(crate) fn take(theirs: &OwnedFd) -> Result<(), Failure> {
    let take = || {
        if getsid(None)? != getpid() {
            setsid()?;
        }
        ioctl_tiocsctty(theirs)?;
        dup2_stdin(theirs)?;
        dup2_stdout(theirs)?;
        Ok::<(), io::Error>(dup2_stderr(theirs)?)
    };
    take().or_fail(FailureKind::Start, || "take the terminal".into())
}

/// Tells its programs how large it is.
pub(crate) fn resize(ours: impl AsFd, (columns, rows): Size) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(ours, size)?)
}

/// Reading from our end says so once no program has the other one open.
pub(crate) fn is_hung_up(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}
