//! Two sets of the real controllers and two schedulers, of which one each works.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use shipway_apiserver::Identity;
use shipway_controllers::Authority;
use shipway_driver::{Election, Meters, Shared, Terms, slim};
use shipway_sim::{Cluster, Part};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::seconds;

/// Controllers and a scheduler that work when they lead. Dropping it is a crash.
fn contend(cluster: &Cluster, identity: &str) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let manager = Identity::new("system:kube-controller-manager", &[]);
    let election = Election::new(cluster.client_of(manager), shipway_controllers::LEASE, identity, Terms::default());
    let world = cluster.clone();
    tasks.spawn(async move {
        election.lead(&CancellationToken::new(), |stop| control(world.clone(), stop)).await;
    });
    let scheduler = cluster.client_of(Identity::scheduler());
    let election = Election::new(scheduler, shipway_scheduler::LEASE, identity, Terms::default());
    let world = cluster.clone();
    tasks.spawn(async move {
        election.lead(&CancellationToken::new(), |stop| schedule(world.clone(), stop)).await;
    });
    tasks
}

async fn control(cluster: Cluster, stop: CancellationToken) {
    let client = cluster.client_of(Identity::scheduler());
    let (pods, watching) = Shared::new(Api::all(client), slim, stop.clone());
    let refuse = |_: &[u8], _: &[String], _: Duration| Err("a simulation signs nothing".to_owned());
    let authority = Authority { root: "simulated".into(), sign: Arc::new(refuse) };
    let client = move |name: &str| cluster.client_of(Identity::controller(name));
    tokio::join!(watching, shipway_controllers::run(client, &pods, authority, &Meters::default(), stop));
}

async fn schedule(cluster: Cluster, stop: CancellationToken) {
    let client = cluster.client_of(Identity::scheduler());
    let (pods, watching) = Shared::new(Api::all(client.clone()), slim, stop.clone());
    tokio::join!(watching, shipway_scheduler::run(client, pods, stop));
}

async fn holder(cluster: &Cluster, lease: &str) -> Option<String> {
    cluster.get::<Lease>(&format!("kube-system/{lease}")).await?.spec?.holder_identity
}

#[test]
fn the_other_set_of_controllers_goes_on_where_one_was_killed() {
    Cluster::builder().nodes(3).run(async |cluster| {
        cluster.stop_part(Part::Controllers).await;
        cluster.stop_part(Part::Scheduler).await;
        let mut sets = ["0", "1"].map(|name| (name.to_owned(), contend(&cluster, name)));
        cluster
            .apply(json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                "spec": {
                    "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
                    "template": {
                        "metadata": {"labels": {"app": "web"}},
                        "spec": {"containers": [{"name": "main", "image": "app:1"}]},
                    },
                },
            }))
            .await;
        for replicas in [6, 2, 9] {
            cluster.scale::<Deployment>("web", replicas).await;
            let wanted = usize::try_from(replicas).unwrap();
            let there = async |cluster: &Cluster| {
                let web: Deployment = cluster.get("web").await.unwrap();
                let ready = web.status.and_then(|status| status.ready_replicas).unwrap_or(0);
                ready == replicas && cluster.pods("app=web").await.len() == wanted
            };
            cluster.until("it has as many pods as asked for", seconds(120), there).await;
            let leads = holder(&cluster, shipway_controllers::LEASE).await.unwrap();
            assert!(holder(&cluster, shipway_scheduler::LEASE).await.is_some());
            let killed = sets.iter_mut().find(|(name, _)| *name == leads).unwrap();
            let next = format!("after-{replicas}");
            *killed = (next.clone(), contend(&cluster, &next));
        }
        let transitions = cluster.get::<Lease>("kube-system/kube-controller-manager").await.unwrap().spec.unwrap();
        assert_eq!(transitions.lease_transitions, Some(2), "each was followed by the other");
    });
}
