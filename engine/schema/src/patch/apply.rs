//! Server-side apply: a configuration is merged over the live object, its manager comes to own just what it names.
//!
//! Fields that the manager named before, names no more and nobody else owns are removed. Fields with other values than
//! another manager's are conflicts, unless forced. All entries are taken to speak of the schema's version.

use serde_json::{Map, Value};

use super::bounds::{check_depth, describe};
use super::compare::{Difference, compare};
use super::error::{Conflict, PatchError};
use super::fieldset::FieldSet;
use super::managed::{Entry, Managed, Operation, managed_fields, strip_managed, strip_server_fields, without_unowned};
use super::path::Path;
use super::remove::remove;
use super::typed_merge::{drop_nulls, merge};
use super::walk::{check, fields_of, with_parents};
use crate::tree::Schema;

/// How many bytes of paths the conflicts of one apply may name: below one long key they would multiply the object.
const CONFLICTS_MAX: usize = 1 << 20;
/// Who gets what an object had before anybody's ownership was tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Who writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// The `fieldManager` of the request.
    pub name: String,
    /// The version in which the object is written, such as `apps/v1`.
    pub api_version: String,
    /// The subresource written through, such as `status`.
    pub subresource: Option<String>,
}

/// Applies a configuration to the live object, or makes an object of it where there is none.
///
/// The answer carries its `managedFields`; it equals `live` when there is nothing to write. What the server keeps in
/// `metadata` (uid, resourceVersion and the like) is taken from `live`, so preconditions on it are the caller's to
/// check. A `null` in the configuration owns its field and leaves it out. `now` is an RFC 3339 time in UTC with seconds.
pub fn apply(
    schema: &Schema,
    live: Option<&Value>,
    applied: &Value,
    manager: &Manager,
    force: bool,
    now: &str,
) -> Result<Value, PatchError> {
    let config = configuration(schema, applied)?;
    let mut bare = live.cloned().unwrap_or_else(|| Value::Object(Map::new()));
    check_depth(&bare)?;
    let mut owners = Managed::of(&bare).unwrap_or_default();
    strip_managed(&mut bare);
    if live.is_some() && owners.entries.is_empty() {
        owners.entries.extend(entry_of_all(schema, &bare, manager, now));
    }
    let mut entry = Entry::new(manager, Operation::Apply);
    let last = owners.take(&entry);
    let named = fields_of(Some(schema), &config);
    let merged = merge(Some(schema), &bare, &config);
    let owned = owners.all().union(&named);
    let mut object = match last.as_ref().and_then(|last| prune(schema, &merged, &last.set, &owned)) {
        // A `null` takes out what giving up has emptied just now.
        Some(pruned) => merge(Some(schema), &pruned, &config),
        None => merged,
    };
    let difference = compare(Some(schema), Some(&bare), Some(&object));
    let conflicts = conflicts(&owners, &difference);
    if !force && !conflicts.is_empty() {
        return Err(PatchError::Conflicts(conflicts));
    }
    owners.take_away(&difference.taken().union(&difference.removed));
    drop_nulls(Some(schema), &mut object);
    entry.set = without_unowned(named);
    let unchanged = object == bare && last.as_ref().map_or(entry.set.is_empty(), |last| last.set == entry.set);
    if let (Some(live), true) = (live, unchanged) {
        return Ok(live.clone());
    }
    entry.time = Some(now.to_owned());
    owners.entries.push(entry);
    owners.write(&mut object);
    Ok(object)
}

/// The applied configuration, checked and without what is not the client's to say.
fn configuration(schema: &Schema, applied: &Value) -> Result<Value, PatchError> {
    if !applied.is_object() {
        return Err(PatchError::NotAnObject { found: describe(applied) });
    }
    if managed_fields(applied).is_some_and(|fields| !fields.is_null()) {
        return Err(PatchError::ManagedFieldsGiven);
    }
    check_depth(applied)?;
    check(Some(schema), applied, &Path::ROOT)?;
    let mut config = applied.clone();
    strip_server_fields(&mut config);
    Ok(config)
}

/// An entry that owns all of an object whose writers were never tracked.
fn entry_of_all(schema: &Schema, object: &Value, manager: &Manager, now: &str) -> Option<Entry> {
    let empty = Value::Object(Map::new());
    let difference = compare(Some(schema), Some(&empty), Some(object));
    let before =
        Manager { name: BEFORE_FIRST_APPLY.to_owned(), api_version: manager.api_version.clone(), subresource: None };
    let mut entry = Entry::new(&before, Operation::Update);
    entry.set = without_unowned(difference.taken());
    entry.time = Some(now.to_owned());
    (!entry.set.is_empty()).then_some(entry)
}

/// Removes what the manager named last, names no more and nobody owns now; `None` where there is nothing of the kind.
///
/// A field that holds something owned stays, and so do fields in it that nobody owns; one that holds nothing owned any
/// more goes with all of it.
fn prune(schema: &Schema, merged: &Value, last: &FieldSet, owned: &FieldSet) -> Option<Value> {
    if last.difference(owned).is_empty() {
        return None;
    }
    let schema = Some(schema);
    let last = with_parents(schema, last);
    let owned = with_parents(schema, owned);
    let present = with_parents(schema, &fields_of(schema, merged));
    let after = |gone: &FieldSet| {
        let mut rest = merged.clone();
        remove(schema, &mut rest, gone);
        rest
    };
    let kept = with_parents(schema, &fields_of(schema, &after(&last)));
    let disowned = present.difference(&kept.union(&owned));
    let kept = with_parents(schema, &fields_of(schema, &after(&disowned)));
    Some(after(&present.difference(&kept).intersection(&last)))
}

fn conflicts(owners: &Managed, difference: &Difference) -> Vec<Conflict> {
    let taken = difference.taken();
    let mut entries: Vec<&Entry> = owners.entries.iter().collect();
    entries.sort_by(|a, b| a.manager.cmp(&b.manager));
    let of = |entry: &&Entry| {
        let update = entry.operation == Operation::Update;
        let conflict = Conflict {
            manager: entry.manager.clone(),
            field: String::new(),
            subresource: entry.subresource.clone(),
            update: update.then(|| (entry.api_version.clone(), entry.time.clone())),
        };
        let fields = entry.set.intersection(&taken).paths_within(CONFLICTS_MAX / owners.entries.len().max(1));
        fields.into_iter().map(|field| Conflict { field, ..conflict.clone() }).collect::<Vec<_>>()
    };
    entries.iter().flat_map(of).collect()
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
