//! Custom resources: from a `CustomResourceDefinition` to resources that are served like built-in ones.
//!
//! What a definition says about an object's inside is read when the first object is written, from the definition's own
//! bytes: a hundred definitions that nobody uses cost little more than their names. This module knows nothing of who asks
//! or where objects are kept.

mod build;
mod definition;
mod formats;
mod jsonpath;
mod names;
mod object;
pub(crate) mod openapi;
mod report;
mod rules;
mod structural;
mod values;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, OnceLock};

use serde_json::{Map, Value};

use crate::definitions;
use crate::invalid::FieldError;
use crate::lookup;
use crate::registry::Definitions;
use crate::tree::{OBJECT_META, Schema};
use crate::walk::{apply_defaults, prune};

pub use build::{Document, resources};
pub(crate) use definition::Definition;
pub(crate) use jsonpath::JsonPath;
pub use names::{FINALIZER, begin_removal, is_established, judge};
use rules::Rules;

/// The shapes of all versions of a definition: an object may be stored in another version than it is shown in.
pub(crate) struct Shapes {
    document: Document,
    versions: Vec<(Box<str>, OnceLock<Shape>)>,
}

/// What a version's schema says.
struct Shape {
    schema: Schema,
    /// Whether it fills anything in.
    fills: bool,
}

impl Shapes {
    fn new(document: &Document, definition: &Value) -> Self {
        let versions = lookup::list(definition, "spec.versions").iter();
        let versions = versions.map(|each| (lookup::text(each, "name").into(), OnceLock::new())).collect();
        Self { document: document.clone(), versions }
    }

    /// The `openAPIV3Schema` of a version as it is written.
    fn source(&self, version: &str) -> Value {
        let definition: Value = serde_json::from_slice((*self.document).as_ref()).unwrap_or(Value::Null);
        let versions = lookup::list(&definition, "spec.versions");
        let own = versions.iter().find(|each| lookup::text(each, "name") == version);
        own.and_then(|own| lookup::at(own, "schema.openAPIV3Schema")).cloned().unwrap_or(Value::Null)
    }

    /// The shape of a version, read when it is first asked for; none of a version that there is not.
    fn of(&self, version: &str) -> Option<&Shape> {
        let (_, shape) = self.versions.iter().find(|(name, _)| **name == *version)?;
        Some(shape.get_or_init(|| {
            let schema = Schema::custom(&self.source(version)).unwrap_or_else(|_| {
                let open = serde_json::json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
                Schema::custom(&open).expect("an open schema can be read")
            });
            Shape { fills: schema.has_defaults(), schema }
        }))
    }
}

/// One version of a custom resource, as far as objects are concerned.
pub(crate) struct Custom {
    shapes: Arc<Shapes>,
    version: Box<str>,
    /// Changes when the definition's `spec` does.
    pub(crate) fingerprint: u64,
    rules: OnceLock<Rules>,
}

impl Custom {
    fn new(shapes: &Arc<Shapes>, definition: &Value, version: &str) -> Self {
        Self {
            shapes: shapes.clone(),
            version: version.into(),
            fingerprint: fingerprint(definition, version),
            rules: OnceLock::new(),
        }
    }

    /// The `openAPIV3Schema` as it is written.
    fn source(&self) -> Value {
        self.shapes.source(&self.version)
    }

    /// The shape with its constraints, read when it is first asked for.
    pub(crate) fn schema(&self) -> &Schema {
        &self.shapes.of(&self.version).expect("the version is one of the definition's").schema
    }

    /// Whether the schema has been asked for.
    #[cfg(test)]
    pub(crate) fn is_read(&self) -> bool {
        self.shapes.versions.iter().any(|(_, shape)| shape.get().is_some())
    }

    /// What the `x-kubernetes-validations` say about an object.
    pub(crate) fn check_rules(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let compiled = || Rules::compile(self.schema()).map(|rules| self.rules.get_or_init(|| rules));
        let rules = self.rules.get().or_else(compiled);
        rules.map_or_else(|| vec![rules::unknown()], |rules| rules.check(self.schema(), object, old))
    }

    /// See [`crate::Resource::settle`].
    pub(crate) fn settle(&self, object: &mut Value) -> bool {
        let own = lookup::text(object, "apiVersion");
        let version = own.rsplit_once('/').map_or(own, |(_, version)| version).to_owned();
        let Some(shape) = self.shapes.of(&version) else { return self.trim(&self.version, object) };
        let mut changed = self.trim(&version, object);
        if shape.fills {
            let before = object.clone();
            apply_defaults(&shape.schema, object);
            changed |= before != *object;
        }
        changed
    }

    /// Takes out what a version does not know; a version that there is not takes out nothing. Says whether there was any.
    pub(crate) fn trim(&self, version: &str, object: &mut Value) -> bool {
        let Some(shape) = self.shapes.of(version) else { return false };
        // Pruning does not tell of `null`, which it takes out too.
        let before = object.clone();
        prune(&shape.schema, object);
        before != *object
    }
}

fn fingerprint(definition: &Value, version: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    lookup::text(definition, "metadata.uid").hash(&mut hasher);
    definition["spec"].to_string().hash(&mut hasher);
    definition["status"]["acceptedNames"].to_string().hash(&mut hasher);
    version.hash(&mut hasher);
    hasher.finish()
}

/// `ObjectMeta` and what it refers to, which every custom object has.
pub(crate) fn metadata_definitions() -> &'static Definitions {
    static META: LazyLock<Definitions> = LazyLock::new(|| {
        let mut shapes = definitions::shapes();
        let mut found = Map::new();
        let mut open = vec![OBJECT_META.to_owned()];
        while let Some(name) = open.pop() {
            let Some(shape) = shapes.shift_remove(&name) else { continue };
            let text = shape.to_string();
            let references = text.split("/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next());
            open.extend(references.map(str::to_owned));
            found.insert(name, shape);
        }
        found
    });
    &META
}

#[cfg(test)]
pub(crate) mod testing {
    //! Schemas and definitions for the tests of this module.

    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::build::{Document, resources};
    use crate::resource::Resource;
    use crate::tree::Schema;

    /// A schema as custom resources have it.
    pub(crate) fn schema(schema: &Value) -> Schema {
        Schema::custom(schema).expect("a schema")
    }

    /// A definition of `crontabs.stable.example.com` with one version.
    pub(crate) fn definition(schema: &Value) -> Value {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": "crontabs.stable.example.com", "uid": "1" },
            "spec": {
                "group": "stable.example.com", "scope": "Namespaced",
                "names": { "plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList", "shortNames": ["ct"] },
                "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
            },
        })
    }

    /// The only resource of a definition.
    pub(crate) fn resource(definition: &Value) -> Arc<Resource> {
        let document: Document = Arc::new(definition.to_string().into_bytes());
        resources(&document).into_iter().next().expect("a version is served")
    }
}
