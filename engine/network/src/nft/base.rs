//! The fixed part of an instance's table: its collections, the chains at the hooks, and the rules in them.
//!
//! Order of a packet: `raw` (what pods may not send), `services` (service addresses, before anybody else's translation,
//! so that no other program's port mapping takes connections to the instance's own addresses), `ports` (node ports and
//! load balancer ports on any address of the host), `refuse` (what leads nowhere), `sources` (whose address must change
//! for the answer to find its way back).

use super::commands::{Commands, Hook, Key};
use super::expression::{
    Expression, Field, Verdict, differs, in_set, in_subnet, load_address_key, load_port_key, matches,
    of_known_connections, set_address, to_this_host,
};
use crate::config::NetworkConfig;

/// The named collections of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Collection {
    /// Service address, protocol, port: the chain to go to.
    Services,
    /// Protocol and port on the host: the chain to go to.
    Ports,
    /// Service address, protocol, port that has no backend.
    DeadServices,
    /// Protocol and port on the host that has no backend.
    DeadPorts,
    /// Each pod's address twice: how a pod that reached itself through a service is recognised.
    Hairpins,
}

impl Collection {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Services, Self::Ports, Self::DeadServices, Self::DeadPorts, Self::Hairpins];

    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Ports => "ports",
            Self::DeadServices => "dead-services",
            Self::DeadPorts => "dead-ports",
            Self::Hairpins => "hairpins",
        }
    }

    fn key(self) -> Key {
        match self {
            Self::Services | Self::DeadServices => Key::AddressPort,
            Self::Ports | Self::DeadPorts => Key::Port,
            Self::Hairpins => Key::Pair,
        }
    }

    /// Whether its elements lead to chains.
    pub(crate) fn leads(self) -> bool {
        matches!(self, Self::Services | Self::Ports)
    }
}

const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// Before connections are tracked.
const RAW: i32 = -300;
/// Before the usual place of destination translation (-100).
const BEFORE_TRANSLATION: i32 = -110;
const TRANSLATION: i32 = -100;
const FILTER: i32 = 0;
const SOURCES: i32 = 100;

const REFUSE: &str = "refuse";
const REJECT: &str = "refusal";

const HOOKS: [(&str, &str, u32, i32); 9] = [
    ("raw", "filter", PREROUTING, RAW),
    ("services-in", "nat", PREROUTING, BEFORE_TRANSLATION),
    ("services-out", "nat", OUTPUT, BEFORE_TRANSLATION),
    ("ports-in", "nat", PREROUTING, TRANSLATION),
    ("ports-out", "nat", OUTPUT, TRANSLATION),
    ("refuse-in", "filter", INPUT, FILTER),
    ("refuse-forward", "filter", FORWARD, FILTER),
    ("refuse-out", "filter", OUTPUT, FILTER),
    ("sources", "nat", POSTROUTING, SOURCES),
];

/// Makes the fixed part, or renews it in place: what services have programmed stays and nothing is interrupted.
pub(crate) fn lay(commands: &mut Commands<'_>, config: &NetworkConfig) {
    commands.add_table();
    for collection in Collection::ALL {
        commands.add_set(collection.name(), collection.key(), collection.leads());
    }
    for chain in [REJECT, REFUSE] {
        commands.add_chain(chain);
        commands.flush_chain(chain);
    }
    for (name, kind, number, priority) in HOOKS {
        commands.add_base_chain(name, Hook { kind, number, priority });
        commands.flush_chain(name);
    }
    lay_raw(commands, config);
    lay_services(commands, config);
    lay_ports(commands);
    lay_refusals(commands, config);
    lay_sources(commands, config);
}

/// Pods may not reach the host's loopback network, although their links route it for node ports on 127.0.0.1.
fn lay_raw(commands: &mut Commands<'_>, config: &NetworkConfig) {
    for field in [Field::Destination, Field::Source] {
        let from_pod = matches(Field::InputLink, config.bridge().as_bytes());
        let loopback = in_subnet(field, LOOPBACK, true);
        rule(commands, "raw", &[from_pod, loopback, vec![Expression::End(Verdict::Drop)]]);
    }
}

const LOOPBACK: (std::net::Ipv4Addr, u8) = (std::net::Ipv4Addr::new(127, 0, 0, 0), 8);

fn lay_services(commands: &mut Commands<'_>, config: &NetworkConfig) {
    for chain in ["services-in", "services-out"] {
        let follow = Expression::Follow { map: Collection::Services.name(), register: 0 };
        rule(commands, chain, &[load_address_key(), vec![follow]]);
        // Translating the instance's own addresses to themselves keeps every later translation, ours of node ports and
        // that of other programs, away from them: a connection is translated once.
        for own in config.own_addresses() {
            let itself = vec![set_address(own), Expression::Destination { address: 0, port: None }];
            rule(commands, chain, &[matches(Field::Destination, &own.octets()), itself]);
        }
    }
}

fn lay_ports(commands: &mut Commands<'_>) {
    for chain in ["ports-in", "ports-out"] {
        let follow = Expression::Follow { map: Collection::Ports.name(), register: 0 };
        rule(commands, chain, &[to_this_host(), load_port_key(), vec![follow]]);
    }
}

fn lay_refusals(commands: &mut Commands<'_>, config: &NetworkConfig) {
    for chain in ["refuse-in", "refuse-forward", "refuse-out"] {
        rule(commands, chain, &[vec![Expression::End(Verdict::Jump(REFUSE))]]);
    }
    rule(commands, REFUSE, &[of_known_connections(), vec![Expression::End(Verdict::Return)]]);
    let reject = || vec![Expression::End(Verdict::Goto(REJECT.to_owned()))];
    let mut unclaimed = in_subnet(Field::Destination, config.service_subnet, true);
    for own in config.own_addresses() {
        unclaimed.extend(differs(Field::Destination, &own.octets()));
    }
    rule(commands, REFUSE, &[unclaimed, reject()]);
    let dead = |collection: Collection| vec![in_set(collection.name())];
    rule(commands, REFUSE, &[load_address_key(), dead(Collection::DeadServices), reject()]);
    rule(commands, REFUSE, &[to_this_host(), load_port_key(), dead(Collection::DeadPorts), reject()]);
    rule(commands, REJECT, &[matches(Field::Transport, &[6]), vec![Expression::Reset]]);
    rule(commands, REJECT, &[vec![Expression::Unreachable]]);
}

fn lay_sources(commands: &mut Commands<'_>, config: &NetworkConfig) {
    let chain = "sources";
    let link = config.bridge();
    let from_api = || vec![set_address(config.api_address), Expression::Source { address: 0 }];
    let cluster = |inside| in_subnet(Field::Source, config.cluster_subnet, inside);
    // What did not come from a pod goes to other nodes under the name of this one, or its answers would not come back here.
    let to_nodes = || matches(Field::OutputLink, format!("{}\0", config.overlay_link()).as_bytes());
    let from_node = || vec![set_address(config.overlay_address()), Expression::Source { address: 0 }];
    rule(commands, chain, &[to_nodes(), cluster(false), from_node()]);
    if let Some(underlay) = config.underlay {
        rule(commands, chain, &[to_nodes(), in_subnet(Field::Source, underlay, true), from_node()]);
        // To a node itself a pod comes as its own node does: there is no other way back.
        let (to_node, not_node) =
            (in_subnet(Field::Destination, underlay, true), in_subnet(Field::Source, underlay, false));
        rule(commands, chain, &[to_node, cluster(true), not_node, vec![Expression::Masquerade]]);
    }
    let to_pod = matches(Field::OutputLink, link.as_bytes());
    rule(commands, chain, &[to_pod, in_subnet(Field::Source, LOOPBACK, true), from_api()]);
    let pair = vec![
        Expression::Load(Field::Source, 0),
        Expression::Load(Field::Destination, 1),
        in_set(Collection::Hairpins.name()),
    ];
    rule(commands, chain, &[pair, from_api()]);
    let outside = || differs(Field::OutputLink, link.as_bytes());
    let masquerade = || vec![Expression::Masquerade];
    let from_pod = cluster(true);
    let beyond_pods = in_subnet(Field::Destination, config.cluster_subnet, false);
    let beyond_services = in_subnet(Field::Destination, config.service_subnet, false);
    rule(commands, chain, &[outside(), from_pod, beyond_pods, beyond_services, masquerade()]);
    let from_bridge = in_subnet(Field::Source, config.service_subnet, true);
    let not_loopback = differs(Field::OutputLink, b"lo\0");
    rule(commands, chain, &[outside(), not_loopback, from_bridge, masquerade()]);
}

fn rule(commands: &mut Commands<'_>, chain: &str, parts: &[Vec<Expression>]) {
    commands.add_rule(chain, &parts.concat());
}
