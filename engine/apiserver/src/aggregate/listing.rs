//! Discovery with what other servers serve in it, and in the order that the `APIService` objects say: groups by the highest
//! priority of any of their versions, versions by their own.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value, json};
use shipway_schema::version_priority;

use super::route::{Order, Route, Routes, name};
use super::routes;
use crate::ApiServer;

/// The order of groups and versions.
struct Orders(HashMap<Box<str>, Order>);

impl Orders {
    fn of(server: &ApiServer) -> Self {
        Self(server.aggregation().routes.read(server.cache(), Routes::orders))
    }

    fn one(&self, group: &str, version: &str) -> Order {
        self.0.get(name(group, version).as_str()).copied().unwrap_or_default()
    }

    /// Sorts groups, whose names `name` finds and whose versions `version` does; the versions are sorted, too.
    fn sort(&self, groups: &mut [Value], name: fn(&Value) -> &str) {
        for group in groups.iter_mut() {
            let own = name(group).to_owned();
            if let Some(versions) = group["versions"].as_array_mut() {
                versions.sort_by_cached_key(|version| {
                    let version = version["version"].as_str().unwrap_or_default();
                    (Reverse(self.one(&own, version).version), version_priority(version))
                });
            }
        }
        groups.sort_by_cached_key(|group| {
            let own = name(group);
            let versions = group["versions"].as_array().into_iter().flatten();
            let highest = versions.map(|each| self.one(own, each["version"].as_str().unwrap_or_default()).group).max();
            (Reverse(highest), own.to_owned())
        });
    }
}

fn plain_name(group: &Value) -> &str {
    group["name"].as_str().unwrap_or_default()
}

fn aggregated_name(group: &Value) -> &str {
    group["metadata"]["name"].as_str().unwrap_or_default()
}

/// The group of a name among others, made when it is not there.
fn entry<'a>(groups: &'a mut Vec<Value>, name: &str, of: fn(&Value) -> &str, make: fn(&str) -> Value) -> &'a mut Value {
    let at = groups.iter().position(|group| of(group) == name).unwrap_or_else(|| {
        groups.push(make(name));
        groups.len() - 1
    });
    &mut groups[at]
}

/// Puts a version in place of the one of the same name.
fn put(group: &mut Value, version: Value) {
    if let Some(versions) = group["versions"].as_array_mut() {
        versions.retain(|each| each["version"] != version["version"]);
        versions.push(version);
    }
}

/// Adds to an `APIGroupList`.
pub(crate) fn add_to_groups(server: &ApiServer, mut document: Value) -> Value {
    let Some(groups) = document["groups"].as_array_mut() else { return document };
    for route in routes(server) {
        let group = entry(groups, &route.group, plain_name, |name| json!({"name": name, "versions": []}));
        let version = json!({"groupVersion": format!("{}/{}", route.group, route.version), "version": route.version});
        put(group, version);
    }
    Orders::of(server).sort(groups, plain_name);
    for group in groups {
        group["preferredVersion"] = group["versions"][0].clone();
    }
    document
}

/// One `APIGroup`.
pub(crate) fn group(server: &ApiServer, name: &str) -> Option<Value> {
    let mut all = add_to_groups(server, server.registry().api_groups());
    let mut found = all["groups"].as_array_mut()?.iter_mut().find(|group| group["name"] == *name)?.take();
    let mut document = json!({"kind": "APIGroup", "apiVersion": "v1"});
    document.as_object_mut()?.append(found.as_object_mut()?);
    Some(document)
}

/// Adds to an `APIGroupDiscoveryList`.
pub(crate) fn add_to_aggregated(server: &ApiServer, mut document: Value) -> Value {
    let Some(groups) = document["items"].as_array_mut() else { return document };
    for route in routes(server) {
        let make = |name: &str| json!({"metadata": {"name": name}, "versions": []});
        put(entry(groups, &route.group, aggregated_name, make), version(server, &route));
    }
    Orders::of(server).sort(groups, aggregated_name);
    document
}

/// Adds to the index of OpenAPI documents; the other server is asked for its own when somebody wants it.
pub(crate) fn add_documents(server: &ApiServer, mut index: Value) -> Value {
    for route in routes(server).into_iter().filter(|route| route.available) {
        let path = route.root();
        index["paths"][path.trim_start_matches('/')] = json!({"serverRelativeURL": format!("/openapi/v3{path}")});
    }
    index
}

/// An `APIVersionDiscovery`: what was last seen, and whether it can still be asked for.
fn version(server: &ApiServer, route: &Route) -> Value {
    let (resources, well) = {
        let found = server.aggregation().found.lock().unwrap_or_else(PoisonError::into_inner);
        let found = found.get(&route.object);
        (found.and_then(|found| found.resources.clone()), found.is_some_and(super::check::Found::is_well))
    };
    let resources = resources.map(|list: Arc<Value>| aggregated(&list, route)).unwrap_or_default();
    let freshness = if well { "Current" } else { "Stale" };
    json!({"version": route.version, "resources": resources, "freshness": freshness})
}

/// The resources of an `APIResourceList` as the aggregated documents have them.
fn aggregated(list: &Value, route: &Route) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    for each in list.as_array().into_iter().flatten() {
        let Some(full) = each["name"].as_str().filter(|full| !full.is_empty()) else { continue };
        let text = |field: &str, absent: &str| match each[field].as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => absent.to_owned(),
        };
        let kind = json!({
            "group": text("group", &route.group),
            "version": text("version", &route.version),
            "kind": each["kind"],
        });
        let (name, below) = full.split_once('/').map_or((full, None), |(name, below)| (name, Some(below)));
        let scope = if each["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let Some(below) = below else {
            let mut own = Map::new();
            own.insert("resource".into(), name.into());
            own.insert("responseKind".into(), kind);
            own.insert("scope".into(), scope.into());
            own.insert("singularResource".into(), text("singularName", "").into());
            for field in ["verbs", "shortNames", "categories"] {
                own.extend(each.get(field).map(|value| (field.to_owned(), value.clone())));
            }
            found.push(own.into());
            continue;
        };
        let sub = json!({"subresource": below, "responseKind": kind, "verbs": each["verbs"]});
        match found.iter_mut().find(|own| own["resource"] == *name) {
            Some(owner) => match owner["subresources"].as_array_mut() {
                Some(list) => list.push(sub),
                None => owner["subresources"] = json!([sub]),
            },
            None => found.push(json!({"resource": name, "scope": scope, "subresources": [sub]})),
        }
    }
    found
}
