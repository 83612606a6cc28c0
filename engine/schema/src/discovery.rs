//! Discovery: what is served, as clients ask for it. The plain documents are one request a group version; the
//! aggregated ones (`apidiscovery.k8s.io/v2`) say all in two.

use serde_json::{Map, Value, json};

use crate::registry::Registry;
use crate::resource::{Gvk, Name, Resource, Subresource, VirtualResource, api_version};

/// The priorities of custom resources.
const CUSTOM: (u64, u64) = (1000, 100);
/// The priority of a group of ours that has no line below.
const LAST: u64 = 15_000;
/// The priorities of the groups (upstream's numbers): names that several groups use mean the first of them.
const GROUPS: [(&str, u64); 22] = [
    ("", 18_000),
    ("apiregistration.k8s.io", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("resource.k8s.io", 15_900),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    // Its pods and nodes are not what one means by these words.
    ("metrics.k8s.io", 100),
];

/// A resource of either sort, as a document lists it.
enum Entry<'a> {
    Stored(&'a Resource),
    Virtual(&'static VirtualResource),
}

impl Registry {
    /// `GET /api`
    pub fn api_versions(&self) -> Value {
        json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "" }],
        })
    }

    /// `GET /apis`: an `APIGroupList`.
    pub fn api_groups(&self) -> Value {
        let groups: Vec<Value> = self.groups().iter().map(|group| self.group_document(group)).collect();
        json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
    }

    /// `GET /apis/<group>`: an `APIGroup`.
    pub fn api_group(&self, group: &str) -> Option<Value> {
        self.groups().contains(&group).then(|| {
            let mut document = json!({ "kind": "APIGroup", "apiVersion": "v1" });
            if let (Value::Object(whole), Value::Object(part)) = (&mut document, self.group_document(group)) {
                whole.extend(part);
            }
            document
        })
    }

    /// `GET /api/v1` or `/apis/<group>/<version>`: an `APIResourceList`.
    pub fn api_resources(&self, group: &str, version: &str) -> Option<Value> {
        let entries = self.entries(group, version);
        if entries.is_empty() {
            return None;
        }
        let resources: Vec<Value> = entries.iter().flat_map(Entry::plain).collect();
        Some(json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": api_version(group, version),
            "resources": resources,
        }))
    }

    /// The aggregated form of `GET /api` (`core`) or `GET /apis`: an `APIGroupDiscoveryList`. The reply's content type
    /// has to echo `application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList`.
    pub fn aggregated(&self, core: bool) -> Value {
        let groups = if core { vec![""] } else { self.groups() };
        let items: Vec<Value> = groups.into_iter().map(|group| self.aggregated_group(group)).collect();
        json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": items,
        })
    }

    /// The named groups in order; the core group is not among them.
    fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> =
            self.all().map(|each| &*each.group).chain(self.virtual_resources().map(|each| each.group)).collect();
        groups.retain(|group| !group.is_empty());
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The versions of a group, the preferred one first.
    pub(crate) fn versions(&self, group: &str) -> Vec<&str> {
        let stored = self.all().filter(|each| each.group == group).map(|each| &*each.version);
        let virtuals = self.virtual_resources().filter(|each| each.group == group).map(|each| each.version);
        let mut versions: Vec<&str> = Vec::new();
        for version in stored.chain(virtuals) {
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        if self.custom().any(|each| each.group == group) {
            versions.sort_by_key(|version| priority(version));
        }
        versions
    }

    /// Every group and version that is served, the core group first.
    pub fn group_versions(&self) -> Vec<(&str, &str)> {
        let groups = std::iter::once("").chain(self.groups());
        groups.flat_map(|group| self.versions(group).into_iter().map(move |version| (group, version))).collect()
    }

    /// Whether a group and version is compiled in: no custom resource and no other server can take its place.
    pub fn is_builtin(&self, group: &str, version: &str) -> bool {
        self.compiled().any(|each| each.group == group && each.version == version)
            || self.virtual_resources().any(|each| each.group == group && each.version == version)
    }

    /// How early a group and a version of it are looked through, as an `APIService` says it: `groupPriorityMinimum` and
    /// `versionPriority`.
    pub fn priorities(&self, group: &str, version: &str) -> (u64, u64) {
        if !self.is_builtin(group, version) {
            return CUSTOM;
        }
        let known = GROUPS.iter().find(|(own, _)| *own == group).map_or(LAST, |(_, priority)| *priority);
        let own = self.versions(group);
        let behind = own.iter().rev().position(|each| *each == version).unwrap_or_default();
        (known, if group.is_empty() { 1 } else { 15 * (behind as u64 + 1) })
    }

    fn group_document(&self, group: &str) -> Value {
        let versions: Vec<Value> = self
            .versions(group)
            .into_iter()
            .map(|version| json!({ "groupVersion": api_version(group, version), "version": version }))
            .collect();
        json!({ "name": group, "preferredVersion": versions.first(), "versions": versions })
    }

    fn entries(&self, group: &str, version: &str) -> Vec<Entry<'_>> {
        let stored = self.all().filter(|each| each.group == group && each.version == version);
        let virtuals = self.virtual_resources().filter(|each| each.group == group && each.version == version);
        stored.map(|each| Entry::Stored(each)).chain(virtuals.map(Entry::Virtual)).collect()
    }

    fn aggregated_group(&self, group: &str) -> Value {
        let versions: Vec<Value> = self
            .versions(group)
            .into_iter()
            .map(|version| {
                let resources: Vec<Value> =
                    self.entries(group, version).iter().map(|entry| entry.aggregated(group, version)).collect();
                json!({ "version": version, "resources": resources, "freshness": "Current" })
            })
            .collect();
        let metadata = if group.is_empty() { json!({}) } else { json!({ "name": group }) };
        json!({ "metadata": metadata, "versions": versions })
    }
}

impl Entry<'_> {
    /// The resource and its subresources as `APIResource`s.
    fn plain(&self) -> Vec<Value> {
        match self {
            Self::Virtual(each) => vec![json!({
                "name": each.plural,
                "singularName": each.singular,
                "namespaced": each.namespaced,
                "kind": each.kind,
                "verbs": each.verbs,
            })],
            Self::Stored(each) => {
                let mut own = json!({
                    "name": each.plural,
                    "singularName": each.singular,
                    "namespaced": each.namespaced,
                    "kind": each.kind,
                    "verbs": each.verbs,
                });
                names_into(&mut own, &each.short_names, &each.categories);
                let below = each.subresources.iter().map(|sub| plain_subresource(each, sub));
                std::iter::once(own).chain(below).collect()
            }
        }
    }

    fn aggregated(&self, group: &str, version: &str) -> Value {
        let response = |kind: &str| json!({ "group": group, "version": version, "kind": kind });
        match self {
            Self::Virtual(each) => json!({
                "resource": each.plural,
                "responseKind": response(each.kind),
                "scope": scope(each.namespaced),
                "singularResource": each.singular,
                "verbs": each.verbs,
            }),
            Self::Stored(each) => {
                let mut own = json!({
                    "resource": each.plural,
                    "responseKind": response(&each.kind),
                    "scope": scope(each.namespaced),
                    "singularResource": each.singular,
                    "verbs": each.verbs,
                });
                names_into(&mut own, &each.short_names, &each.categories);
                let below: Vec<Value> = each.subresources.iter().map(|sub| aggregated_subresource(each, sub)).collect();
                if !below.is_empty() {
                    own["subresources"] = below.into();
                }
                own
            }
        }
    }
}

fn scope(namespaced: bool) -> &'static str {
    if namespaced { "Namespaced" } else { "Cluster" }
}

/// Sorts stable versions first, then betas, then alphas, the newer before the older, and other names behind them.
pub fn priority(version: &str) -> (u8, std::cmp::Reverse<u32>, std::cmp::Reverse<u32>, String) {
    let parsed = version.strip_prefix('v').and_then(|rest| {
        let (major, rest) = match rest.find(|letter: char| !letter.is_ascii_digit()) {
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        };
        let major: u32 = major.parse().ok()?;
        let (rank, minor) = match (rest, rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            ("", ..) => (0, "0"),
            (_, Some(minor), _) => (1, minor),
            (.., Some(minor)) => (2, minor),
            _ => return None,
        };
        Some((rank, std::cmp::Reverse(major), std::cmp::Reverse(minor.parse().ok()?), String::new()))
    });
    parsed.unwrap_or_else(|| (3, std::cmp::Reverse(0), std::cmp::Reverse(0), version.to_owned()))
}

fn names_into(entry: &mut Value, short_names: &[Name], categories: &[Name]) {
    if !short_names.is_empty() {
        entry["shortNames"] = json!(short_names);
    }
    if !categories.is_empty() {
        entry["categories"] = json!(categories);
    }
}

fn plain_subresource(resource: &Resource, sub: &Subresource) -> Value {
    let mut entry = Map::new();
    entry.insert("name".to_owned(), format!("{}/{}", resource.plural, sub.name).into());
    entry.insert("singularName".to_owned(), "".into());
    entry.insert("namespaced".to_owned(), resource.namespaced.into());
    if let Some(Gvk { group, version, .. }) = sub.kind {
        entry.insert("group".to_owned(), group.into());
        entry.insert("version".to_owned(), version.into());
    }
    entry.insert("kind".to_owned(), sub.kind.map_or(&*resource.kind, |kind| kind.kind).into());
    entry.insert("verbs".to_owned(), json!(sub.verbs));
    Value::Object(entry)
}

fn aggregated_subresource(resource: &Resource, sub: &Subresource) -> Value {
    let kind = match sub.kind {
        Some(Gvk { group, version, kind }) => json!({ "group": group, "version": version, "kind": kind }),
        None => json!({ "group": resource.group, "version": resource.version, "kind": resource.kind }),
    };
    json!({ "subresource": sub.name, "responseKind": kind, "verbs": sub.verbs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::shared;

    #[test]
    fn plain_documents_list_resources_and_what_is_below_them() {
        let registry = shared();
        let core = registry.api_resources("", "v1").expect("the core group is served");
        assert_eq!(core["groupVersion"], "v1");
        let list = core["resources"].as_array().expect("resources");
        let named =
            |name: &str| list.iter().find(|each| each["name"] == name).unwrap_or_else(|| panic!("{name} is listed"));
        assert_eq!(named("pods")["shortNames"], json!(["po"]));
        assert_eq!(named("pods")["categories"], json!(["all"]));
        assert_eq!(named("nodes")["namespaced"], false);
        assert_eq!(named("pods/log")["verbs"], json!(["get"]));
        assert_eq!(named("pods/eviction")["group"], "policy");
        assert_eq!(named("pods/exec")["kind"], "PodExecOptions");
        assert_eq!(named("bindings")["namespaced"], true);
        assert!(
            !named("namespaces")["verbs"].as_array().is_some_and(|verbs| verbs.contains(&json!("deletecollection")))
        );
        let apps = registry.api_resources("apps", "v1").expect("apps is served");
        let scale =
            apps["resources"].as_array().and_then(|all| all.iter().find(|each| each["name"] == "deployments/scale"));
        assert_eq!(scale.expect("deployments scale")["kind"], "Scale");
        assert!(registry.api_resources("apps", "v1beta1").is_none());
    }

    #[test]
    fn groups_name_their_versions() {
        let registry = shared();
        let groups = registry.api_groups();
        let names: Vec<&str> =
            groups["groups"].as_array().expect("groups").iter().filter_map(|each| each["name"].as_str()).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
        for group in ["apps", "authentication.k8s.io", "batch", "events.k8s.io", "rbac.authorization.k8s.io"] {
            assert!(names.contains(&group), "{group}");
        }
        let apps = registry.api_group("apps").expect("apps is served");
        assert_eq!(apps["preferredVersion"], json!({ "groupVersion": "apps/v1", "version": "v1" }));
        assert!(registry.api_group("").is_none());
        assert!(registry.api_group("extensions").is_none());
        let scaling = registry.api_group("autoscaling").expect("autoscaling is served");
        assert_eq!(scaling["preferredVersion"]["version"], "v2");
        assert_eq!(scaling["versions"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn every_group_of_ours_has_a_priority() {
        let registry = shared();
        for (group, version) in registry.group_versions() {
            assert!(registry.is_builtin(group, version));
            assert_ne!(registry.priorities(group, version).0, LAST, "{group}");
        }
        assert_eq!(registry.priorities("", "v1"), (18_000, 1));
        assert_eq!(registry.priorities("autoscaling", "v2"), (17_500, 30));
        assert_eq!(registry.priorities("autoscaling", "v1"), (17_500, 15));
        assert_eq!(registry.priorities("example.com", "v1"), (1000, 100));
        assert!(!registry.is_builtin("apps", "v2"));
    }

    #[test]
    fn versions_are_listed_by_how_settled_they_are() {
        let mut versions = ["foo", "v1alpha1", "v1", "v10", "v2beta1", "v1beta2", "v1beta10", "v2"];
        versions.sort_by_key(|version| priority(version));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn the_aggregated_documents_say_the_same() {
        let registry = shared();
        let core = registry.aggregated(true);
        let version = &core["items"][0]["versions"][0];
        assert_eq!(version["freshness"], "Current");
        let pods = version["resources"].as_array().and_then(|all| all.iter().find(|each| each["resource"] == "pods"));
        let pods = pods.expect("pods are listed");
        assert_eq!(pods["scope"], "Namespaced");
        assert_eq!(pods["responseKind"], json!({ "group": "", "version": "v1", "kind": "Pod" }));
        let below: Vec<&str> = pods["subresources"]
            .as_array()
            .expect("pods have subresources")
            .iter()
            .filter_map(|each| each["subresource"].as_str())
            .collect();
        assert_eq!(
            below,
            [
                "attach",
                "binding",
                "ephemeralcontainers",
                "eviction",
                "exec",
                "log",
                "portforward",
                "proxy",
                "resize",
                "status",
            ]
        );
        let named = registry.aggregated(false);
        let groups = named["items"].as_array().expect("groups");
        assert_eq!(groups.len(), registry.api_groups()["groups"].as_array().expect("groups").len());
        let group =
            |name: &str| groups.iter().find(|each| each["metadata"]["name"] == name).expect("the group is listed");
        let reviews = &group("authorization.k8s.io")["versions"][0]["resources"];
        assert_eq!(reviews[0]["resource"], "localsubjectaccessreviews");
        assert_eq!((&reviews[0]["scope"], &reviews[0]["verbs"]), (&json!("Namespaced"), &json!(["create"])));
    }
}
