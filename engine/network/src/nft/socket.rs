//! The netlink socket to nftables: sends a batch and says whether the kernel took it, and reads dumps.
//!
//! The kernel handles a request before `send` returns, so nothing here waits and no thread is needed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::sys::{Socket, SocketAddr};

use super::attribute::Attributes;
use super::batch::{DUMP, Kind, Read, message, messages};

pub(crate) const NETLINK_NETFILTER: isize = 12;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The dump saw a change of the rules while it was read.
const INTERRUPTED: u16 = 0x10;
/// The kernel sends dumps in parts of at most 32 KiB.
pub(crate) const RECEIVE: usize = 64 << 10;
/// Room for the largest batch: thousands of backends in one service.
const SEND: usize = 16 << 20;
/// A dump that was interrupted is read again, but not for ever.
pub(crate) const DUMP_ATTEMPTS: usize = 20;

/// A socket bound to the network namespace in which it was opened.
pub(crate) struct FilterSocket {
    socket: Socket,
}

impl FilterSocket {
    /// Opens the socket.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        socket.set_cap_ack(true)?;
        grow(socket.as_fd());
        Ok(Self { socket })
    }

    /// Sends a finished batch. All of it took effect, or nothing and the first error is returned.
    pub(crate) fn commit(&mut self, batch: &[u8]) -> io::Result<()> {
        self.drain()?;
        self.send(batch)?;
        let mut answered = false;
        while let Some(bytes) = self.receive()? {
            for read in messages(&bytes) {
                if read.kind == NLMSG_ERROR {
                    error_of(&read)?;
                    answered = true;
                }
            }
        }
        if answered { Ok(()) } else { Err(io::Error::other("the kernel did not answer")) }
    }

    /// Reads everything of one kind; calls `each` with the attributes of every entry.
    pub(crate) fn dump(
        &mut self,
        kind: Kind,
        build: impl Fn(&mut Attributes<'_>),
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(entries) = self.dump_once(kind, &build)? {
                for entry in &entries {
                    each(entry);
                }
                return Ok(());
            }
        }
        Err(io::Error::other("the rules changed every time they were read"))
    }

    fn dump_once(&mut self, kind: Kind, build: impl Fn(&mut Attributes<'_>)) -> io::Result<Option<Vec<Vec<u8>>>> {
        let mut request = Vec::new();
        message(&mut request, kind, DUMP, 1, build);
        self.dump_request(&request)
    }

    /// The attributes of every entry that the kernel has for a request; none when they changed meanwhile.
    pub(crate) fn dump_request(&mut self, request: &[u8]) -> io::Result<Option<Vec<Vec<u8>>>> {
        self.drain()?;
        self.send(request)?;
        let (mut entries, mut whole) = (Vec::new(), true);
        while let Some(bytes) = self.receive()? {
            for read in messages(&bytes) {
                whole &= read.flags & INTERRUPTED == 0;
                match read.kind {
                    NLMSG_DONE => return Ok(whole.then_some(entries)),
                    NLMSG_ERROR => error_of(&read)?,
                    _ => entries.push(read.attributes().to_vec()),
                }
            }
        }
        Err(io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.socket.send(bytes, 0)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// The next waiting datagram, if any.
    fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = Vec::with_capacity(RECEIVE);
        match self.socket.recv(&mut buffer, 0) {
            Ok(_) => Ok(Some(buffer)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Throws away what an earlier, failed request left unread.
    fn drain(&self) -> io::Result<()> {
        while self.receive()?.is_some() {}
        Ok(())
    }
}

/// Asks for larger buffers; the forced form works where we may administer the network, else the plain one must do.
pub(crate) fn grow(socket: BorrowedFd<'_>) {
    let forced = setsockopt(&socket, sockopt::SndBufForce, &SEND).and(setsockopt(&socket, sockopt::RcvBufForce, &SEND));
    if forced.is_err()
        && let Err(error) = setsockopt(&socket, sockopt::SndBuf, &SEND)
    {
        tracing::debug!(%error, "small netlink buffers: very large services may not be programmed");
    }
}

pub(crate) fn error_of(read: &Read<'_>) -> io::Result<()> {
    let code = read.body.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(-libc::EBADMSG, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}
