//! Who may do what: masters everything, nodes what `nodes` says, everybody what a role bound to them says. Nothing is
//! allowed that none of these allows.
//!
//! A decision is never older than what was acknowledged before it was asked for.

use std::sync::Arc;

use crate::ApiServer;
use crate::cache::{Cache, Table};
use crate::derived::Derived;
use crate::error::{About, ApiError};
use crate::identity::{Identity, MASTERS};
use crate::nodes::{self, Graph};
use crate::rbac::{self, Granted, Index, Rule};

/// What a request wants to do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// The field selector of a list or watch.
    pub(crate) fields: &'a str,
    /// The label selector of a list or watch.
    pub(crate) labels: &'a str,
}

impl Attributes<'_> {
    /// Whether only objects with that value of the field are asked for.
    pub(crate) fn selects(&self, field: &str, value: &str) -> bool {
        selected(self.fields, field) == Some(value)
    }

    /// Whether only objects with that value of the label are asked for.
    fn selects_label(&self, label: &str, value: &str) -> bool {
        // A set has commas of its own.
        !self.labels.contains('(') && selected(self.labels, label) == Some(value)
    }
}

/// The value that a field selector demands of a field.
pub(crate) fn selected<'a>(selector: &'a str, field: &str) -> Option<&'a str> {
    selector.split(',').find_map(|term| {
        let (own, value) = term.split_once('=').filter(|(own, _)| !own.ends_with('!'))?;
        (own == field).then(|| value.strip_prefix('=').unwrap_or(value))
    })
}

/// What decisions rest on.
pub(crate) struct Authorizer {
    roles: Derived<Index>,
    pods: Derived<Graph>,
    node_rules: Vec<Rule>,
    /// Volumes, whose claims say which nodes may read them; none where they are not served.
    volumes: Option<Arc<Table>>,
}

/// Why something is allowed.
#[derive(Debug)]
pub(crate) enum Why {
    Master,
    Node,
    Role(Granted),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Master => f.write_str("the caller is a member of system:masters"),
            Self::Node => f.write_str("the node and its pods have it"),
            Self::Role(granted) => granted.fmt(f),
        }
    }
}

impl Authorizer {
    pub(crate) fn new(registry: &shipway_schema::Registry, cache: &Cache) -> Self {
        let table = |group, plural| registry.find(group, "v1", plural).map(|resource| cache.table(&resource));
        let roles = rbac::PLURALS.iter().filter_map(|plural| table(rbac::GROUP, plural)).collect();
        Self {
            roles: Derived::new(roles),
            pods: Derived::new(table("", "pods").into_iter().collect()),
            node_rules: rbac::node_rules(),
            volumes: table("", "persistentvolumes"),
        }
    }

    /// What allows a request about a resource, if anything does.
    pub(crate) fn decide(&self, cache: &Cache, identity: &Identity, asked: &Attributes<'_>) -> Option<Why> {
        if identity.is_in(MASTERS) {
            return Some(Why::Master);
        }
        if identity.as_node().is_some_and(|node| self.node_may(cache, node, asked)) {
            return Some(Why::Node);
        }
        self.roles.read(cache, |index| index.allows(identity, asked)).map(Why::Role)
    }

    fn node_may(&self, cache: &Cache, node: &str, asked: &Attributes<'_>) -> bool {
        self.pods.read(cache, |graph| match (asked.group, asked.resource, asked.subresource) {
            ("", "persistentvolumes", "") if matches!(asked.verb, "list" | "watch") => {
                asked.selects_label(nodes::KEEPER, node)
            }
            ("", "persistentvolumes", "") => {
                let volume = self.volumes.as_ref().and_then(|table| table.get(asked.name));
                volume.is_some_and(|volume| {
                    let volume = volume.value();
                    let text = |key: &str| volume["spec"]["claimRef"][key].as_str().unwrap_or_default().to_owned();
                    let claimed = || graph.claims(node, &text("namespace"), &text("name"));
                    // Whoever keeps a volume's folder says when it is gone.
                    let kept = volume["metadata"]["labels"][nodes::KEEPER] == *node;
                    (asked.verb == "get" && (kept || claimed())) || (asked.verb == "patch" && kept)
                })
            }
            _ => graph.allows(node, &self.node_rules, asked),
        })
    }

    /// What allows a request for a path that is no resource.
    pub(crate) fn decide_path(&self, cache: &Cache, identity: &Identity, verb: &str, path: &str) -> Option<Why> {
        if identity.is_in(MASTERS) {
            return Some(Why::Master);
        }
        self.roles.read(cache, |index| index.allows_path(identity, verb, path)).map(Why::Role)
    }
}

/// Whether the caller may do it, given everything acknowledged so far.
pub(crate) async fn is_allowed(
    server: &ApiServer,
    identity: &Identity,
    asked: &Attributes<'_>,
) -> Result<bool, ApiError> {
    if !identity.is_in(MASTERS) {
        server.cache().catch_up().await?;
    }
    Ok(server.authorizer().decide(server.cache(), identity, asked).is_some())
}

/// Whether something allows it, for a caller that has waited for the cache.
pub(crate) fn allowed_now(server: &ApiServer, identity: &Identity, asked: &Attributes<'_>) -> bool {
    server.authorizer().decide(server.cache(), identity, asked).is_some()
}

/// Refuses what nothing allows, in upstream's words.
pub(crate) async fn check(server: &ApiServer, identity: &Identity, asked: &Attributes<'_>) -> Result<(), ApiError> {
    if is_allowed(server, identity, asked).await? { Ok(()) } else { Err(refused(identity, asked)) }
}

fn refused(identity: &Identity, asked: &Attributes<'_>) -> ApiError {
    let resource = match asked.subresource {
        "" => asked.resource.to_owned(),
        subresource => format!("{}/{subresource}", asked.resource),
    };
    let place = match asked.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let message = format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?} {place}",
        identity.user, asked.verb, asked.group
    );
    let about = About { group: asked.group.into(), resource: asked.resource.into(), name: asked.name.into() };
    ApiError::Forbidden(about, message)
}

/// Refuses a path that the caller may not read.
pub(crate) async fn check_path(
    server: &ApiServer,
    identity: &Identity,
    verb: &str,
    path: &str,
) -> Result<(), ApiError> {
    // Health is told even when the cache has lost the store.
    if !identity.is_in(MASTERS) && server.cache().is_following() {
        server.cache().catch_up().await?;
    }
    if server.authorizer().decide_path(server.cache(), identity, verb, path).is_some() {
        return Ok(());
    }
    Err(ApiError::ForbiddenPath(format!("User {:?} cannot {verb} path {path:?}", identity.user)))
}

/// The rules that hold for the caller in a namespace, as far as they can be written down as rules.
pub(crate) fn held(server: &ApiServer, identity: &Identity, namespace: &str) -> Vec<Rule> {
    let authorizer = server.authorizer();
    let mut rules = authorizer.roles.read(server.cache(), |index| index.rules(identity, namespace));
    if identity.is_in(MASTERS) && !rules.iter().any(|rule| rule.verbs.iter().any(|verb| **verb == *"*")) {
        let any = || vec!["*".into()];
        rules.push(Rule { verbs: any(), api_groups: any(), resources: any(), ..Rule::default() });
        rules.push(Rule { verbs: any(), urls: any(), ..Rule::default() });
    }
    if identity.as_node().is_some() {
        rules.extend(authorizer.node_rules.iter().cloned());
    }
    rules
}

/// The rules of a role by its key: `<name>` of a ClusterRole, `<namespace>/<name>` of a Role.
pub(crate) fn role(server: &ApiServer, key: &str) -> Option<Arc<[Rule]>> {
    server.authorizer().roles.read(server.cache(), |index| index.role(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_demands_a_value_only_when_it_must_be_equal() {
        assert_eq!(selected("spec.nodeName=a,metadata.name==b", "spec.nodeName"), Some("a"));
        assert_eq!(selected("spec.nodeName=a,metadata.name==b", "metadata.name"), Some("b"));
        assert_eq!(selected("metadata.name!=b", "metadata.name"), None);
        assert_eq!(selected("", "metadata.name"), None);
    }

    #[test]
    fn a_refusal_reads_as_upstream_words_it() {
        let asked = Attributes {
            verb: "create",
            group: "apps",
            resource: "deployments",
            namespace: "default",
            ..Attributes::default()
        };
        let expected = "deployments.apps is forbidden: User \"system:kube-scheduler\" cannot create resource \
                        \"deployments\" in API group \"apps\" in the namespace \"default\"";
        assert_eq!(refused(&Identity::scheduler(), &asked).to_string(), expected);
        let asked = Attributes { verb: "update", resource: "nodes", name: "b", ..Attributes::default() };
        let expected = "nodes \"b\" is forbidden: User \"system:node:a\" cannot update resource \"nodes\" in API group \
                        \"\" at the cluster scope";
        assert_eq!(refused(&Identity::node("a"), &asked).to_string(), expected);
    }
}
