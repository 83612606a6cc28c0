//! The host's side: the bridge that carries the instance's addresses, the host end and route of each pod, the routes
//! that are there.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::address::AddressScope;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteScope};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::GATEWAY;
use super::inside::POD_LINK;
use super::setting::{prepare_host_end, write_if_there};
use crate::NetworkError;
use crate::config::{NetworkConfig, Subnet};

/// A pod's link as found on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodLink {
    pub(crate) uid: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) name: String,
}

/// What of an instance is there.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Pods whose links are whole.
    pub(crate) pods: Vec<PodLink>,
    /// Links whose making was cut short.
    pub(crate) broken: Vec<u32>,
    /// Every link, the bridge too.
    pub(crate) all: Vec<u32>,
}

/// The links of the host's network namespace (the one in which this was made).
#[derive(Clone, Debug)]
pub(crate) struct Links {
    pub(super) handle: Handle,
}

impl Links {
    /// Uses an open connection.
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Makes the bridge with the instance's addresses and the route of the service subnet; renews what is missing.
    ///
    /// It has no ports: it is there because a service address must have a route before it can be translated, and
    /// because not every kernel has dummy links.
    pub(crate) async fn lay_bridge(&self, config: &NetworkConfig) -> Result<(), NetworkError> {
        let name = config.bridge();
        if if_nametoindex(name.as_str()).is_err() {
            let made = self.handle.link().add(LinkBridge::new(&name).build()).execute().await;
            unless(libc::EEXIST, made.map_err(NetworkError::link(format!("make the bridge {name}"))))?;
        }
        let index = index_of(&name)?;
        write_if_there(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        self.bring_up(index, &name).await?;
        for address in config.own_addresses() {
            let given = self.handle.address().add(index, address.into(), 32).execute().await;
            unless(libc::EEXIST, given.map_err(NetworkError::link(format!("give {address} to {name}"))))?;
        }
        let (network, prefix) = config.service_subnet;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(network, prefix)
            .output_interface(index)
            .scope(RouteScope::Link)
            .pref_source(config.api_address)
            .build();
        let added = self.handle.route().add(route).replace().execute().await;
        added.map_err(NetworkError::link(format!("route {network}/{prefix} to {name}")))
    }

    /// Makes a pair of links: `name` here and `eth0` inside the namespace.
    pub(crate) async fn make_pair(&self, name: &str, namespace: &File) -> Result<(), NetworkError> {
        let peer =
            LinkMessageBuilder::<LinkUnspec>::default().name(POD_LINK).setns_by_fd(namespace.as_raw_fd()).build();
        let pair = LinkVeth::new(name, POD_LINK).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).up().build();
        self.handle.link().add(pair).execute().await.map_err(NetworkError::link(format!("make the link {name}")))
    }

    /// Gives the host end its address, settings and route, and writes on it whose it is. Renews what is missing.
    pub(crate) async fn lay_host_end(&self, pod: &PodLink, config: &NetworkConfig) -> Result<(), NetworkError> {
        let (index, PodLink { uid, address, name }) = (index_of(&pod.name)?, pod);
        prepare_host_end(name)?;
        let mut gateway = self.handle.address().add(index, GATEWAY.into(), 32);
        gateway.message_mut().header.scope = AddressScope::Link;
        unless(
            libc::EEXIST,
            gateway.execute().await.map_err(NetworkError::link(format!("give an address to {name}"))),
        )?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(*address, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .pref_source(config.api_address)
            .build();
        let added = self.handle.route().add(route).replace().execute().await;
        added.map_err(NetworkError::link(format!("route {address} to {name}")))?;
        // Last: a link that says whose it is, is whole.
        let label = LinkUnspec::new_with_index(index).alias(format!("{uid} {address}")).build();
        self.handle.link().set(label).execute().await.map_err(NetworkError::link(format!("label the link {name}")))
    }

    /// What of this instance is there.
    pub(crate) async fn find(&self, config: &NetworkConfig) -> Result<Found, NetworkError> {
        let mut found = Found::default();
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(NetworkError::link("list links"))?;
        for link in links {
            let Some(name) = name_of(&link).filter(|name| config.owns_link(name)) else { continue };
            found.all.push(link.header.index);
            if !config.is_pod_link(name) {
                continue;
            }
            match pod_of(&link, name) {
                Some(pod) => found.pods.push(pod),
                None => found.broken.push(link.header.index),
            }
        }
        Ok(found)
    }

    /// The destinations of all IPv4 routes, the default route's excepted.
    pub(crate) async fn routes(&self) -> Result<Vec<Subnet>, NetworkError> {
        let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<_> =
            self.handle.route().get(every).execute().try_collect().await.map_err(NetworkError::link("list routes"))?;
        let destination = |route: &rtnetlink::packet_route::route::RouteMessage| {
            route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                    Some((*address, route.header.destination_prefix_length))
                }
                _ => None,
            })
        };
        Ok(routes.iter().filter_map(destination).collect())
    }

    pub(super) async fn bring_up(&self, index: u32, name: &str) -> Result<(), NetworkError> {
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await.map_err(NetworkError::link(format!("bring up {name}")))
    }
}

/// Deletes links; one that is not there is no error. Several cost the kernel one waiting time together.
pub(crate) async fn remove_links(handle: &Handle, indices: &[u32], group: u32) -> Result<(), NetworkError> {
    if let [index] = indices {
        let removed = handle.link().del(*index).execute().await;
        return unless(libc::ENODEV, removed.map_err(NetworkError::link("delete a pod's link")));
    }
    if indices.is_empty() {
        return Ok(());
    }
    for index in indices {
        let marked = handle.link().set(LinkUnspec::new_with_index(*index).link_group(group).build()).execute().await;
        unless(libc::ENODEV, marked.map_err(NetworkError::link("mark a link for deletion")))?;
    }
    let all = LinkMessageBuilder::<LinkUnspec>::default().link_group(group).build();
    let removed = handle.link().del_with_message(all).execute().await;
    unless(libc::ENODEV, removed.map_err(NetworkError::link("delete links")))
}

pub(super) fn index_of(name: &str) -> Result<u32, NetworkError> {
    if_nametoindex(name).map_err(|errno| NetworkError::kernel(format!("find the link {name}"))(errno.into()))
}

pub(super) fn unless(errno: i32, result: Result<(), NetworkError>) -> Result<(), NetworkError> {
    match result {
        Err(error) if error.errno() == Some(errno) => Ok(()),
        other => other,
    }
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn pod_of(link: &LinkMessage, name: &str) -> Option<PodLink> {
    let label = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfAlias(label) => Some(label),
        _ => None,
    })?;
    let (uid, address) = label.split_once(' ')?;
    Some(PodLink { uid: uid.to_owned(), address: address.parse().ok()?, name: name.to_owned() })
}
