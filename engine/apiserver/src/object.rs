//! One object as the server holds it: the bytes that the store holds, shared with it, and the little metadata that
//! selecting needs.
//!
//! Stored bytes are canonical JSON without `resourceVersion`; the revision is spliced in when the object is sent. An object
//! never changes; a newer revision is another object.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use shipway_schema::{Conversion, Resource};
use shipway_store::Revision;

use crate::meta;

/// An object at one revision.
pub(crate) struct Object {
    /// The revision that wrote it.
    pub(crate) revision: Revision,
    /// `<namespace>/<name>`, or `<name>` for a cluster-scoped kind: the end of the store's key.
    pub(crate) key: Box<str>,
    /// JSON with `kind` and `apiVersion`, and without `metadata.resourceVersion`.
    stored: Bytes,
    /// Where in it the revision belongs: at the beginning of the metadata.
    splice: usize,
    pub(crate) uid: Box<str>,
    /// Whether its deletion has begun.
    pub(crate) terminating: bool,
    /// By key.
    labels: Box<[Label]>,
    /// Field-selector values worked out so far; holding these is 100 times smaller than the parsed object.
    fields: Mutex<Vec<Field>>,
    /// The fingerprint of the custom schema that the bytes were found to be complete under; 0 for none.
    settled: AtomicU64,
}

type Label = (Box<str>, Box<str>);
type Field = (Box<str>, Option<Box<str>>);

#[derive(Deserialize)]
struct Envelope {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    uid: Box<str>,
    #[serde(default)]
    labels: Option<BTreeMap<Box<str>, Box<str>>>,
    #[serde(default, rename = "deletionTimestamp")]
    deletion: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawEnvelope<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// What is behind the kind, with which every object begins.
const VERSION: &[u8] = b"\"apiVersion\":\"";
const METADATA: &[u8] = b"\"metadata\":{";

impl Object {
    /// Takes what the store holds. Fails when that is not an object as this server writes them.
    pub(crate) fn stored(key: &str, value: impl Into<Bytes>, revision: Revision) -> Result<Self, String> {
        let stored = value.into();
        let envelope: Envelope = serde_json::from_slice(&stored).map_err(|error| error.to_string())?;
        let splice = find(&stored, METADATA).ok_or("no metadata at the head of the object")? + METADATA.len();
        Ok(Self {
            revision,
            key: key.into(),
            stored,
            splice,
            uid: envelope.metadata.uid,
            terminating: envelope.metadata.deletion.is_some(),
            labels: envelope.metadata.labels.into_iter().flatten().collect(),
            fields: Mutex::default(),
            settled: AtomicU64::new(0),
        })
    }

    /// An object that is shown and not stored: the answer to a dry run. It has no revision.
    pub(crate) fn draft(key: &str, value: &Value) -> Self {
        let uid = value["metadata"]["uid"].as_str().unwrap_or_default().into();
        let stored: Bytes = canonical(value).into();
        Self {
            revision: 0,
            key: key.into(),
            splice: find(&stored, METADATA).map_or(0, |at| at + METADATA.len()),
            stored,
            uid,
            terminating: meta::is_terminating(value),
            labels: Box::default(),
            fields: Mutex::default(),
            settled: AtomicU64::new(0),
        }
    }

    /// The same content under another revision: what a watcher sees when the object disappears.
    pub(crate) fn restamped(&self, revision: Revision) -> Self {
        let settled = AtomicU64::new(self.settled.load(Ordering::Relaxed));
        Self { revision, settled, ..self.sharing(self.stored.clone(), self.splice) }
    }

    /// Other bytes under the same name, of which nothing is known yet.
    fn sharing(&self, stored: Bytes, splice: usize) -> Self {
        Self {
            revision: self.revision,
            key: self.key.clone(),
            stored,
            splice,
            uid: self.uid.clone(),
            terminating: self.terminating,
            labels: self.labels.clone(),
            fields: Mutex::default(),
            settled: AtomicU64::new(0),
        }
    }

    /// The stored JSON, without `metadata.resourceVersion`.
    pub(crate) fn content(&self) -> &Bytes {
        &self.stored
    }

    /// How many bytes a client receives.
    pub(crate) fn len(&self) -> usize {
        self.stored.len() + self.stamp().len()
    }

    /// What a client receives, in pieces.
    pub(crate) fn pieces(&self) -> [Bytes; 3] {
        [self.stored.slice(..self.splice), self.stamp().into(), self.stored.slice(self.splice..)]
    }

    /// What a client receives.
    pub(crate) fn wire(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.stored.len() + 48);
        self.write(&mut bytes);
        bytes.into()
    }

    /// Appends what a client receives.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let (head, rest) = self.stored.split_at(self.splice);
        out.extend_from_slice(head);
        out.extend_from_slice(self.stamp().as_bytes());
        out.extend_from_slice(rest);
    }

    /// The revision as the metadata begins with it.
    fn stamp(&self) -> String {
        let comma = if self.stored.get(self.splice) == Some(&b'}') { "" } else { "," };
        match self.revision {
            0 => String::new(),
            revision => format!(r#""resourceVersion":"{revision}"{comma}"#),
        }
    }

    /// Where the text of `apiVersion` begins.
    fn version_at(&self) -> usize {
        find(&self.stored, VERSION).map_or(0, |at| at + VERSION.len())
    }

    /// The `apiVersion` that the bytes are in.
    pub(crate) fn api_version(&self) -> &str {
        let begin = self.version_at();
        let rest = &self.stored[begin..];
        let end = rest.iter().position(|byte| *byte == b'"').unwrap_or_default();
        std::str::from_utf8(&rest[..end]).unwrap_or_default()
    }

    /// The same content under another `apiVersion`.
    pub(crate) fn renamed(&self, api_version: &str) -> Self {
        let begin = self.version_at();
        let old = self.api_version().len();
        let stored = [&self.stored[..begin], api_version.as_bytes(), &self.stored[begin + old..]].concat();
        self.sharing(stored.into(), self.splice + api_version.len() - old)
    }

    /// Other content at the same place and revision.
    pub(crate) fn with_content(&self, value: &Value) -> Result<Self, String> {
        Self::stored(&self.key, canonical(value), self.revision)
    }

    /// Whether the bytes are known to be complete under a custom schema.
    pub(crate) fn is_settled(&self, fingerprint: u64) -> bool {
        self.settled.load(Ordering::Relaxed) == fingerprint
    }

    /// Remembers that the bytes are complete under a custom schema.
    pub(crate) fn set_settled(&self, fingerprint: u64) {
        self.settled.store(fingerprint, Ordering::Relaxed);
    }

    pub(crate) fn name(&self) -> &str {
        self.key.rsplit_once('/').map_or(&self.key, |(_, name)| name)
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.key.rsplit_once('/').map(|(namespace, _)| namespace)
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(own, _)| (**own).cmp(key)).ok()?;
        Some(&self.labels[at].1)
    }

    /// All labels, by key.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether there is a label whose key begins so.
    pub(crate) fn has_label_under(&self, prefix: &str) -> bool {
        self.labels.iter().any(|(key, _)| key.starts_with(prefix))
    }

    /// The working form, with `metadata.resourceVersion`.
    pub(crate) fn value(&self) -> Value {
        let mut value: Value =
            serde_json::from_slice(&self.stored).expect("the bytes were JSON when the object was made");
        if let Some(metadata) = value["metadata"].as_object_mut()
            && self.revision != 0
        {
            metadata.shift_insert(0, "resourceVersion".into(), self.revision.to_string().into());
        }
        value
    }

    /// `metadata` as a client receives it.
    pub(crate) fn metadata(&self) -> Vec<u8> {
        let envelope: RawEnvelope<'_> =
            serde_json::from_slice(&self.stored).expect("the bytes were JSON when the object was made");
        [b"{", self.stamp().as_bytes(), &envelope.metadata.get().as_bytes()[1..]].concat()
    }

    /// The value of a selectable field, parsed at most once per field.
    pub(crate) fn field(&self, resource: &Resource, field: &str) -> Option<String> {
        match field {
            "metadata.name" => return Some(self.name().to_owned()),
            "metadata.namespace" => return Some(self.namespace().unwrap_or_default().to_owned()),
            _ => {}
        }
        // The versions of a kind may call a field differently.
        let named = if self.api_version() == resource.api_version() {
            field.to_owned()
        } else {
            format!("{} {field}", resource.version)
        };
        let mut known = self.fields.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = known.iter().find(|(own, _)| **own == *named) {
            return value.as_deref().map(str::to_owned);
        }
        let own = match resource.kept.conversion {
            Conversion::With(convert) if self.api_version() != resource.api_version() => {
                convert(self.value(), &resource.api_version())
            }
            _ => self.value(),
        };
        let value = resource.selectable(&own, field);
        known.push((named.as_str().into(), value.as_deref().map(Into::into)));
        value
    }
}

/// Encodes an object for the store: `kind`, `apiVersion`, `metadata` first, as clients know it, and no `resourceVersion`.
pub(crate) fn canonical(object: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4096);
    let encoded = Canonical(object).serialize(&mut serde_json::Serializer::new(&mut bytes));
    encoded.expect("a JSON value can be encoded");
    // It is kept for as long as the object lives.
    bytes.shrink_to_fit();
    bytes
}

struct Canonical<'a>(&'a Value);

/// Metadata as it is stored.
struct Unversioned<'a>(&'a Value);

impl Serialize for Canonical<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", &self.0["kind"])?;
        map.serialize_entry("apiVersion", &self.0["apiVersion"])?;
        map.serialize_entry("metadata", &Unversioned(&self.0["metadata"]))?;
        for (key, value) in self.0.as_object().into_iter().flatten() {
            if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

impl Serialize for Unversioned<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.as_object().into_iter().flatten();
        serializer.collect_map(fields.filter(|(key, _)| *key != "resourceVersion"))
    }
}

/// Finds the head's end; `apiVersion` and `kind` before it are short and cannot contain the needle.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes[..bytes.len().min(512)].windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        json!({
            "spec": {"a": "\"metadata\":{"},
            "metadata": {"name": "x", "resourceVersion": "3", "uid": "u", "labels": {"app": "web"}},
            "kind": "ConfigMap",
            "apiVersion": "v1",
        })
    }

    #[test]
    fn the_revision_is_spliced_and_replaced() {
        let stored = canonical(&sample());
        assert!(stored.starts_with(br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x","uid""#));
        let object = Object::stored("ns/x", stored.clone(), 9).unwrap();
        let mut expected = sample();
        expected["metadata"]["resourceVersion"] = "9".into();
        assert_eq!(object.value(), expected);
        assert_eq!(object.restamped(1234).value()["metadata"]["resourceVersion"], "1234");
        assert_eq!(canonical(&object.value()), stored);
    }

    #[test]
    fn what_is_being_deleted_is_known_without_parsing_it() {
        let mut going = sample();
        assert!(!Object::stored("ns/x", canonical(&going), 9).unwrap().terminating);
        going["metadata"]["deletionTimestamp"] = Value::Null;
        assert!(!Object::stored("ns/x", canonical(&going), 9).unwrap().terminating);
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let stored = Object::stored("ns/x", canonical(&going), 9).unwrap();
        assert!(stored.terminating && stored.renamed("v2").terminating && Object::draft("ns/x", &going).terminating);
    }

    #[test]
    fn metadata_has_the_revision() {
        let object = Object::stored("ns/x", canonical(&sample()), 9).unwrap();
        let metadata: Value = serde_json::from_slice(&object.metadata()).unwrap();
        assert_eq!(metadata, object.value()["metadata"]);
        assert_eq!((object.namespace(), object.name(), object.label("app")), (Some("ns"), "x", Some("web")));
    }
}
