//! The link between the nodes: one vxlan device a node, which learns nothing. Where each peer is comes from the API and is
//! written down here: a route to its pods, its hardware address, and the machine behind that.
//!
//! What a peer needs follows from its subnet alone, so that all nodes agree without asking each other.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric};
use rtnetlink::{LinkVxlan, RouteMessageBuilder};

use super::host::{Links, index_of, unless};
use super::setting::{write, write_if_there};
use crate::NetworkError;
use crate::config::{NetworkConfig, Subnet, contains, first};

/// The port that nodes send to each other on. Not the one of the standard: another overlay of the host may have it.
const PORT: u16 = 8473;
/// What most links between machines carry.
pub(crate) const USUAL_MTU: u32 = 1500;
/// What the overlay puts before each packet.
const OVERHEAD: u32 = 50;

/// Another node: where its pods are, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Peer {
    pub(crate) subnet: Subnet,
    pub(crate) address: Ipv4Addr,
}

impl Peer {
    /// The address of the node itself on the overlay.
    fn gateway(&self) -> Ipv4Addr {
        first(self.subnet)
    }
}

/// The hardware address of the node with that address on the overlay: locally administered.
fn hardware(gateway: Ipv4Addr) -> Vec<u8> {
    [&[0x02, 0x53][..], &gateway.octets()].concat()
}

impl Links {
    /// Makes the device with the node's own address on it, over links that carry `mtu`; renews what is missing.
    pub(crate) async fn lay_overlay(&self, config: &NetworkConfig, mtu: u32) -> Result<(), NetworkError> {
        let (name, own) = (config.overlay_link(), config.overlay_address());
        if if_nametoindex(name.as_str()).is_err() {
            let device = LinkVxlan::new(&name, config.overlay).port(PORT).learning(false);
            let device = device.address(hardware(own)).mtu(mtu.saturating_sub(OVERHEAD)).build();
            let made = self.handle.link().add(device).execute().await;
            unless(libc::EEXIST, made.map_err(NetworkError::link(format!("make the link {name}"))))?;
        }
        let index = index_of(&name)?;
        write_if_there(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        // Replies to 127.0.0.1 are routed, as on the links of pods.
        write(&format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
        self.bring_up(index, &name).await?;
        let given = self.handle.address().add(index, own.into(), 32).execute().await;
        unless(libc::EEXIST, given.map_err(NetworkError::link(format!("give {own} to {name}"))))
    }

    /// Makes these, and no others, the peers. What is right already is not touched.
    pub(crate) async fn set_peers(&self, config: &NetworkConfig, peers: &[Peer]) -> Result<(), NetworkError> {
        let index = index_of(&config.overlay_link())?;
        self.forget_others(index, peers).await?;
        for peer in peers {
            self.add_peer(index, config, *peer).await?;
        }
        Ok(())
    }

    async fn add_peer(&self, index: u32, config: &NetworkConfig, peer: Peer) -> Result<(), NetworkError> {
        let failed = || NetworkError::link(format!("reach the node at {}", peer.address));
        let (gateway, hardware) = (peer.gateway(), hardware(peer.gateway()));
        let neighbours = self.handle.neighbours();
        let machine = neighbours.add_bridge(index, &hardware).destination(peer.address.into());
        machine.flags(NeighbourFlags::Own).replace().execute().await.map_err(failed())?;
        let entry = neighbours.add(index, gateway.into()).link_layer_address(&hardware);
        entry.replace().execute().await.map_err(failed())?;
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(gateway, peer.subnet.1)
            .gateway(gateway)
            .output_interface(index)
            .pref_source(config.overlay_address())
            .onlink()
            .build();
        if config.underlay.is_some_and(|underlay| !contains(underlay, peer.address)) {
            // Between machines the links carry less than between the nodes of one.
            route.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(USUAL_MTU - OVERHEAD)]));
        }
        self.handle.route().add(route).replace().execute().await.map_err(failed())
    }

    async fn forget_others(&self, index: u32, peers: &[Peer]) -> Result<(), NetworkError> {
        let failed = || NetworkError::link("forget a node");
        let subnets: HashSet<Subnet> = peers.iter().map(|peer| (peer.gateway(), peer.subnet.1)).collect();
        for route in self.routes_over(index).await? {
            if !destination(&route).is_some_and(|subnet| subnets.contains(&subnet)) {
                let gone = self.handle.route().del(route).execute().await;
                unless(libc::ESRCH, gone.map_err(failed()))?;
            }
        }
        let known: HashSet<Vec<u8>> = peers.iter().map(|peer| hardware(peer.gateway())).collect();
        for family in [AddressFamily::Inet, AddressFamily::Bridge] {
            let listed = self.handle.neighbours().get().set_address_family(family).execute();
            let entries: Vec<NeighbourMessage> = listed.try_collect().await.map_err(failed())?;
            let ours = entries.into_iter().filter(|entry| entry.header.ifindex == index);
            for entry in ours.filter(|entry| hardware_of(entry).is_some_and(|own| !known.contains(own))) {
                let gone = self.handle.neighbours().del(entry).execute().await;
                unless(libc::ENOENT, gone.map_err(failed()))?;
            }
        }
        Ok(())
    }

    /// The routes that lead to peers.
    async fn routes_over(&self, index: u32) -> Result<Vec<RouteMessage>, NetworkError> {
        const MAIN: u8 = 254;
        let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let listed = self.handle.route().get(every).execute();
        let routes: Vec<RouteMessage> = listed.try_collect().await.map_err(NetworkError::link("list routes"))?;
        let over = |route: &RouteMessage| route.attributes.contains(&RouteAttribute::Oif(index));
        Ok(routes.into_iter().filter(|route| route.header.table == MAIN && over(route)).collect())
    }
}

fn destination(route: &RouteMessage) -> Option<Subnet> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => {
            Some((*address, route.header.destination_prefix_length))
        }
        _ => None,
    })
}

fn hardware_of(entry: &NeighbourMessage) -> Option<&Vec<u8>> {
    // Of entries for the device itself there is nothing to forget.
    let named = entry.attributes.iter().any(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => !IpAddr::from(*address).is_unspecified(),
        _ => false,
    });
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(own) if named => Some(own),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_is_locally_administered_and_says_whose_it_is() {
        assert_eq!(hardware(Ipv4Addr::new(10, 73, 64, 0)), [0x02, 0x53, 10, 73, 64, 0]);
        assert_eq!(hardware(Ipv4Addr::BROADCAST)[0] & 3, 2, "neither global nor of a group");
    }
}
