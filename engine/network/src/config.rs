//! What one instance's network is called and which addresses it has. Names are derived here and nowhere else.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::NetworkError;

/// An IPv4 network: its first address and its prefix length.
pub type Subnet = (Ipv4Addr, u8);

/// The network of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The instance's id: six hex digits.
    pub instance: String,
    /// Where the addresses of this node's pods come from.
    pub pod_subnet: Subnet,
    /// Where those of all nodes' pods come from.
    pub cluster_subnet: Subnet,
    /// Where the nodes of this machine have their own addresses, the engine's first; none on a machine that joined.
    pub underlay: Option<Subnet>,
    /// Tells the overlay from those of other clusters: 24 bits.
    pub overlay: u32,
    /// Where this node reaches the API server; none where that is this process.
    pub api_endpoint: Option<SocketAddrV4>,
    /// Where service addresses come from.
    pub service_subnet: Subnet,
    /// The address of the cluster's DNS server; in the service subnet.
    pub dns_address: Ipv4Addr,
    /// The address of the `kubernetes` service; in the service subnet.
    pub api_address: Ipv4Addr,
    /// The domain of services, for example `cluster.local`.
    pub cluster_domain: String,
}

impl NetworkConfig {
    /// The name of the bridge that carries the service addresses; every pod link's name begins with it.
    pub fn bridge(&self) -> String {
        format!("sw{}", self.instance)
    }

    /// The name of the nftables table.
    pub fn table(&self) -> String {
        format!("shipway-{}", self.instance)
    }

    /// The name of the link between the nodes.
    pub(crate) fn overlay_link(&self) -> String {
        format!("{}-vxlan", self.bridge())
    }

    /// The name of the bridge between the nodes of this machine.
    pub(crate) fn underlay_link(&self) -> String {
        format!("{}-nodes", self.bridge())
    }

    /// The name of the host's end of a node's uplink.
    pub(crate) fn uplink(&self, index: u8) -> String {
        format!("{}-n{index:04x}", self.bridge())
    }

    /// The address by which this node itself is known to the pods of others: the one that no pod gets.
    pub(crate) fn overlay_address(&self) -> Ipv4Addr {
        first(self.pod_subnet)
    }

    /// The address of a node of this machine; that of the engine's has the index 1.
    pub fn node_address(&self, index: u8) -> Option<Ipv4Addr> {
        let underlay = self.underlay?;
        (index != 0 && index != u8::MAX).then(|| Ipv4Addr::from(u32::from(first(underlay)) + u32::from(index)))
    }

    /// The name of the nftables table that network policies are in, while there are any.
    pub(crate) fn policy_table(&self) -> String {
        format!("shipway-{}-policies", self.instance)
    }

    /// The host's address, for a further node of the same machine.
    pub(crate) fn host(&self) -> Option<Ipv4Addr> {
        self.api_endpoint.and(self.node_address(1))
    }

    /// The name of the nftables table of services whose pods may sleep, while there are any.
    pub(crate) fn sleep_table(&self) -> String {
        format!("shipway-{}-sleep", self.instance)
    }

    /// The addresses that the instance itself answers on.
    pub(crate) fn own_addresses(&self) -> [Ipv4Addr; 2] {
        [self.dns_address, self.api_address]
    }

    /// Whether a link of that name belongs to this instance.
    pub(crate) fn owns_link(&self, name: &str) -> bool {
        name.strip_prefix(&self.bridge()).is_some_and(|rest| rest.is_empty() || rest.len() == 6)
    }

    /// Whether a link of this instance is a pod's.
    pub(crate) fn is_pod_link(&self, name: &str) -> bool {
        self.owns_link(name) && name != self.bridge() && !name[self.bridge().len()..].starts_with('-')
    }

    /// Refuses what would end in links or rules of somebody else.
    pub(crate) fn check(&self) -> Result<(), NetworkError> {
        let problem = if self.instance.len() != 6 || !self.instance.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            "the instance id is not six hex digits"
        } else if !(8..=28).contains(&self.pod_subnet.1) || !(8..=28).contains(&self.service_subnet.1) {
            "a subnet's prefix length is not between 8 and 28"
        } else if overlap(self.cluster_subnet, self.service_subnet) {
            "the pod and service subnets overlap"
        } else if self.cluster_subnet.1 > self.pod_subnet.1 || !overlap(self.cluster_subnet, self.pod_subnet) {
            "the node's pod subnet is not in that of the cluster"
        } else if self.overlay > 0x00ff_ffff {
            "the overlay's number has more than 24 bits"
        } else if !self.own_addresses().iter().all(|address| contains(self.service_subnet, *address)) {
            "the DNS or API address is outside the service subnet"
        } else {
            return Ok(());
        };
        Err(NetworkError::Config(problem.to_owned()))
    }
}

/// The bits that the addresses of a network with this prefix length share.
pub(crate) fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

/// The first address of a network.
pub(crate) fn first(subnet: Subnet) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.0) & mask(subnet.1))
}

/// Whether `address` is in `subnet`.
pub(crate) fn contains(subnet: Subnet, address: Ipv4Addr) -> bool {
    (u32::from(subnet.0) ^ u32::from(address)) & mask(subnet.1) == 0
}

/// Whether two networks share an address.
pub(crate) fn overlap(one: Subnet, other: Subnet) -> bool {
    contains((one.0, one.1.min(other.1)), other.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NetworkConfig {
        NetworkConfig {
            instance: "0a1b2c".to_owned(),
            pod_subnet: (Ipv4Addr::new(10, 73, 0, 0), 17),
            cluster_subnet: (Ipv4Addr::new(10, 73, 0, 0), 17),
            underlay: None,
            overlay: 0x000a_1b2c,
            api_endpoint: None,
            service_subnet: (Ipv4Addr::new(10, 73, 128, 0), 17),
            dns_address: Ipv4Addr::new(10, 73, 128, 10),
            api_address: Ipv4Addr::new(10, 73, 128, 1),
            cluster_domain: "cluster.local".to_owned(),
        }
    }

    #[test]
    fn subnets_overlap_when_one_holds_the_other() {
        let address = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        assert!(overlap((address("10.0.0.0"), 8), (address("10.73.0.0"), 17)));
        assert!(overlap((address("10.73.0.0"), 17), (address("10.0.0.0"), 8)));
        assert!(!overlap((address("10.73.0.0"), 17), (address("10.73.128.0"), 17)));
        assert!(overlap((address("0.0.0.0"), 0), (address("192.0.2.1"), 32)));
    }

    #[test]
    fn only_its_own_links_are_owned() {
        let config = config();
        assert!(config.owns_link("sw0a1b2c") && config.owns_link("sw0a1b2cabcdef"));
        assert!(!config.owns_link("sw0a1b2d") && !config.owns_link("sw0a1b2cx") && !config.owns_link("eth0"));
    }

    #[test]
    fn a_contradicting_configuration_is_refused() {
        assert!(config().check().is_ok());
        assert!(NetworkConfig { instance: "*".to_owned(), ..config() }.check().is_err());
        assert!(NetworkConfig { service_subnet: config().cluster_subnet, ..config() }.check().is_err());
        assert!(NetworkConfig { pod_subnet: (Ipv4Addr::new(10, 74, 0, 0), 24), ..config() }.check().is_err());
        assert!(NetworkConfig { overlay: 1 << 24, ..config() }.check().is_err());
        assert!(NetworkConfig { dns_address: Ipv4Addr::LOCALHOST, ..config() }.check().is_err());
    }
}
