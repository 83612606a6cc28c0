//! Who may do what, as one table. Nothing is allowed that no row allows.
//!
//! Until roles are objects the rows are fixed: administrators, the engine's own parts, and what every known user may
//! ask about itself. A node's rows hold for objects of its own only where they say so.

use crate::error::{About, ApiError};
use crate::identity::{AUTHENTICATED, Identity, MASTERS, NODES};
use serde_json::{Value, json};

/// What a request wants to do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

/// Whom a row is for.
enum Who {
    Group(&'static str),
    User(&'static str),
    /// All users whose names begin so.
    Prefix(&'static str),
}

/// Which objects a row is about.
enum Which {
    Every,
    /// Those in one namespace.
    In(&'static str),
    /// Those named like the node that asks.
    NamedLikeNode,
    /// Those named like the node that asks, in one namespace.
    NamedLikeNodeIn(&'static str),
}

struct Row {
    who: Who,
    verbs: &'static [&'static str],
    group: &'static str,
    /// `pods`, `pods/status`, or `*`.
    resources: &'static [&'static str],
    which: Which,
}

const fn row(
    who: Who,
    verbs: &'static [&'static str],
    group: &'static str,
    resources: &'static [&'static str],
    which: Which,
) -> Row {
    Row { who, verbs, group, resources, which }
}

const ANY: &[&str] = &["*"];
const READ: &[&str] = &["get", "list", "watch"];
const CHANGE: &[&str] = &["update", "patch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete"];
const REPORT: &[&str] = &["create", "patch", "update"];
const SCHEDULER: &str = "system:kube-scheduler";
const CONTROLLERS: &str = "system:controller:";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row(Who::Group(MASTERS), ANY, "*", ANY, Which::Every),

    // Everybody known may ask what it is and may do.
    row(Who::Group(AUTHENTICATED), &["create"], "authorization.k8s.io",
        &["selfsubjectaccessreviews", "selfsubjectrulesreviews"], Which::Every),
    row(Who::Group(AUTHENTICATED), &["create"], "authentication.k8s.io", &["selfsubjectreviews"], Which::Every),

    // A node keeps its own Node and Lease, runs pods and reads what they need.
    row(Who::Group(NODES), &["create"], "", &["nodes"], Which::Every),
    row(Who::Group(NODES), READ, "", &["nodes", "pods", "services", "endpoints", "configmaps", "secrets", "namespaces",
        "serviceaccounts"], Which::Every),
    row(Who::Group(NODES), READ, "discovery.k8s.io", &["endpointslices"], Which::Every),
    row(Who::Group(NODES), CHANGE, "", &["nodes", "nodes/status"], Which::NamedLikeNode),
    row(Who::Group(NODES), &["create"], "coordination.k8s.io", &["leases"], Which::In("kube-node-lease")),
    row(Who::Group(NODES), &["get", "update", "patch", "delete"], "coordination.k8s.io", &["leases"],
        Which::NamedLikeNodeIn("kube-node-lease")),
    row(Who::Group(NODES), CHANGE, "", &["pods/status"], Which::Every),
    row(Who::Group(NODES), &["patch", "delete"], "", &["pods"], Which::Every),
    row(Who::Group(NODES), &["create"], "", &["pods/eviction"], Which::Every),
    row(Who::Group(NODES), REPORT, "", &["events"], Which::Every),

    // The scheduler reads and binds.
    row(Who::User(SCHEDULER), READ, "", &["pods", "nodes", "namespaces", "services"], Which::Every),
    row(Who::User(SCHEDULER), READ, "apps", &["replicasets", "deployments"], Which::Every),
    row(Who::User(SCHEDULER), &["create"], "", &["pods/binding", "bindings"], Which::Every),
    row(Who::User(SCHEDULER), CHANGE, "", &["pods/status"], Which::Every),
    row(Who::User(SCHEDULER), &["delete"], "", &["pods"], Which::Every),
    row(Who::User(SCHEDULER), REPORT, "", &["events"], Which::Every),
    row(Who::User(SCHEDULER), &["create", "get", "update", "patch"], "coordination.k8s.io", &["leases"],
        Which::In("kube-system")),

    // Controllers: garbage collection and namespace deletion reach every kind; the rest is named.
    row(Who::Prefix(CONTROLLERS), READ, "*", ANY, Which::Every),
    row(Who::Prefix(CONTROLLERS), &["delete", "deletecollection", "patch"], "*", ANY, Which::Every),
    row(Who::Prefix(CONTROLLERS), WRITE, "", &["pods", "endpoints", "events", "serviceaccounts", "configmaps"],
        Which::Every),
    row(Who::Prefix(CONTROLLERS), CHANGE, "", &["services", "nodes", "namespaces/finalize", "pods/status",
        "nodes/status", "services/status", "namespaces/status"], Which::Every),
    row(Who::Prefix(CONTROLLERS), &["create"], "", &["pods/eviction", "pods/binding"], Which::Every),
    row(Who::Prefix(CONTROLLERS), WRITE, "apps", ANY, Which::Every),
    row(Who::Prefix(CONTROLLERS), WRITE, "discovery.k8s.io", &["endpointslices"], Which::Every),
    row(Who::Prefix(CONTROLLERS), WRITE, "coordination.k8s.io", &["leases"], Which::Every),
];

/// Paths that anybody may read, without a credential.
const OPEN_PATHS: &[&str] = &["/version", "/healthz", "/livez", "/readyz"];
/// Paths that every known user may read.
const KNOWN_PATHS: &[&str] = &["/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz"];

impl Row {
    fn allows(&self, identity: &Identity, asked: &Attributes<'_>) -> bool {
        self.who.includes(identity)
            && has(self.verbs, asked.verb)
            && (self.group == "*" || self.group == asked.group)
            && self.resources.iter().any(|own| names(own, asked))
            && self.which.includes(identity, asked)
    }
}

impl Who {
    fn includes(&self, identity: &Identity) -> bool {
        match self {
            Self::Group(group) => identity.is_in(group),
            Self::User(user) => identity.user == *user,
            Self::Prefix(prefix) => identity.user.starts_with(prefix),
        }
    }
}

impl Which {
    fn includes(&self, identity: &Identity, asked: &Attributes<'_>) -> bool {
        let own = || identity.as_node().is_some_and(|node| node == asked.name);
        match self {
            Self::Every => true,
            Self::In(namespace) => asked.namespace == *namespace,
            Self::NamedLikeNode => own(),
            Self::NamedLikeNodeIn(namespace) => asked.namespace == *namespace && own(),
        }
    }
}

fn has(list: &[&str], word: &str) -> bool {
    list.iter().any(|own| *own == "*" || *own == word)
}

fn names(own: &str, asked: &Attributes<'_>) -> bool {
    if own == "*" {
        return true;
    }
    let (resource, subresource) = own.split_once('/').unwrap_or((own, ""));
    resource == asked.resource && subresource == asked.subresource
}

/// Whether a row allows it.
pub(crate) fn allowed(identity: &Identity, asked: &Attributes<'_>) -> bool {
    ROWS.iter().any(|row| row.allows(identity, asked))
}

/// Refuses what no row allows, in upstream's words.
pub(crate) fn check(identity: &Identity, asked: &Attributes<'_>) -> Result<(), ApiError> {
    if allowed(identity, asked) {
        return Ok(());
    }
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
    Err(ApiError::Forbidden(about, message))
}

/// Whether the caller may read a path that is not a resource.
pub(crate) fn may_read_path(identity: &Identity, path: &str) -> bool {
    let below = |roots: &[&str]| {
        roots.iter().any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    below(OPEN_PATHS) || (identity.is_in(AUTHENTICATED) && below(KNOWN_PATHS)) || identity.is_in(MASTERS)
}

/// Refuses a path that the caller may not read.
pub(crate) fn check_path(identity: &Identity, verb: &str, path: &str) -> Result<(), ApiError> {
    if may_read_path(identity, path) {
        return Ok(());
    }
    Err(ApiError::ForbiddenPath(format!("User {:?} cannot {verb} path {path:?}", identity.user)))
}

/// The rules of an identity as a `SelfSubjectRulesReview` lists them: those on resources and those on paths.
pub(crate) fn rules(identity: &Identity, namespace: &str) -> (Vec<Value>, Vec<Value>) {
    let holds = |row: &&Row| {
        row.who.includes(identity)
            && match row.which {
                Which::In(own) | Which::NamedLikeNodeIn(own) => own == namespace,
                _ => true,
            }
    };
    let resources = ROWS.iter().filter(holds).map(|row| {
        let mut rule = json!({"verbs": row.verbs, "apiGroups": [row.group], "resources": row.resources});
        if let (Which::NamedLikeNode | Which::NamedLikeNodeIn(_), Some(node)) = (&row.which, identity.as_node()) {
            rule["resourceNames"] = json!([node]);
        }
        rule
    });
    let paths = if identity.is_in(MASTERS) {
        json!(["*"])
    } else if identity.is_in(AUTHENTICATED) {
        KNOWN_PATHS.iter().flat_map(|path| [(*path).to_owned(), format!("{path}/*")]).collect()
    } else {
        json!(OPEN_PATHS)
    };
    let verbs = if identity.is_in(MASTERS) { ANY } else { &["get"] };
    (resources.collect(), vec![json!({"verbs": verbs, "nonResourceURLs": paths})])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<'a>(verb: &'a str, resource: &'a str, namespace: &'a str, name: &'a str) -> Attributes<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (group, resource) = resource.split_once(':').unwrap_or(("", resource));
        Attributes { verb, group, resource, subresource, namespace, name }
    }

    #[test]
    fn an_administrator_may_do_everything() {
        assert!(allowed(&Identity::admin(), &asked("create", "nodes", "", "")));
        assert!(allowed(&Identity::admin(), &asked("delete", "any.group:things/sub", "x", "y")));
    }

    #[test]
    fn nobody_else_may_do_what_no_row_says() {
        let somebody = Identity { user: "jane".into(), groups: vec!["developers".into()] };
        assert!(!allowed(&somebody, &asked("list", "pods", "default", "")));
        assert!(allowed(&somebody, &asked("create", "authorization.k8s.io:selfsubjectaccessreviews", "", "")));
        assert!(!allowed(
            &Identity::anonymous(),
            &asked("create", "authorization.k8s.io:selfsubjectaccessreviews", "", "")
        ));
    }

    #[test]
    fn a_node_reaches_its_own_node_and_lease_only() {
        let node = Identity::node("alpha");
        let cases = [
            ("patch", "nodes/status", "", "alpha", true),
            ("patch", "nodes/status", "", "beta", false),
            ("update", "coordination.k8s.io:leases", "kube-node-lease", "alpha", true),
            ("update", "coordination.k8s.io:leases", "kube-node-lease", "beta", false),
            ("update", "coordination.k8s.io:leases", "default", "alpha", false),
            ("list", "pods", "", "", true),
            ("create", "pods", "default", "", false),
            ("patch", "pods/status", "default", "web", true),
            ("delete", "nodes", "", "alpha", false),
            ("create", "secrets", "default", "", false),
        ];
        for (verb, resource, namespace, name, expected) in cases {
            assert_eq!(allowed(&node, &asked(verb, resource, namespace, name)), expected, "{verb} {resource} {name}");
        }
    }

    #[test]
    fn a_user_name_alone_makes_no_node() {
        let pretender = Identity { user: "system:node:alpha".into(), groups: vec![] };
        assert!(!allowed(&pretender, &asked("patch", "nodes/status", "", "alpha")));
    }

    #[test]
    fn a_controller_makes_pods_but_no_secrets_and_no_nodes() {
        let controller = Identity::controller("manager");
        assert!(allowed(&controller, &asked("create", "pods", "a", "")));
        assert!(allowed(&controller, &asked("update", "apps:replicasets/status", "a", "b")));
        assert!(!allowed(&controller, &asked("create", "secrets", "a", "")));
        assert!(!allowed(&controller, &asked("create", "nodes", "", "")));
    }

    #[test]
    fn a_refusal_reads_as_upstream_words_it() {
        let error = check(&Identity::scheduler(), &asked("create", "apps:deployments", "default", "")).unwrap_err();
        let expected = "deployments.apps is forbidden: User \"system:kube-scheduler\" cannot create resource \
                        \"deployments\" in API group \"apps\" in the namespace \"default\"";
        assert_eq!(error.to_string(), expected);
        let error = check(&Identity::node("a"), &asked("update", "nodes", "", "b")).unwrap_err();
        let expected = "nodes \"b\" is forbidden: User \"system:node:a\" cannot update resource \"nodes\" in API group \
                        \"\" at the cluster scope";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn open_paths_need_no_credential_and_prefixes_do_not_leak() {
        let nobody = Identity::anonymous();
        assert!(may_read_path(&nobody, "/version") && may_read_path(&nobody, "/version/"));
        assert!(may_read_path(&nobody, "/readyz/cache") && !may_read_path(&nobody, "/versions"));
        assert!(!may_read_path(&nobody, "/api") && !may_read_path(&nobody, "/openapi/v3"));
        assert!(may_read_path(&Identity::scheduler(), "/openapi/v3/api/v1"));
        assert!(!may_read_path(&Identity::scheduler(), "/metrics"));
    }
}
