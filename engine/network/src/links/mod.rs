//! Links, addresses and routes of the host and of pods, over rtnetlink.

mod apart;
mod host;
mod inside;
mod overlay;
mod pool;
mod setting;
mod underlay;

pub(crate) use apart::{Namespace, apart};
pub(crate) use host::{Links, PodLink, remove_links};
pub(crate) use inside::configure;
pub(crate) use overlay::{Peer, USUAL_MTU};
pub(crate) use pool::{Claim, Pods};
pub(crate) use setting::forward_packets;
pub(crate) use underlay::{MTU as UNDERLAY_MTU, configure_uplink};

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// The next hop of every pod: an address that each host end of a pod's link carries.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The address by which other machines most likely reach this host: the one it would send from. Sends nothing.
///
/// 127.0.0.1 when the host has no route to anywhere.
pub fn host_address() -> Ipv4Addr {
    // 192.0.2.1 is reserved for documentation: never a neighbour, so the default route decides.
    let asked = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr()));
    match asked.map(|address| address.ip()) {
        Ok(IpAddr::V4(address)) => address,
        _ => Ipv4Addr::LOCALHOST,
    }
}
