//! Garbage collection by owner references: background, foreground and orphaning.

use std::collections::HashSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::DynamicObject;
use kube::discovery::Scope;
use serde_json::json;
use shipway_driver::EventKind;
use tokio_util::sync::CancellationToken;

use crate::inventory::{Inventory, Item, Watched};
use crate::owned::is_stale;

/// The finalizer that holds an owner until its blocking dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer that holds an owner until its dependents do not name it any more.
const ORPHAN: &str = "orphan";
/// A longer chain of objects that wait for each other is taken for none that ends where it began.
const CYCLE_MAX: usize = 1000;

/// Collects until stopped.
pub(crate) async fn run(inventory: Inventory, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = inventory.is_complete() => {}
    }
    let queue = inventory.garbage.clone();
    inventory
        .meter
        .clone()
        .drive(queue, 4, stop, move |uid| {
            let inventory = inventory.clone();
            async move { collect(&inventory, &uid).await }
        })
        .await;
}

async fn collect(inventory: &Inventory, uid: &str) -> Result<Option<Duration>, kube::Error> {
    let Some(item) = inventory.item(uid) else { return Ok(None) };
    if item.deleting {
        if item.finalizers.iter().any(|finalizer| finalizer == ORPHAN) {
            return orphan_dependents(inventory, &item).await;
        }
        if item.finalizers.iter().any(|finalizer| finalizer == FOREGROUND) {
            return delete_dependents(inventory, &item).await;
        }
        return Ok(None);
    }
    if item.owners.is_empty() {
        return Ok(None);
    }
    let mut left = Vec::new();
    for owner in &item.owners {
        if holds(inventory, &item, owner).await? {
            left.push(owner);
        }
    }
    if left.is_empty() {
        return delete(inventory, &item).await;
    }
    if left.len() < item.owners.len() {
        let gone = item.owners.iter().filter(|owner| !left.contains(owner)).map(|owner| owner.uid.as_str());
        disown(inventory, &item, &gone.collect::<Vec<_>>()).await?;
    }
    Ok(None)
}

/// Whether the owner keeps the item. One that ends in the foreground holds nobody back.
async fn holds(inventory: &Inventory, item: &Item, owner: &OwnerReference) -> Result<bool, kube::Error> {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    // An owner of a kind that the API does not serve cannot be shown to be gone: keep.
    let Some((resource, scope)) = inventory.kind(group, &owner.kind) else { return Ok(true) };
    if scope == Scope::Namespaced && item.namespace.is_none() {
        // It cannot be looked up anywhere, so it cannot be shown to be gone either.
        tell_invalid(inventory, item, owner);
        return Ok(true);
    }
    match inventory.item(&owner.uid) {
        Some(known) if known.namespace.is_some() && known.namespace != item.namespace => {
            tell_invalid(inventory, item, owner);
            Ok(false)
        }
        Some(known) => Ok(!(is_foreground(&known) && owner.block_owner_deletion == Some(true))),
        // The watch of the owner's kind may be behind: only the API knows.
        None => exists(inventory, item, owner, (resource, scope)).await,
    }
}

/// Whether it waits for its dependents.
fn is_foreground(item: &Item) -> bool {
    item.deleting && item.finalizers.iter().any(|finalizer| finalizer == FOREGROUND)
}

fn tell_invalid(inventory: &Inventory, item: &Item, owner: &OwnerReference) {
    let about = ObjectReference {
        api_version: Some(item.resource.api_version.clone()),
        kind: Some(item.resource.kind.clone()),
        namespace: item.namespace.clone(),
        name: Some(item.name.clone()),
        uid: Some(item.uid.clone()),
        ..ObjectReference::default()
    };
    let namespace = item.namespace.as_deref().unwrap_or_default();
    let OwnerReference { api_version, kind, name, uid, .. } = owner;
    let message = format!(
        "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in namespace \
         \"{namespace}\""
    );
    inventory.recorder.event(&about, EventKind::Warning, "OwnerRefInvalidNamespace", &message);
}

async fn exists(
    inventory: &Inventory,
    item: &Item,
    owner: &OwnerReference,
    (resource, scope): Watched,
) -> Result<bool, kube::Error> {
    let api: Api<DynamicObject> = match (scope, &item.namespace) {
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(inventory.client.clone(), namespace, &*resource),
        _ => Api::all_with(inventory.client.clone(), &*resource),
    };
    let found = api.get_metadata_opt(&owner.name).await?;
    Ok(found.is_some_and(|found| found.metadata.uid.as_deref() == Some(&owner.uid)))
}

async fn delete(inventory: &Inventory, item: &Item) -> Result<Option<Duration>, kube::Error> {
    let preconditions = Some(Preconditions { uid: Some(item.uid.clone()), resource_version: None });
    // What it was told to do with its own dependents still holds.
    let has = |name: &str| item.finalizers.iter().any(|finalizer| finalizer == name);
    let policy = match (has(ORPHAN), has(FOREGROUND)) {
        (true, _) => DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() },
        (false, true) => DeleteParams::foreground(),
        (false, false) => DeleteParams::background(),
    };
    let parameters = DeleteParams { preconditions, ..policy };
    match inventory.api(item).delete(&item.name, &parameters).await {
        Err(error) if !is_stale(&error) => Err(error),
        _ => Ok(None),
    }
}

/// Foreground: dependents go first; when no blocking one is left, the owner may go.
async fn delete_dependents(inventory: &Inventory, item: &Item) -> Result<Option<Duration>, kube::Error> {
    let mut blocked = false;
    for dependent in inventory.dependents(&item.uid) {
        if has_another_owner(inventory, item, &dependent) {
            release(inventory, item, &dependent).await?;
            continue;
        }
        let of_item = |owner: &&OwnerReference| owner.uid == item.uid;
        let blocks = dependent.owners.iter().find(of_item).and_then(|owner| owner.block_owner_deletion) == Some(true);
        blocked |= blocks && !waits_for(&dependent, &item.uid, |uid| inventory.dependents(uid));
        if !dependent.deleting {
            let preconditions = Some(Preconditions { uid: Some(dependent.uid.clone()), resource_version: None });
            let parameters = DeleteParams { preconditions, ..DeleteParams::foreground() };
            match inventory.api(&dependent).delete(&dependent.name, &parameters).await {
                Err(error) if !is_stale(&error) => return Err(error),
                _ => {}
            }
        }
    }
    if blocked { Ok(None) } else { finish(inventory, item, FOREGROUND).await }
}

/// Whether a dependent waits itself for the object, over any number of others: two that wait for each other would both wait
/// for ever.
fn waits_for(dependent: &Item, uid: &str, dependents: impl Fn(&str) -> Vec<Item>) -> bool {
    let mut seen = HashSet::new();
    let mut next = vec![dependent.clone()];
    while let Some(waiting) = next.pop().filter(|_| seen.len() < CYCLE_MAX) {
        if is_foreground(&waiting) && seen.insert(waiting.uid.clone()) {
            for below in dependents(&waiting.uid) {
                if below.uid == uid {
                    return true;
                }
                next.push(below);
            }
        }
    }
    false
}

/// Whether somebody else owns the dependent and is not going as well.
fn has_another_owner(inventory: &Inventory, item: &Item, dependent: &Item) -> bool {
    let others = dependent.owners.iter().filter(|owner| owner.uid != item.uid);
    others.filter_map(|owner| inventory.item(&owner.uid)).any(|owner| !owner.deleting)
}

/// Takes the owner out of a dependent's references.
async fn release(inventory: &Inventory, item: &Item, dependent: &Item) -> Result<(), kube::Error> {
    disown(inventory, dependent, &[&item.uid]).await
}

/// Takes owners out of an object's references.
async fn disown(inventory: &Inventory, dependent: &Item, owners: &[&str]) -> Result<(), kube::Error> {
    let left: Vec<_> = dependent.owners.iter().filter(|owner| !owners.contains(&owner.uid.as_str())).collect();
    let patch = json!({ "metadata": { "uid": dependent.uid, "ownerReferences": left } });
    let api = inventory.api(dependent);
    match api.patch_metadata(&dependent.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if !is_stale(&error) => Err(error),
        _ => Ok(()),
    }
}

async fn orphan_dependents(inventory: &Inventory, item: &Item) -> Result<Option<Duration>, kube::Error> {
    for dependent in inventory.dependents(&item.uid) {
        release(inventory, item, &dependent).await?;
    }
    finish(inventory, item, ORPHAN).await
}

/// Takes the finalizer away, so that the API lets the object go.
async fn finish(inventory: &Inventory, item: &Item, finalizer: &str) -> Result<Option<Duration>, kube::Error> {
    let left: Vec<_> = item.finalizers.iter().filter(|it| *it != finalizer).collect();
    let patch = json!({ "metadata": { "uid": item.uid, "finalizers": left } });
    match inventory.api(item).patch_metadata(&item.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if !is_stale(&error) => Err(error),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::{ApiResource, GroupVersionKind};
    use std::collections::HashMap;
    use std::sync::Arc;

    fn item(uid: &str, foreground: bool) -> Item {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ConfigMap"));
        Item {
            resource: Arc::new(kind),
            namespace: None,
            name: uid.to_owned(),
            uid: uid.to_owned(),
            owners: Vec::new(),
            finalizers: vec![if foreground { FOREGROUND.to_owned() } else { "another".to_owned() }],
            deleting: true,
        }
    }

    #[test]
    fn who_waits_in_a_circle_is_found() {
        let below: HashMap<&str, Vec<Item>> = HashMap::from([
            ("a", vec![item("b", true)]),
            ("b", vec![item("c", true), item("side", false)]),
            ("c", vec![item("a", true)]),
            ("side", vec![item("a", true)]),
            ("self", vec![item("self", true)]),
            ("line", vec![item("end", true)]),
        ]);
        let waits =
            |dependent: &Item, uid: &str| waits_for(dependent, uid, |uid| below.get(uid).cloned().unwrap_or_default());
        assert!(waits(&item("b", true), "a"), "over two others");
        assert!(waits(&item("self", true), "self"));
        assert!(!waits(&item("line", true), "a"));
        assert!(!waits(&item("side", false), "a"), "it waits for nobody");
        assert!(!waits(&item("b", true), "elsewhere"), "a circle that does not come by ends the search");
    }
}
