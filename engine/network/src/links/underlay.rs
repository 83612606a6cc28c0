//! What the nodes of one machine are connected by: a bridge on the host, and a pair of links from it into the network
//! namespace of each further node. The host is the way out for all of them.

use std::net::Ipv4Addr;

use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::os::fd::AsRawFd;

use super::apart::Namespace;
use super::host::{Links, index_of, remove_links, unless};
use super::setting::write_if_there;
use crate::NetworkError;
use crate::config::NetworkConfig;

/// What it carries: the packets of pods as large as usual, and what the overlay puts before them.
pub(crate) const MTU: u32 = 1550;
/// The node's end of its uplink.
const UPLINK: &str = "eth0";
/// The prefix length of the nodes' own network.
const PREFIX: u8 = 24;

impl Links {
    /// Makes the bridge between the nodes, with the host's address on it; renews what is missing.
    pub(crate) async fn lay_underlay(&self, config: &NetworkConfig) -> Result<(), NetworkError> {
        let (name, own) = (config.underlay_link(), host_of(config)?);
        if if_nametoindex(name.as_str()).is_err() {
            let made = self.handle.link().add(LinkBridge::new(&name).mtu(MTU).build()).execute().await;
            unless(libc::EEXIST, made.map_err(NetworkError::link(format!("make the bridge {name}"))))?;
        }
        let index = index_of(&name)?;
        write_if_there(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        self.bring_up(index, &name).await?;
        let given = self.handle.address().add(index, own.into(), PREFIX).execute().await;
        unless(libc::EEXIST, given.map_err(NetworkError::link(format!("give {own} to {name}"))))
    }

    /// Connects a namespace to the bridge; the end here is taken anew where there is one already.
    pub(crate) async fn plug(&self, config: &NetworkConfig, index: u8, node: &Namespace) -> Result<(), NetworkError> {
        let name = config.uplink(index);
        self.unplug(&name).await?;
        let bridge = index_of(&config.underlay_link())?;
        let inside = LinkMessageBuilder::<LinkUnspec>::default().name(UPLINK).mtu(MTU);
        let inside = inside.setns_by_fd(node.file.as_raw_fd()).build();
        let pair = LinkVeth::new(&name, UPLINK).set_info_data(InfoData::Veth(InfoVeth::Peer(inside)));
        let pair = pair.mtu(MTU).controller(bridge).up().build();
        let made = self.handle.link().add(pair).execute().await;
        made.map_err(NetworkError::link(format!("make the link {name}")))?;
        write_if_there(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")
    }

    /// Takes a node's uplink away, if it has one.
    pub(crate) async fn unplug(&self, name: &str) -> Result<(), NetworkError> {
        match if_nametoindex(name) {
            Ok(index) => remove_links(&self.handle, &[index], 0).await,
            Err(_) => Ok(()),
        }
    }

    /// Cuts a node's uplink, or heals it.
    pub(crate) async fn set_carrying(&self, name: &str, carries: bool) -> Result<(), NetworkError> {
        let link = LinkUnspec::new_with_index(index_of(name)?);
        let link = if carries { link.up() } else { link.down() };
        let set = self.handle.link().set(link.build()).execute().await;
        set.map_err(NetworkError::link(format!("cut or heal the link {name}")))
    }
}

fn host_of(config: &NetworkConfig) -> Result<Ipv4Addr, NetworkError> {
    config
        .node_address(1)
        .ok_or_else(|| NetworkError::Config("there is no network for the nodes' own addresses".into()))
}

/// Gives the node's end of the uplink its address and the way to everywhere.
pub(crate) async fn configure_uplink(
    node: Namespace,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
) -> Result<(), NetworkError> {
    super::apart(Some(node), move |handle| within(handle, address, gateway)).await
}

async fn within(handle: Handle, address: Ipv4Addr, gateway: Ipv4Addr) -> Result<(), NetworkError> {
    const LOOPBACK: u32 = 1;
    let failed = || NetworkError::link(format!("set up the uplink of the node at {address}"));
    let index = index_of(UPLINK)?;
    for index in [LOOPBACK, index] {
        let up = LinkUnspec::new_with_index(index).up().build();
        handle.link().set(up).execute().await.map_err(failed())?;
    }
    write_if_there(&format!("net/ipv6/conf/{UPLINK}/disable_ipv6"), "1")?;
    handle.address().add(index, address.into(), PREFIX).replace().execute().await.map_err(failed())?;
    let everywhere = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build();
    handle.route().add(everywhere).replace().execute().await.map_err(failed())
}
