//! `metadata.managedFields`: who owns which fields of an object, read, kept and written.

use std::cmp::Ordering;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::apply::Manager;
use super::fieldset::FieldSet;

/// How many managers that wrote other than by apply are kept apart; older ones are merged into one.
const MAX_UPDATERS: usize = 10;
/// The name under which older ones are merged.
const ANCIENT: &str = "ancient-changes";
/// Fields of `metadata` that the server keeps and nobody owns.
const SERVER_METADATA: [&str; 10] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
];

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Operation {
    /// By server-side apply.
    Apply,
    /// In any other way.
    Update,
}

/// The fields of one manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: Option<String>,
    pub(super) time: Option<String>,
    pub(super) set: FieldSet,
}

impl Entry {
    pub(super) fn new(manager: &Manager, operation: Operation) -> Self {
        Self {
            manager: manager.name.clone(),
            operation,
            api_version: manager.api_version.clone(),
            subresource: manager.subresource.clone().filter(|subresource| !subresource.is_empty()),
            time: None,
            set: FieldSet::default(),
        }
    }

    /// What tells managers apart: one that applies is the same in every version.
    fn identity(&self) -> (Operation, String, Option<String>, Option<String>) {
        let version = (self.operation == Operation::Update).then(|| self.api_version.clone());
        (self.operation, self.manager.clone(), version, self.subresource.clone())
    }

    /// Takes over the fields of another entry of the same manager.
    fn join(&mut self, other: Self) {
        self.set.absorb(other.set);
        self.time = self.time.take().or(other.time);
    }

    fn order(&self, other: &Self) -> Ordering {
        let mine = (self.operation, &self.time, &self.manager, &self.api_version, &self.subresource);
        mine.cmp(&(other.operation, &other.time, &other.manager, &other.api_version, &other.subresource))
    }

    fn read(entry: &Value) -> Option<Self> {
        let text = |name: &str| match entry.get(name) {
            None | Some(Value::Null) => Some(None),
            Some(Value::String(text)) => Some(Some(text.clone())),
            Some(_) => None,
        };
        let operation = match entry.get("operation")?.as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if entry.get("fieldsType")?.as_str()? != "FieldsV1" {
            return None;
        }
        Some(Self {
            manager: text("manager")?.unwrap_or_default(),
            operation,
            api_version: text("apiVersion")?.unwrap_or_default(),
            subresource: text("subresource")?.filter(|subresource| !subresource.is_empty()),
            time: text("time")?,
            set: entry.get("fieldsV1").map_or(Some(FieldSet::default()), FieldSet::from_value)?,
        })
    }

    fn to_value(&self) -> Value {
        let operation = if self.operation == Operation::Apply { "Apply" } else { "Update" };
        let mut entry = Map::new();
        entry.insert("manager".to_owned(), json!(self.manager));
        entry.insert("operation".to_owned(), json!(operation));
        entry.insert("apiVersion".to_owned(), json!(self.api_version));
        if let Some(time) = &self.time {
            entry.insert("time".to_owned(), json!(time));
        }
        entry.insert("fieldsType".to_owned(), json!("FieldsV1"));
        entry.insert("fieldsV1".to_owned(), self.set.to_value());
        if let Some(subresource) = &self.subresource {
            entry.insert("subresource".to_owned(), json!(subresource));
        }
        Value::Object(entry)
    }
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Managed {
    pub(super) entries: Vec<Entry>,
}

impl Managed {
    /// Reads the managers of an object; `None` when they cannot be read.
    pub(super) fn of(object: &Value) -> Option<Self> {
        let entries = match managed_fields(object) {
            None | Some(Value::Null) => return Some(Self::default()),
            Some(Value::Array(entries)) => entries,
            Some(_) => return None,
        };
        let mut managed: IndexMap<_, Entry> = IndexMap::with_capacity(entries.len());
        for entry in entries {
            let entry = Entry::read(entry)?;
            match managed.get_mut(&entry.identity()) {
                Some(present) => present.join(entry),
                None => drop(managed.insert(entry.identity(), entry)),
            }
        }
        Some(Self { entries: managed.into_values().collect() })
    }

    /// Takes the entry of the same manager out.
    pub(super) fn take(&mut self, like: &Entry) -> Option<Entry> {
        let like = like.identity();
        let at = self.entries.iter().position(|entry| entry.identity() == like)?;
        Some(self.entries.remove(at))
    }

    /// Adds an entry, in union with what the same manager has already.
    pub(super) fn add(&mut self, mut entry: Entry) {
        if let Some(present) = self.take(&entry) {
            entry.join(present);
        }
        self.entries.push(entry);
    }

    /// Takes fields away from every manager.
    pub(super) fn take_away(&mut self, fields: &FieldSet) {
        for entry in &mut self.entries {
            entry.set = entry.set.difference(fields);
        }
        self.entries.retain(|entry| !entry.set.is_empty());
    }

    /// The fields that anybody owns.
    pub(super) fn all(&self) -> FieldSet {
        let mut all = FieldSet::default();
        for entry in &self.entries {
            all.absorb(entry.set.clone());
        }
        all
    }

    /// Merges the oldest entries of other writes than apply while there are too many, version by version.
    pub(super) fn cap(&mut self) {
        let (mut updates, mut entries): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.entries).into_iter().partition(|entry| entry.operation == Operation::Update);
        updates.sort_by(Entry::order);
        let mut surplus = updates.len().saturating_sub(MAX_UPDATERS);
        let mut oldest: IndexMap<String, Entry> = IndexMap::new();
        for entry in updates {
            match oldest.get_mut(&entry.api_version) {
                Some(bucket) if surplus > 0 => {
                    bucket.time.clone_from(&entry.time);
                    bucket.join(entry);
                    ANCIENT.clone_into(&mut bucket.manager);
                    bucket.subresource = None;
                    surplus -= 1;
                }
                None if surplus > 0 => drop(oldest.insert(entry.api_version.clone(), entry)),
                _ => entries.push(entry),
            }
        }
        entries.extend(oldest.into_values());
        self.entries = entries;
    }

    /// Writes the managers into an object, in the order that clients expect.
    pub(super) fn write(mut self, object: &mut Value) {
        self.entries.retain(|entry| !entry.set.is_empty());
        self.entries.sort_by(Entry::order);
        let Value::Object(fields) = object else { return };
        if self.entries.is_empty() {
            if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
                metadata.shift_remove("managedFields");
            }
            return;
        }
        let metadata = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            let entries = self.entries.iter().map(Entry::to_value).collect();
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }
}

/// `metadata.managedFields` as it stands.
pub(super) fn managed_fields(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

/// Whether two versions of an object are equal but for the times in their `managedFields`: then nothing need be written.
pub fn equal_but_for_times(a: &Value, b: &Value) -> bool {
    let timeless = |object: &Value| {
        let mut object = object.clone();
        let managed = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
        for entry in managed.into_iter().flatten().filter_map(Value::as_object_mut) {
            entry.shift_remove("time");
        }
        object
    };
    a == b || timeless(a) == timeless(b)
}

/// Takes `metadata.managedFields` out of an object.
pub(super) fn strip_managed(object: &mut Value) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.shift_remove("managedFields");
    }
}

/// Takes what the server keeps by itself out of an applied configuration; the name stays.
pub(super) fn strip_server_fields(applied: &mut Value) {
    let Value::Object(fields) = applied else { return };
    match fields.get_mut("metadata") {
        Some(Value::Object(metadata)) => metadata
            .retain(|name, _| name == "name" || name == "namespace" || !SERVER_METADATA.contains(&name.as_str())),
        // The server keeps metadata as such.
        Some(Value::Null) => drop(fields.shift_remove("metadata")),
        _ => {}
    }
}

/// The set without the fields that nobody owns.
pub(super) fn without_unowned(mut set: FieldSet) -> FieldSet {
    set.take_field("apiVersion");
    set.take_field("kind");
    let mut metadata = set.take_field("metadata");
    metadata.own = false;
    for name in SERVER_METADATA {
        metadata.take_field(name);
    }
    set.put(super::fieldset::Element::Field("metadata".into()), metadata);
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updater(manager: &str, version: &str, time: &str, field: &str) -> Value {
        json!({"manager": manager, "operation": "Update", "apiVersion": version, "time": time,
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {(format!("f:{field}")): {}}}})
    }

    #[test]
    fn entries_are_written_as_they_were_read_and_in_order() {
        let apply = json!({"manager": "z", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-02T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:a": {}}}, "subresource": "status"});
        let newer = updater("a", "v1", "2026-01-02T00:00:00Z", "b");
        let older = updater("b", "v1", "2026-01-01T00:00:00Z", "c");
        let mut object = json!({"metadata": {"managedFields": [newer, older, apply]}});
        Managed::of(&object).unwrap().write(&mut object);
        assert_eq!(object["metadata"]["managedFields"], json!([apply, older, newer]));
    }

    #[test]
    fn what_cannot_be_read_is_told_from_what_is_not_there() {
        assert_eq!(Managed::of(&json!({})), Some(Managed::default()));
        for wrong in [json!({}), json!([{}]), json!([1]), json!([{"operation": "Apply", "fieldsType": "FieldsV2"}])] {
            assert_eq!(Managed::of(&json!({"metadata": {"managedFields": wrong}})), None);
        }
    }

    #[test]
    fn only_the_times_of_entries_are_ignored() {
        let object =
            |time: &str, field: &str| json!({"metadata": {"managedFields": [updater("a", "v1", time, field)]}});
        assert!(equal_but_for_times(&object("1", "x"), &object("2", "x")));
        assert!(!equal_but_for_times(&object("1", "x"), &object("1", "y")));
        assert!(!equal_but_for_times(&json!({"time": 1}), &json!({"time": 2})));
    }

    #[test]
    fn too_many_updaters_are_merged_oldest_first() {
        let entries: Vec<Value> = (10..25)
            .map(|at| {
                updater(
                    &format!("m{at}"),
                    if at == 10 { "v2" } else { "v1" },
                    &format!("2026-01-{at}T00:00:00Z"),
                    &format!("x{at}"),
                )
            })
            .collect();
        let mut object = json!({"metadata": {"managedFields": entries}});
        let mut managed = Managed::of(&object).unwrap();
        let before = managed.all();
        managed.cap();
        assert_eq!(managed.all(), before);
        managed.write(&mut object);
        let names: Vec<&str> = object["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["manager"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["m10", "ancient-changes", "m17", "m18", "m19", "m20", "m21", "m22", "m23", "m24"]);
    }
}
