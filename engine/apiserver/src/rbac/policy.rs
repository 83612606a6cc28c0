//! The roles of a fresh cluster, written down as data (`policy.txt`), and brought back at every start: what is missing is
//! added, what somebody added stays, and what is annotated with `autoupdate: "false"` is left alone.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use http::Method;
use serde_json::{Map, Value, json};

use super::rule::{Rule, rules_of, uncovered};
use super::{GROUP, PLURALS};
use crate::ApiServer;
use crate::bootstrap::send;
use crate::error::ApiError;

const TEXT: &str = include_str!("policy.txt");
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";
const READ: &str = "get,list,watch";
const WRITE: &str = "create,update,patch,delete,deletecollection";
const REPORT: &str = "create,patch,update";

/// A role as the text has it, with the subjects it is bound to.
#[derive(Debug, Default)]
struct Role {
    /// None for a ClusterRole.
    namespace: Option<&'static str>,
    name: &'static str,
    /// Whose rules it gathers.
    gathers: Option<&'static str>,
    labels: Vec<&'static str>,
    rules: Vec<Rule>,
    subjects: Vec<Value>,
}

fn roles() -> Vec<Role> {
    let mut roles: Vec<Role> = Vec::new();
    let lines = TEXT.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let words: Vec<&'static str> = line.split_whitespace().collect();
        if words[0] == "role" {
            roles.push(head(&words[1..]));
            continue;
        }
        let role = roles.last_mut().expect("a rule stands below a role");
        match words.as_slice() {
            ["to", subjects @ ..] => role.subjects = subjects.iter().map(|word| subject(word)).collect(),
            words => role.rules.push(rule(words)),
        }
    }
    roles
}

fn head(words: &[&'static str]) -> Role {
    let (namespace, name) = words[0].split_once('/').map_or((None, words[0]), |(own, name)| (Some(own), name));
    let (gathers, labels) = match &words[1..] {
        ["gathers", label, labels @ ..] => (Some(*label), labels),
        labels => (None, labels),
    };
    Role { namespace, name, gathers, labels: labels.to_vec(), ..Role::default() }
}

fn rule(words: &[&str]) -> Rule {
    let list = |text: &str| -> Vec<Box<str>> {
        text.split(',').map(|word| if word == "core" { "" } else { word }.into()).collect()
    };
    let verbs = words[0].split(',').flat_map(|verb| match verb {
        "read" => READ.split(','),
        "write" => WRITE.split(','),
        "report" => REPORT.split(','),
        other => other.split(','),
    });
    let verbs = verbs.map(Into::into).collect();
    match words[1..] {
        ["@", paths] => Rule { verbs, urls: list(paths), ..Rule::default() },
        [groups, resources, ref names @ ..] => Rule {
            verbs,
            api_groups: list(groups),
            resources: list(resources),
            resource_names: names.first().map(|names| list(names.trim_start_matches('='))).unwrap_or_default(),
            urls: Vec::new(),
        },
        _ => unreachable!("a rule has a group and resources, or paths"),
    }
}

fn subject(word: &str) -> Value {
    let (kind, name) = word.split_once(':').expect("a subject has a kind");
    match kind {
        "account" => {
            let (namespace, name) = name.split_once(':').expect("an account has a namespace");
            json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
        }
        "user" => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
        _ => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
    }
}

/// What every node may do beside what follows from its pods.
pub(crate) fn node_rules() -> Vec<Rule> {
    roles().into_iter().find(|role| role.name == "system:node").map(|role| role.rules).unwrap_or_default()
}

impl Role {
    fn document(&self, kind: &str) -> Value {
        let labels: Map<String, Value> =
            std::iter::once(("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".into()))
                .chain(self.labels.iter().map(|label| (format!("{AGGREGATE}{label}"), "true".into())))
                .collect();
        let mut metadata = json!({"name": self.name, "labels": labels, "annotations": {AUTO_UPDATE: "true"}});
        if let Some(namespace) = self.namespace {
            metadata["namespace"] = namespace.into();
        }
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata})
    }

    /// The role with its rules; one that gathers others' has those of `all` from the start.
    fn role(&self, all: &[Self]) -> Value {
        let mut role = self.document(if self.namespace.is_some() { "Role" } else { "ClusterRole" });
        if let Some(label) = self.gathers {
            let selector = json!({"matchLabels": {format!("{AGGREGATE}{label}"): "true"}});
            role["aggregationRule"] = json!({"clusterRoleSelectors": [selector]});
        }
        role["rules"] = json!(self.all_rules(all));
        role
    }

    fn all_rules(&self, all: &[Self]) -> Vec<Rule> {
        let Some(label) = self.gathers else { return self.rules.clone() };
        all.iter().filter(|role| role.labels.contains(&label)).flat_map(|role| role.all_rules(all)).collect()
    }

    fn binding(&self) -> Value {
        let mut binding = self.document(if self.namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" });
        let kind = if self.namespace.is_some() { "Role" } else { "ClusterRole" };
        binding["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": self.name});
        binding["subjects"] = json!(self.subjects);
        binding
    }
}

/// Makes the roles and bindings that are missing and mends those that lack something, all at once.
pub(crate) async fn bootstrap(server: &ApiServer) -> Result<(), ApiError> {
    let roles = roles();
    let bindings = roles.iter().filter(|role| !role.subjects.is_empty()).map(Role::binding);
    let documents: Vec<Value> = roles.iter().map(|role| role.role(&roles)).chain(bindings).collect();
    let live = live(server);
    let writes = documents.iter().filter_map(|wanted| write(wanted, live.get(&key(wanted)))).collect::<Vec<_>>();
    let sent = writes.iter().map(|(method, path, object)| send(server, method.clone(), path, object));
    try_join_all(sent).await.map(drop)
}

/// Plural, namespace and name.
type Key = (String, String, String);

fn key(object: &Value) -> Key {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let plural = format!("{}s", text(&object["kind"]).to_ascii_lowercase());
    (plural, text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

/// What there is already.
fn live(server: &ApiServer) -> BTreeMap<Key, Value> {
    let tables = PLURALS.iter().filter_map(|plural| server.registry().find(GROUP, "v1", plural));
    let tables = tables.map(|resource| server.cache().table(&resource));
    let objects = tables.flat_map(|table| server.cache().snapshot(&table, None, None).objects);
    objects.map(|object| object.value()).map(|object| (key(&object), object)).collect()
}

/// The write that makes `wanted` true, if one is needed.
fn write(wanted: &Value, live: Option<&Value>) -> Option<(Method, String, Value)> {
    let (plural, namespace, name) = key(wanted);
    let folder = match namespace.as_str() {
        "" => format!("/apis/{GROUP}/v1/{plural}"),
        namespace => format!("/apis/{GROUP}/v1/namespaces/{namespace}/{plural}"),
    };
    let Some(live) = live else { return Some((Method::POST, folder, wanted.clone())) };
    if live["metadata"]["annotations"][AUTO_UPDATE] != "true" {
        return None;
    }
    let mut better = live.clone();
    if wanted["roleRef"].is_object() {
        let mut subjects = live["subjects"].as_array().cloned().unwrap_or_default();
        let missing = wanted["subjects"].as_array().into_iter().flatten().filter(|own| !subjects.contains(own));
        let missing: Vec<Value> = missing.cloned().collect();
        subjects.extend(missing);
        better["subjects"] = subjects.into();
    } else if wanted["aggregationRule"].is_object() {
        better["aggregationRule"] = wanted["aggregationRule"].clone();
    } else {
        let mut rules = rules_of(live);
        let missing = uncovered(&rules, &rules_of(wanted), usize::MAX);
        if !missing.is_empty() {
            rules.extend(missing);
            better["rules"] = json!(rules);
        }
    }
    (better != *live).then(|| (Method::PUT, format!("{folder}/{name}"), better))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_reads_as_roles() {
        let roles = roles();
        let named = |name: &str| roles.iter().find(|role| role.name == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(named("cluster-admin").rules[0].to_string(), r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#);
        assert_eq!(named("system:discovery").subjects[0]["name"], "system:authenticated");
        assert_eq!(named("extension-apiserver-authentication-reader").namespace, Some("kube-system"));
        assert!(roles.iter().all(|role| role.gathers.is_some() || !role.rules.is_empty()));
        let mut all: Vec<_> = roles.iter().map(|role| (role.namespace, role.name)).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), roles.len(), "each role once");
    }

    #[test]
    fn admin_holds_what_edit_and_view_hold() {
        let roles = roles();
        let of = |name: &str| roles.iter().find(|role| role.name == name).map(|role| role.all_rules(&roles)).unwrap();
        assert!(uncovered(&of("admin"), &of("edit"), usize::MAX).is_empty());
        assert!(uncovered(&of("edit"), &of("view"), usize::MAX).is_empty());
        assert!(!uncovered(&of("view"), &of("edit"), usize::MAX).is_empty());
    }

    #[test]
    fn what_is_there_is_better_and_nothing_is_taken_away() {
        let roles = roles();
        let wanted = roles.iter().find(|role| role.name == "system:basic-user").unwrap();
        let whole = wanted.role(&roles);
        assert!(write(&whole, Some(&whole)).is_none());
        assert_eq!(write(&whole, None).unwrap().0, Method::POST);
        let mut lacking = whole.clone();
        let extra = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        lacking["rules"] = json!([extra]);
        let (method, path, better) = write(&whole, Some(&lacking)).unwrap();
        assert_eq!((method, path.rsplit('/').next()), (Method::PUT, Some("system:basic-user")));
        assert!(better["rules"].as_array().unwrap().len() > 1 && better["rules"][0] == extra);
        lacking["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
        assert!(write(&whole, Some(&lacking)).is_none());
        let mut binding = wanted.binding();
        let whole = binding.clone();
        binding["subjects"] = json!([]);
        assert_eq!(write(&whole, Some(&binding)).unwrap().2["subjects"], whole["subjects"]);
    }
}
