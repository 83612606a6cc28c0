//! Ports of the host that services take: a bound socket that never listens, so that a program of the host or another
//! instance that wants the same port is told, and so are we.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{Shutdown, shutdown};

use crate::rules::Protocol;

/// Who has a port that a service wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortHolder {
    /// Another service, as `namespace/name`.
    Service(String),
    /// A program of the host, or another instance.
    Host,
    /// The host refused for another reason.
    Refused(String),
}

/// A port of the host that a service did not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConflict {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// Who has it.
    pub holder: PortHolder,
}

impl fmt::Display for PortConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, port, holder } = self;
        match holder {
            PortHolder::Service(key) => write!(f, "{} port {port} belongs to service {key}", protocol.name()),
            PortHolder::Host => write!(f, "{} port {port} of the host is in use by another program", protocol.name()),
            PortHolder::Refused(why) => write!(f, "{} port {port} of the host cannot be had: {why}", protocol.name()),
        }
    }
}

struct Held {
    service: String,
    _socket: OwnedFd,
}

/// The ports that this instance holds. They are free again when this is dropped.
#[derive(Default)]
pub(crate) struct Reservations {
    held: HashMap<(Protocol, u16), Held>,
}

impl Reservations {
    /// Takes the ports that `service` does not hold yet; returns those it cannot have.
    pub(crate) fn reserve(&mut self, service: &str, wanted: &BTreeSet<(Protocol, u16)>) -> Vec<PortConflict> {
        let mut conflicts = Vec::new();
        for &(protocol, port) in wanted {
            let holder = match self.held.get(&(protocol, port)) {
                Some(held) if held.service == service => continue,
                Some(held) => PortHolder::Service(held.service.clone()),
                None => match hold(protocol, port) {
                    Ok(socket) => {
                        let held = Held { service: service.to_owned(), _socket: socket };
                        self.held.insert((protocol, port), held);
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => PortHolder::Host,
                    Err(error) => PortHolder::Refused(error.to_string()),
                },
            };
            conflicts.push(PortConflict { protocol, port, holder });
        }
        conflicts
    }

    /// Gives back the ports of `service` that it no longer wants.
    pub(crate) fn keep(&mut self, service: &str, wanted: &BTreeSet<(Protocol, u16)>) {
        self.held.retain(|port, held| held.service != service || wanted.contains(port));
    }
}

/// Binds the port on every address.
///
/// For TCP the standard listener allows for connections of an earlier program that still fade out (`SO_REUSEADDR`), and
/// listening is what makes the kernel look for others that hold the port. Shutting it down ends the listening but keeps
/// the port; taking the allowance back makes the port look taken to those who come later.
fn hold(protocol: Protocol, port: u16) -> io::Result<OwnedFd> {
    match protocol {
        Protocol::Tcp => {
            let socket = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
            shutdown(&socket, Shutdown::Read)?;
            setsockopt(&socket, sockopt::ReuseAddr, &false)?;
            Ok(socket.into())
        }
        Protocol::Udp => Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn a_held_port_is_taken_for_others_and_answers_nobody() {
        let port = free_port();
        let wanted = BTreeSet::from([(Protocol::Tcp, port)]);
        let mut ours = Reservations::default();
        assert_eq!(ours.reserve("a/b", &wanted), vec![]);
        assert_eq!(ours.reserve("a/b", &wanted), vec![]);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        assert!(TcpListener::bind(("0.0.0.0", port)).is_err());
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
        let other_instance = Reservations::default().reserve("a/b", &wanted);
        assert_eq!(other_instance[0].holder, PortHolder::Host);
        assert_eq!(ours.reserve("c/d", &wanted)[0].holder, PortHolder::Service("a/b".to_owned()));
        ours.keep("a/b", &BTreeSet::new());
        assert!(TcpListener::bind(("0.0.0.0", port)).is_ok());
    }

    #[test]
    fn a_port_that_a_program_listens_on_is_refused() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(program) = TcpListener::bind(address) else { continue };
            let wanted = BTreeSet::from([(Protocol::Tcp, program.local_addr().unwrap().port())]);
            assert_eq!(Reservations::default().reserve("a/b", &wanted)[0].holder, PortHolder::Host, "{address}");
        }
    }

    #[test]
    fn a_port_whose_program_just_ended_can_be_had() {
        let program = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = program.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        // The side that closes first keeps the port in its fading connection.
        drop(program.accept().unwrap());
        drop((client, program));
        let wanted = BTreeSet::from([(Protocol::Tcp, address.port())]);
        assert_eq!(Reservations::default().reserve("a/b", &wanted), vec![]);
    }

    #[test]
    fn udp_ports_are_held_too() {
        let program = UdpSocket::bind("127.0.0.1:0").unwrap();
        let wanted = BTreeSet::from([(Protocol::Udp, program.local_addr().unwrap().port())]);
        assert_eq!(Reservations::default().reserve("a/b", &wanted)[0].holder, PortHolder::Host);
        drop(program);
        assert_eq!(Reservations::default().reserve("a/b", &wanted), vec![]);
    }
}
