//! What is programmed for every service: which changes the kernel needs, which ports of the host are held, and to which
//! pods connections may still be sent.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;

use crate::NetworkError;
use crate::config::NetworkConfig;
use crate::nft::{ElementKey, Plan, Table, forget_udp};
use crate::ports::{PortConflict, Reservations};
use crate::rules::ServiceRules;

/// The pod addresses that services send new connections to.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    counts: HashMap<Ipv4Addr, usize>,
    /// Services of an earlier process whose backends are not known yet.
    unknown: usize,
}

impl Backends {
    /// Whether no service sends new connections to that address.
    pub(crate) fn are_without(&self, address: Ipv4Addr) -> bool {
        self.unknown == 0 && !self.counts.contains_key(&address)
    }

    fn add(&mut self, plan: &Plan) {
        match plan.addresses() {
            None => self.unknown += 1,
            Some(addresses) => addresses.into_iter().for_each(|address| *self.counts.entry(address).or_default() += 1),
        }
    }

    fn remove(&mut self, plan: &Plan) {
        let Some(addresses) = plan.addresses() else {
            self.unknown = self.unknown.saturating_sub(1);
            return;
        };
        for address in addresses {
            let left = self.counts.get(&address).map_or(0, |count| count - 1);
            if left == 0 {
                self.counts.remove(&address);
            } else {
                self.counts.insert(address, left);
            }
        }
    }
}

/// The services of one instance.
pub(crate) struct Services {
    table: Table,
    config: NetworkConfig,
    programmed: HashMap<String, Plan>,
    owners: HashMap<ElementKey, String>,
    ports: Reservations,
    pods: BTreeSet<Ipv4Addr>,
    /// The same as in `programmed`, by address.
    backends: tokio::sync::watch::Sender<Backends>,
}

impl Services {
    /// Lays the table and takes up what an earlier process programmed.
    pub(crate) fn open(
        mut table: Table,
        config: &NetworkConfig,
        pods: BTreeSet<Ipv4Addr>,
        backends: tokio::sync::watch::Sender<Backends>,
    ) -> Result<Self, NetworkError> {
        let programmed = table.open()?;
        table.set_hairpins(&pods.iter().copied().collect::<Vec<_>>())?;
        let owners = programmed
            .iter()
            .flat_map(|(service, plan)| plan.elements.keys().map(|key| (key.clone(), service.clone())))
            .collect();
        backends.send_modify(|backends| programmed.values().for_each(|plan| backends.add(plan)));
        let ports = Reservations::default();
        Ok(Self { table, config: config.clone(), programmed, owners, ports, pods, backends })
    }

    /// Programs one service in one atomic step, without the ports of the host that it cannot have; returns those.
    pub(crate) fn set(&mut self, rules: ServiceRules) -> Result<Vec<PortConflict>, NetworkError> {
        let wanted = rules.host_ports();
        let conflicts = self.ports.reserve(&rules.key, &wanted);
        let refused = conflicts.iter().map(|conflict| (conflict.protocol, conflict.port)).collect();
        let key = rules.key.clone();
        let rules = rules.without_host_ports(&refused).toward(&self.config);
        let plan = Plan::of(&rules, &self.config);
        self.replace(&key, plan)?;
        self.ports.keep(&key, &wanted);
        Ok(conflicts)
    }

    /// Removes one service; nothing happens when it is not there.
    pub(crate) fn remove(&mut self, key: &str) -> Result<(), NetworkError> {
        self.replace(key, Plan::default())?;
        self.ports.keep(key, &BTreeSet::new());
        Ok(())
    }

    /// Removes every service that is not among `keys`.
    pub(crate) fn retain<S: std::hash::BuildHasher>(&mut self, keys: &HashSet<String, S>) -> Result<(), NetworkError> {
        let stale: Vec<String> = self.programmed.keys().filter(|key| !keys.contains(*key)).cloned().collect();
        stale.iter().try_for_each(|key| self.remove(key))
    }

    /// Whether a service has backends in the kernel.
    pub(crate) fn has_backends(&self, key: &str) -> bool {
        self.programmed.get(key).is_some_and(|plan| !plan.chains.is_empty())
    }

    /// Notes a pod, so that it can reach itself through a service.
    pub(crate) fn add_pod(&mut self, address: Ipv4Addr) -> Result<(), NetworkError> {
        if self.pods.insert(address) {
            self.mending(|services| services.table.add_hairpins(&[address]))?;
        }
        Ok(())
    }

    /// Forgets pods.
    pub(crate) fn remove_pods(&mut self, addresses: &[Ipv4Addr]) -> Result<(), NetworkError> {
        let known: Vec<Ipv4Addr> = addresses.iter().copied().filter(|address| self.pods.contains(address)).collect();
        self.unless_gone(|services| services.table.remove_hairpins(&known))?;
        self.pods.retain(|address| !known.contains(address));
        Ok(())
    }

    fn replace(&mut self, key: &str, plan: Plan) -> Result<(), NetworkError> {
        let robbed = self.robbed(key, &plan);
        let empty = Plan::default();
        let work = |services: &mut Self| {
            let old = services.programmed.get(key).unwrap_or(&empty);
            let mut changes: Vec<(&Plan, &Plan)> =
                robbed.iter().filter_map(|(other, left)| Some((services.programmed.get(other)?, left))).collect();
            changes.push((old, &plan));
            services.table.change(&changes)
        };
        if plan == empty { self.unless_gone(work) } else { self.mending(work) }?;
        for (other, left) in robbed {
            self.note(&other, left);
        }
        self.forget_datagrams(key, &plan);
        self.note(key, plan);
        Ok(())
    }

    /// Has the kernel forget who was led to UDP backends that are gone: they would be led there as long as they send.
    fn forget_datagrams(&self, key: &str, plan: &Plan) {
        let mut gone = self.programmed.get(key).map(Plan::datagram_backends).unwrap_or_default();
        let stays = plan.datagram_backends();
        gone.retain(|backend| !stays.contains(backend));
        if gone.is_empty() {
            return;
        }
        match forget_udp(&gone) {
            Ok(0) => {}
            Ok(forgotten) => tracing::debug!(service = key, forgotten, "clients of UDP endpoints that are gone"),
            Err(error) => tracing::warn!(service = key, %error, "UDP clients may be led to endpoints that are gone"),
        }
    }

    /// What other services keep when `plan` takes elements from them. An address or port that changes hands belongs to
    /// whoever asks last: the news that its old owner is gone may come later than its new owner.
    fn robbed(&self, key: &str, plan: &Plan) -> HashMap<String, Plan> {
        let mut robbed: HashMap<String, Plan> = HashMap::new();
        for element in plan.elements.keys() {
            if let Some(owner) = self.owners.get(element).filter(|owner| *owner != key)
                && let Some(theirs) = self.programmed.get(owner)
            {
                robbed.entry(owner.clone()).or_insert_with(|| theirs.clone()).elements.remove(element);
            }
        }
        robbed
    }

    fn note(&mut self, key: &str, plan: Plan) {
        let old = self.programmed.remove(key).unwrap_or_default();
        for element in old.elements.keys() {
            if self.owners.get(element).is_some_and(|owner| owner == key) {
                self.owners.remove(element);
            }
        }
        self.owners.extend(plan.elements.keys().map(|element| (element.clone(), key.to_owned())));
        // Backends change one after the other under one lock: a reader never sees a moment in between.
        self.backends.send_modify(|backends| {
            backends.remove(&old);
            backends.add(&plan);
        });
        if plan != Plan::default() {
            self.programmed.insert(key.to_owned(), plan);
        }
    }

    /// Takes something out of the table; a table that is gone has nothing in it, and is not laid again for that (the
    /// instance may just have been torn down).
    fn unless_gone(&mut self, work: impl Fn(&mut Self) -> Result<(), NetworkError>) -> Result<(), NetworkError> {
        if self.table.exists()? { self.mending(work) } else { Ok(()) }
    }

    /// Does `work`; when somebody flushed the table away, lays it again with everything known in it and tries once more.
    fn mending(&mut self, work: impl Fn(&mut Self) -> Result<(), NetworkError>) -> Result<(), NetworkError> {
        match work(self) {
            Err(error) if error.errno() == Some(libc::ENOENT) => {
                tracing::warn!(table = self.config.table(), "the table was changed by somebody else: laying it again");
                self.lay_again()?;
                work(self)
            }
            other => other,
        }
    }

    fn lay_again(&mut self) -> Result<(), NetworkError> {
        self.table.lay(true)?;
        let lost: Vec<String> =
            self.programmed.iter().filter(|(_, plan)| plan.addresses().is_none()).map(|(key, _)| key.clone()).collect();
        for key in lost {
            self.note(&key, Plan::default());
        }
        let pods: Vec<Ipv4Addr> = self.pods.iter().copied().collect();
        self.table.set_hairpins(&pods)?;
        let empty = Plan::default();
        self.programmed.values().try_for_each(|plan| self.table.change(&[(&empty, plan)]))
    }
}
