//! The part of the table that belongs to one service: its chains and its elements in the collections; and the
//! difference between two states of it as commands.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::Ipv4Addr;

use super::base::Collection;
use super::commands::Commands;
use super::expression::{Expression, Field, set_address};
use crate::config::{NetworkConfig, contains};
use crate::rules::{Protocol, ServicePort, ServiceRules};

/// Where the chain of a service port leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An earlier process made it; what it holds is not known.
    Unknown,
    /// To these backends, in this order; with `sticky`, each client to the same for so many seconds.
    Backends { backends: Vec<(Ipv4Addr, u16)>, sticky: Option<u32> },
}

/// An element of a collection.
pub(crate) type ElementKey = (Collection, Vec<u8>);

/// What one service has in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Chains by name.
    pub(crate) chains: BTreeMap<String, Target>,
    /// The maps in which chains remember their clients.
    pub(crate) affinities: BTreeSet<String>,
    /// Elements, and for those of maps the chain they lead to.
    pub(crate) elements: BTreeMap<ElementKey, Option<String>>,
}

impl Plan {
    /// What `rules` need.
    pub(crate) fn of(rules: &ServiceRules, config: &NetworkConfig) -> Self {
        let mut plan = Self::default();
        for port in &rules.ports {
            plan.add_port(rules, port, config);
        }
        plan
    }

    fn add_port(&mut self, rules: &ServiceRules, port: &ServicePort, config: &NetworkConfig) {
        let name = chain_name(&rules.key, port.protocol, port.port);
        let inner = sorted(&port.backends);
        let outer_name = port.outer.as_ref().map(|_| format!("{name}{OUTER}"));
        let outer = port.outer.as_ref().map_or_else(|| inner.clone(), |backends| sorted(backends));
        let inner_chain = (!inner.is_empty()).then_some(name.as_str());
        let outer_chain = (!outer.is_empty()).then(|| outer_name.as_deref().unwrap_or(&name));
        let inside = rules.cluster_address.iter().map(|address| (address, inner_chain, &inner));
        let outside = rules.external_addresses.iter().map(|address| (address, outer_chain, &outer));
        for (address, chain, backends) in inside.chain(outside) {
            if is_translated(*address, port.port, backends, config) {
                self.lead((Collection::Services, address_key(*address, port.protocol, port.port)), chain);
            }
        }
        for number in [port.node_port, port.host_port].into_iter().flatten() {
            self.lead((Collection::Ports, port_key(port.protocol, number)), outer_chain);
        }
        for (chain, backends) in [(inner_chain, &inner), (outer_chain, &outer)] {
            if let Some(chain) = chain.filter(|chain| self.elements.values().any(|to| to.as_deref() == Some(chain))) {
                self.add_chain(chain, backends, rules.sticky);
            }
        }
    }

    fn add_chain(&mut self, chain: &str, backends: &[(Ipv4Addr, u16)], sticky: Option<u32>) {
        if sticky.is_some() && backends.len() > 1 {
            self.affinities.insert(affinity_name(chain));
        }
        self.chains.insert(chain.to_owned(), Target::Backends { backends: backends.to_vec(), sticky });
    }

    fn lead(&mut self, (collection, key): ElementKey, chain: Option<&str>) {
        let collection = match (chain, collection) {
            (Some(_), collection) => collection,
            (None, Collection::Services) => Collection::DeadServices,
            (None, _) => Collection::DeadPorts,
        };
        self.elements.insert((collection, key), chain.map(str::to_owned));
    }

    /// The backends of UDP ports.
    pub(crate) fn datagram_backends(&self) -> HashSet<(Ipv4Addr, u16)> {
        let udp = self.chains.iter().filter(|(chain, _)| chain.contains("/udp/"));
        let backends = udp.filter_map(|(_, target)| match target {
            Target::Backends { backends, .. } => Some(backends),
            Target::Unknown => None,
        });
        backends.flatten().copied().collect()
    }

    /// Every backend address, with repetitions; `None` when some are not known.
    pub(crate) fn addresses(&self) -> Option<Vec<Ipv4Addr>> {
        let mut all = Vec::new();
        for target in self.chains.values() {
            match target {
                Target::Unknown => return None,
                Target::Backends { backends, .. } => all.extend(backends.iter().map(|(address, _)| *address)),
            }
        }
        Some(all)
    }
}

/// The instance's own addresses are answered by the host itself, unless a service says that its answers come from
/// elsewhere.
fn is_translated(address: Ipv4Addr, port: u16, backends: &[(Ipv4Addr, u16)], config: &NetworkConfig) -> bool {
    if config.own_addresses().contains(&address) {
        return !backends.is_empty() && backends != [(address, port)];
    }
    // A service address without a backend needs no element: what nobody claims in the service subnet is refused.
    !(backends.is_empty() && contains(config.service_subnet, address))
}

/// What the name of a chain ends with that is only for connections from outside.
const OUTER: &str = "-outer";

fn sorted(backends: &[(Ipv4Addr, u16)]) -> Vec<(Ipv4Addr, u16)> {
    let mut backends = backends.to_vec();
    backends.sort_unstable();
    backends.dedup();
    backends
}

/// The name of the map in which a chain remembers its clients; [`chain_of`] reads it back.
fn affinity_name(chain: &str) -> String {
    format!("clients/{chain}")
}

/// The chain to which a map of that name belongs.
pub(crate) fn chain_of(map: &str) -> Option<&str> {
    map.strip_prefix("clients/")
}

/// The name of the chain of one service port; [`service_of`] reads it back.
fn chain_name(service: &str, protocol: Protocol, port: u16) -> String {
    format!("svc/{service}/{}/{port}", protocol.name())
}

/// The service to which a chain of that name belongs.
pub(crate) fn service_of(chain: &str) -> Option<&str> {
    let (rest, _port) = chain.strip_prefix("svc/")?.rsplit_once('/')?;
    let (service, _protocol) = rest.rsplit_once('/')?;
    service.contains('/').then_some(service)
}

/// The key of an address, protocol and port: each padded to four bytes.
fn address_key(address: Ipv4Addr, protocol: Protocol, port: u16) -> Vec<u8> {
    [&address.octets()[..], &port_key(protocol, port)].concat()
}

fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol.number(), 0, 0, 0, high, low, 0, 0]
}

/// The element of a port at an address, or of a port on the host.
pub(crate) fn destination(address: Option<Ipv4Addr>, protocol: Protocol, port: u16) -> ElementKey {
    match address {
        Some(address) => (Collection::Services, address_key(address, protocol, port)),
        None => (Collection::Ports, port_key(protocol, port)),
    }
}

/// The elements that a packet to that address may have been found by.
pub(crate) fn destinations(address: Ipv4Addr, protocol: u8, port: u16) -> [ElementKey; 2] {
    let [high, low] = port.to_be_bytes();
    let on_host = vec![protocol, 0, 0, 0, high, low, 0, 0];
    let at_address = [&address.octets()[..], &on_host].concat();
    [(Collection::Services, at_address), (Collection::Ports, on_host)]
}

/// Turns what is there into what shall be there.
pub(crate) fn change(commands: &mut Commands<'_>, old: &Plan, new: &Plan) {
    for map in new.affinities.difference(&old.affinities) {
        commands.add_affinity(map);
    }
    for (chain, target) in &new.chains {
        let before = old.chains.get(chain);
        if before.is_none() {
            commands.add_chain(chain);
        }
        if before != Some(target) {
            fill(commands, chain, target, before.is_some());
        }
    }
    let gone = old.elements.iter().filter(|(key, chain)| new.elements.get(*key) != Some(*chain));
    for (collection, elements) in by_collection(gone) {
        let keys: Vec<&[u8]> = elements.into_iter().map(|(key, _)| key).collect();
        commands.delete_elements(collection.name(), &keys);
    }
    let come = new.elements.iter().filter(|(key, chain)| old.elements.get(*key) != Some(*chain));
    for (collection, elements) in by_collection(come) {
        commands.add_elements(collection.name(), &elements);
    }
    for chain in old.chains.keys().filter(|chain| !new.chains.contains_key(*chain)) {
        commands.delete_chain(chain);
    }
    for map in old.affinities.difference(&new.affinities) {
        commands.delete_set(map);
    }
}

type Element<'a> = (&'a [u8], Option<&'a str>);

fn by_collection<'a>(
    elements: impl Iterator<Item = (&'a ElementKey, &'a Option<String>)>,
) -> BTreeMap<Collection, Vec<Element<'a>>> {
    let mut sorted: BTreeMap<Collection, Vec<Element<'a>>> = BTreeMap::new();
    for ((collection, key), chain) in elements {
        sorted.entry(*collection).or_default().push((key, chain.as_deref()));
    }
    sorted
}

fn fill(commands: &mut Commands<'_>, chain: &str, target: &Target, used: bool) {
    let Target::Backends { backends, sticky } = target else { return };
    if used {
        commands.flush_chain(chain);
    }
    if let [(address, port)] = backends[..] {
        let port = Expression::Set { register: 1, bytes: port.to_be_bytes().to_vec() };
        commands.add_rule(chain, &[set_address(address), port, to_backend(0)]);
        return;
    }
    let values: Vec<Vec<u8>> = backends.iter().map(|(address, port)| backend_value(*address, *port)).collect();
    if let Some(seconds) = sticky {
        // A backend that is gone is not among the set: its clients are as new ones.
        let (map, remember) = (affinity_name(chain), remember(chain, *seconds));
        let (set, id) = commands.add_backends(&values);
        let load = Expression::Load(Field::Source, CLIENT);
        let known = Expression::Translate { map, id: None, from: CLIENT, to: 0 };
        let there = Expression::InSet { set, id: Some(id), register: 0 };
        commands.add_rule(chain, &[load.clone(), known, there, remember.clone(), to_backend(0)]);
        let mut steps = any_backend(commands, &values);
        let forget = Expression::Forget { map: affinity_name(chain), key: CLIENT };
        steps.extend([load, forget, remember, to_backend(0)]);
        commands.add_rule(chain, &steps);
    }
    // Also where so many clients are remembered that no further one can be.
    let mut steps = any_backend(commands, &values);
    steps.push(to_backend(0));
    commands.add_rule(chain, &steps);
}

/// The register of the client's address, behind those of a backend.
const CLIENT: u32 = 4;

fn remember(chain: &str, seconds: u32) -> Expression {
    Expression::Remember { map: affinity_name(chain), key: CLIENT, value: 0, seconds }
}

fn any_backend(commands: &mut Commands<'_>, values: &[Vec<u8>]) -> Vec<Expression> {
    let below = u32::try_from(values.len()).expect("no service has four billion backends");
    let (map, id) = commands.add_numbered_map(values);
    vec![Expression::Random { below, register: 0 }, Expression::Translate { map, id: Some(id), from: 0, to: 0 }]
}

fn to_backend(register: u32) -> Expression {
    Expression::Destination { address: register, port: Some(register + 1) }
}

fn backend_value(address: Ipv4Addr, port: u16) -> Vec<u8> {
    [&address.octets()[..], &port.to_be_bytes(), &[0, 0]].concat()
}

#[cfg(test)]
mod tests {
    use super::super::batch::messages;
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

    fn rules(backends: &[u8]) -> ServiceRules {
        let backends = backends.iter().map(|last| (Ipv4Addr::new(10, 73, 0, *last), 8080)).collect();
        let port = ServicePort {
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30080),
            host_port: None,
            backends,
            outer: None,
        };
        ServiceRules {
            key: "default/web".to_owned(),
            cluster_address: Some(Ipv4Addr::new(10, 73, 128, 20)),
            ports: vec![port],
            ..ServiceRules::default()
        }
    }

    fn count(old: &Plan, new: &Plan) -> usize {
        let mut commands = Commands::new("t");
        change(&mut commands, old, new);
        let bytes = commands.finish();
        messages(&bytes).count() - 2
    }

    #[test]
    fn a_chain_name_leads_back_to_its_service() {
        assert_eq!(service_of(&chain_name("a/b", Protocol::Udp, 53)), Some("a/b"));
        assert_eq!(service_of("services-in"), None);
        assert_eq!(service_of("svc/x/tcp/1"), None);
    }

    #[test]
    fn a_service_without_backends_refuses_on_its_node_port() {
        let plan = Plan::of(&rules(&[]), &config());
        assert!(plan.chains.is_empty());
        assert_eq!(
            plan.elements.keys().map(|(collection, _)| *collection).collect::<Vec<_>>(),
            [Collection::DeadPorts]
        );
    }

    #[test]
    fn new_backends_change_one_chain_and_no_element() {
        let (one, two) = (Plan::of(&rules(&[2, 3]), &config()), Plan::of(&rules(&[3, 4]), &config()));
        // Flush, map, its elements, rule.
        assert_eq!(count(&one, &two), 4);
        assert_eq!(count(&one, &one), 0);
        assert_eq!(Plan::of(&rules(&[3, 2]), &config()), one);
    }

    #[test]
    fn what_comes_from_outside_may_go_elsewhere() {
        let mut local = rules(&[2, 3]);
        local.ports[0].outer = Some(vec![(Ipv4Addr::new(10, 73, 0, 3), 8080)]);
        let plan = Plan::of(&local, &config());
        assert_eq!(plan.chains.len(), 2);
        let leads: Vec<_> = plan.elements.values().flatten().map(String::as_str).collect();
        assert_eq!(leads, ["svc/default/web/tcp/80", "svc/default/web/tcp/80-outer"]);
        assert!(leads.iter().all(|chain| service_of(chain) == Some("default/web")));
        local.ports[0].outer = Some(Vec::new());
        let plan = Plan::of(&local, &config());
        assert!(plan.elements.keys().any(|(collection, _)| *collection == Collection::DeadPorts));
    }

    #[test]
    fn clients_are_remembered_only_where_there_is_a_choice() {
        let mut sticky = rules(&[2, 3]);
        sticky.sticky = Some(60);
        let (two, none) = (Plan::of(&sticky, &config()), Plan::of(&rules(&[2, 3]), &config()));
        assert_eq!(
            two.affinities.iter().map(|map| chain_of(map)).collect::<Vec<_>>(),
            [Some("svc/default/web/tcp/80")]
        );
        // Flush, a map and its elements, a rule; and the deletion of the map with the clients.
        assert_eq!(count(&two, &none), 5);
        sticky.ports[0].backends.pop();
        assert!(Plan::of(&sticky, &config()).affinities.is_empty());
    }

    #[test]
    fn own_addresses_are_left_to_the_host() {
        let own = |backends: Vec<(Ipv4Addr, u16)>| {
            let mut rules = rules(&[]);
            rules.cluster_address = Some(config().api_address);
            rules.ports[0].node_port = None;
            rules.ports[0].backends = backends;
            Plan::of(&rules, &config())
        };
        assert_eq!(own(vec![]), Plan::default());
        assert_eq!(own(vec![(config().api_address, 80)]), Plan::default());
        assert_eq!(own(vec![(config().api_address, 6443)]).elements.len(), 1);
    }

    #[test]
    fn adopted_chains_are_filled_anew_without_being_made() {
        let new = Plan::of(&rules(&[2]), &config());
        let mut old = new.clone();
        old.chains.values_mut().for_each(|target| *target = Target::Unknown);
        assert_eq!(old.addresses(), None);
        // Flush and rule.
        assert_eq!(count(&old, &new), 2);
    }
}
