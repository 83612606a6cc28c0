//! The built-in controllers: each a small function from what exists to what should be done next, over the shared
//! driver.
//!
//! They are clients of the API like everybody else. Desired state is level-triggered: any of them may be killed between
//! any two lines and started again. They know nothing of nodes' insides, storage or the network.

mod cluster_role;
mod deployment;
mod endpoints;
mod garbage;
mod inventory;
mod namespace;
mod owned;
mod replicaset;
mod service_account;
mod world;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use shipway_driver::Shared;
use tokio_util::sync::CancellationToken;

use crate::inventory::Inventory;
use crate::world::World;

/// Namespace and name of an object.
pub(crate) type Key = (String, String);

/// Runs all controllers until stopped, over a cache of pods which somebody else drives.
pub fn run(client: Client, pods: Shared<Pod>, stop: CancellationToken) -> BoxFuture<'static, ()> {
    Box::pin(work(client, pods, stop))
}

async fn work(client: Client, pods: Shared<Pod>, stop: CancellationToken) {
    let (world, watch) = World::new(&client, &pods, &stop);
    let (inventory, take_stock) = Inventory::new(&client, &stop);
    tokio::join!(
        watch,
        take_stock,
        deployment::run(world.clone(), stop.clone()),
        replicaset::run(world.clone(), stop.clone()),
        cluster_role::run(world.clone(), stop.clone()),
        endpoints::run(world.clone(), stop.clone()),
        service_account::run(world.clone(), stop.clone()),
        garbage::run(inventory.clone(), stop.clone()),
        namespace::run(inventory, stop.clone()),
    );
}
