//! The cluster as the scheduler sees it, changed event by event and never built anew.
//!
//! Nodes have slots; what questions of pods have in common (a topology, the judgement of nodes, a count of pods) is
//! found when it is first asked for and kept up to date from then on. Nothing here knows the API or the time.

mod counts;
mod memo;
mod node;
mod standing;
mod topology;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use shipway_driver::matching::Labels;

pub(crate) use counts::{Counts, Pulls};
pub use node::NodeInfo;
pub(crate) use node::Slot;
pub(crate) use standing::Standing;
pub(crate) use topology::Domains;

use crate::wanted::{Counted, Key, Wanted, Who};
use counts::Tally;
use memo::Memo;

/// The labels of namespaces by name.
pub type Namespaces = HashMap<String, Labels>;

/// How many different questions of each kind are kept answered.
const KEPT: usize = 256;

/// All nodes and placed pods at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    slots: Vec<NodeInfo>,
    free: Vec<Slot>,
    by_name: HashMap<String, Slot>,
    /// The slots that have a node.
    present: BTreeSet<Slot>,
    pods: HashMap<Key, (Slot, Arc<Wanted>)>,
    nominated: HashMap<Key, Slot>,
    /// How many placed pods use a claim.
    claims: HashMap<Key, usize>,
    pulls: Pulls,
    namespaces: Namespaces,
    /// What services select, by namespace and name.
    services: BTreeMap<Key, Labels>,
    /// Nodes by the images that they have, with the size.
    images: HashMap<String, HashMap<Slot, i64>>,
    standings: Memo<(Arc<Wanted>, Arc<Vec<Standing>>)>,
    topologies: Memo<Arc<Domains>>,
    tallies: Memo<Tally>,
    /// Where the next search begins, so that all nodes get their turn where not all are looked at.
    pub(crate) next: Slot,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_name: HashMap::new(),
            present: BTreeSet::new(),
            pods: HashMap::new(),
            nominated: HashMap::new(),
            claims: HashMap::new(),
            pulls: Pulls::default(),
            namespaces: Namespaces::new(),
            services: BTreeMap::new(),
            images: HashMap::new(),
            standings: Memo::new(KEPT),
            topologies: Memo::new(KEPT),
            tallies: Memo::new(KEPT),
            next: 0,
        }
    }
}

impl Snapshot {
    /// Takes in a new or changed node.
    pub fn set_node(&mut self, node: &Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let slot = self.slot(&name);
        let before = self.slots[slot].node().cloned();
        self.note_images(slot, before.as_deref(), -1);
        self.note_images(slot, Some(node), 1);
        let same = before
            .as_ref()
            .is_some_and(|before| before.spec == node.spec && before.metadata.labels == node.metadata.labels);
        self.slots[slot].set(Some(node.clone()));
        self.present.insert(slot);
        if !same {
            self.judge(slot, Some(node));
        }
    }

    /// Forgets a node; the pods on it stay known.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.by_name.get(name).copied() else { return };
        let before = self.slots[slot].node().cloned();
        self.note_images(slot, before.as_deref(), -1);
        self.slots[slot].set(None);
        self.present.remove(&slot);
        self.judge(slot, None);
        self.free_if_nothing(slot);
    }

    /// Puts a pod on a node, from wherever it was.
    pub fn place(&mut self, pod: &Arc<Wanted>, node: &str) {
        self.remove(&pod.key());
        let slot = self.slot(node);
        self.slots[slot].place(pod.clone());
        self.count(slot, pod, 1);
        self.pods.insert(pod.key(), (slot, pod.clone()));
    }

    /// Takes a pod from its node.
    pub fn remove(&mut self, key: &Key) {
        let Some((slot, pod)) = self.pods.remove(key) else { return };
        self.slots[slot].take_away(&pod);
        self.count(slot, &pod, -1);
        self.free_if_nothing(slot);
    }

    /// The pod of that name and its node, if it has one.
    pub fn placed(&self, key: &Key) -> Option<(&str, &Arc<Wanted>)> {
        self.pods.get(key).map(|(slot, pod)| (self.slots[*slot].name(), pod))
    }

    /// Reserves room on a node for a pod that waits for others to leave it; nothing for no node.
    pub fn nominate(&mut self, pod: &Arc<Wanted>, node: Option<&str>) {
        let key = pod.key();
        if let Some(slot) = self.nominated.remove(&key) {
            self.slots[slot].nominees_mut().retain(|other| other.key() != key);
            self.free_if_nothing(slot);
        }
        if let Some(slot) = node.and_then(|node| self.by_name.get(node).copied()) {
            self.slots[slot].nominees_mut().push(pod.clone());
            self.nominated.insert(key, slot);
        }
    }

    /// The node that room is reserved on for the pod of that name.
    pub(crate) fn nominated_to(&self, key: &Key) -> Option<&str> {
        self.nominated.get(key).map(|slot| self.slots[*slot].name())
    }

    /// Takes in the labels of a namespace, or that it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        if self.namespaces.get(name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
        self.tallies.clear();
    }

    /// Takes in what a service selects, or that it is gone or selects nothing.
    pub fn set_service(&mut self, key: Key, selector: Option<Labels>) {
        match selector.filter(|selector| !selector.is_empty()) {
            Some(selector) => self.services.insert(key, selector),
            None => self.services.remove(&key),
        };
    }

    /// The pods that serve with this one: that all its services select.
    pub(crate) fn served(&self, pod: &Wanted) -> Option<Counted> {
        let own = pod.pod.metadata.labels.as_ref()?;
        let namespace = pod.namespace();
        let here = self.services.iter().filter(|((other, _), _)| other == namespace).map(|(_, selector)| selector);
        let sends = |selector: &&Labels| selector.iter().all(|(key, value)| own.get(key) == Some(value));
        let merged: Labels = here.filter(sends).flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        (!merged.is_empty()).then(|| Counted::Staying(Who::selected(namespace, merged)))
    }

    /// How many nodes there are.
    pub fn many_nodes(&self) -> usize {
        self.present.len()
    }

    pub(crate) fn node(&self, slot: Slot) -> &NodeInfo {
        &self.slots[slot]
    }

    pub(crate) fn slot_of(&self, name: &str) -> Option<Slot> {
        self.by_name.get(name).copied().filter(|slot| self.present.contains(slot))
    }

    /// The slots with a node, from where the last search ended.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = Slot> {
        self.present.range(self.next..).chain(self.present.range(..self.next)).copied()
    }

    /// The slots with a node.
    pub(crate) fn present(&self) -> impl Iterator<Item = Slot> {
        self.present.iter().copied()
    }

    /// The node of that name.
    pub(crate) fn node_named(&self, name: &str) -> Option<&Arc<Node>> {
        self.slots[*self.by_name.get(name)?].node()
    }

    /// Whether a placed pod uses the claim.
    pub(crate) fn is_claim_used(&self, claim: &Key) -> bool {
        self.claims.contains_key(claim)
    }

    pub(crate) fn pulls(&self) -> &Pulls {
        &self.pulls
    }

    pub(crate) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The nodes that have an image, and its size there.
    pub(crate) fn image(&self, name: &str) -> Option<&HashMap<Slot, i64>> {
        self.images.get(name)
    }

    /// How each node stands in the eyes of pods like this one.
    pub(crate) fn standings(&mut self, pod: &Arc<Wanted>) -> Arc<Vec<Standing>> {
        let slots = &self.slots;
        let judge = |info: &NodeInfo| info.node().map(|node| Standing::of(pod, node)).unwrap_or_default();
        let find = || (pod.clone(), Arc::new(slots.iter().map(judge).collect()));
        self.standings.get(&pod.place(), find).1.clone()
    }

    pub(crate) fn domains(&mut self, topology: &str) -> Arc<Domains> {
        let slots = &self.slots;
        let find = || {
            let mut domains = Domains::default();
            slots.iter().enumerate().for_each(|(slot, info)| {
                domains.set(slot, topology, info.node().map(|node| &**node));
            });
            Arc::new(domains)
        };
        self.topologies.get(topology, find).clone()
    }

    /// How many of such pods are on which node.
    pub(crate) fn tally(&mut self, counted: &Counted) -> Arc<Counts> {
        let (slots, known) = (&self.slots, &self.namespaces);
        let find = || {
            let mut tally = Tally { counted: counted.clone(), counts: Arc::default() };
            for (slot, info) in slots.iter().enumerate() {
                info.pods().iter().for_each(|pod| tally.change(slot, pod, 1, known));
            }
            tally
        };
        self.tallies.get(&counted.written(), find).counts.clone()
    }

    fn slot(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let info = NodeInfo::new(name);
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(info);
        } else {
            self.slots[slot] = info;
        }
        self.by_name.insert(name.to_owned(), slot);
        self.judge(slot, None);
        slot
    }

    fn free_if_nothing(&mut self, slot: Slot) {
        if self.slots[slot].is_nothing() && self.by_name.remove(self.slots[slot].name()).is_some() {
            self.free.push(slot);
        }
    }

    /// Brings up to date what is kept about a node by itself.
    fn judge(&mut self, slot: Slot, node: Option<&Node>) {
        for (_, (pod, standings)) in self.standings.each() {
            let standings = Arc::make_mut(standings);
            standings.resize(standings.len().max(slot + 1), Standing::default());
            standings[slot] = node.map(|node| Standing::of(pod, node)).unwrap_or_default();
        }
        let mut many = 0;
        for (topology, domains) in self.topologies.each() {
            let domains = Arc::make_mut(domains);
            domains.set(slot, topology, node);
            many = many.max(domains.many());
        }
        if many > 2 * self.slots.len() + KEPT {
            // Most of these domains are gone for good.
            self.topologies.clear();
        }
    }

    fn count(&mut self, slot: Slot, pod: &Wanted, by: i64) {
        self.pulls.change(slot, &pod.pulls, by);
        for claim in &pod.claims {
            let key = (pod.namespace().to_owned(), claim.clone());
            let users = self.claims.entry(key.clone()).or_insert(0);
            *users = users.saturating_add_signed(if by > 0 { 1 } else { -1 });
            if *users == 0 {
                self.claims.remove(&key);
            }
        }
        let known = &self.namespaces;
        self.tallies.each().for_each(|(_, tally)| tally.change(slot, pod, by, known));
    }

    fn note_images(&mut self, slot: Slot, node: Option<&Node>, by: i8) {
        let images = node.and_then(|node| node.status.as_ref()?.images.as_ref());
        for image in images.into_iter().flatten() {
            for name in image.names.iter().flatten() {
                if by > 0 {
                    self.images.entry(name.clone()).or_default().insert(slot, image.size_bytes.unwrap_or(0));
                } else if let Some(having) = self.images.get_mut(name) {
                    having.remove(&slot);
                    if having.is_empty() {
                        self.images.remove(name);
                    }
                }
            }
        }
    }
}
