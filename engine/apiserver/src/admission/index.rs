//! Webhooks and policies as the chain uses them, read again only when one of their objects changed.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use shipway_store::Revision;

use super::policy::{Binding, Policy};
use super::webhooks::Hook;
use crate::ApiServer;
use crate::cache::{Cache, Table};
use crate::object::Object;

/// All that is configured, with the tables it comes from.
pub(super) struct Index {
    mutating: Arc<Table>,
    validating: Arc<Table>,
    policies: Arc<Table>,
    bindings: Arc<Table>,
    current: RwLock<Arc<Hooks>>,
}

/// What is configured at one moment.
#[derive(Default)]
pub(super) struct Hooks {
    /// How many changes the tables had seen.
    seen: [u64; 4],
    /// In the order in which they are called.
    pub(super) mutating: Vec<Arc<Hook>>,
    pub(super) validating: Vec<Arc<Hook>>,
    pub(super) policies: Vec<(Arc<Policy>, Vec<Binding>)>,
    /// Policies by key and revision, so that one is compiled once.
    compiled: HashMap<(Box<str>, Revision), Arc<Policy>>,
}

impl Index {
    pub(super) fn new(cache: &Cache) -> Self {
        let table = |plural: &str| cache.named("admissionregistration.k8s.io", plural);
        Self {
            mutating: table("mutatingwebhookconfigurations"),
            validating: table("validatingwebhookconfigurations"),
            policies: table("validatingadmissionpolicies"),
            bindings: table("validatingadmissionpolicybindings"),
            // The tables may hold objects from before this start: nothing has been seen yet.
            current: RwLock::new(Arc::new(Hooks { seen: [u64::MAX; 4], ..Hooks::default() })),
        }
    }

    /// What is configured now.
    pub(super) fn current(&self, server: &ApiServer) -> Arc<Hooks> {
        let seen = [&self.mutating, &self.validating, &self.policies, &self.bindings].map(|table| table.end());
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if current.seen == seen {
            return current;
        }
        let next = Arc::new(self.read(server.cache(), seen, &current));
        let mut held = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *held = next.clone();
        next
    }

    fn read(&self, cache: &Cache, seen: [u64; 4], before: &Hooks) -> Hooks {
        let all = |table: &Table| cache.snapshot(table, None, None).objects;
        let hooks =
            |table: &Table| all(table).iter().flat_map(|object| Hook::all_of(&object.value())).map(Arc::new).collect();
        let bindings: Vec<Binding> = all(&self.bindings).iter().map(|object| Binding::parse(&object.value())).collect();
        let mut compiled = HashMap::new();
        let mut policies = Vec::new();
        for object in all(&self.policies) {
            let policy = policy(&object, before);
            compiled.insert((object.key.clone(), object.revision), policy.clone());
            let own: Vec<Binding> = bindings.iter().filter(|one| one.policy == object.name()).cloned().collect();
            policies.push((policy, own));
        }
        let (mutating, validating) = (hooks(&self.mutating), hooks(&self.validating));
        Hooks { seen, mutating, validating, policies, compiled }
    }
}

fn policy(object: &Object, before: &Hooks) -> Arc<Policy> {
    let known = before.compiled.get(&(object.key.clone(), object.revision)).cloned();
    known.unwrap_or_else(|| Arc::new(Policy::parse(&object.value())))
}
