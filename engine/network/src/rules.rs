//! What the kernel is told about one service.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::config::NetworkConfig;

/// A transport protocol that services forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The protocol's number in the IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The protocol's name as DNS and chain names have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Reads `TCP` or `UDP` as Kubernetes writes them; no text means TCP. `None` for any other protocol.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some(_) => None,
        }
    }
}

/// Everything the kernel needs to know about one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRules {
    /// `namespace/name`.
    pub key: String,
    /// The service address; none for headless services.
    pub cluster_address: Option<Ipv4Addr>,
    /// Further addresses on which the service's ports answer.
    pub external_addresses: Vec<Ipv4Addr>,
    /// The ports.
    pub ports: Vec<ServicePort>,
    /// For how many seconds after its last connection a client's address meets the same backend, while that is there.
    pub sticky: Option<u32>,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port on the service's addresses.
    pub port: u16,
    /// The port on every local address of the host.
    pub node_port: Option<u16>,
    /// The port of a load balancer on every local address of the host.
    pub host_port: Option<u16>,
    /// Where connections go.
    pub backends: Vec<(Ipv4Addr, u16)>,
    /// Where those go that come by an external address or a port of the host, if not to the same.
    pub outer: Option<Vec<(Ipv4Addr, u16)>>,
}

impl ServiceRules {
    /// The ports on the host that this service wants.
    pub(crate) fn host_ports(&self) -> BTreeSet<(Protocol, u16)> {
        let of = |port: &ServicePort| [port.node_port, port.host_port].map(|number| (port.protocol, number));
        self.ports.iter().flat_map(of).filter_map(|(protocol, number)| Some((protocol, number?))).collect()
    }

    /// The same rules as this node has to follow them: another process than this one may be the API server.
    pub(crate) fn toward(mut self, config: &NetworkConfig) -> Self {
        let Some(endpoint) = config.api_endpoint else { return self };
        let backends = self.ports.iter_mut().flat_map(|port| &mut port.backends);
        for backend in backends.filter(|(address, _)| *address == config.api_address) {
            *backend = (*endpoint.ip(), endpoint.port());
        }
        self
    }

    /// The same rules without the given ports on the host.
    pub(crate) fn without_host_ports(mut self, refused: &BTreeSet<(Protocol, u16)>) -> Self {
        for port in &mut self.ports {
            let protocol = port.protocol;
            let keep = |number: &u16| !refused.contains(&(protocol, *number));
            port.node_port = port.node_port.filter(keep);
            port.host_port = port.host_port.filter(keep);
        }
        self
    }
}
