//! What is worked out from the objects of some tables and kept true by their changes.
//!
//! Brought up to date by whoever reads it: a reader that finds nothing new pays for one look at each table. So it is never
//! behind the cache, needs no task, and works nothing out for nobody. It does not know what the objects mean.

use std::sync::{Arc, PoisonError, RwLock};

use crate::cache::{Cache, Table};
use crate::object::Object;

/// Something that follows from objects one by one.
pub(crate) trait Fold: Default {
    /// Takes in an object of the table with that number, in place of what it was before.
    fn put(&mut self, table: usize, object: &Object);
    /// Forgets an object.
    fn remove(&mut self, table: usize, key: &str);
}

/// A fold over tables.
pub(crate) struct Derived<F> {
    tables: Vec<Arc<Table>>,
    state: RwLock<State<F>>,
}

struct State<F> {
    /// The number of the first change not taken in, for each table; empty before the first look.
    next: Vec<u64>,
    fold: F,
}

impl<F: Fold> Derived<F> {
    pub(crate) fn new(tables: Vec<Arc<Table>>) -> Self {
        Self { tables, state: RwLock::new(State { next: Vec::new(), fold: F::default() }) }
    }

    /// Reads the fold as it follows from what the cache holds at this moment.
    pub(crate) fn read<R>(&self, cache: &Cache, look: impl FnOnce(&F) -> R) -> R {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if self.is_current(&state) {
            return look(&state.fold);
        }
        drop(state);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.next.is_empty() || self.follow(&mut state).is_none() {
            self.rebuild(cache, &mut state);
        }
        look(&state.fold)
    }

    fn is_current(&self, state: &State<F>) -> bool {
        state.next.len() == self.tables.len()
            && self.tables.iter().zip(&state.next).all(|(table, next)| table.end() == *next)
    }

    /// Takes in what has changed; none when changes have been lost.
    fn follow(&self, state: &mut State<F>) -> Option<()> {
        for (number, table) in self.tables.iter().enumerate() {
            let (changes, _) = table.read_changes(state.next[number], usize::MAX, 0)?;
            for change in &changes {
                if change.deleted {
                    state.fold.remove(number, &change.object.key);
                } else {
                    state.fold.put(number, &change.object);
                }
            }
            state.next[number] += changes.len() as u64;
        }
        Some(())
    }

    fn rebuild(&self, cache: &Cache, state: &mut State<F>) {
        state.fold = F::default();
        state.next.clear();
        for (number, table) in self.tables.iter().enumerate() {
            let snapshot = cache.snapshot(table, None, None);
            for object in &snapshot.objects {
                state.fold.put(number, object);
            }
            state.next.push(snapshot.next);
        }
    }
}
