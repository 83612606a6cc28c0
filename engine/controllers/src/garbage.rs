//! Garbage collection by owner references: background, foreground and orphaning.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::DynamicObject;
use kube::discovery::Scope;
use serde_json::json;
use shipway_driver::drive;
use tokio_util::sync::CancellationToken;

use crate::inventory::{Inventory, Item};
use crate::owned::is_stale;

/// The finalizer that holds an owner until its blocking dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer that holds an owner until its dependents do not name it any more.
const ORPHAN: &str = "orphan";

/// Collects until stopped.
pub(crate) async fn run(inventory: Inventory, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = inventory.is_complete() => {}
    }
    let queue = inventory.garbage.clone();
    drive(queue, 4, stop, move |uid| {
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
    if item.owners.is_empty() || has_owner(inventory, &item).await? {
        return Ok(None);
    }
    delete(inventory, &item).await
}

/// Whether any owner is there. An owner that ends in the foreground holds nobody back.
async fn has_owner(inventory: &Inventory, item: &Item) -> Result<bool, kube::Error> {
    for owner in &item.owners {
        match inventory.item(&owner.uid) {
            Some(known) => {
                let waits = known.finalizers.iter().any(|finalizer| finalizer == FOREGROUND);
                if !(known.deleting && waits && owner.block_owner_deletion == Some(true)) {
                    return Ok(true);
                }
            }
            // The watch of the owner's kind may be behind: only the API knows.
            None if exists(inventory, item, owner).await? => return Ok(true),
            None => {}
        }
    }
    Ok(false)
}

async fn exists(inventory: &Inventory, item: &Item, owner: &OwnerReference) -> Result<bool, kube::Error> {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    // An owner of a kind that the API does not serve cannot be shown to be gone: keep.
    let Some((resource, scope)) = inventory.kind(group, &owner.kind) else { return Ok(true) };
    let api: Api<DynamicObject> = match (scope, &item.namespace) {
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(inventory.client.clone(), namespace, &*resource),
        _ => Api::all_with(inventory.client.clone(), &*resource),
    };
    let found = api.get_metadata_opt(&owner.name).await?;
    Ok(found.is_some_and(|found| found.metadata.uid.as_deref() == Some(&owner.uid)))
}

async fn delete(inventory: &Inventory, item: &Item) -> Result<Option<Duration>, kube::Error> {
    let preconditions = Some(Preconditions { uid: Some(item.uid.clone()), resource_version: None });
    let parameters = DeleteParams { preconditions, ..DeleteParams::background() };
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
        blocked |= dependent.owners.iter().find(of_item).and_then(|owner| owner.block_owner_deletion) == Some(true);
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

/// Whether somebody else owns the dependent and is not going as well.
fn has_another_owner(inventory: &Inventory, item: &Item, dependent: &Item) -> bool {
    let others = dependent.owners.iter().filter(|owner| owner.uid != item.uid);
    others.filter_map(|owner| inventory.item(&owner.uid)).any(|owner| !owner.deleting)
}

/// Takes the owner out of a dependent's references.
async fn release(inventory: &Inventory, item: &Item, dependent: &Item) -> Result<(), kube::Error> {
    let left: Vec<_> = dependent.owners.iter().filter(|owner| owner.uid != item.uid).collect();
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
