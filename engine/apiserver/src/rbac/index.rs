//! Who is bound to what, by subject: a decision looks up the caller's names and walks the rules found there.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::rule::{Rule, nullable};
use crate::authorize::Attributes;
use crate::derived::Fold;
use crate::identity::Identity;
use crate::object::Object;

/// All roles and bindings. A role or binding of the cluster has its name for a key, one of a namespace
/// `<namespace>/<name>`.
#[derive(Default)]
pub(crate) struct Index {
    roles: HashMap<Box<str>, Arc<[Rule]>>,
    /// What is granted in a namespace; under the empty name, everywhere.
    scopes: HashMap<Box<str>, Scope>,
    /// The subjects of each binding, to take it out again.
    bound: HashMap<Box<str>, Vec<Subject>>,
}

#[derive(Default)]
struct Scope {
    users: Grants,
    groups: Grants,
}

type Grants = HashMap<Box<str>, Vec<Grant>>;

/// One subject's share in a binding.
#[derive(Clone)]
struct Grant {
    binding: Arc<str>,
    role: Arc<str>,
}

enum Subject {
    User(Box<str>),
    Group(Box<str>),
}

/// What allowed a request.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    binding: Arc<str>,
    role: Arc<str>,
    to: String,
}

impl std::fmt::Display for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (binding, role, to) = (&self.binding, &self.role, &self.to);
        let [kind, role_kind] = [binding, role].map(|key| if key.contains('/') { "" } else { "Cluster" });
        write!(f, "RBAC: allowed by {kind}RoleBinding {binding:?} of {role_kind}Role {role:?} to {to}")
    }
}

#[derive(Deserialize)]
struct RoleObject {
    #[serde(default, deserialize_with = "nullable")]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingObject {
    role_ref: Reference,
    #[serde(default, deserialize_with = "nullable")]
    subjects: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    kind: Box<str>,
    name: Box<str>,
    #[serde(default)]
    namespace: Option<Box<str>>,
}

impl Reference {
    /// The subject in terms of users and groups; an account without a namespace is one of the binding's.
    fn subject(self, namespace: &str) -> Option<Subject> {
        match &*self.kind {
            "User" => Some(Subject::User(self.name)),
            "Group" => Some(Subject::Group(self.name)),
            "ServiceAccount" => {
                let own = self.namespace.filter(|own| !own.is_empty()).unwrap_or_else(|| namespace.into());
                (!own.is_empty()).then(|| Subject::User(format!("system:serviceaccount:{own}:{}", self.name).into()))
            }
            _ => None,
        }
    }
}

impl Fold for Index {
    fn put(&mut self, table: usize, object: &Object) {
        self.remove(table, &object.key);
        match table {
            0 | 1 => match serde_json::from_slice::<RoleObject>(object.content()) {
                Ok(role) => drop(self.roles.insert(object.key.clone(), role.rules.into())),
                Err(error) => tracing::warn!(key = %object.key, %error, "a role that cannot be read allows nothing"),
            },
            _ => match serde_json::from_slice::<BindingObject>(object.content()) {
                Ok(binding) => self.bind(&object.key, binding),
                Err(error) => tracing::warn!(key = %object.key, %error, "a binding that cannot be read grants nothing"),
            },
        }
    }

    fn remove(&mut self, table: usize, key: &str) {
        if table < 2 {
            self.roles.remove(key);
            return;
        }
        let namespace = namespace(key);
        let subjects = self.bound.remove(key);
        let Some(scope) = self.scopes.get_mut(namespace) else { return };
        for subject in subjects.into_iter().flatten() {
            let (grants, name) = scope.of(&subject);
            if let Some(own) = grants.get_mut(name) {
                own.retain(|grant| *grant.binding != *key);
                if own.is_empty() {
                    grants.remove(name);
                }
            }
        }
        if scope.users.is_empty() && scope.groups.is_empty() {
            self.scopes.remove(namespace);
        }
    }
}

fn namespace(key: &str) -> &str {
    key.split_once('/').map_or("", |(namespace, _)| namespace)
}

impl Scope {
    fn of<'a>(&mut self, subject: &'a Subject) -> (&mut Grants, &'a str) {
        match subject {
            Subject::User(name) => (&mut self.users, name),
            Subject::Group(name) => (&mut self.groups, name),
        }
    }
}

impl Index {
    fn bind(&mut self, key: &str, binding: BindingObject) {
        let namespace = namespace(key);
        let role = match &*binding.role_ref.kind {
            "Role" if !namespace.is_empty() => format!("{namespace}/{}", binding.role_ref.name),
            "ClusterRole" => binding.role_ref.name.into(),
            _ => return,
        };
        let grant = Grant { binding: key.into(), role: role.into() };
        let subjects: Vec<Subject> = binding.subjects.into_iter().filter_map(|it| it.subject(namespace)).collect();
        let scope = self.scopes.entry(namespace.into()).or_default();
        for subject in &subjects {
            let (grants, name) = scope.of(subject);
            grants.entry(name.into()).or_default().push(grant.clone());
        }
        self.bound.insert(key.into(), subjects);
    }

    /// The rules of a role, by its key.
    pub(crate) fn role(&self, key: &str) -> Option<Arc<[Rule]>> {
        self.roles.get(key).cloned()
    }

    /// What allows a request about a resource.
    pub(crate) fn allows(&self, identity: &Identity, asked: &Attributes<'_>) -> Option<Granted> {
        self.find(identity, asked.namespace, |rule| rule.allows(asked))
    }

    /// What allows a request for a path.
    pub(crate) fn allows_path(&self, identity: &Identity, verb: &str, path: &str) -> Option<Granted> {
        self.find(identity, "", |rule| rule.allows_path(verb, path))
    }

    fn find(&self, identity: &Identity, namespace: &str, fits: impl Fn(&Rule) -> bool) -> Option<Granted> {
        self.grants(identity, namespace).find_map(|(grant, group)| {
            let allowed = self.roles.get(&*grant.role)?.iter().any(&fits);
            let to = || group.map_or_else(|| format!("User {:?}", identity.user), |group| format!("Group {group:?}"));
            allowed.then(|| Granted { binding: grant.binding.clone(), role: grant.role.clone(), to: to() })
        })
    }

    /// Every rule that holds for the identity in a namespace; in none, only those that hold everywhere.
    pub(crate) fn rules(&self, identity: &Identity, namespace: &str) -> Vec<Rule> {
        let roles = self.grants(identity, namespace).filter_map(|(grant, _)| self.roles.get(&*grant.role));
        roles.flat_map(|rules| rules.iter().cloned()).collect()
    }

    /// The caller's grants, with the group they are to.
    fn grants<'a>(
        &'a self,
        identity: &'a Identity,
        namespace: &str,
    ) -> impl Iterator<Item = (&'a Grant, Option<&'a str>)> {
        let own = (!namespace.is_empty()).then(|| self.scopes.get(namespace)).flatten();
        self.scopes.get("").into_iter().chain(own).flat_map(|scope| {
            let users = scope.users.get(&*identity.user).into_iter().flatten().map(|grant| (grant, None));
            let groups = identity.groups.iter().flat_map(|group| {
                let grants = scope.groups.get(&**group).into_iter().flatten();
                grants.map(move |grant| (grant, Some(&**group)))
            });
            users.chain(groups)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(key: &str, value: &Value) -> Object {
        let mut whole = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "X", "metadata": {"name": "x"}});
        for (field, value) in value.as_object().unwrap() {
            whole[field] = value.clone();
        }
        Object::stored(key, crate::object::canonical(&whole), 1).unwrap()
    }

    fn role(verb: &str) -> Value {
        json!({"rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]})
    }

    fn binding(kind: &str, role: &str, subjects: &Value) -> Value {
        json!({"roleRef": {"kind": kind, "name": role}, "subjects": subjects})
    }

    fn allows(index: &Index, identity: &Identity, verb: &str, namespace: &str) -> bool {
        let asked = Attributes { verb, resource: "pods", namespace, ..Attributes::default() };
        index.allows(identity, &asked).is_some()
    }

    #[test]
    fn bindings_grant_where_they_are_and_as_long_as_they_are() {
        let mut index = Index::default();
        index.put(0, &object("reader", &role("get")));
        index.put(1, &object("a/writer", &role("create")));
        index.put(2, &object("all", &binding("ClusterRole", "reader", &json!([{"kind": "Group", "name": "devs"}]))));
        let account = json!([{"kind": "ServiceAccount", "name": "bot"}, {"kind": "User", "name": "jane"}]);
        index.put(3, &object("a/some", &binding("Role", "writer", &account)));
        let jane = Identity::new("jane", &["devs"]);
        let bot = Identity::new("system:serviceaccount:a:bot", &[]);
        assert!(allows(&index, &jane, "get", "") && allows(&index, &jane, "get", "b"));
        assert!(allows(&index, &jane, "create", "a") && allows(&index, &bot, "create", "a"));
        assert!(!allows(&index, &jane, "create", "b") && !allows(&index, &jane, "create", ""));
        assert!(!allows(&index, &bot, "get", "a"));
        index.put(3, &object("a/some", &binding("Role", "writer", &json!([{"kind": "User", "name": "jane"}]))));
        assert!(!allows(&index, &bot, "create", "a") && allows(&index, &jane, "create", "a"));
        index.remove(1, "a/writer");
        assert!(!allows(&index, &jane, "create", "a"));
        index.remove(2, "all");
        index.remove(3, "a/some");
        assert!(!allows(&index, &jane, "get", "b") && index.scopes.is_empty() && index.bound.is_empty());
    }

    #[test]
    fn a_role_of_another_namespace_is_out_of_reach() {
        let mut index = Index::default();
        index.put(1, &object("a/writer", &role("create")));
        let jane = json!([{"kind": "User", "name": "jane"}]);
        index.put(3, &object("b/some", &binding("Role", "writer", &jane)));
        index.put(2, &object("c", &binding("Role", "writer", &jane)));
        let identity = Identity::new("jane", &[]);
        assert!(!allows(&index, &identity, "create", "a") && !allows(&index, &identity, "create", "b"));
    }

    /// One binding a user, a quarter of them in namespaces, as many roles; the caller has a few of its own.
    fn crowd(bindings: usize) -> Index {
        let mut index = Index::default();
        for number in 0..bindings {
            let (name, place) = (format!("r{number}"), if number % 4 == 0 { "team/" } else { "" });
            index.put(usize::from(!place.is_empty()), &object(&format!("{place}{name}"), &role("get")));
            let kind = if place.is_empty() { "ClusterRole" } else { "Role" };
            let group = format!("g{}", number % (bindings / 10));
            let subjects = json!([{"kind": "User", "name": format!("u{number}")}, {"kind": "Group", "name": group}]);
            let table = if place.is_empty() { 2 } else { 3 };
            index.put(table, &object(&format!("{place}b{number}"), &binding(kind, &name, &subjects)));
        }
        index
    }

    /// The quickest of many batches: what the machine does beside them does not count.
    fn decides_in(index: &Index) -> std::time::Duration {
        let identity = Identity::new("u7", &["g1", "g2", "system:serviceaccounts", "system:authenticated"]);
        let batch = || {
            let began = std::time::Instant::now();
            for _ in 0..100 {
                assert!(std::hint::black_box(allows(index, &identity, "get", "team")));
                assert!(!std::hint::black_box(allows(index, &identity, "create", "team")));
            }
            began.elapsed()
        };
        std::iter::repeat_with(batch).take(50).min().unwrap_or_default()
    }

    #[test]
    fn a_decision_among_a_thousand_bindings_takes_no_longer_than_among_a_hundred() {
        let (few, many) = (decides_in(&crowd(100)), decides_in(&crowd(1000)));
        assert!(many < few * 4, "{few:?} among a hundred, {many:?} among a thousand");
    }
}
