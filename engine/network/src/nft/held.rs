//! First packets of connections to services whose pods sleep: the kernel keeps them and tells us their numbers, and we say
//! when each may go on.
//!
//! Nothing is accepted in somebody's name and no bytes are copied: a packet that goes on takes the way of every other, so
//! the pod sees its client's address and policies are heeded. What nobody listens for, or what is too much, is dropped;
//! senders try again by themselves.

use std::io;
use std::net::Ipv4Addr;

use rtnetlink::sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use super::attribute::find;
use super::batch::{ACK, REQUEST, messages, queued};
use super::socket::{NETLINK_NETFILTER, RECEIVE, error_of, grow};

/// `NFQNL_MSG_*` of `linux/netfilter/nfnetlink_queue.h`.
const PACKET: u16 = 0;
const VERDICT: u16 = 1;
const CONFIG: u16 = 2;
const SUBSYSTEM: u16 = 3;
const NLMSG_ERROR: u16 = 2;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
/// Enough for the longest IPv4 header and the ports behind it.
const COPIED: u32 = 64;
/// Packets that the kernel keeps at most.
const MOST_HELD: u32 = 16_384;
/// Numbers that are tried until one is nobody's.
const ATTEMPTS: u16 = 64;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// A packet that waits for a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    id: u32,
    /// Where it wants to go.
    pub(crate) address: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

/// The queue of one instance.
pub(crate) struct HeldPackets {
    socket: AsyncFd<Socket>,
    number: u16,
}

impl HeldPackets {
    /// Takes the first free queue from a number on that follows from the instance.
    pub(crate) fn open(instance: &str) -> io::Result<Self> {
        let first = u16::from_str_radix(instance.get(..4).unwrap_or_default(), 16).unwrap_or(1);
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for number in (0..ATTEMPTS).map(|step| first.wrapping_add(step).max(1)) {
            match bind(number) {
                Ok(socket) => return Ok(Self { socket: watched(socket)?, number }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The number that rules name.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// The next packets.
    pub(crate) async fn next(&self) -> io::Result<Vec<Held>> {
        loop {
            let mut ready = self.socket.readable().await?;
            let read = ready.try_io(|socket| {
                let mut buffer = Vec::with_capacity(RECEIVE);
                socket.get_ref().recv(&mut buffer, 0).map(|_| buffer)
            });
            match read {
                Ok(Ok(buffer)) => return Ok(packets(&buffer)),
                // More came than there was room for: those were dropped, and their senders try again.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Ok(Err(error)) => return Err(error),
                Err(_not_ready) => {}
            }
        }
    }

    /// Lets packets go on their way.
    pub(crate) fn release(&self, packets: &[Held]) -> io::Result<()> {
        self.decide(packets, ACCEPT)
    }

    /// Drops packets.
    pub(crate) fn give_up(&self, packets: &[Held]) -> io::Result<()> {
        self.decide(packets, DROP)
    }

    fn decide(&self, packets: &[Held], verdict: u32) -> io::Result<()> {
        for part in packets.chunks(256) {
            let mut request = Vec::new();
            for packet in part {
                queued(&mut request, SUBSYSTEM << 8 | VERDICT, REQUEST, self.number, |message| {
                    message.bytes(2, &[verdict.to_be_bytes(), packet.id.to_be_bytes()].concat());
                });
            }
            self.socket.get_ref().send(&request, 0)?;
        }
        Ok(())
    }
}

/// The descriptor is the socket's own, which lives as long as what watches it.
#[expect(deprecated, reason = "its successor can only be called in unsafe code")]
fn watched(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    AsyncFd::new(socket)
}

fn bind(number: u16) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    grow(std::os::fd::AsFd::as_fd(&socket));
    let mut request = Vec::new();
    queued(&mut request, SUBSYSTEM << 8 | CONFIG, REQUEST | ACK, number, |message| {
        message.bytes(1, &[BIND, 0, 0, 2]);
        message.bytes(2, &[&COPIED.to_be_bytes()[..], &[COPY_PACKET]].concat());
        message.bytes(3, &MOST_HELD.to_be_bytes());
    });
    socket.send(&request, 0)?;
    let mut answer = Vec::with_capacity(RECEIVE);
    socket.recv(&mut answer, 0)?;
    for read in messages(&answer).filter(|read| read.kind == NLMSG_ERROR) {
        error_of(&read)?;
    }
    Ok(socket)
}

fn packets(buffer: &[u8]) -> Vec<Held> {
    let of_queue = messages(buffer).filter(|read| read.kind == SUBSYSTEM << 8 | PACKET);
    of_queue.filter_map(|read| packet(read.attributes())).collect()
}

fn packet(attributes: &[u8]) -> Option<Held> {
    let id = u32::from_be_bytes(find(attributes, 1)?.get(..4)?.try_into().ok()?);
    let payload = find(attributes, 10)?;
    let header = usize::from(payload.first()? & 0x0f) * 4;
    let protocol = *payload.get(9)?;
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(payload.get(16..20)?).ok()?);
    let port = u16::from_be_bytes(payload.get(header + 2..header + 4)?.try_into().ok()?);
    Some(Held { id, address, protocol, port })
}

#[cfg(test)]
mod tests {
    use super::super::attribute::Attributes;
    use super::*;

    #[test]
    fn a_packet_is_read_with_where_it_wants_to_go() {
        let mut payload = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 73, 128, 20];
        payload.extend([0x9c, 0x40, 0, 80]);
        let mut bytes = Vec::new();
        let mut out = Attributes::new(&mut bytes);
        out.bytes(1, &[0, 0, 0, 7, 8, 0, 0]);
        out.bytes(10, &payload);
        let expected = Held { id: 7, address: Ipv4Addr::new(10, 73, 128, 20), protocol: 6, port: 80 };
        assert_eq!(packet(&bytes), Some(expected));
        assert_eq!(packet(&bytes[..20]), None);
    }
}
