//! Which nodes a daemon set's pods are for, and the pod for one of them.
//!
//! The scheduler binds the pod; that it can choose one node only is said by the pod's own affinity.

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, Toleration,
};
use kube::ResourceExt;
use shipway_driver::matching::{allows_node, named_nodes, required_node_affinity, untolerated};

/// What every daemon tolerates: it runs where others do not, to see to what is wrong there.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// What a daemon in the host's network tolerates too.
const NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What a node is to a daemon set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// A pod should run there.
    Runs,
    /// No pod should begin there, one that runs there may stay.
    Stays,
    /// No pod should be there.
    Refused,
}

/// What the node is to pods of the template.
pub(super) fn fit(template: &PodTemplateSpec, node: &Node) -> Fit {
    let Some(spec) = &template.spec else { return Fit::Refused };
    let named = spec.node_name.as_deref().filter(|name| !name.is_empty());
    if named.is_some_and(|name| Some(name) != node.metadata.name.as_deref()) || !allows_node(spec, node) {
        return Fit::Refused;
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = tolerations(spec);
    if untolerated(taints, &tolerations, &["NoSchedule", "NoExecute"]).is_none() {
        Fit::Runs
    } else if untolerated(taints, &tolerations, &["NoExecute"]).is_none() {
        Fit::Stays
    } else {
        Fit::Refused
    }
}

/// The tolerations of the template and those of every daemon.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let network = (spec.host_network == Some(true)).then_some(NETWORK);
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let own = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !all.contains(&own) {
            all.push(own);
        }
    }
    all
}

/// Makes a pod of the template one for that node.
pub(super) fn pin(mut pod: Pod, node: &str) -> Pod {
    let Some(spec) = &mut pod.spec else { return pod };
    spec.tolerations = Some(tolerations(spec));
    let name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), ..NodeSelectorTerm::default() };
    // What the template asks for has been looked at; the node that was found is all there is to ask for now.
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    pod
}

/// The node that a pod is on or for.
pub(super) fn node_of(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if let Some(bound) = spec.node_name.as_ref().filter(|name| !name.is_empty()) {
        return Some(bound.clone());
    }
    named_nodes(required_node_affinity(spec)?)?.first().map(|name| (*name).to_owned())
}

/// Whether the pod has been bound to a node.
pub(super) fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|name| !name.is_empty())
}

/// What of a node decides about daemons; the rest of it changes often.
pub(super) fn deciding(node: &Node) -> Node {
    let metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        name: node.metadata.name.clone(),
        labels: Some(node.labels().clone()),
        ..Default::default()
    };
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
    let spec = k8s_openapi::api::core::v1::NodeSpec { taints, ..Default::default() };
    Node { metadata, spec: Some(spec), status: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn template(spec: &Value) -> PodTemplateSpec {
        let mut all = json!({"containers": []});
        for (name, value) in spec.as_object().unwrap() {
            all[name] = value.clone();
        }
        serde_json::from_value(json!({"spec": all})).unwrap()
    }

    fn node(labels: &Value, taints: &Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "a", "labels": labels}, "spec": {"taints": taints}}))
            .unwrap()
    }

    fn taint(key: &str, effect: &str) -> Value {
        json!([{"key": key, "effect": effect}])
    }

    #[test]
    fn where_a_daemon_runs_follows_from_selector_affinity_and_taints() {
        let disk = |operator: &str| {
            let term = json!({"matchExpressions": [{"key": "disk", "operator": operator, "values": ["fast"]}]});
            let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}});
            json!({"affinity": {"nodeAffinity": required}})
        };
        let fast = node(&json!({"disk": "fast"}), &json!([]));
        let tainted = |effect: &str| node(&json!({}), &taint("own", effect));
        let table = vec![
            (json!({}), fast.clone(), Fit::Runs),
            (json!({"nodeSelector": {"disk": "fast"}}), fast.clone(), Fit::Runs),
            (json!({"nodeSelector": {"disk": "slow"}}), fast.clone(), Fit::Refused),
            (disk("In"), fast.clone(), Fit::Runs),
            (disk("NotIn"), fast.clone(), Fit::Refused),
            (json!({"nodeName": "a"}), fast.clone(), Fit::Runs),
            (json!({"nodeName": "b"}), fast, Fit::Refused),
            (json!({}), tainted("NoSchedule"), Fit::Stays),
            (json!({}), tainted("NoExecute"), Fit::Refused),
            (json!({}), tainted("PreferNoSchedule"), Fit::Runs),
            (json!({"tolerations": [{"key": "own", "operator": "Exists"}]}), tainted("NoExecute"), Fit::Runs),
        ];
        for (spec, node, expected) in table {
            assert_eq!(fit(&template(&spec), &node), expected, "{spec}");
        }
    }

    #[test]
    fn daemons_run_on_nodes_that_are_not_well() {
        for (key, effect) in TOLERATED {
            assert_eq!(fit(&template(&json!({})), &node(&json!({}), &taint(key, effect))), Fit::Runs, "{key}");
        }
        let lost = node(&json!({}), &taint(NETWORK.0, NETWORK.1));
        assert_eq!(fit(&template(&json!({})), &lost), Fit::Stays);
        assert_eq!(fit(&template(&json!({"hostNetwork": true})), &lost), Fit::Runs);
    }

    #[test]
    fn a_pod_is_pinned_to_its_node_and_keeps_what_it_prefers() {
        let old = json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]});
        let affinity =
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": old}, "podAntiAffinity": {}});
        let own = json!({"key": "own", "operator": "Exists"});
        let template = template(&json!({"affinity": affinity, "tolerations": [own]}));
        let pod = pin(Pod { spec: template.spec, ..Pod::default() }, "a");
        assert_eq!((node_of(&pod).as_deref(), is_bound(&pod)), (Some("a"), false));
        let spec = json!(pod.spec.as_ref().unwrap());
        let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]});
        let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(*required, json!({"nodeSelectorTerms": [term]}));
        assert_eq!(spec["affinity"]["podAntiAffinity"], json!({}));
        assert_eq!((spec["tolerations"].as_array().unwrap().len(), &spec["tolerations"][0]), (7, &own));
        assert_eq!(pin(pod.clone(), "a"), pod, "nothing is said twice");
    }

    #[test]
    fn a_pod_is_where_it_was_bound() {
        let object = json!({"metadata": {}, "spec": {"nodeName": "b", "containers": []}});
        let bound: Pod = serde_json::from_value(object).unwrap();
        assert_eq!((node_of(&pin(bound.clone(), "a")).as_deref(), is_bound(&bound)), (Some("b"), true));
        assert_eq!(node_of(&Pod::default()), None);
    }

    #[test]
    fn a_heartbeat_changes_nothing_for_daemons() {
        let one = node(&json!({"a": "b"}), &json!([]));
        let mut other = one.clone();
        other.status = Some(serde_json::from_value(json!({"phase": "x"})).unwrap());
        assert_eq!(deciding(&one), deciding(&other));
        assert_ne!(deciding(&one), deciding(&node(&json!({}), &json!([]))));
        assert_ne!(deciding(&one), deciding(&node(&json!({"a": "b"}), &taint("x", "NoSchedule"))));
    }
}
