//! Resource quotas: a write that is counted changes the quota's `status.used` in the same transaction.
//!
//! So two writers can never together exceed a quota, and nothing is left over when the process ends in between. The
//! server alone writes `status`: it copies `hard` and works `used` out from the objects that are there whenever the two do
//! not belong together. Counted writes of one namespace take turns here; the transaction's conditions hold against
//! writers elsewhere.

mod scope;
mod usage;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use shipway_schema::Resource;
use shipway_schema::quantity::Quantity;
use shipway_store::Revision;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::resources::{Amounts, amounts};
use super::{Operation, Request, put};
use crate::ApiServer;
use crate::cache::Cache;
use crate::error::ApiError;
use crate::object::{Object, canonical};

/// How often a count is tried again after somebody else wrote the quota.
const ATTEMPTS: usize = 16;

/// Whose turn it is, by namespace. An entry lives as long as somebody has or awaits the turn.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, std::sync::Weak<Semaphore>>>);

impl Turns {
    async fn take(&self, namespace: &str) -> OwnedSemaphorePermit {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let known = turns.get(namespace).and_then(std::sync::Weak::upgrade);
            known.unwrap_or_else(|| {
                turns.retain(|_, turn| turn.strong_count() > 0);
                let turn = Arc::new(Semaphore::new(1));
                turns.insert(namespace.to_owned(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.acquire_owned().await.expect("the semaphore is never closed")
    }
}

/// What has to be written together with an object, and the turn to do it.
#[derive(Default)]
pub(crate) struct Charge {
    /// Keys that must not have changed: key and revision.
    pub(crate) guards: Vec<(Bytes, Revision)>,
    /// Their new values, for those that change.
    pub(crate) writes: Vec<(Bytes, Bytes)>,
    turn: Option<OwnedSemaphorePermit>,
}

/// Counts a write against the quotas of its namespace. `new` is none for a delete.
pub(crate) async fn charge(request: &Request<'_>, new: Option<&Value>) -> Result<Charge, ApiError> {
    let Some(namespace) = request.namespace() else { return Ok(Charge::default()) };
    let own = request.is("", "ResourceQuota");
    let redefines = own && new.is_some_and(|new| request.old.is_none_or(|old| old["spec"] != new["spec"]));
    if !redefines && !moves(request, new) {
        return Ok(Charge::default());
    }
    let server = &request.call.server;
    let quotas = &server.admission().tables.quotas;
    // A quota that comes up meanwhile moves the namespace, so that this write is judged again.
    let mut charge = Charge { guards: fence(server, namespace), ..Charge::default() };
    if !server.cache().snapshot(quotas, Some(namespace), None).objects.is_empty() {
        charge.turn = Some(server.admission().turns.take(namespace).await);
        server.cache().catch_up().await?;
        charge.guards = fence(server, namespace);
        for quota in server.cache().snapshot(quotas, Some(namespace), None).objects {
            if own && *quota.key == *request.place.key() {
                continue;
            }
            if let Some(counted) = count(request, new, &quota)? {
                let key: Bytes = format!("{}{}", quotas.prefix, quota.key).into();
                charge.guards.push((key.clone(), quota.revision));
                charge.writes.push((key, canonical(&counted).into()));
            }
        }
    }
    if redefines && let Some((key, _)) = charge.guards.first() {
        // Whoever has not seen this quota yet is stopped by its namespace having moved.
        let live = server.namespaces().get(namespace);
        charge.writes.extend(live.map(|live| (key.clone(), live.content().clone())));
    }
    Ok(charge)
}

/// Whether a write may change what any quota counts.
fn moves(request: &Request<'_>, new: Option<&Value>) -> bool {
    let (Some(old), Some(new)) = (request.old, new) else { return true };
    let resource = request.place.resource();
    usage::varies(resource)
        && (usage::of(resource, old) != usage::of(resource, new) || scope::changes(resource, old, new))
}

/// The namespace as it is: a condition that fails when a quota came up in it.
fn fence(server: &ApiServer, namespace: &str) -> Vec<(Bytes, Revision)> {
    let key = || format!("{}{namespace}", server.namespaces().prefix).into();
    server.namespaces().get(namespace).map(|live| (key(), live.revision)).into_iter().collect()
}

/// The quota with the write counted; none where it is none of the quota's concern.
fn count(request: &Request<'_>, new: Option<&Value>, quota: &Object) -> Result<Option<Value>, ApiError> {
    let resource = request.place.resource();
    let mut quota = quota.value();
    let hard = amounts(&quota["spec"]["hard"]);
    let counted = |object: Option<&Value>| {
        let own = object.filter(|object| scope::matches(&quota["spec"], resource, object));
        let mut usage = own.map(|object| usage::of(resource, object)).unwrap_or_default();
        usage.retain(|name, _| hard.contains_key(name));
        usage
    };
    let (before, after) = (counted(request.old), counted(new));
    if request.operation == Operation::Create
        && let Some(new) = new.filter(|new| scope::matches(&quota["spec"], resource, new))
    {
        let missing = usage::missing(resource, new, &hard);
        if !missing.is_empty() {
            let name = quota["metadata"]["name"].as_str().unwrap_or_default();
            return Err(request.forbidden(format!("failed quota: {name}: must specify {}", missing.join("; "))));
        }
    }
    if before == after {
        return Ok(None);
    }
    let mut used = used(&request.call.server, &quota);
    let more = difference(&after, &before);
    check(request, &quota, &hard, &used, &more)?;
    for (name, amount) in &more {
        let sum = used.get(name).and_then(|used| used.checked_add(amount)).unwrap_or(*amount);
        used.insert(name.clone(), if sum.is_negative() { Quantity::ZERO } else { sum });
    }
    quota["status"] = status(&quota, &used);
    Ok(Some(quota))
}

/// Refuses what would take more than there is; giving back is never refused.
fn check(request: &Request<'_>, quota: &Value, hard: &Amounts, used: &Amounts, more: &Amounts) -> Result<(), ApiError> {
    let over = |name: &String, amount: &Quantity| {
        let sum = used.get(name).copied().unwrap_or(Quantity::ZERO).checked_add(amount);
        sum.is_none_or(|sum| sum > hard[name])
    };
    let grows = |amount: &Quantity| !amount.is_zero() && !amount.is_negative();
    let exceeded: Vec<&String> =
        more.iter().filter(|(name, amount)| grows(amount) && over(name, amount)).map(|(name, _)| name).collect();
    if exceeded.is_empty() {
        return Ok(());
    }
    let show = |amounts: &Amounts| {
        let one = |name: &&String| format!("{name}={}", amounts.get(*name).copied().unwrap_or(Quantity::ZERO));
        exceeded.iter().map(one).collect::<Vec<_>>().join(",")
    };
    let name = quota["metadata"]["name"].as_str().unwrap_or_default();
    Err(request.forbidden(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        show(more),
        show(used),
        show(hard)
    )))
}

fn difference(after: &Amounts, before: &Amounts) -> Amounts {
    let none = Quantity::ZERO;
    let names = after.keys().chain(before.keys());
    let one = |name: &String| {
        let of = |amounts: &Amounts| amounts.get(name).copied().unwrap_or(none);
        (name.clone(), of(after).checked_sub(&of(before)).unwrap_or(none))
    };
    names.map(one).filter(|(_, amount)| !amount.is_zero()).collect()
}

/// What is used of a quota: what its status says where that is about the quota as it is, else what there is.
fn used(server: &ApiServer, quota: &Value) -> Amounts {
    let known = amounts(&quota["status"]["used"]);
    let hard = amounts(&quota["spec"]["hard"]);
    let current = quota["status"]["hard"] == quota["spec"]["hard"] && hard.keys().eq(known.keys());
    if current { known } else { derive(server, quota, &hard) }
}

/// Works out from the objects that are there what is used of a quota.
fn derive(server: &ApiServer, quota: &Value, hard: &Amounts) -> Amounts {
    let namespace = quota["metadata"]["namespace"].as_str();
    let mut sum: Amounts = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
    for (resource, objects) in counted_objects(server.cache(), server, hard, namespace) {
        for object in objects.iter().map(|object| object.value()) {
            if scope::matches(&quota["spec"], &resource, &object) {
                for (name, amount) in usage::of(&resource, &object) {
                    if let Some(own) = sum.get_mut(&name) {
                        *own = own.checked_add(&amount).unwrap_or(*own);
                    }
                }
            }
        }
    }
    sum
}

/// The objects of all kinds that a quota may be about.
fn counted_objects(
    cache: &Cache,
    server: &ApiServer,
    hard: &Amounts,
    namespace: Option<&str>,
) -> Vec<(Arc<Resource>, Vec<Arc<Object>>)> {
    let registry = server.registry();
    let mut kinds: BTreeMap<String, Arc<Resource>> = BTreeMap::new();
    for resource in registry.all().filter(|resource| resource.namespaced) {
        if hard.keys().any(|name| usage::concerns(resource, name)) {
            // Versions of one kind show the same objects, which are counted once.
            let table = format!("{}/{}", resource.kept.group, resource.kept.plural);
            kinds.entry(table).or_insert_with(|| resource.clone());
        }
    }
    let objects = |resource: Arc<Resource>| {
        let objects = cache.snapshot(&cache.table(&resource), namespace, None).objects;
        (resource, objects)
    };
    kinds.into_values().map(objects).collect()
}

fn status(quota: &Value, used: &Amounts) -> Value {
    let hard = &quota["spec"]["hard"];
    let used: Map<String, Value> =
        used.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
    json!({ "hard": if hard.is_null() { json!({}) } else { hard.clone() }, "used": used })
}

/// Nobody but the server says what is used.
pub(super) fn keep_status(request: &Request<'_>, quota: &mut Value) -> Result<(), ApiError> {
    let kept = request.old.and_then(|old| old.get("status")).cloned();
    if let Some(fields) = quota.as_object_mut() {
        match kept {
            Some(status) => fields.insert("status".into(), status),
            None => fields.shift_remove("status"),
        };
    }
    Ok(())
}

/// Brings a quota's status up to date.
pub(crate) async fn recount(server: &ApiServer, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, ApiError> {
    let quotas = &server.admission().tables.quotas;
    let key = format!("{namespace}/{name}");
    for _ in 0..ATTEMPTS {
        let _turn = server.admission().turns.take(namespace).await;
        server.cache().catch_up().await?;
        let Some(live) = quotas.get(&key) else { return Ok(None) };
        let mut quota = live.value();
        let used = derive(server, &quota, &amounts(&quota["spec"]["hard"]));
        let status = status(&quota, &used);
        if quota["status"] == status {
            return Ok(Some(live));
        }
        quota["status"] = status;
        if let Some(object) = put(server, quotas, &live, &quota).await? {
            return Ok(Some(object));
        }
    }
    Ok(None)
}

/// Brings the status of every quota up to date: when the server starts.
pub(crate) async fn recount_all(server: &ApiServer) -> Result<(), ApiError> {
    let quotas = server.cache().snapshot(&server.admission().tables.quotas, None, None).objects;
    for quota in quotas {
        recount(server, quota.namespace().unwrap_or_default(), quota.name()).await?;
    }
    Ok(())
}
