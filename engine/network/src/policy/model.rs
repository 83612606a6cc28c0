//! What follows from all policies, pods and namespaces together: for every pod that a policy is about, the chain of what
//! may reach it and the chain of what it may reach; and the sets of addresses that these chains ask. Pure.
//!
//! Pods for which the same holds share a chain, rules that mention the same pods share a set. A change of one object
//! looks only at what that object can concern, and a journal tells what is different from what the kernel was told.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;

use shipway_driver::matching::{Labels, selects};

use super::ranges::{Range, united};
use super::read::{Mentioned, Namespaces, Number, Policy, Port, Rule, Who};

/// Namespace and name.
pub(crate) type Key = (String, String);

/// From where a chain looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    /// What reaches the pod.
    Ingress,
    /// What the pod reaches.
    Egress,
}

/// One thing that a chain lets pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Allowed {
    pub(crate) peers: Peers,
    pub(crate) ports: Ports,
}

/// With whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Peers {
    Anybody,
    /// Those in the sets and at the addresses.
    Some {
        sets: Vec<u32>,
        blocks: Vec<Range>,
    },
}

/// At which ports of whoever is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ports {
    Every,
    /// By protocol.
    Some(BTreeMap<u8, Vec<Range>>),
    /// At the pairs of address and port in these sets, whoever the peers are.
    Paired(Vec<u32>),
}

/// An element of a set: an address, in some sets with protocol and port, in the kernel's form.
pub(crate) type Element = Vec<u8>;

/// A pod as far as policies care.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodFacts {
    pub(crate) labels: Labels,
    /// None for pods that have none of their own: those in the host's network, and those that are over.
    pub(crate) address: Option<Ipv4Addr>,
    /// Named ports: name, protocol, number.
    pub(crate) ports: Vec<(String, u8, u16)>,
    /// Whether others may mention it, but nothing is decided about it: what this instance itself serves.
    pub(crate) exempt: bool,
}

#[derive(Debug, Default)]
struct Pod {
    facts: PodFacts,
    elements: Vec<(u32, Element)>,
    chains: BTreeMap<Direction, u32>,
}

/// Which pods are in a set; with a port, that port of each that has it.
#[derive(Debug)]
struct Set {
    key: SetKey,
    who: Who,
    port: Option<(u8, String)>,
    /// How many policies mention it.
    users: usize,
    elements: BTreeSet<Element>,
}

type SetKey = (String, Option<(u8, String)>);

#[derive(Debug)]
struct Chain {
    direction: Direction,
    allowed: Vec<Allowed>,
    users: usize,
}

/// What the kernel was told before the first change since, by what was touched; `None` for what was not there.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) sets: BTreeMap<u32, bool>,
    pub(crate) chains: BTreeMap<u32, bool>,
    pub(crate) elements: BTreeMap<(u32, Element), bool>,
    pub(crate) leads: BTreeMap<(Direction, Ipv4Addr), Option<u32>>,
}

impl Journal {
    /// Whether nothing was touched.
    pub(crate) fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.chains.is_empty() && self.elements.is_empty() && self.leads.is_empty()
    }
}

/// Everything that policies lead to.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// By namespace, then name.
    policies: HashMap<String, BTreeMap<String, Policy>>,
    namespaces: HashMap<String, Labels>,
    pods: HashMap<Key, Pod>,
    by_namespace: HashMap<String, HashSet<String>>,
    by_address: HashMap<Ipv4Addr, Key>,
    sets: BTreeMap<u32, Set>,
    set_ids: HashMap<SetKey, u32>,
    chains: BTreeMap<u32, Chain>,
    chain_ids: HashMap<(Direction, Vec<Allowed>), u32>,
    leads: BTreeMap<(Direction, Ipv4Addr), u32>,
    last: u32,
    journal: Journal,
}

impl Model {
    /// Whether no policy is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// What a chain lets pass, and from where it looks.
    pub(crate) fn chain(&self, id: u32) -> Option<(Direction, &[Allowed])> {
        self.chains.get(&id).map(|chain| (chain.direction, chain.allowed.as_slice()))
    }

    /// Whether a set is there and, if so, whether its elements have ports.
    pub(crate) fn set(&self, id: u32) -> Option<bool> {
        self.sets.get(&id).map(|set| set.port.is_some())
    }

    /// Whether a set has an element.
    pub(crate) fn has(&self, id: u32, element: &Element) -> bool {
        self.sets.get(&id).is_some_and(|set| set.elements.contains(element))
    }

    /// The chain that decides about an address.
    pub(crate) fn lead(&self, direction: Direction, address: Ipv4Addr) -> Option<u32> {
        self.leads.get(&(direction, address)).copied()
    }

    /// Whether anything is decided about an address.
    pub(crate) fn is_led(&self, address: Ipv4Addr) -> bool {
        [Direction::Ingress, Direction::Egress].into_iter().any(|direction| self.lead(direction, address).is_some())
    }

    /// Whether the kernel was told to decide about an address.
    pub(crate) fn was_led(&self, address: Ipv4Addr) -> bool {
        [Direction::Ingress, Direction::Egress].into_iter().any(|direction| {
            let known = self.journal.leads.get(&(direction, address)).copied();
            known.unwrap_or_else(|| self.lead(direction, address)).is_some()
        })
    }

    /// What changed since the kernel was last told.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Notes that the kernel knows everything.
    pub(crate) fn told(&mut self) {
        self.journal = Journal::default();
    }

    /// Notes that the kernel knows nothing.
    pub(crate) fn untold(&mut self) {
        let elements = self.sets.iter().flat_map(|(id, set)| set.elements.iter().map(|it| ((*id, it.clone()), false)));
        self.journal = Journal {
            elements: elements.collect(),
            sets: self.sets.keys().map(|id| (*id, false)).collect(),
            chains: self.chains.keys().map(|id| (*id, false)).collect(),
            leads: self.leads.keys().map(|key| (*key, None)).collect(),
        };
    }

    /// Sets or removes a policy.
    pub(crate) fn set_policy(&mut self, (namespace, name): &Key, policy: Option<Policy>) {
        let old = self.policies.get(namespace).and_then(|all| all.get(name)).cloned();
        if old == policy {
            return;
        }
        if let Some(policy) = &policy {
            self.acquire_sets(policy);
        }
        let all = self.policies.entry(namespace.clone()).or_default();
        match policy {
            Some(policy) => all.insert(name.clone(), policy),
            None => all.remove(name),
        };
        if all.is_empty() {
            self.policies.remove(namespace);
        }
        self.refresh_namespace(namespace);
        if let Some(old) = &old {
            self.release_sets(old);
        }
    }

    /// Sets or removes a namespace's labels.
    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        if self.namespaces.get(name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
        self.refresh_namespace(name);
    }

    /// Sets or removes a pod.
    pub(crate) fn set_pod(&mut self, key: &Key, facts: Option<PodFacts>) {
        let before = self.pods.get(key).map(|pod| &pod.facts);
        if before == facts.as_ref() {
            return;
        }
        let before_address = before.and_then(|facts| facts.address);
        let address = facts.as_ref().and_then(|facts| facts.address);
        // An address is its newest pod's: the news that the old one is over may come later.
        if let Some(other) = address.and_then(|address| self.by_address.get(&address)).filter(|it| *it != key).cloned()
        {
            let facts = self.pods.get(&other).map(|pod| PodFacts { address: None, ..pod.facts.clone() });
            self.set_pod(&other, facts);
        }
        if before_address != address || facts.is_none() {
            self.withdraw(key);
        }
        let Some(facts) = facts else {
            self.forget(key);
            return;
        };
        self.by_namespace.entry(key.0.clone()).or_default().insert(key.1.clone());
        self.pods.entry(key.clone()).or_default().facts = facts;
        if let Some(address) = address {
            self.by_address.insert(address, key.clone());
        }
        self.refresh(key);
    }

    fn forget(&mut self, key: &Key) {
        self.pods.remove(key);
        if let Some(names) = self.by_namespace.get_mut(&key.0) {
            names.remove(&key.1);
            if names.is_empty() {
                self.by_namespace.remove(&key.0);
            }
        }
    }

    /// Takes out what follows from a pod.
    fn withdraw(&mut self, key: &Key) {
        let Some(pod) = self.pods.get_mut(key) else { return };
        let (elements, chains) = (std::mem::take(&mut pod.elements), std::mem::take(&mut pod.chains));
        let Some(address) = pod.facts.address else { return };
        for (set, element) in elements {
            self.put(set, element, false);
        }
        for (direction, chain) in chains {
            self.set_lead(direction, address, None);
            self.release_chain(chain);
        }
        if self.by_address.get(&address) == Some(key) {
            self.by_address.remove(&address);
        }
    }

    fn refresh_namespace(&mut self, namespace: &str) {
        let names = self.by_namespace.get(namespace).cloned().unwrap_or_default();
        for name in names {
            self.refresh(&(namespace.to_owned(), name));
        }
    }

    /// Brings up to date what follows from a pod.
    fn refresh(&mut self, key: &Key) {
        let Some((facts, address)) = self.pods.get(key).and_then(|pod| Some((pod.facts.clone(), pod.facts.address?)))
        else {
            return;
        };
        let elements = self.elements_of(&key.0, &facts, address);
        let mut chains = BTreeMap::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            if let Some(allowed) = self.allowed(direction, &key.0, &facts) {
                chains.insert(direction, self.acquire_chain(direction, allowed));
            }
        }
        let Some(pod) = self.pods.get_mut(key) else { return };
        let old_elements = std::mem::replace(&mut pod.elements, elements.clone());
        let old_chains = std::mem::replace(&mut pod.chains, chains.clone());
        for (set, element) in old_elements.iter().filter(|old| !elements.contains(old)) {
            self.put(*set, element.clone(), false);
        }
        for (set, element) in elements {
            self.put(set, element, true);
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            self.set_lead(direction, address, chains.get(&direction).copied());
        }
        for chain in old_chains.into_values() {
            self.release_chain(chain);
        }
    }

    /// In which sets a pod is, and as what.
    fn elements_of(&self, namespace: &str, facts: &PodFacts, address: Ipv4Addr) -> Vec<(u32, Element)> {
        let mut all = Vec::new();
        for (id, set) in self.sets.iter().filter(|(_, set)| self.is_among(&set.who, namespace, facts)) {
            match &set.port {
                None => all.push((*id, address.octets().to_vec())),
                Some((protocol, name)) => {
                    let ports = facts.ports.iter().filter(|port| (&port.0, port.1) == (name, *protocol));
                    all.extend(ports.map(|port| (*id, paired(address, *protocol, port.2))));
                }
            }
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    fn is_among(&self, who: &Who, namespace: &str, facts: &PodFacts) -> bool {
        let here = match &who.namespaces {
            Namespaces::Named(name) => name == namespace,
            Namespaces::Labelled(selector) => {
                self.namespaces.get(namespace).is_some_and(|labels| selects(selector, labels))
            }
        };
        here && selects(&who.pods, &facts.labels)
    }

    /// What a pod is allowed; everything when no policy is about it in that direction.
    fn allowed(&self, direction: Direction, namespace: &str, facts: &PodFacts) -> Option<Vec<Allowed>> {
        let policies = self.policies.get(namespace).filter(|_| !facts.exempt)?;
        let about = policies.values().filter(|policy| selects(&policy.about, &facts.labels));
        let rules: Vec<&Vec<Rule>> = about
            .filter_map(|policy| match direction {
                Direction::Ingress => policy.ingress.as_ref(),
                Direction::Egress => policy.egress.as_ref(),
            })
            .collect();
        if rules.is_empty() {
            return None;
        }
        let mut allowed: Vec<Allowed> =
            rules.into_iter().flatten().flat_map(|rule| self.resolve(direction, rule, facts)).collect();
        allowed.sort_unstable();
        allowed.dedup();
        Some(allowed)
    }

    fn resolve(&self, direction: Direction, rule: &Rule, facts: &PodFacts) -> Vec<Allowed> {
        let peers = match &rule.peers {
            None => Peers::Anybody,
            Some(Mentioned { pods, blocks }) => {
                let mut sets: Vec<u32> = pods.iter().filter_map(|who| self.set_id(who, None)).collect();
                sets.sort_unstable();
                sets.dedup();
                Peers::Some { sets, blocks: blocks.clone() }
            }
        };
        let Some(ports) = &rule.ports else { return vec![Allowed { peers, ports: Ports::Every }] };
        let mut numbers: BTreeMap<u8, Vec<Range>> = BTreeMap::new();
        let mut pairs = Vec::new();
        for Port { protocol, number } in ports {
            match (number, direction) {
                (Number::In(range), _) => numbers.entry(*protocol).or_default().push(*range),
                (Number::Named(name), Direction::Ingress) => {
                    let own = facts.ports.iter().filter(|port| (&port.0, port.1) == (name, *protocol));
                    let own = own.map(|port| (u32::from(port.2), u32::from(port.2)));
                    numbers.entry(*protocol).or_default().extend(own);
                }
                (Number::Named(name), Direction::Egress) => {
                    let named = Some((*protocol, name.clone()));
                    pairs.extend(spoken_to(rule).iter().filter_map(|who| self.set_id(who, named.clone())));
                }
            }
        }
        numbers.retain(|_, ranges| !ranges.is_empty());
        for ranges in numbers.values_mut() {
            *ranges = united(std::mem::take(ranges));
        }
        pairs.sort_unstable();
        pairs.dedup();
        let mut all = Vec::new();
        if !numbers.is_empty() {
            all.push(Allowed { peers, ports: Ports::Some(numbers) });
        }
        if !pairs.is_empty() {
            all.push(Allowed { peers: Peers::Anybody, ports: Ports::Paired(pairs) });
        }
        all
    }

    fn set_id(&self, who: &Who, port: Option<(u8, String)>) -> Option<u32> {
        self.set_ids.get(&(who.key(), port)).copied()
    }

    fn acquire_sets(&mut self, policy: &Policy) {
        for (who, port) in asked(policy) {
            let key = (who.key(), port.clone());
            if let Some(set) = self.set_ids.get(&key).and_then(|id| self.sets.get_mut(id)) {
                set.users += 1;
                continue;
            }
            let id = self.next();
            self.set_ids.insert(key.clone(), id);
            self.sets.insert(id, Set { key, who, port, users: 1, elements: BTreeSet::new() });
            self.journal.sets.entry(id).or_insert(false);
            self.fill(id);
        }
    }

    /// Puts those into a new set who belong there.
    fn fill(&mut self, id: u32) {
        let Some(set) = self.sets.get(&id) else { return };
        let those = self.pods.iter().filter(|(key, pod)| self.is_among(&set.who, &key.0, &pod.facts));
        let keys: Vec<Key> = those.map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.refresh(key);
        }
    }

    fn release_sets(&mut self, policy: &Policy) {
        for (who, port) in asked(policy) {
            let key = (who.key(), port);
            let Some(id) = self.set_ids.get(&key).copied() else { continue };
            let Some(set) = self.sets.get_mut(&id) else { continue };
            set.users -= 1;
            if set.users > 0 {
                continue;
            }
            if let Some(set) = self.sets.remove(&id) {
                self.set_ids.remove(&set.key);
                for element in set.elements {
                    self.journal.elements.entry((id, element)).or_insert(true);
                }
            }
            self.journal.sets.entry(id).or_insert(true);
            self.pods.values_mut().for_each(|pod| pod.elements.retain(|(set, _)| *set != id));
        }
    }

    fn acquire_chain(&mut self, direction: Direction, allowed: Vec<Allowed>) -> u32 {
        let key = (direction, allowed);
        if let Some(id) = self.chain_ids.get(&key) {
            if let Some(chain) = self.chains.get_mut(id) {
                chain.users += 1;
            }
            return *id;
        }
        let id = self.next();
        self.chains.insert(id, Chain { direction, allowed: key.1.clone(), users: 1 });
        self.chain_ids.insert(key, id);
        self.journal.chains.entry(id).or_insert(false);
        id
    }

    fn release_chain(&mut self, id: u32) {
        let Some(chain) = self.chains.get_mut(&id) else { return };
        chain.users -= 1;
        if chain.users > 0 {
            return;
        }
        if let Some(chain) = self.chains.remove(&id) {
            self.chain_ids.remove(&(chain.direction, chain.allowed));
        }
        self.journal.chains.entry(id).or_insert(true);
    }

    fn put(&mut self, set: u32, element: Element, there: bool) {
        let Some(state) = self.sets.get_mut(&set) else { return };
        let changed = if there { state.elements.insert(element.clone()) } else { state.elements.remove(&element) };
        if changed {
            self.journal.elements.entry((set, element)).or_insert(!there);
        }
    }

    fn set_lead(&mut self, direction: Direction, address: Ipv4Addr, chain: Option<u32>) {
        let key = (direction, address);
        let before = match chain {
            Some(chain) => self.leads.insert(key, chain),
            None => self.leads.remove(&key),
        };
        if before != chain {
            self.journal.leads.entry(key).or_insert(before);
        }
    }

    fn next(&mut self) -> u32 {
        self.last += 1;
        self.last
    }
}

/// The sets that a policy's rules ask.
fn asked(policy: &Policy) -> Vec<(Who, Option<(u8, String)>)> {
    let mut all = Vec::new();
    for rule in policy.ingress.iter().chain(&policy.egress).flatten() {
        all.extend(rule.peers.iter().flat_map(|peers| &peers.pods).map(|who| (who.clone(), None)));
    }
    for rule in policy.egress.iter().flatten() {
        for port in rule.ports.iter().flatten() {
            if let Number::Named(name) = &port.number {
                let named = Some((port.protocol, name.clone()));
                all.extend(spoken_to(rule).into_iter().map(|who| (who, named.clone())));
            }
        }
    }
    all
}

/// The pods whose named ports a rule about what goes out may mean. Addresses alone have no named ports.
fn spoken_to(rule: &Rule) -> Vec<Who> {
    rule.peers.as_ref().map_or_else(|| vec![Who::everybody()], |peers| peers.pods.clone())
}

/// Address, protocol and port, each padded to four bytes.
fn paired(address: Ipv4Addr, protocol: u8, port: u16) -> Element {
    let [high, low] = port.to_be_bytes();
    [&address.octets()[..], &[protocol, 0, 0, 0, high, low, 0, 0]].concat()
}

#[cfg(test)]
mod tests;
