//! What a node may do: its own objects, and of its pods' secrets, config maps, claims and accounts those that they name.
//!
//! The graph from nodes to names follows the pods ([`crate::derived`]); a pod counts from its binding to its removal.

use std::collections::HashMap;

use serde::Deserialize;

use crate::authorize::Attributes;
use crate::derived::Fold;
use crate::object::Object;
use crate::rbac::Rule;

/// Where nodes say that they are alive.
const LEASES: &str = "kube-node-lease";

/// The label that names the node which keeps a volume's folder.
pub(crate) const KEEPER: &str = "shipway.dev/node";

/// What a pod names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ConfigMap,
    Secret,
    Claim,
    Account,
    /// The pod itself.
    Pod,
}

const KINDS: usize = 5;

/// What the pods of each node name.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: HashMap<Box<str>, Named>,
    /// The node of each pod and what it names, to take it out again.
    pods: HashMap<Box<str>, (Box<str>, Names)>,
}

/// What one pod names.
type Names = Vec<(Kind, Box<str>)>;

/// How many pods name an object, by `<namespace>/<name>`, for each kind.
type Named = [HashMap<Box<str>, u32>; KINDS];

impl Fold for Graph {
    fn put(&mut self, table: usize, object: &Object) {
        self.remove(table, &object.key);
        let Ok(pod) = serde_json::from_slice::<Pod>(object.content()) else { return };
        let Some(node) = pod.spec.node_name.as_deref().filter(|node| !node.is_empty()) else { return };
        let namespace = object.namespace().unwrap_or_default();
        let mut names = vec![(Kind::Pod, object.key.clone())];
        pod.spec.each(object.name(), &mut |kind, name| names.push((kind, format!("{namespace}/{name}").into())));
        let counted = self.nodes.entry(node.into()).or_default();
        for (kind, key) in &names {
            *counted[*kind as usize].entry(key.clone()).or_default() += 1;
        }
        self.pods.insert(object.key.clone(), (node.into(), names));
    }

    fn remove(&mut self, _: usize, key: &str) {
        let Some((node, names)) = self.pods.remove(key) else { return };
        let Some(counted) = self.nodes.get_mut(&node) else { return };
        for (kind, key) in names {
            let counts = &mut counted[kind as usize];
            if let Some(count) = counts.get_mut(&key).filter(|count| **count > 1) {
                *count -= 1;
            } else {
                counts.remove(&key);
            }
        }
        if counted.iter().all(HashMap::is_empty) {
            self.nodes.remove(&node);
        }
    }
}

impl Graph {
    fn names(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let named = self.nodes.get(node).map(|named| &named[kind as usize]).filter(|named| !named.is_empty());
        !namespace.is_empty()
            && !name.is_empty()
            && named.is_some_and(|named| named.contains_key(&*format!("{namespace}/{name}")))
    }

    /// Whether the node may use a claim.
    pub(crate) fn claims(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.names(node, Kind::Claim, namespace, name)
    }

    /// Whether the node may do it, by its pods, by its own name or by the rules of all nodes.
    pub(crate) fn allows(&self, node: &str, rules: &[Rule], asked: &Attributes<'_>) -> bool {
        let read = matches!(asked.verb, "get" | "list" | "watch");
        let names = |kind| self.names(node, kind, asked.namespace, asked.name);
        let by_rules = || rules.iter().any(|rule| rule.allows(asked));
        match (asked.group, asked.resource, asked.subresource) {
            ("", "secrets", "") => read && names(Kind::Secret),
            ("", "configmaps", "") => read && names(Kind::ConfigMap),
            ("", "persistentvolumeclaims", "") => read && names(Kind::Claim),
            ("", "persistentvolumeclaims", "status") => {
                matches!(asked.verb, "get" | "update" | "patch") && names(Kind::Claim)
            }
            ("", "serviceaccounts", "") => read && names(Kind::Account),
            ("", "serviceaccounts", "token") => asked.verb == "create" && names(Kind::Account),
            // Network policies are about pods of other nodes too: rules let all be listed, though not read one by one.
            ("", "pods", "") if read => names(Kind::Pod) || asked.selects("spec.nodeName", node) || by_rules(),
            ("", "nodes", "" | "status") if matches!(asked.verb, "update" | "patch") => asked.name == node,
            ("coordination.k8s.io", "leases", "") => asked.namespace == LEASES && own(node, asked, &["delete"]),
            ("storage.k8s.io", "csinodes", "") => own(node, asked, &["delete"]),
            _ => by_rules(),
        }
    }
}

/// Whether it is about the object named like the node, or makes one: admission looks at its name.
fn own(node: &str, asked: &Attributes<'_>, more: &[&str]) -> bool {
    let change = matches!(asked.verb, "get" | "update" | "patch") || more.contains(&asked.verb);
    (change && asked.name == node) || (asked.verb == "create" && (asked.name.is_empty() || asked.name == node))
}

#[derive(Deserialize)]
struct Pod {
    spec: Spec,
}

type List<T> = Option<Vec<T>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<Box<str>>,
    service_account_name: Option<Box<str>>,
    #[serde(default)]
    image_pull_secrets: List<Name>,
    #[serde(default)]
    volumes: List<Volume>,
    #[serde(default)]
    containers: List<Container>,
    #[serde(default)]
    init_containers: List<Container>,
    #[serde(default)]
    ephemeral_containers: List<Container>,
}

/// Whatever names an object in the pod's namespace.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Name {
    #[serde(alias = "secretName", alias = "claimName")]
    name: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: Box<str>,
    config_map: Option<Name>,
    secret: Option<Name>,
    persistent_volume_claim: Option<Name>,
    ephemeral: Option<serde::de::IgnoredAny>,
    projected: Option<Projected>,
}

#[derive(Deserialize)]
struct Projected {
    #[serde(default)]
    sources: List<Source>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    config_map: Option<Name>,
    secret: Option<Name>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    env: List<Variable>,
    #[serde(default)]
    env_from: List<From>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Variable {
    value_from: Option<From>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct From {
    #[serde(alias = "configMapKeyRef")]
    config_map_ref: Option<Name>,
    #[serde(alias = "secretKeyRef")]
    secret_ref: Option<Name>,
}

impl Spec {
    fn each(&self, pod: &str, tell: &mut dyn FnMut(Kind, &str)) {
        for volume in self.volumes.iter().flatten().filter(|volume| volume.ephemeral.is_some()) {
            tell(Kind::Claim, &format!("{pod}-{}", volume.name));
        }
        let mut some = |kind, name: Option<&Name>| {
            if let Some(name) = name.and_then(|name| name.name.as_deref()) {
                tell(kind, name);
            }
        };
        for volume in self.volumes.iter().flatten() {
            some(Kind::ConfigMap, volume.config_map.as_ref());
            some(Kind::Secret, volume.secret.as_ref());
            some(Kind::Claim, volume.persistent_volume_claim.as_ref());
            for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
                some(Kind::ConfigMap, source.config_map.as_ref());
                some(Kind::Secret, source.secret.as_ref());
            }
        }
        let lists = [&self.containers, &self.init_containers, &self.ephemeral_containers];
        for container in lists.into_iter().flat_map(|list| list.iter().flatten()) {
            let variables = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
            for from in container.env_from.iter().flatten().chain(variables) {
                some(Kind::ConfigMap, from.config_map_ref.as_ref());
                some(Kind::Secret, from.secret_ref.as_ref());
            }
        }
        self.image_pull_secrets.iter().flatten().for_each(|secret| some(Kind::Secret, Some(secret)));
        if let Some(account) = &self.service_account_name {
            tell(Kind::Account, account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, node: &str, spec: &Value) -> Object {
        let mut pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n"}, "spec": spec});
        pod["spec"]["nodeName"] = node.into();
        Object::stored(&format!("n/{name}"), crate::object::canonical(&pod), 1).unwrap()
    }

    fn reads(graph: &Graph, node: &str, resource: &str, name: &str) -> bool {
        let asked = Attributes { verb: "get", resource, namespace: "n", name, ..Attributes::default() };
        graph.allows(node, &[], &asked)
    }

    #[test]
    fn a_node_reads_what_its_pods_name_and_as_long_as_they_are() {
        let spec = json!({
            "serviceAccountName": "bot",
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "vol"}}, {"name": "b", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "c", "projected": {"sources": [{"configMap": {"name": "projected"}}]}},
                {"name": "scratch", "ephemeral": {}},
            ],
            "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "all"}}],
                "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "one", "key": "k"}}}, {"name": "Y", "value": "z"}]}],
            "initContainers": [{"name": "i", "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "init", "key": "k"}}}]}],
        });
        let mut graph = Graph::default();
        graph.put(0, &pod("a", "alpha", &spec));
        let named = [
            ("secrets", "pull"),
            ("secrets", "vol"),
            ("secrets", "all"),
            ("secrets", "one"),
            ("configmaps", "projected"),
            ("configmaps", "init"),
            ("persistentvolumeclaims", "claim"),
            ("persistentvolumeclaims", "a-scratch"),
            ("serviceaccounts", "bot"),
            ("pods", "a"),
        ];
        for (resource, name) in named {
            assert!(reads(&graph, "alpha", resource, name), "{resource} {name}");
            assert!(!reads(&graph, "beta", resource, name), "{resource} {name}");
        }
        assert!(!reads(&graph, "alpha", "secrets", "other") && !reads(&graph, "alpha", "secrets", ""));
        graph.put(0, &pod("b", "alpha", &json!({"volumes": [{"name": "a", "secret": {"secretName": "vol"}}]})));
        graph.remove(0, "n/a");
        assert!(reads(&graph, "alpha", "secrets", "vol") && !reads(&graph, "alpha", "secrets", "pull"));
        graph.remove(0, "n/b");
        assert!(graph.nodes.is_empty() && graph.pods.is_empty());
    }
}
