//! How long a deployment takes from 1 to 1,000 replicas and back, on simulated nodes. Prints a name and a number a line, for
//! `cargo xtask cost scheduler`.
//!
//! A moment in which everybody waits (a pod that starts, a retry) costs no work in a simulation, and work costs no simulated
//! time: what is printed is the sum of both, which is what one core would take. The disk is in memory.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;
use shipway_sim::{Cluster, NodeOptions};

const NODES: usize = 20;
const MANY: i32 = 1_000;
/// How long that may take at most, to end at all.
const PATIENCE: Duration = Duration::from_mins(10);
/// How often it is looked, in simulated time.
const LOOK: Duration = Duration::from_millis(20);

fn main() {
    // As long as a pod takes on a real node, the image being there.
    let node = NodeOptions { start: Duration::from_millis(60), ..NodeOptions::default() };
    let times = Cluster::builder().nodes(NODES).node(node).run(async |cluster| {
        let container = json!({"name": "main", "image": "app:1", "resources": {"requests": {"cpu": "10m"}}});
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}});
        let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template});
        let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec});
        cluster.apply(web).await;
        reach(&cluster, 1).await;
        let mut times = Vec::new();
        for replicas in [MANY, 1] {
            let (before, simulated) = (worked(), cluster.elapsed());
            cluster.scale::<Deployment>("web", replicas).await;
            reach(&cluster, replicas).await;
            times.push((worked().saturating_sub(before), cluster.elapsed().saturating_sub(simulated)));
        }
        times
    });
    for (name, (work, waits)) in ["up", "down"].into_iter().zip(times) {
        println!("{name}_seconds {:.3}", (work + waits).as_secs_f64());
        println!("{name}_work_seconds {:.3}", work.as_secs_f64());
    }
}

/// Waits until so many pods are ready and no other is there.
async fn reach(cluster: &Cluster, replicas: i32) {
    let begun = cluster.elapsed();
    loop {
        let web: Option<Deployment> = cluster.get("web").await;
        let status = web.and_then(|web| web.status).unwrap_or_default();
        if status.ready_replicas == Some(replicas) && status.replicas == Some(replicas) {
            let there = cluster.pods("app=web").await.len();
            if i32::try_from(there) == Ok(replicas) {
                return;
            }
        }
        let waited = cluster.elapsed().saturating_sub(begun);
        assert!(waited < PATIENCE, "{replicas} replicas are not reached: {status:?}");
        cluster.run_for(LOOK).await;
    }
}

/// The processor time of this thread, which is all of the simulation.
fn worked() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells how long a thread has run");
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("it begins with nanoseconds"))
}
