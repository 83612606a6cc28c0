//! The `APIService` objects of what this server serves itself: one for each group version, there as long as that is
//! served.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use shipway_schema::Registry;
use shipway_store::Txn;

use super::GROUP;
use super::check::changed;
use super::route::name;
use crate::ApiServer;
use crate::clock;
use crate::error::ApiError;
use crate::object::{Object, canonical};

/// How many objects are written in one transaction.
const AT_ONCE: usize = 64;
/// Marks the objects that come and go with what is served.
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Makes the objects that are missing, says of those without a service that they are available, and takes away those whose
/// group version is served no longer.
pub(crate) async fn register(server: &ApiServer) -> Result<(), ApiError> {
    let cache = server.cache();
    cache.catch_up().await?;
    let table = &server.aggregation().table;
    let live = cache.snapshot(table, None, None).objects;
    let now = clock::text(clock::now());
    let key = |name: &str| format!("{}{name}", table.prefix);
    let registry = server.registry();
    let versions = registry.group_versions();
    let names: BTreeSet<String> = versions.iter().map(|(group, version)| name(group, version)).collect();
    let mut writes: Vec<(String, u64, Value)> = Vec::new();
    for object in &live {
        writes.extend(settled(object, &names, &now).map(|write| (key(object.name()), object.revision, write)));
    }
    let there: BTreeSet<&str> = live.iter().map(|object| object.name()).collect();
    for (group, version) in versions {
        let name = name(group, version);
        if !there.contains(name.as_str()) {
            writes.push((key(&name), 0, local(&registry, group, version, &now)));
        }
    }
    for some in writes.chunks(AT_ONCE) {
        let txn = some.iter().fold(Txn::new(), |txn, (key, revision, write)| {
            let txn = txn.when(key.clone(), *revision);
            if write.is_null() { txn.delete(key.clone()) } else { txn.put(key.clone(), canonical(write)) }
        });
        // Whoever came first has changed the table, which is heard of.
        if !cache.store().txn(txn).await?.succeeded {
            server.aggregation().wake();
        }
    }
    cache.catch_up().await
}

/// What an object should be where it is something else; null when it should be gone.
fn settled(object: &Arc<Object>, served: &BTreeSet<String>, now: &str) -> Option<Value> {
    if object.label(AUTOMANAGED).is_some() && !served.contains(object.name()) {
        return Some(Value::Null);
    }
    let mut value = object.value();
    if value["spec"]["service"].is_object() {
        return None;
    }
    value["status"] = changed(&value, available(), now)?;
    Some(value)
}

fn available() -> Value {
    let message = "Local APIServices are always available";
    json!({"type": "Available", "status": "True", "reason": "Local", "message": message})
}

fn local(registry: &Registry, group: &str, version: &str, now: &str) -> Value {
    let (group_priority, version_priority) = registry.priorities(group, version);
    // What is compiled in is seen to at every start, what definitions say whenever they change.
    let managed = if registry.is_builtin(group, version) { "onstart" } else { "true" };
    let mut spec = json!({
        "version": version,
        "groupPriorityMinimum": group_priority,
        "versionPriority": version_priority,
    });
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "APIService",
        "metadata": {
            "name": name(group, version),
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": now,
            "labels": {AUTOMANAGED: managed},
        },
        "spec": spec,
    });
    object["status"] = changed(&object, available(), now).unwrap_or(Value::Null);
    object
}
