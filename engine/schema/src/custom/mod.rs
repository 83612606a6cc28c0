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
use std::sync::{LazyLock, OnceLock};

use serde_json::{Map, Value};

use crate::definitions;
use crate::lookup;
use crate::registry::Definitions;
use crate::tree::{OBJECT_META, Schema};
use crate::walk::{apply_defaults, prune};

pub use build::{Document, resources};
pub(crate) use definition::Definition;
pub(crate) use jsonpath::JsonPath;
pub use names::{FINALIZER, begin_removal, is_established, judge};
pub(crate) use rules::Rules;

/// One version of a custom resource, as far as objects are concerned.
pub(crate) struct Custom {
    document: Document,
    version: Box<str>,
    /// Changes when the definition's `spec` does.
    pub(crate) fingerprint: u64,
    schema: OnceLock<Schema>,
    settles: OnceLock<bool>,
    rules: OnceLock<Rules>,
}

impl Custom {
    fn new(document: &Document, definition: &Value, version: &str) -> Self {
        Self {
            document: document.clone(),
            version: version.into(),
            fingerprint: fingerprint(definition, version),
            schema: OnceLock::new(),
            settles: OnceLock::new(),
            rules: OnceLock::new(),
        }
    }

    /// The `openAPIV3Schema` as it is written.
    fn source(&self) -> Value {
        let definition: Value = serde_json::from_slice((*self.document).as_ref()).unwrap_or(Value::Null);
        let versions = lookup::list(&definition, "spec.versions");
        let own = versions.iter().find(|each| lookup::text(each, "name") == &*self.version);
        own.and_then(|own| lookup::at(own, "schema.openAPIV3Schema")).cloned().unwrap_or(Value::Null)
    }

    /// The shape with its constraints, read when it is first asked for.
    pub(crate) fn schema(&self) -> &Schema {
        self.schema.get_or_init(|| {
            Schema::custom(&self.source()).unwrap_or_else(|_| {
                let open = serde_json::json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
                Schema::custom(&open).expect("an open schema can be read")
            })
        })
    }

    /// Whether the schema has been asked for.
    #[cfg(test)]
    pub(crate) fn is_read(&self) -> bool {
        self.schema.get().is_some()
    }

    /// The compiled `x-kubernetes-validations`.
    pub(crate) fn rules(&self) -> &Rules {
        self.rules.get_or_init(|| Rules::compile(self.schema()))
    }

    /// See [`crate::Resource::settle`].
    pub(crate) fn settle(&self, object: &mut Value) -> bool {
        let schema = self.schema();
        let mut changed = !prune(schema, object).is_empty();
        if *self.settles.get_or_init(|| schema.has_defaults()) {
            let before = object.clone();
            apply_defaults(schema, object);
            changed |= before != *object;
        }
        changed
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
