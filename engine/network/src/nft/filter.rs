//! Network policies as a table of their own, which is there only while a policy is.
//!
//! A packet of a new connection is looked at twice: by its source, then by its destination, both as the pods have them,
//! since service addresses are translated before. What the host itself sends to a pod passes none of these chains, so
//! probes always arrive; what a pod sends to itself, directly or through a service, always passes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;

use super::commands::{Commands, Hook, Key};
use super::expression::{Expression, Field, Verdict, in_set, load_address_key, matches, of_known_connections};
use super::socket::FilterSocket;
use crate::NetworkError;
use crate::config::NetworkConfig;
use crate::policy::{Allowed, Direction, Journal, Model, Peers, Ports};

const INPUT: u32 = 1;
const FORWARD: u32 = 2;
/// Behind the usual filters; what leaves is looked at before what arrives.
const LEAVING: i32 = 10;
const ARRIVING: i32 = 20;
/// Pairs of each decided pod's own address.
const SELVES: &str = "selves";

const HOOKS: [(&str, u32, i32, Direction); 3] = [
    ("egress-forward", FORWARD, LEAVING, Direction::Egress),
    ("egress-host", INPUT, LEAVING, Direction::Egress),
    ("ingress-forward", FORWARD, ARRIVING, Direction::Ingress),
];

impl Direction {
    fn map(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// Where the peer's address is in a packet.
    fn peer(self) -> Field {
        match self {
            Self::Ingress => Field::Source,
            Self::Egress => Field::Destination,
        }
    }

    /// Where the pod's own address is.
    fn own(self) -> Field {
        match self {
            Self::Ingress => Field::Destination,
            Self::Egress => Field::Source,
        }
    }
}

/// The table of one instance and the socket to it.
pub(crate) struct Filter {
    socket: FilterSocket,
    name: String,
    laid: bool,
}

impl Filter {
    /// A handle; changes nothing yet.
    pub(crate) fn new(config: &NetworkConfig) -> Result<Self, NetworkError> {
        let socket = FilterSocket::open().map_err(NetworkError::kernel("open a netfilter socket"))?;
        Ok(Self { socket, name: config.policy_table(), laid: false })
    }

    /// Tells the kernel what is different, in one atomic step. What an earlier process left is replaced in the first.
    pub(crate) fn tell(&mut self, model: &mut Model) -> Result<(), NetworkError> {
        if model.is_empty() {
            if self.laid {
                self.delete()?;
            }
            model.told();
            return Ok(());
        }
        if self.laid && model.journal().is_empty() {
            return Ok(());
        }
        let told = if self.laid { self.change(model) } else { self.lay(model) };
        match told {
            // Somebody else changed the table.
            Err(error) if self.laid && is_foreign(&error) => {
                tracing::warn!(table = self.name, "the policies were changed by somebody else: laying them again");
                self.lay(model)?;
            }
            other => other?,
        }
        self.laid = true;
        model.told();
        Ok(())
    }

    /// Deletes the table, if it is there.
    pub(crate) fn delete(&mut self) -> Result<(), NetworkError> {
        let mut commands = Commands::new(&self.name);
        commands.delete_table();
        let batch = commands.finish();
        match self.commit("delete the policies", &batch) {
            Err(error) if error.errno() != Some(libc::ENOENT) => return Err(error),
            _ => self.laid = false,
        }
        Ok(())
    }

    fn lay(&mut self, model: &mut Model) -> Result<(), NetworkError> {
        model.untold();
        let mut commands = Commands::new(&self.name);
        commands.add_table();
        commands.delete_table();
        lay(&mut commands);
        change(&mut commands, model);
        let batch = commands.finish();
        self.commit("lay the policies", &batch)
    }

    fn change(&mut self, model: &Model) -> Result<(), NetworkError> {
        let mut commands = Commands::new(&self.name);
        change(&mut commands, model);
        if commands.is_empty() {
            return Ok(());
        }
        let batch = commands.finish();
        self.commit("change the policies", &batch)
    }

    fn commit(&mut self, what: &'static str, batch: &[u8]) -> Result<(), NetworkError> {
        let failed = |source: io::Error| NetworkError::Filter { what, table: self.name.clone(), source };
        self.socket.commit(batch).map_err(failed)
    }
}

fn is_foreign(error: &NetworkError) -> bool {
    matches!(error.errno(), Some(libc::ENOENT | libc::EEXIST))
}

fn chain_name(id: u32) -> String {
    format!("pods-{id}")
}

fn set_name(id: u32) -> String {
    format!("peers-{id}")
}

/// The fixed part.
fn lay(commands: &mut Commands<'_>) {
    commands.add_table();
    commands.add_set(SELVES, Key::Pair, false);
    for direction in [Direction::Ingress, Direction::Egress] {
        commands.add_set(direction.map(), Key::Address, true);
    }
    let accept = || vec![Expression::End(Verdict::Accept)];
    for (name, number, priority, direction) in HOOKS {
        commands.add_base_chain(name, Hook { kind: "filter", number, priority });
        commands.add_rule(name, &[of_known_connections(), accept()].concat());
        let itself = vec![Expression::Load(Field::Source, 0), Expression::Load(Field::Destination, 1), in_set(SELVES)];
        commands.add_rule(name, &[itself, accept()].concat());
        let follow = Expression::Follow { map: direction.map(), register: 0 };
        commands.add_rule(name, &[Expression::Load(direction.own(), 0), follow]);
    }
}

/// What changed, in the order that the kernel needs: what leads to something goes before it and comes after it.
fn change(commands: &mut Commands<'_>, model: &Model) {
    let journal = model.journal();
    for (id, _) in journal.sets.iter().filter(|(_, was)| !**was) {
        if let Some(with_ports) = model.set(*id) {
            let key = if with_ports { Key::AddressPort } else { Key::Address };
            commands.add_set(&set_name(*id), key, false);
        }
    }
    change_elements(commands, model, journal);
    for (id, _) in journal.chains.iter().filter(|(_, was)| !**was) {
        if let Some((direction, allowed)) = model.chain(*id) {
            add_chain(commands, &chain_name(*id), direction, allowed);
        }
    }
    change_leads(commands, model, journal);
    for (id, _) in journal.chains.iter().filter(|(id, was)| **was && model.chain(**id).is_none()) {
        commands.delete_chain(&chain_name(*id));
    }
    for (id, _) in journal.sets.iter().filter(|(id, was)| **was && model.set(**id).is_none()) {
        commands.delete_set(&set_name(*id));
    }
}

fn change_elements(commands: &mut Commands<'_>, model: &Model, journal: &Journal) {
    let mut changed: BTreeMap<u32, [Vec<&[u8]>; 2]> = BTreeMap::new();
    for ((set, element), was) in &journal.elements {
        let is = model.has(*set, element);
        if is != *was && model.set(*set).is_some() {
            changed.entry(*set).or_default()[usize::from(is)].push(element);
        }
    }
    for (set, [gone, come]) in changed {
        commands.delete_elements(&set_name(set), &gone);
        let come: Vec<(&[u8], Option<&str>)> = come.into_iter().map(|element| (element, None)).collect();
        commands.add_elements(&set_name(set), &come);
    }
}

fn change_leads(commands: &mut Commands<'_>, model: &Model, journal: &Journal) {
    for (&(direction, address), &was) in &journal.leads {
        let now = model.lead(direction, address);
        if now == was {
            continue;
        }
        if was.is_some() {
            commands.delete_elements(direction.map(), &[&address.octets()]);
        }
        if let Some(chain) = now {
            commands.add_elements(direction.map(), &[(&address.octets(), Some(&chain_name(chain)))]);
        }
    }
    let addresses: BTreeSet<Ipv4Addr> = journal.leads.keys().map(|(_, address)| *address).collect();
    for address in addresses {
        let pair = [address.octets(), address.octets()].concat();
        match (model.was_led(address), model.is_led(address)) {
            (false, true) => commands.add_elements(SELVES, &[(&pair, None)]),
            (true, false) => commands.delete_elements(SELVES, &[&pair]),
            _ => {}
        }
    }
}

/// A chain that accepts what is allowed and refuses everything else, so that whoever asks learns of it at once.
fn add_chain(commands: &mut Commands<'_>, name: &str, direction: Direction, allowed: &[Allowed]) {
    commands.add_chain(name);
    for one in allowed {
        for peers in 0..alternatives_of_peers(&one.peers) {
            for ports in 0..alternatives_of_ports(&one.ports) {
                let mut steps = of_peers(commands, direction, &one.peers, peers);
                steps.extend(of_ports(commands, &one.ports, ports));
                steps.push(Expression::End(Verdict::Accept));
                commands.add_rule(name, &steps);
            }
        }
    }
    commands.add_rule(name, &[Expression::Prohibited]);
}

fn alternatives_of_peers(peers: &Peers) -> usize {
    match peers {
        Peers::Anybody => 1,
        Peers::Some { sets, blocks } => sets.len() + usize::from(!blocks.is_empty()),
    }
}

fn alternatives_of_ports(ports: &Ports) -> usize {
    match ports {
        Ports::Every => 1,
        Ports::Some(numbers) => numbers.len(),
        Ports::Paired(sets) => sets.len(),
    }
}

fn of_peers(commands: &mut Commands<'_>, direction: Direction, peers: &Peers, at: usize) -> Vec<Expression> {
    let Peers::Some { sets, blocks } = peers else { return Vec::new() };
    let load = Expression::Load(direction.peer(), 0);
    if let Some(set) = sets.get(at) {
        return vec![load, in_set(&set_name(*set))];
    }
    let (set, id) = commands.add_ranges(Key::Address, blocks);
    vec![load, Expression::InSet { set, id: Some(id), register: 0 }]
}

fn of_ports(commands: &mut Commands<'_>, ports: &Ports, at: usize) -> Vec<Expression> {
    const EVERY: [(u32, u32); 1] = [(0, u16::MAX as u32)];
    match ports {
        Ports::Every => Vec::new(),
        Ports::Paired(sets) => {
            let mut steps = load_address_key();
            steps.extend(sets.get(at).map(|set| in_set(&set_name(*set))));
            steps
        }
        Ports::Some(numbers) => {
            let Some((protocol, ranges)) = numbers.iter().nth(at) else { return Vec::new() };
            let mut steps = matches(Field::Transport, &[*protocol]);
            if ranges[..] != EVERY {
                let (set, id) = commands.add_ranges(Key::Number, ranges);
                steps.extend([
                    Expression::Load(Field::DestinationPort, 0),
                    Expression::InSet { set, id: Some(id), register: 0 },
                ]);
            }
            steps
        }
    }
}
