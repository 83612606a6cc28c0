//! One instance's table in the kernel: laying it, learning what an earlier process left in it, changing one service's
//! part in one atomic step.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::Ipv4Addr;

use super::attribute::{attributes, find, find_text};
use super::base::{self, Collection};
use super::batch::Kind;
use super::commands::Commands;
use super::plan::{Plan, Target, chain_of, change, service_of};
use super::socket::FilterSocket;
use crate::NetworkError;
use crate::config::NetworkConfig;

/// What each service has in an adopted table.
pub(crate) type Adopted = HashMap<String, Plan>;

/// The table and the socket to it.
pub(crate) struct Table {
    socket: FilterSocket,
    name: String,
    config: NetworkConfig,
}

impl Table {
    /// A handle; changes nothing yet.
    pub(crate) fn new(config: &NetworkConfig) -> Result<Self, NetworkError> {
        let socket = FilterSocket::open().map_err(|error| match error.raw_os_error() {
            Some(libc::EPROTONOSUPPORT) => NetworkError::NoFilter,
            _ => NetworkError::kernel("open a netfilter socket")(error),
        })?;
        Ok(Self { socket, name: config.table(), config: config.clone() })
    }

    /// Lays the fixed part and learns what services have in the table. Connections notice nothing.
    ///
    /// A table whose fixed part has another shape (made by another version) is replaced in one step.
    pub(crate) fn open(&mut self) -> Result<Adopted, NetworkError> {
        match self.lay(false) {
            Err(error) if error.errno() == Some(libc::EEXIST) => {
                tracing::warn!(table = self.name, "the table has another shape: replacing it");
                self.lay(true)?;
            }
            other => other?,
        }
        self.adopt().map_err(|source| self.error("read the services", source))
    }

    /// Lays the fixed part; with `anew`, throws away the old table in the same step.
    pub(crate) fn lay(&mut self, anew: bool) -> Result<(), NetworkError> {
        let mut commands = Commands::new(&self.name);
        if anew {
            commands.add_table();
            commands.delete_table();
        }
        base::lay(&mut commands, &self.config);
        // What refuses has no owner to be learned from it; its services say so again.
        commands.flush_set(Collection::DeadServices.name());
        commands.flush_set(Collection::DeadPorts.name());
        let batch = commands.finish();
        self.commit("lay the rules", &batch)
    }

    /// Changes the parts of some services, all in one step. Nothing to change costs nothing.
    pub(crate) fn change(&mut self, changes: &[(&Plan, &Plan)]) -> Result<(), NetworkError> {
        let mut commands = Commands::new(&self.name);
        for (old, new) in changes {
            change(&mut commands, old, new);
        }
        if commands.is_empty() {
            return Ok(());
        }
        let batch = commands.finish();
        self.commit("change a service", &batch)
    }

    /// Makes the collection of hairpin pairs that of exactly these pods.
    pub(crate) fn set_hairpins(&mut self, pods: &[Ipv4Addr]) -> Result<(), NetworkError> {
        self.hairpins(|commands, set| {
            commands.flush_set(set);
            add_pairs(commands, set, pods);
        })
    }

    /// Adds pods to the collection of hairpin pairs.
    pub(crate) fn add_hairpins(&mut self, pods: &[Ipv4Addr]) -> Result<(), NetworkError> {
        self.hairpins(|commands, set| add_pairs(commands, set, pods))
    }

    /// Takes pods, which must be in it, out of the collection of hairpin pairs.
    pub(crate) fn remove_hairpins(&mut self, pods: &[Ipv4Addr]) -> Result<(), NetworkError> {
        let keys: Vec<Vec<u8>> = pods.iter().map(|pod| pair(*pod)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        self.hairpins(|commands, set| commands.delete_elements(set, &keys))
    }

    fn hairpins(&mut self, build: impl FnOnce(&mut Commands<'_>, &'static str)) -> Result<(), NetworkError> {
        let mut commands = Commands::new(&self.name);
        build(&mut commands, Collection::Hairpins.name());
        if commands.is_empty() {
            return Ok(());
        }
        let batch = commands.finish();
        self.commit("note a pod", &batch)
    }

    /// Whether the table is there.
    pub(crate) fn exists(&mut self) -> Result<bool, NetworkError> {
        let (mut found, name) = (false, self.name.clone());
        let listed = self.socket.dump(Kind::GetTable, |_| {}, |table| found |= find_text(table, 1) == Some(&name));
        listed.map(|()| found).map_err(|source| self.error("look for the rules", source))
    }

    /// Deletes the table and all in it, if it is there.
    pub(crate) fn delete(&mut self) -> Result<(), NetworkError> {
        let mut commands = Commands::new(&self.name);
        commands.delete_table();
        let batch = commands.finish();
        match self.commit("delete the table", &batch) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn commit(&mut self, what: &'static str, batch: &[u8]) -> Result<(), NetworkError> {
        self.socket.commit(batch).map_err(|source| self.error(what, source))
    }

    fn error(&self, what: &'static str, source: io::Error) -> NetworkError {
        NetworkError::Filter { what, table: self.name.clone(), source }
    }

    fn adopt(&mut self) -> io::Result<Adopted> {
        let mut adopted = Adopted::new();
        let name = self.name.clone();
        self.socket.dump(
            Kind::GetChain,
            |_| {},
            |chain| {
                let ours = find_text(chain, 1) == Some(&name);
                if let Some(name) = find_text(chain, 3).filter(|_| ours)
                    && let Some(service) = service_of(name)
                {
                    let plan = adopted.entry(service.to_owned()).or_default();
                    plan.chains.insert(name.to_owned(), Target::Unknown);
                }
            },
        )?;
        self.socket.dump(
            Kind::GetSet,
            |_| {},
            |set| {
                let ours = find_text(set, 1) == Some(&name);
                if let Some(map) = find_text(set, 2).filter(|_| ours)
                    && let Some(service) = chain_of(map).and_then(service_of)
                {
                    adopted.entry(service.to_owned()).or_default().affinities.insert(map.to_owned());
                }
            },
        )?;
        for collection in [Collection::Services, Collection::Ports] {
            for (key, chain) in self.elements(collection)? {
                if let Some(service) = service_of(&chain) {
                    let plan = adopted.entry(service.to_owned()).or_default();
                    plan.elements.insert((collection, key), Some(chain));
                }
            }
        }
        Ok(adopted)
    }

    fn elements(&mut self, collection: Collection) -> io::Result<BTreeMap<Vec<u8>, String>> {
        let mut elements = BTreeMap::new();
        let name = self.name.clone();
        self.socket.dump(
            Kind::GetElement,
            |request| {
                request.text(1, &name);
                request.text(2, collection.name());
            },
            |message| {
                let list = find(message, 3).unwrap_or_default();
                elements.extend(attributes(list).filter_map(|(_, element)| element_of(element)));
            },
        )?;
        Ok(elements)
    }
}

fn element_of(element: &[u8]) -> Option<(Vec<u8>, String)> {
    let key = find(find(element, 1)?, 1)?;
    let chain = find_text(find(find(element, 2)?, 2)?, 2)?;
    Some((key.to_vec(), chain.to_owned()))
}

fn pair(pod: Ipv4Addr) -> Vec<u8> {
    [pod.octets(), pod.octets()].concat()
}

fn add_pairs(commands: &mut Commands<'_>, set: &str, pods: &[Ipv4Addr]) {
    let keys: Vec<Vec<u8>> = pods.iter().map(|pod| pair(*pod)).collect();
    let elements: Vec<(&[u8], Option<&str>)> = keys.iter().map(|key| (key.as_slice(), None)).collect();
    commands.add_elements(set, &elements);
}
