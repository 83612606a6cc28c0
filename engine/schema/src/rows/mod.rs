//! The table of kinds: one row a resource, a file an API group or a few small ones. Discovery, OpenAPI, routing, selection
//! and printing all read it.

mod access;
mod apps;
mod core;
mod extension;
mod metrics;
mod network;
mod storage;
mod transient;

use crate::resource::{Column, Convert, Gvk, Selectable, Subresource, VERBS};
use crate::strategy::{self, Strategy};

pub(crate) use transient::{TRANSIENT, VIRTUAL};

/// One resource as it is written down here.
pub(crate) struct Row {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) short_names: &'static [&'static str],
    pub(crate) categories: &'static [&'static str],
    pub(crate) namespaced: bool,
    pub(crate) verbs: &'static [&'static str],
    pub(crate) subresources: &'static [Subresource],
    pub(crate) returns_deleted: bool,
    /// What callers are warned of.
    pub(crate) deprecation: Option<&'static str>,
    pub(crate) kept: Option<KeptAs>,
    /// What precedes version and kind in the name of the OpenAPI definition.
    pub(crate) package: &'static str,
    pub(crate) columns: &'static [Column],
    pub(crate) selectable: &'static [Selectable],
    pub(crate) strategy: &'static dyn Strategy,
}

impl Row {
    /// The name of one object in lower case.
    pub(crate) fn singular(&self) -> String {
        self.kind.to_lowercase()
    }

    /// The name of the OpenAPI definition of one object.
    pub(crate) fn definition(&self) -> String {
        format!("{}.{}.{}", self.package, self.version, self.kind)
    }
}

/// Another row's names, where its objects are this row's as well, and how they become each other.
#[derive(Clone, Copy)]
pub(crate) struct KeptAs {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) convert: Convert,
}

/// The stored kinds, the core group first and the preferred version of a group before its others.
pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    let parts = [core::ROWS, apps::ROWS, network::ROWS, storage::ROWS, access::ROWS, extension::ROWS, metrics::ROWS];
    parts.into_iter().flatten()
}

/// What most rows share; those of the core group say little more than their names.
const BASE: Row = Row {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: VERBS,
    subresources: &[],
    returns_deleted: false,
    deprecation: None,
    kept: None,
    package: "io.k8s.api.core",
    columns: &[],
    selectable: &[],
    strategy: &strategy::PLAIN,
};

const READ_WRITE: &[&str] = &["get", "patch", "update"];

const STATUS: Subresource = Subresource { name: "status", kind: None, verbs: READ_WRITE };

const SCALE: Subresource = Subresource {
    name: "scale",
    kind: Some(Gvk { group: "autoscaling", version: "v1", kind: "Scale" }),
    verbs: READ_WRITE,
};

/// A subresource that is a connection to something else, with the kind that its query is read as.
const fn connection(name: &'static str, options: &'static str) -> Subresource {
    Subresource { name, kind: Some(Gvk { group: "", version: "v1", kind: options }), verbs: &["create", "get"] }
}

/// A subresource that hands any request on.
const fn proxy(options: &'static str) -> Subresource {
    Subresource { verbs: &["create", "delete", "get", "patch", "update"], ..connection("proxy", options) }
}

const fn field(field: &'static str, absent: &'static str) -> Selectable {
    Selectable { field, absent, with: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::registry::shared;

    #[test]
    fn selectable_fields_read_as_text_and_others_are_refused() {
        let registry = shared();
        let pod = registry.of_kind("v1", "Pod").expect("served");
        let object = json!({ "metadata": { "name": "a", "namespace": "n" }, "spec": { "nodeName": "one" } });
        assert_eq!(pod.selectable(&object, "spec.nodeName").as_deref(), Some("one"));
        assert_eq!(pod.selectable(&object, "metadata.namespace").as_deref(), Some("n"));
        assert_eq!(pod.selectable(&object, "status.phase").as_deref(), Some(""));
        assert_eq!(pod.selectable(&object, "spec.hostNetwork").as_deref(), Some("false"));
        assert_eq!(pod.selectable(&object, "spec.containers"), None);
        let node = registry.of_kind("v1", "Node").expect("served");
        assert_eq!(
            node.selectable(&json!({ "spec": { "unschedulable": true } }), "spec.unschedulable").as_deref(),
            Some("true")
        );
        assert_eq!(node.selectable(&object, "metadata.namespace"), None);
        let event = registry.of_kind("v1", "Event").expect("served");
        assert_eq!(event.selectable(&json!({ "reportingComponent": "kubelet" }), "source").as_deref(), Some("kubelet"));
    }
}
