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
    /// Policies that refuse, and those that change, each with their bindings.
    policies: [Arc<Table>; 2],
    bindings: [Arc<Table>; 2],
    current: RwLock<Arc<Hooks>>,
}

/// Policies with their bindings.
pub(super) type Bound = Vec<(Arc<Policy>, Vec<Binding>)>;

/// What is configured at one moment.
#[derive(Default)]
pub(super) struct Hooks {
    /// How many changes the tables had seen.
    seen: [u64; 6],
    /// In the order in which they are called.
    pub(super) mutating: Vec<Arc<Hook>>,
    pub(super) validating: Vec<Arc<Hook>>,
    pub(super) policies: Bound,
    /// Those that change objects, in the order of their names.
    pub(super) mutating_policies: Bound,
    /// Policies by key and revision, so that one is compiled once.
    compiled: HashMap<(Box<str>, Revision), Arc<Policy>>,
}

impl Index {
    pub(super) fn new(cache: &Cache) -> Self {
        let table = |plural: &str| cache.named(super::GROUP, plural);
        Self {
            mutating: table("mutatingwebhookconfigurations"),
            validating: table("validatingwebhookconfigurations"),
            policies: [table("validatingadmissionpolicies"), table("mutatingadmissionpolicies")],
            bindings: [table("validatingadmissionpolicybindings"), table("mutatingadmissionpolicybindings")],
            // The tables may hold objects from before this start: nothing has been seen yet.
            current: RwLock::new(Arc::new(Hooks { seen: [u64::MAX; 6], ..Hooks::default() })),
        }
    }

    /// What is configured now.
    pub(super) fn current(&self, server: &ApiServer) -> Arc<Hooks> {
        let [judging, changing] = &self.policies;
        let [judges, changes] = &self.bindings;
        let seen = [&self.mutating, &self.validating, judging, changing, judges, changes].map(|table| table.end());
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if current.seen == seen {
            return current;
        }
        let next = Arc::new(self.read(server.cache(), seen, &current));
        let mut held = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *held = next.clone();
        next
    }

    fn read(&self, cache: &Cache, seen: [u64; 6], before: &Hooks) -> Hooks {
        let all = |table: &Table| cache.snapshot(table, None, None).objects;
        let hooks =
            |table: &Table| all(table).iter().flat_map(|object| Hook::all_of(&object.value())).map(Arc::new).collect();
        let mut compiled = HashMap::new();
        let [policies, mutating_policies] = [0, 1].map(|sort| {
            let objects = all(&self.bindings[sort]);
            let bindings: Vec<Binding> = objects.iter().map(|object| Binding::parse(&object.value())).collect();
            let one = |object: &Arc<Object>| {
                let policy = policy(object, before);
                compiled.insert(compiled_key(object), policy.clone());
                let own = bindings.iter().filter(|one| one.policy == object.name()).cloned().collect();
                (policy, own)
            };
            all(&self.policies[sort]).iter().map(one).collect()
        });
        let (mutating, validating) = (hooks(&self.mutating), hooks(&self.validating));
        Hooks { seen, mutating, validating, policies, mutating_policies, compiled }
    }
}

/// Revisions are the store's, so two objects never share one.
fn compiled_key(object: &Object) -> (Box<str>, Revision) {
    (object.key.clone(), object.revision)
}

fn policy(object: &Object, before: &Hooks) -> Arc<Policy> {
    let known = before.compiled.get(&compiled_key(object)).cloned();
    known.unwrap_or_else(|| Arc::new(Policy::parse(&object.value())))
}
