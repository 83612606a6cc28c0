//! The table of services whose pods may sleep: it counts new connections to them, and sends those to a queue whose pods
//! sleep now. It is there only while there are such services.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::attribute::{attributes, find};
use super::base::Collection;
use super::batch::Kind;
use super::commands::{Commands, Hook, Key};
use super::expression::{Expression, in_set, load_address_key, load_port_key, of_new_connections, to_this_host};
use super::plan::ElementKey;
use super::socket::FilterSocket;
use crate::NetworkError;
use crate::config::NetworkConfig;

const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
/// When connections are known and nothing is translated yet.
const BEFORE_SERVICES: i32 = -150;
const HOOKS: [(&str, u32); 2] = [("first-in", PREROUTING), ("first-out", OUTPUT)];

/// What is to be done with a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Care {
    /// Count new connections.
    Count,
    /// Hold them.
    Hold,
}

/// A destination, as services' rules have it, and what is to be done with it.
pub(crate) type Entry = (Care, ElementKey);

/// The table of one instance.
pub(crate) struct Sleepers {
    socket: FilterSocket,
    name: String,
    told: Option<BTreeSet<Entry>>,
}

fn set_name(care: Care, collection: Collection) -> &'static str {
    match (care, collection == Collection::Services) {
        (Care::Count, true) => "counted",
        (Care::Count, false) => "counted-ports",
        (Care::Hold, true) => "held",
        (Care::Hold, false) => "held-ports",
    }
}

fn key_of(collection: Collection) -> Key {
    if collection == Collection::Services { Key::AddressPort } else { Key::Port }
}

impl Sleepers {
    /// A handle; changes nothing yet.
    pub(crate) fn new(config: &NetworkConfig) -> Result<Self, NetworkError> {
        let socket = FilterSocket::open().map_err(NetworkError::kernel("open a netfilter socket"))?;
        Ok(Self { socket, name: config.sleep_table(), told: None })
    }

    /// Makes the table say exactly this, in one step.
    pub(crate) fn tell(&mut self, wanted: &BTreeSet<Entry>, queue: u16) -> Result<(), NetworkError> {
        if wanted.is_empty() {
            return if self.told.is_some() { self.delete() } else { Ok(()) };
        }
        let told = match &self.told {
            Some(told) => self.commit(&changed(&self.name, told, wanted)),
            None => match self.commit(&laid(&self.name, wanted, &Expression::Queue(queue))) {
                // This kernel has queues, but not this way to them.
                Err(error) if error.errno() == Some(libc::ENOENT) => {
                    self.commit(&laid(&self.name, wanted, &Expression::QueueTarget(queue)))
                }
                other => other,
            },
        };
        if told.is_err() {
            // Whatever is there is replaced at the next try.
            self.told = None;
        }
        told?;
        self.told = Some(wanted.clone());
        Ok(())
    }

    /// How many connections began to each counted destination since it is counted.
    pub(crate) fn counts(&mut self) -> Result<BTreeMap<ElementKey, u64>, NetworkError> {
        let mut counts = BTreeMap::new();
        for collection in [Collection::Services, Collection::Ports] {
            let (name, set) = (self.name.clone(), set_name(Care::Count, collection));
            let read = self.socket.dump(
                Kind::GetElement,
                |request| {
                    request.text(1, &name);
                    request.text(2, set);
                },
                |message| {
                    let list = find(message, 3).unwrap_or_default();
                    let elements = attributes(list).filter_map(|(_, element)| count_of(element));
                    counts.extend(elements.map(|(key, count)| ((collection, key), count)));
                },
            );
            read.map_err(|source| self.error("count connections", source))?;
        }
        Ok(counts)
    }

    /// Deletes the table, if it is there.
    pub(crate) fn delete(&mut self) -> Result<(), NetworkError> {
        let mut commands = Commands::new(&self.name);
        commands.delete_table();
        let batch = commands.finish();
        match self.commit(&batch) {
            Err(error) if error.errno() != Some(libc::ENOENT) => return Err(error),
            _ => self.told = None,
        }
        Ok(())
    }

    fn commit(&mut self, batch: &[u8]) -> Result<(), NetworkError> {
        self.socket.commit(batch).map_err(|source| self.error("change who sleeps", source))
    }

    fn error(&self, what: &'static str, source: io::Error) -> NetworkError {
        NetworkError::Filter { what, table: self.name.clone(), source }
    }
}

fn laid(table: &str, wanted: &BTreeSet<Entry>, queue: &Expression) -> Vec<u8> {
    let mut commands = Commands::new(table);
    commands.add_table();
    commands.delete_table();
    commands.add_table();
    for collection in [Collection::Services, Collection::Ports] {
        commands.add_counted_set(set_name(Care::Count, collection), key_of(collection));
        commands.add_set(set_name(Care::Hold, collection), key_of(collection), false);
    }
    for (chain, number) in HOOKS {
        commands.add_base_chain(chain, Hook { kind: "filter", number, priority: BEFORE_SERVICES });
        for care in [Care::Count, Care::Hold] {
            let end = || if care == Care::Hold { vec![queue.clone()] } else { Vec::new() };
            let known = in_set(set_name(care, Collection::Services));
            commands.add_rule(chain, &[of_new_connections(), load_address_key(), vec![known], end()].concat());
            let known = in_set(set_name(care, Collection::Ports));
            let to_port = [of_new_connections(), to_this_host(), load_port_key(), vec![known], end()];
            commands.add_rule(chain, &to_port.concat());
        }
    }
    for (care, (collection, key)) in wanted {
        commands.add_elements(set_name(*care, *collection), &[(key, None)]);
    }
    commands.finish()
}

fn changed(table: &str, told: &BTreeSet<Entry>, wanted: &BTreeSet<Entry>) -> Vec<u8> {
    let mut commands = Commands::new(table);
    for (care, (collection, key)) in told.difference(wanted) {
        commands.delete_elements(set_name(*care, *collection), &[key]);
    }
    for (care, (collection, key)) in wanted.difference(told) {
        commands.add_elements(set_name(*care, *collection), &[(key, None)]);
    }
    // An empty batch would not be answered.
    commands.add_table();
    commands.finish()
}

/// The key of an element and the packets that its counter saw.
fn count_of(element: &[u8]) -> Option<(Vec<u8>, u64)> {
    let key = find(find(element, 1)?, 1)?;
    let packets = find(find(find(element, 7)?, 2)?, 2)?;
    Some((key.to_vec(), u64::from_be_bytes(packets.try_into().ok()?)))
}
