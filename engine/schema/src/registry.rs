//! All kinds that are served, built once when the engine starts.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use crate::decode::Tags;
use crate::definitions;
use crate::resource::{Conversion, Kept, Name, Resource, ScalePaths, Shape, VirtualResource};
use crate::rows::{Row, TRANSIENT, VIRTUAL, rows};
use crate::strategy;
use crate::table;
use crate::tree::Schema;

/// The served kinds. Cheap to share, never changes: custom resources make another one.
pub struct Registry {
    resources: Vec<Arc<Resource>>,
    /// Where in `resources` each plural is, in any group.
    plurals: HashMap<Name, Vec<usize>>,
    builtin: Arc<Builtin>,
}

/// What does not depend on the custom resources.
struct Builtin {
    /// The first so many resources are compiled in.
    count: usize,
    transient: HashMap<String, Schema>,
    tags: OnceLock<Tags>,
}

impl Registry {
    /// The kinds that are compiled in.
    pub fn builtin() -> Self {
        let shapes = definitions::shapes();
        let stored: Vec<String> = rows().map(Row::definition).collect();
        let transient = TRANSIENT.iter().map(|(_, _, definition)| *definition);
        let roots = stored.iter().map(String::as_str).chain(transient);
        let mut schemas = Schema::from_definitions(&shapes, roots).expect("the embedded definitions are whole");
        let resources: Vec<_> = rows().map(|row| Arc::new(resource(row, &mut schemas))).collect();
        let builtin = Arc::new(Builtin { count: resources.len(), transient: schemas, tags: OnceLock::new() });
        Self::of(resources, builtin)
    }

    fn of(resources: Vec<Arc<Resource>>, builtin: Arc<Builtin>) -> Self {
        let mut plurals: HashMap<Name, Vec<usize>> = HashMap::new();
        for (at, resource) in resources.iter().enumerate() {
            plurals.entry(resource.plural.clone()).or_default().push(at);
        }
        Self { resources, plurals, builtin }
    }

    /// The kinds that are compiled in, and these.
    #[must_use]
    pub fn with(&self, custom: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        let builtin = self.resources.iter().take(self.builtin.count).cloned();
        Self::of(builtin.chain(custom).collect(), self.builtin.clone())
    }

    /// The resources that are compiled in.
    pub(crate) fn compiled(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter().take(self.builtin.count)
    }

    /// The custom resources.
    pub fn custom(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter().skip(self.builtin.count)
    }

    /// The resource at a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let mut named = self.plurals.get(plural)?.iter().map(|at| &self.resources[*at]);
        named.find(|each| each.group == group && each.version == version).cloned()
    }

    /// The resource of a kind.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let found = |each: &&Arc<Resource>| each.group == group && each.version == version && each.kind == kind;
        self.resources.iter().find(found).cloned()
    }

    /// Every stored resource, the core group first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter()
    }

    /// Every resource that is answered without being stored.
    pub fn virtual_resources(&self) -> impl Iterator<Item = &'static VirtualResource> + use<> {
        VIRTUAL.iter()
    }

    /// The shape of a kind that only travels in requests (`Scale`, `DeleteOptions`, `Eviction`, `Binding`, the reviews),
    /// by its kind or its OpenAPI name.
    pub fn virtual_definition(&self, name: &str) -> Option<Schema> {
        let by_kind = TRANSIENT.iter().find(|(_, kind, _)| *kind == name).map(|(_, _, definition)| *definition);
        self.builtin.transient.get(by_kind.unwrap_or(name)).cloned()
    }

    /// The OpenAPI name of what a request body says it is.
    pub(crate) fn definition_of(&self, api_version: &str, kind: &str) -> Option<String> {
        if let Some(resource) = self.of_kind(api_version, kind) {
            return Some(resource.definition.clone().into_owned());
        }
        // Delete options travel under the version of whatever they delete.
        let found = |(version, name, _): &&(&str, &str, &str)| {
            *name == kind && (*version == api_version || kind == "DeleteOptions")
        };
        TRANSIENT.iter().find(found).map(|(_, _, definition)| (*definition).to_owned())
    }

    /// The protobuf tags, read when the first protobuf body arrives.
    pub(crate) fn tags(&self) -> &Tags {
        self.builtin.tags.get_or_init(Tags::embedded)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.resources).finish()
    }
}

fn resource(row: &Row, schemas: &mut HashMap<String, Schema>) -> Resource {
    let kept = match row.kept {
        None => Kept {
            group: row.group.into(),
            version: row.version.into(),
            plural: row.plural.into(),
            conversion: Conversion::Rename,
        },
        Some(other) => Kept {
            group: other.group.into(),
            version: other.version.into(),
            plural: other.plural.into(),
            conversion: Conversion::With(other.convert),
        },
    };
    Resource {
        group: row.group.into(),
        version: row.version.into(),
        kind: row.kind.into(),
        plural: row.plural.into(),
        singular: row.singular().into(),
        short_names: row.short_names.iter().map(|name| (*name).into()).collect(),
        categories: row.categories.iter().map(|name| (*name).into()).collect(),
        namespaced: row.namespaced,
        verbs: row.verbs,
        subresources: row.subresources.to_vec(),
        returns_deleted: row.returns_deleted,
        kept,
        definition: row.definition().into(),
        scale: ScalePaths::default(),
        deprecation: row.deprecation.map(Into::into),
        shape: Shape::Built(schemas.remove(&row.definition()).expect("every row's definition is a root")),
        columns: table::shown(row.columns),
        selectable: row.selectable.iter().map(Into::into).collect(),
        strategy: strategy::of(row.strategy),
    }
}

/// Definitions by name.
pub(crate) type Definitions = Map<String, Value>;

/// One registry for all tests of the crate.
#[cfg(test)]
pub(crate) fn shared() -> &'static Registry {
    static SHARED: std::sync::LazyLock<Registry> = std::sync::LazyLock::new(Registry::builtin);
    &SHARED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Kind, ListType};

    #[test]
    fn every_row_is_found_by_path_and_by_kind() {
        let registry = shared();
        assert_eq!(registry.all().count(), rows().count());
        for resource in registry.all() {
            let by_path = registry.find(&resource.group, &resource.version, &resource.plural).expect("found by path");
            let by_kind = registry.of_kind(&resource.api_version(), &resource.kind).expect("found by kind");
            assert!(Arc::ptr_eq(&by_path, &by_kind));
            assert_eq!(resource.schema().definition(), Some(resource.definition()));
        }
        assert!(registry.find("apps", "v1", "pods").is_none());
    }

    #[test]
    fn two_versions_of_one_kind_are_kept_in_one_place() {
        let registry = shared();
        for (version, kind, kept) in
            [("autoscaling/v1", "HorizontalPodAutoscaler", "autoscaling/v2"), ("events.k8s.io/v1", "Event", "v1")]
        {
            let resource = registry.of_kind(version, kind).expect("served");
            assert_eq!(resource.kept_api_version(), kept);
            let home = registry.of_kind(kept, kind).expect("served");
            assert_eq!((&home.kept.group, &home.kept.plural), (&resource.kept.group, &resource.kept.plural));
            let Conversion::With(convert) = resource.kept.conversion else { panic!("{version} is converted") };
            let object = serde_json::json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "a" } });
            assert_eq!(convert(convert(object.clone(), kept), version), object);
        }
    }

    #[test]
    fn kinds_count_generations_of_what_they_are_told() {
        let registry = shared();
        let counted = |version: &str, kind: &str| {
            registry.of_kind(version, kind).expect("served").strategy().generations().counted()
        };
        for (version, kind) in [
            ("apps/v1", "Deployment"),
            ("v1", "Pod"),
            ("v1", "PodTemplate"),
            ("batch/v1", "Job"),
            ("networking.k8s.io/v1", "NetworkPolicy"),
        ] {
            assert!(counted(version, kind), "{kind}");
        }
        for (version, kind) in
            [("v1", "ConfigMap"), ("v1", "Service"), ("v1", "Namespace"), ("coordination.k8s.io/v1", "Lease")]
        {
            assert!(!counted(version, kind), "{kind}");
        }
    }

    #[test]
    fn the_tree_knows_how_lists_merge() {
        let registry = shared();
        let pod = registry.of_kind("v1", "Pod").expect("served");
        let spec = pod.schema().field("spec").expect("a pod has a spec");
        let container = spec.field("containers").and_then(|list| list.inner()).expect("containers have a shape");
        let ports = container.field("ports").expect("a container has ports");
        assert_eq!(*ports.list_type(), ListType::Map(vec!["containerPort".into(), "protocol".into()]));
        assert_eq!(ports.patch_strategy().merge_key.as_deref(), Some("containerPort"));
        assert!(ports.patch_strategy().merge);
        assert!(spec.field("volumes").expect("a pod has volumes").patch_strategy().retain_keys);
        assert!(spec.field("nodeSelector").expect("a pod has a node selector").is_atomic_map());
        let protocol = ports.inner().and_then(|port| port.field("protocol")).expect("a port has a protocol");
        assert_eq!(protocol.default(), Some(&"TCP".into()));
        let limits = container.field("resources").and_then(|each| each.field("limits")).expect("limits");
        let quantity = limits.inner().expect("limits hold quantities");
        assert_eq!((quantity.kind(), quantity.format()), (Kind::IntOrString, Some("quantity")));
    }

    #[test]
    fn transient_kinds_are_known_by_kind_and_by_name() {
        let registry = shared();
        for (_, kind, definition) in TRANSIENT {
            assert_eq!(registry.virtual_definition(kind).expect(kind).definition(), Some(*definition));
            assert!(registry.virtual_definition(definition).is_some());
        }
        assert!(registry.virtual_definition("Pod").is_none());
        assert!(registry.definition_of("apps/v1", "DeleteOptions").is_some());
    }
}
