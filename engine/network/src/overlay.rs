//! Keeps the way to the pods of every other node right, from the Node objects: `spec.podCIDR` says which pods are there,
//! `InternalIP` where the node is. All of it is put right whenever anything of it changes, and at the start.
//!
//! The engine's node also gives subnets to nodes that have none; they are kept with the node.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use shipway_driver::cached;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{NetworkConfig, Subnet, first, mask, overlap};
use crate::links::Peer;
use crate::{Network, NetworkError};

/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// The prefix length of a further node's subnet.
const NODE_PREFIX: u8 = 24;

/// Keeps the overlay until stopped; with `assigns`, gives subnets to nodes that have none.
pub async fn overlay(
    client: Client,
    network: Network,
    own: &str,
    assigns: bool,
    stop: CancellationToken,
) -> Result<(), NetworkError> {
    network.lay_overlay().await?;
    let changed = Arc::new(Notify::new());
    let wake = changed.clone();
    let api: Api<Node> = Api::all(client);
    let (nodes, watching) = cached(api.clone(), watcher::Config::default(), stop.clone(), move |_| wake.notify_one());
    let keeping = async {
        if nodes.wait_until_ready().await.is_err() {
            return;
        }
        let mut keeper = Keeper { api, network, own, assigns, nodes, peers: None };
        loop {
            let kept = keeper.keep().await;
            let retry = kept.inspect_err(|error| tracing::warn!(%error, "the overlay is not right yet")).is_err();
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed.notified() => {}
                () = tokio::time::sleep(RETRY), if retry => {}
            }
        }
    };
    tokio::join!(watching, keeping);
    Ok(())
}

struct Keeper<'a> {
    api: Api<Node>,
    network: Network,
    own: &'a str,
    assigns: bool,
    nodes: Store<Node>,
    /// As they were last set; none before.
    peers: Option<Vec<Peer>>,
}

impl Keeper<'_> {
    async fn keep(&mut self) -> Result<(), NetworkError> {
        let nodes = self.nodes.state();
        if self.assigns {
            self.assign(&nodes).await?;
        }
        let config = self.network.config();
        let others = nodes.iter().filter(|node| node.name_any() != self.own);
        let mut peers: Vec<Peer> = others.filter_map(|node| peer(node, config)).collect();
        peers.sort_unstable();
        // Of two nodes with the same subnet only one can be right.
        peers.dedup_by_key(|peer| peer.subnet);
        if self.peers.as_ref() != Some(&peers) {
            self.peers = None;
            self.network.set_peers(&peers).await?;
            self.peers = Some(peers);
        }
        Ok(())
    }

    async fn assign(&self, nodes: &[Arc<Node>]) -> Result<(), NetworkError> {
        let config = self.network.config();
        let mut taken: Vec<Subnet> = nodes.iter().filter_map(|node| subnet(node)).collect();
        taken.push(config.pod_subnet);
        taken.extend(config.underlay);
        for node in nodes.iter().filter(|node| subnet(node).is_none()) {
            let Some(free) = free(config, &taken) else {
                tracing::warn!(node = node.name_any(), "no subnet is left for the pods of this node");
                return Ok(());
            };
            taken.push(free);
            let text = format!("{}/{}", free.0, free.1);
            let patch = json!({"metadata": {"resourceVersion": node.resource_version()},
                "spec": {"podCIDR": text, "podCIDRs": [text]}});
            match self.api.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
                // Gone, or changed meanwhile: the watch tells.
                Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }
}

/// The first subnet for a further node that is in nobody's.
fn free(config: &NetworkConfig, taken: &[Subnet]) -> Option<Subnet> {
    let (start, prefix) = (u32::from(first(config.cluster_subnet)), config.cluster_subnet.1);
    let blocks = 1u32.checked_shl(u32::from(NODE_PREFIX.checked_sub(prefix)?))?;
    let size = !mask(NODE_PREFIX) + 1;
    let all = (0..blocks).map(|block| (Ipv4Addr::from(start + block * size), NODE_PREFIX));
    all.into_iter().find(|subnet| !taken.iter().any(|other| overlap(*subnet, *other)))
}

/// How another node is reached; none while that is not known.
fn peer(node: &Node, config: &NetworkConfig) -> Option<Peer> {
    let subnet = subnet(node).filter(|subnet| overlap(*subnet, config.cluster_subnet))?;
    let address = internal_address(node)?;
    // A machine that knows no address of itself is that of the API server, and is known by that.
    let known = || config.api_endpoint.map(|endpoint| *endpoint.ip());
    let address = if address.is_loopback() { known()? } else { address };
    Some(Peer { subnet, address })
}

/// Where a node is.
fn internal_address(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().filter(|address| address.type_ == "InternalIP").find_map(|address| address.address.parse().ok())
}

/// Where the pods of a node have their addresses.
fn subnet(node: &Node) -> Option<Subnet> {
    parse_subnet(node.spec.as_ref()?.pod_cidr.as_deref()?)
}

/// Reads `address/prefix`.
pub fn parse_subnet(text: &str) -> Option<Subnet> {
    let (address, prefix) = text.split_once('/')?;
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    Some((address.parse().ok()?, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(subnet: &str, address: &str) -> Node {
        let status =
            json!({"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": address}]});
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"podCIDR": subnet}, "status": status}))
            .unwrap()
    }

    fn config() -> NetworkConfig {
        NetworkConfig {
            instance: "0a1b2c".to_owned(),
            pod_subnet: (Ipv4Addr::new(10, 73, 0, 0), 18),
            cluster_subnet: (Ipv4Addr::new(10, 73, 0, 0), 17),
            underlay: Some((Ipv4Addr::new(10, 73, 127, 0), 24)),
            overlay: 0x000a_1b2c,
            api_endpoint: Some("10.73.127.1:443".parse().unwrap()),
            service_subnet: (Ipv4Addr::new(10, 73, 128, 0), 17),
            dns_address: Ipv4Addr::new(10, 73, 128, 10),
            api_address: Ipv4Addr::new(10, 73, 128, 1),
            cluster_domain: "cluster.local".to_owned(),
        }
    }

    #[test]
    fn further_nodes_have_subnets_of_their_own_until_none_is_left() {
        let mut taken = vec![config().pod_subnet, (Ipv4Addr::new(10, 73, 127, 0), 24)];
        assert_eq!(free(&config(), &taken), Some((Ipv4Addr::new(10, 73, 64, 0), 24)));
        while let Some(subnet) = free(&config(), &taken) {
            taken.push(subnet);
        }
        assert_eq!(taken.len(), 2 + 63);
    }

    #[test]
    fn a_node_is_reached_where_it_says_and_only_for_pods_of_the_cluster() {
        let at =
            |subnet: &str, address: &str| peer(&node(subnet, address), &config()).map(|peer| peer.address.to_string());
        assert_eq!(at("10.73.64.0/24", "10.73.127.2").as_deref(), Some("10.73.127.2"));
        assert_eq!(at("10.73.64.0/24", "127.0.0.1").as_deref(), Some("10.73.127.1"));
        assert_eq!(at("10.9.0.0/24", "10.73.127.2"), None);
        assert_eq!(at("", "10.73.127.2"), None);
        assert_eq!(at("10.73.64.0/24", "nowhere"), None);
    }
}
