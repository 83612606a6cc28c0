//! Forgetting connections that lead nowhere any more.
//!
//! A UDP "connection" lasts as long as somebody sends: without this a client that keeps sending from one port would be led
//! to an endpoint that is gone for ever. TCP clients notice by themselves.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::Ipv4Addr;

use super::attribute::find;
use super::batch::{ACK, DUMP, REQUEST, tracked};
use super::plan::{ElementKey, destinations};
use super::socket::FilterSocket;

/// `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = 1;
const DELETE: u16 = 2;
/// `CTA_*` of `linux/netfilter/nfnetlink_conntrack.h`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const PROTOCOL_STATE: u16 = 4;
const ID: u16 = 12;
const ZONE: u16 = 18;
const UDP: u8 = 17;
/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;

/// Forgets UDP connections that were led to these endpoints. Returns how many.
pub(crate) fn forget_udp(gone: &HashSet<(Ipv4Addr, u16)>) -> io::Result<usize> {
    let mut socket = FilterSocket::open()?;
    let mut request = Vec::new();
    tracked(&mut request, GET, REQUEST | DUMP, |_| {});
    let mut stale = Vec::new();
    for _ in 0..super::socket::DUMP_ATTEMPTS {
        if let Some(entries) = socket.dump_request(&request)? {
            stale = entries.into_iter().filter(|entry| leads_to(entry, gone)).collect();
            break;
        }
    }
    let mut forgotten = 0;
    for entry in &stale {
        let mut request = Vec::new();
        tracked(&mut request, DELETE, REQUEST | ACK, |message| {
            for kind in [ORIGINAL, ID, ZONE] {
                if let Some(value) = find(entry, kind) {
                    if kind == ORIGINAL { message.nest_bytes(kind, value) } else { message.bytes(kind, value) }
                }
            }
        });
        match socket.commit(&request) {
            Ok(()) => forgotten += 1,
            // It ended by itself.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}

/// Whether a connection to one of the destinations is open: established over TCP, or not yet forgotten over UDP.
pub(crate) fn has_open(keys: &BTreeSet<ElementKey>) -> io::Result<bool> {
    let mut socket = FilterSocket::open()?;
    let mut request = Vec::new();
    tracked(&mut request, GET, REQUEST | DUMP, |_| {});
    for _ in 0..super::socket::DUMP_ATTEMPTS {
        if let Some(entries) = socket.dump_request(&request)? {
            return Ok(entries.iter().any(|entry| is_open(entry, keys)));
        }
    }
    // As good as certain where connections come and go that fast.
    Ok(true)
}

fn is_open(entry: &[u8], keys: &BTreeSet<ElementKey>) -> bool {
    let read = || {
        let original = find(entry, ORIGINAL)?;
        let protocol = *find(find(original, 2)?, 1)?.first()?;
        let port = u16::from_be_bytes(find(find(original, 2)?, 3)?.try_into().ok()?);
        let to = address(find(find(original, 1)?, 2)?)?;
        let state = find(entry, PROTOCOL_STATE).and_then(|it| find(find(it, 1)?, 1)?.first());
        let open = protocol == UDP || state == Some(&ESTABLISHED);
        Some(open && destinations(to, protocol, port).iter().any(|key| keys.contains(key)))
    };
    read().unwrap_or(false)
}

/// Whether the answers to a connection come from one of the endpoints, though it was not begun to it.
fn leads_to(entry: &[u8], gone: &HashSet<(Ipv4Addr, u16)>) -> bool {
    let read = || {
        let (reply, original) = (find(entry, REPLY)?, find(entry, ORIGINAL)?);
        let protocol = *find(find(reply, 2)?, 1)?.first()?;
        let from = address(find(find(reply, 1)?, 1)?)?;
        let port = u16::from_be_bytes(find(find(reply, 2)?, 2)?.try_into().ok()?);
        let to = address(find(find(original, 1)?, 2)?)?;
        Some(protocol == UDP && to != from && gone.contains(&(from, port)))
    };
    read().unwrap_or(false)
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::attribute::Attributes;
    use super::*;

    fn tuple(out: &mut Attributes<'_>, kind: u16, source: [u8; 4], destination: [u8; 4], protocol: u8, port: u16) {
        out.nest(kind, |tuple| {
            tuple.nest(1, |addresses| {
                addresses.bytes(1, &source);
                addresses.bytes(2, &destination);
            });
            tuple.nest(2, |ports| {
                ports.bytes(1, &[protocol]);
                ports.bytes(2, &port.to_be_bytes());
            });
        });
    }

    #[test]
    fn only_what_was_led_to_the_endpoint_is_stale() {
        let (client, service, pod) = ([10, 73, 0, 9], [10, 73, 128, 20], [10, 73, 0, 2]);
        let gone = HashSet::from([(Ipv4Addr::from(pod), 53)]);
        let entry = |asked: [u8; 4], protocol: u8, port: u16| {
            let mut bytes = Vec::new();
            let mut out = Attributes::new(&mut bytes);
            tuple(&mut out, ORIGINAL, client, asked, protocol, 4000);
            tuple(&mut out, REPLY, pod, client, protocol, port);
            bytes
        };
        assert!(leads_to(&entry(service, UDP, 53), &gone));
        assert!(!leads_to(&entry(service, 6, 53), &gone), "TCP");
        assert!(!leads_to(&entry(service, UDP, 54), &gone), "another port");
        assert!(!leads_to(&entry(pod, UDP, 53), &gone), "to the pod itself");
        assert!(!leads_to(b"noise", &gone));
    }
}
