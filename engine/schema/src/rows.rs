//! The table of kinds: one row a resource. Discovery, OpenAPI, routing, selection and printing all read it.

use std::sync::Arc;

use serde_json::Value;

use crate::lookup;
use crate::resource::{Column, Convert, Gvk, Selectable, Subresource, VirtualResource};
use crate::strategy::{self, Strategy};
use crate::table;

/// One resource as it is written down here.
pub(crate) struct Row {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) short_names: &'static [&'static str],
    pub(crate) categories: &'static [&'static str],
    pub(crate) namespaced: bool,
    pub(crate) subresources: &'static [Subresource],
    pub(crate) returns_deleted: bool,
    pub(crate) kept: Option<KeptAs>,
    pub(crate) definition: &'static str,
    pub(crate) columns: &'static [Column],
    pub(crate) selectable: &'static [Selectable],
    pub(crate) strategy: fn() -> Arc<dyn Strategy>,
}

/// Another row's names, where its objects are this row's as well, and how they become each other.
#[derive(Clone, Copy)]
pub(crate) struct KeptAs {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) convert: Convert,
}

/// What most rows of the core group share.
const CORE: Row = Row {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    returns_deleted: false,
    kept: None,
    definition: "",
    columns: &[],
    selectable: &[],
    strategy: strategy::plain,
};

/// The stored kinds.
pub(crate) static ROWS: [Row; 22] = [
    Row {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        definition: "io.k8s.api.core.v1.ConfigMap",
        columns: table::CONFIG_MAP,
        strategy: strategy::config_map,
        ..CORE
    },
    Row {
        kind: "Endpoints",
        plural: "endpoints",
        singular: "endpoints",
        short_names: &["ep"],
        definition: "io.k8s.api.core.v1.Endpoints",
        columns: table::ENDPOINTS,
        strategy: strategy::endpoints,
        ..CORE
    },
    Row {
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        definition: "io.k8s.api.core.v1.Event",
        columns: table::EVENT,
        selectable: EVENT_FIELDS,
        strategy: strategy::event,
        ..CORE
    },
    Row {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        namespaced: false,
        subresources: &[Subresource { name: "finalize", kind: None, verbs: &["update"] }, STATUS],
        definition: "io.k8s.api.core.v1.Namespace",
        columns: table::NAMESPACE,
        selectable: &[field("status.phase", "")],
        strategy: strategy::namespace,
        ..CORE
    },
    Row {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short_names: &["no"],
        namespaced: false,
        subresources: &[STATUS],
        definition: "io.k8s.api.core.v1.Node",
        columns: table::NODE,
        selectable: &[field("spec.unschedulable", "false")],
        strategy: strategy::node,
        ..CORE
    },
    Row {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        subresources: POD_SUBRESOURCES,
        returns_deleted: true,
        definition: "io.k8s.api.core.v1.Pod",
        columns: table::POD,
        selectable: POD_FIELDS,
        strategy: strategy::pod,
        ..CORE
    },
    Row {
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        definition: "io.k8s.api.core.v1.Secret",
        columns: table::SECRET,
        selectable: &[field("type", "")],
        strategy: strategy::secret,
        ..CORE
    },
    Row {
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[STATUS],
        returns_deleted: true,
        definition: "io.k8s.api.core.v1.Service",
        columns: table::SERVICE,
        selectable: &[field("spec.clusterIP", ""), field("spec.type", "")],
        strategy: strategy::service,
        ..CORE
    },
    Row {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        returns_deleted: true,
        definition: "io.k8s.api.core.v1.ServiceAccount",
        columns: table::SERVICE_ACCOUNT,
        ..CORE
    },
    Row {
        kind: "LimitRange",
        plural: "limitranges",
        singular: "limitrange",
        short_names: &["limits"],
        definition: "io.k8s.api.core.v1.LimitRange",
        ..CORE
    },
    Row {
        kind: "ResourceQuota",
        plural: "resourcequotas",
        singular: "resourcequota",
        short_names: &["quota"],
        subresources: &[STATUS],
        returns_deleted: true,
        definition: "io.k8s.api.core.v1.ResourceQuota",
        ..CORE
    },
    Row {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        definition: "io.k8s.api.apps.v1.Deployment",
        columns: table::DEPLOYMENT,
        strategy: strategy::deployment,
        ..CORE
    },
    Row {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        definition: "io.k8s.api.apps.v1.ReplicaSet",
        columns: table::REPLICA_SET,
        selectable: &[field("status.replicas", "0")],
        strategy: strategy::replica_set,
        ..CORE
    },
    Row {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        definition: "io.k8s.api.coordination.v1.Lease",
        columns: table::LEASE,
        strategy: strategy::lease,
        ..CORE
    },
    Row {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        plural: "endpointslices",
        singular: "endpointslice",
        definition: "io.k8s.api.discovery.v1.EndpointSlice",
        columns: table::ENDPOINT_SLICE,
        strategy: strategy::endpoint_slice,
        ..CORE
    },
    Row {
        group: "admissionregistration.k8s.io",
        kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations",
        singular: "mutatingwebhookconfiguration",
        namespaced: false,
        definition: "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
        ..CORE
    },
    Row {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations",
        singular: "validatingwebhookconfiguration",
        namespaced: false,
        definition: "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
        ..CORE
    },
    Row {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingAdmissionPolicy",
        plural: "validatingadmissionpolicies",
        singular: "validatingadmissionpolicy",
        namespaced: false,
        subresources: &[STATUS],
        definition: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
        ..CORE
    },
    Row {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingAdmissionPolicyBinding",
        plural: "validatingadmissionpolicybindings",
        singular: "validatingadmissionpolicybinding",
        namespaced: false,
        definition: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
        ..CORE
    },
    Row {
        group: "networking.k8s.io",
        kind: "IngressClass",
        plural: "ingressclasses",
        singular: "ingressclass",
        namespaced: false,
        definition: "io.k8s.api.networking.v1.IngressClass",
        ..CORE
    },
    Row {
        group: "scheduling.k8s.io",
        kind: "PriorityClass",
        plural: "priorityclasses",
        singular: "priorityclass",
        short_names: &["pc"],
        namespaced: false,
        definition: "io.k8s.api.scheduling.v1.PriorityClass",
        ..CORE
    },
    Row {
        group: "storage.k8s.io",
        kind: "StorageClass",
        plural: "storageclasses",
        singular: "storageclass",
        short_names: &["sc"],
        namespaced: false,
        returns_deleted: true,
        definition: "io.k8s.api.storage.v1.StorageClass",
        ..CORE
    },
];

const READ_WRITE: &[&str] = &["get", "patch", "update"];

const STATUS: Subresource = Subresource { name: "status", kind: None, verbs: READ_WRITE };

const SCALE: Subresource = Subresource {
    name: "scale",
    kind: Some(Gvk { group: "autoscaling", version: "v1", kind: "Scale" }),
    verbs: READ_WRITE,
};

const POD_SUBRESOURCES: &[Subresource] = &[
    Subresource { name: "binding", kind: Some(Gvk { group: "", version: "v1", kind: "Binding" }), verbs: &["create"] },
    Subresource {
        name: "eviction",
        kind: Some(Gvk { group: "policy", version: "v1", kind: "Eviction" }),
        verbs: &["create"],
    },
    Subresource { name: "log", kind: None, verbs: &["get"] },
    STATUS,
];

const fn field(field: &'static str, absent: &'static str) -> Selectable {
    Selectable { field, absent, with: None }
}

const POD_FIELDS: &[Selectable] = &[
    field("spec.hostNetwork", "false"),
    field("spec.nodeName", ""),
    field("spec.restartPolicy", ""),
    field("spec.schedulerName", ""),
    field("spec.serviceAccountName", ""),
    field("status.nominatedNodeName", ""),
    field("status.phase", ""),
    field("status.podIP", ""),
];

const EVENT_FIELDS: &[Selectable] = &[
    field("involvedObject.apiVersion", ""),
    field("involvedObject.fieldPath", ""),
    field("involvedObject.kind", ""),
    field("involvedObject.name", ""),
    field("involvedObject.namespace", ""),
    field("involvedObject.resourceVersion", ""),
    field("involvedObject.uid", ""),
    field("reason", ""),
    Selectable { field: "reportingComponent", absent: "", with: Some(reporter) },
    Selectable { field: "source", absent: "", with: Some(source) },
    field("type", ""),
];

fn source(event: &Value) -> String {
    first(event, ["source.component", "reportingComponent"])
}

fn reporter(event: &Value) -> String {
    first(event, ["reportingComponent", "source.component"])
}

fn first(event: &Value, paths: [&str; 2]) -> String {
    let found = paths.iter().map(|path| lookup::text(event, path)).find(|text| !text.is_empty());
    found.unwrap_or("").to_owned()
}

/// Kinds that only travel in requests and replies: `apiVersion`, kind, definition.
pub(crate) const TRANSIENT: &[(&str, &str, &str)] = &[
    ("autoscaling/v1", "Scale", "io.k8s.api.autoscaling.v1.Scale"),
    ("policy/v1", "Eviction", "io.k8s.api.policy.v1.Eviction"),
    ("v1", "Binding", "io.k8s.api.core.v1.Binding"),
    ("v1", "DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview", "io.k8s.api.authorization.v1.SelfSubjectAccessReview"),
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview", "io.k8s.api.authorization.v1.SelfSubjectRulesReview"),
    ("authentication.k8s.io/v1", "SelfSubjectReview", "io.k8s.api.authentication.v1.SelfSubjectReview"),
];

/// Resources that are answered and never stored.
pub(crate) static VIRTUAL: [VirtualResource; 3] = [
    VirtualResource {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        verbs: &["create"],
        definition: "io.k8s.api.authentication.v1.SelfSubjectReview",
    },
    VirtualResource {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        verbs: &["create"],
        definition: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    },
    VirtualResource {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        verbs: &["create"],
        definition: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    },
];

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
