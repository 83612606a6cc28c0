//! The end of a namespace: everything in it is deleted, then the namespace itself may go.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::DynamicObject;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use shipway_driver::cached;
use tokio_util::sync::CancellationToken;

use crate::inventory::Inventory;
use crate::owned::is_stale;

/// The finalizer in a namespace's spec that this controller takes away.
const FINALIZER: &str = "kubernetes";

/// Ends namespaces until stopped.
pub(crate) async fn run(inventory: Inventory, stop: CancellationToken) {
    let queue = inventory.namespaces.clone();
    let wake = queue.clone();
    let api: Api<Namespace> = Api::all(inventory.client.clone());
    let (namespaces, watch) = cached(api, watcher::Config::default(), stop.clone(), move |change| {
        wake.add(change.object().name_any());
    });
    let ending = async {
        tokio::select! {
            () = stop.cancelled() => return,
            () = inventory.is_complete() => {}
        }
        let inventory = inventory.clone();
        inventory
            .meter
            .clone()
            .drive(queue, 1, stop.clone(), move |name: String| {
                let (inventory, namespaces) = (inventory.clone(), namespaces.clone());
                async move {
                    let found = namespaces.get(&ObjectRef::new(&name));
                    match found.filter(|it| it.metadata.deletion_timestamp.is_some()) {
                        Some(namespace) => end(&inventory, &namespace).await,
                        None => Ok(None),
                    }
                }
            })
            .await;
    };
    tokio::join!(watch, ending);
}

async fn end(inventory: &Inventory, namespace: &Namespace) -> Result<Option<Duration>, kube::Error> {
    let name = namespace.name_any();
    for kind in inventory.namespaced_kinds() {
        let api: Api<DynamicObject> = Api::namespaced_with(inventory.client.clone(), &name, &*kind);
        match api.delete_collection(&DeleteParams::background(), &ListParams::default()).await {
            Err(error) if !is_stale(&error) => return Err(error),
            _ => {}
        }
    }
    if !is_empty(inventory, &name).await? {
        // The inventory wakes us when the last object has gone.
        return Ok(None);
    }
    finish(inventory, namespace).await
}

/// Asks the API itself: the watches may be behind, and the inventory leaves some kinds out.
async fn is_empty(inventory: &Inventory, name: &str) -> Result<bool, kube::Error> {
    for kind in inventory.namespaced_kinds() {
        let api: Api<DynamicObject> = Api::namespaced_with(inventory.client.clone(), name, &*kind);
        if !api.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn finish(inventory: &Inventory, namespace: &Namespace) -> Result<Option<Duration>, kube::Error> {
    let mut finished = namespace.clone();
    if let Some(spec) = &mut finished.spec {
        spec.finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
    }
    let name = finished.name_any();
    let api: Api<Namespace> = Api::all(inventory.client.clone());
    match api.replace_subresource("finalize", &name, &PostParams::default(), &finished).await {
        Err(error) if !is_stale(&error) => Err(error),
        _ => Ok(None),
    }
}
