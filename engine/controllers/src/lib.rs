//! The built-in controllers: each a small function from what exists to what should be done next, over the shared
//! driver.
//!
//! They are clients of the API like everybody else. Desired state is level-triggered: any of them may be killed between
//! any two lines and started again. They know nothing of nodes' insides, storage or the network.

mod certificates;
mod cluster_role;
mod deployment;
mod endpoints;
mod essentials;
mod garbage;
mod inventory;
mod namespace;
mod owned;
mod replicaset;
mod world;

use kube::Client;
use tokio_util::sync::CancellationToken;

pub use crate::certificates::{Authority, Sign};
use crate::inventory::Inventory;
use crate::world::World;

/// Namespace and name of an object.
pub(crate) type Key = (String, String);

/// Runs all controllers until stopped.
pub async fn run(client: Client, authority: Authority, stop: CancellationToken) {
    let (world, watch) = World::new(&client, &stop);
    let (inventory, take_stock) = Inventory::new(&client, &stop);
    tokio::join!(
        watch,
        take_stock,
        deployment::run(world.clone(), stop.clone()),
        replicaset::run(world.clone(), stop.clone()),
        cluster_role::run(world.clone(), stop.clone()),
        endpoints::run(world.clone(), stop.clone()),
        essentials::run(world.clone(), authority.root.clone(), stop.clone()),
        certificates::run(world.clone(), authority, stop.clone()),
        garbage::run(inventory.clone(), stop.clone()),
        namespace::run(inventory, stop.clone()),
    );
}
