//! What is remembered of each definition between two looks, so that a change of one costs nothing for the others.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use shipway_schema::Resource;
use shipway_schema::custom::{Document, resources};
use shipway_store::Revision;

use crate::meta;
use crate::object::Object;

/// The definitions by name.
#[derive(Default)]
pub(super) struct Known(HashMap<Box<str>, Arc<Definition>>);

/// One definition.
pub(super) struct Definition {
    revision: Revision,
    /// Without the schemas, which are the bulk of it.
    pub(super) light: Value,
    /// One for each version that is served, kept as long as what they are made of stays the same: they hold what was
    /// compiled.
    pub(super) resources: Vec<Arc<Resource>>,
}

impl Known {
    /// Whether a definition is being deleted, if it is known at that revision.
    pub(super) fn is_ending(&self, name: &str, revision: Revision) -> Option<bool> {
        let known = self.0.get(name).filter(|known| known.revision == revision)?;
        Some(meta::is_terminating(&known.light))
    }

    /// Brings everything up to date with the objects there are, in their order.
    pub(super) fn update(&mut self, objects: &[Arc<Object>]) -> Vec<Arc<Definition>> {
        let mut before = std::mem::take(&mut self.0);
        let mut all = Vec::with_capacity(objects.len());
        for object in objects {
            let old = before.remove(&object.key);
            let definition = match old {
                Some(old) if old.revision == object.revision => old,
                old => Arc::new(Definition::read(object, old.as_deref())),
            };
            self.0.insert(object.key.clone(), definition.clone());
            all.push(definition);
        }
        all
    }
}

impl Definition {
    fn read(object: &Arc<Object>, old: Option<&Self>) -> Self {
        let document: Document = Arc::new(object.wire());
        let mut resources = resources(&document);
        for resource in &mut resources {
            let same = |other: &&Arc<Resource>| {
                other.version == resource.version && other.fingerprint() == resource.fingerprint()
            };
            if let Some(own) = old.and_then(|old| old.resources.iter().find(same)) {
                *resource = own.clone();
            }
        }
        let mut light = object.value();
        if let Some(metadata) = light["metadata"].as_object_mut() {
            metadata.retain(|key, _| !matches!(key.as_str(), "managedFields" | "annotations"));
        }
        for version in light["spec"]["versions"].as_array_mut().into_iter().flatten() {
            if let Some(version) = version.as_object_mut() {
                version.shift_remove("schema");
            }
        }
        Self { revision: object.revision, light, resources }
    }

    pub(super) fn name(&self) -> &str {
        self.light["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub(super) fn group(&self) -> &str {
        self.light["spec"]["group"].as_str().unwrap_or_default()
    }

    pub(super) fn plural(&self) -> &str {
        self.light["spec"]["names"]["plural"].as_str().unwrap_or_default()
    }
}
