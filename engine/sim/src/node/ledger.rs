//! What all machines know together, as nothing real does: how often pods of each owner were started, and who runs under which
//! name, so that two at once are found.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::machine::Key;

/// Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    attempts: HashMap<String, u32>,
    /// Which machines run a pod of a name that only one may have, and until when at the latest as far as they know.
    holders: BTreeMap<Key, BTreeMap<u8, Instant>>,
    doubles: Vec<String>,
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more start of a pod of an owner. Returns how many there were before.
    pub(super) fn attempt(&self, owner: String) -> u32 {
        let mut books = self.books();
        let count = books.attempts.entry(owner).or_default();
        *count += 1;
        *count - 1
    }

    /// Writes down under which names a machine runs something at this moment, and until when at the latest.
    pub(super) fn hold(&self, machine: u8, names: BTreeMap<Key, Instant>) {
        let now = Instant::now();
        let mut books = self.books();
        let Books { holders, doubles, .. } = &mut *books;
        holders.retain(|name, machines| {
            if !names.contains_key(name) {
                machines.remove(&machine);
            }
            !machines.is_empty()
        });
        for (name, until) in names {
            let machines = holders.entry(name.clone()).or_default();
            let new = machines.insert(machine, until).is_none_or(|before| before <= now);
            let mut others = machines.iter().filter(|(other, until)| **other != machine && **until > now);
            if new && let Some((other, _)) = others.next() {
                let (namespace, pod) = &name;
                doubles.push(format!("pod {namespace}/{pod} runs on node-{machine} and still on node-{other}"));
            }
        }
    }

    /// The names that two machines ran at once; forgets them.
    pub(crate) fn doubles(&self) -> Vec<String> {
        std::mem::take(&mut self.books().doubles)
    }
}
