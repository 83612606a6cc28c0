//! Ownership after any write but apply: who changed a field owns it.

use serde_json::{Map, Value};

use super::apply::Manager;
use super::bounds::{MAX_DEPTH, fits};
use super::compare::compare;
use super::managed::{Entry, Managed, Operation, managed_fields, strip_managed, without_unowned};
use crate::tree::Schema;

/// Brings `metadata.managedFields` of `new` up to date for a create (`old` is `None`) or an update.
///
/// Changed and added fields go to the manager's entry for updates and are taken from all others; removed fields are
/// taken from everybody. A client may send entries of its own, which are taken over, but not through a subresource;
/// an empty list, or a list of one empty entry, ends the tracking of an object until the next apply. `now` is an
/// RFC 3339 time in UTC with seconds.
pub fn track_update(schema: &Schema, old: Option<&Value>, new: &mut Value, manager: &Manager, now: &str) {
    let mut owners = managers_before(old, new, manager.subresource.is_some());
    strip_managed(new);
    // An object that nobody tracks stays so, and one that could not be read back is not worth tracking.
    if (old.is_some() && owners.entries.is_empty()) || !fits(new, MAX_DEPTH) {
        return owners.write(new);
    }
    let empty = Value::Object(Map::new());
    let difference = compare(Some(schema), Some(old.unwrap_or(&empty)), Some(&*new));
    owners.take_away(&difference.taken().union(&difference.removed));
    let mut entry = Entry::new(manager, Operation::Update);
    entry.set = without_unowned(difference.taken());
    if !entry.set.is_empty() {
        entry.time = Some(now.to_owned());
        owners.add(entry);
        owners.cap();
    }
    owners.write(new);
}

/// The managers that the write starts from: the client's, where it sent some, else the live object's.
fn managers_before(old: Option<&Value>, new: &Value, subresource: bool) -> Managed {
    let live = || old.and_then(Managed::of).unwrap_or_default();
    if subresource {
        return live();
    }
    if managed_fields(new).is_some_and(is_reset) {
        return Managed::default();
    }
    Managed::of(new).filter(|sent| !sent.entries.is_empty()).unwrap_or_else(live)
}

fn is_reset(entries: &Value) -> bool {
    match entries.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(only)]) => only.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
