//! The built-in controllers: each a small function from what exists to what should be done next, over the shared
//! driver.
//!
//! They are clients of the API like everybody else. Desired state is level-triggered: any of them may be killed between
//! any two lines and started again. They know nothing of nodes' insides, storage or the network.

mod account_tokens;
mod autoscaler;
mod caches;
mod certificates;
mod cluster_role;
mod crew;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod essentials;
mod eviction;
mod garbage;
mod hash;
mod history;
mod inventory;
mod job;
mod namespace;
mod nodes;
mod owned;
mod pods;
mod remains;
mod replicaset;
mod share;
mod statefulset;
mod ttl;
mod volumes;
mod world;
mod written;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use shipway_driver::{Meters, Shared};
use tokio_util::sync::CancellationToken;

pub use crate::certificates::{Authority, Sign};
use crate::inventory::Inventory;
use crate::world::World;

/// Namespace and name of an object.
pub(crate) type Key = (String, String);

/// The lease in `kube-system` that says whose controllers work, where more than one process could run them: see
/// [`shipway_driver::Election`]. An engine holds its home's lock, which says as much, and writes nothing while it is idle.
pub const LEASE: &str = "kube-controller-manager";

/// Runs all controllers until stopped, over a cache of pods which somebody else drives. Each has a client of its own, which
/// is asked for by the controller's name: what it may do is the role `system:controller:<name>`. What their queues do is
/// counted by `meters`.
pub fn run(
    client: impl Fn(&str) -> Client,
    pods: &Shared<Pod>,
    authority: Authority,
    meters: &Meters,
    stop: CancellationToken,
) -> BoxFuture<'static, ()> {
    let (world, watch) = World::new(&client("shared-informers"), pods, meters, &stop);
    let (collector, ender) = ("generic-garbage-collector", "namespace-controller");
    let (inventory, take_stock) = Inventory::new(&client(collector), meters.of(collector), &stop);
    let own = |name: &str| world.acting(name, client(name));
    Box::pin(
        join_all([
            watch.boxed(),
            take_stock.boxed(),
            deployment::run(own("deployment-controller"), stop.clone()).boxed(),
            replicaset::run(own("replicaset-controller"), stop.clone()).boxed(),
            replicaset::run_replication_controllers(own("replication-controller"), stop.clone()).boxed(),
            autoscaler::run(own("horizontal-pod-autoscaler"), stop.clone()).boxed(),
            statefulset::run(own("statefulset-controller"), stop.clone()).boxed(),
            daemonset::run(own("daemon-set-controller"), stop.clone()).boxed(),
            job::run(own("job-controller"), stop.clone()).boxed(),
            cronjob::run(own("cronjob-controller"), stop.clone()).boxed(),
            ttl::run(own("ttl-after-finished-controller"), stop.clone()).boxed(),
            cluster_role::run(own("clusterrole-aggregation-controller"), stop.clone()).boxed(),
            disruption::run(own("disruption-controller"), stop.clone()).boxed(),
            endpoints::run(own("endpointslice-controller"), stop.clone()).boxed(),
            endpoints::legacy::run(own("endpoint-controller"), stop.clone()).boxed(),
            endpoints::mirror::run(own("endpointslicemirroring-controller"), stop.clone()).boxed(),
            essentials::run(own("service-account-controller"), authority.root.clone(), stop.clone()).boxed(),
            account_tokens::run(own("tokens-controller"), authority.root.clone(), stop.clone()).boxed(),
            certificates::run(own("certificate-controller"), authority, stop.clone()).boxed(),
            nodes::run(own("node-controller"), stop.clone()).boxed(),
            eviction::run(own("taint-eviction-controller"), stop.clone()).boxed(),
            remains::run(own("pod-garbage-collector"), stop.clone()).boxed(),
            volumes::run(own("persistent-volume-binder"), stop.clone()).boxed(),
            volumes::ephemeral::run(own("ephemeral-volume-controller"), stop.clone()).boxed(),
            garbage::run(inventory.clone(), stop.clone()).boxed(),
            namespace::run(inventory.acting(client(ender), meters.of(ender)), stop).boxed(),
        ])
        .map(drop),
    )
}
