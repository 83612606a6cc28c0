//! Whatever crashes, each pod is counted once and none is made too many.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use shipway_sim::{Cluster, Part};

use super::{HOUR, MINUTE, counts, end_of, ended, is_held, job, phase, pods, status, until_active, with_job};

/// Runs a job of thirty pods, five at a time and every seventh of which fails, while a part crashes again and again.
fn survives(part: Part, seed: u64) {
    let codes: Vec<&str> = (0..35).map(|at| if at % 7 == 6 { "1" } else { "0" }).collect();
    let does = [("exits-by-attempt", &*codes.join(",")), ("after", "2s")];
    let work = job(&does, json!({"completions": 30, "parallelism": 5, "backoffLimit": 10}));
    Cluster::builder().nodes(2).seed(seed).run(async |cluster| {
        cluster.create(work).await.unwrap();
        for step in 0..12 {
            cluster.run_for(Duration::from_millis(1300 + 170 * step)).await;
            cluster.restart(part).await;
        }
        cluster.until("the job is over", HOUR, async |cluster| !end_of(&status(cluster).await).is_empty()).await;
        cluster.settle().await;
        let (status, pods) = (status(&cluster).await, pods(&cluster).await);
        let of = |kind: &str| i32::try_from(pods.iter().filter(|pod| phase(pod) == kind).count()).unwrap();
        assert_eq!(counts(&status), (of("Succeeded"), of("Failed")), "counted what there was");
        assert_eq!(of("Succeeded"), 30, "and none too many was made");
        assert!(!pods.iter().any(is_held));
        let book = status.uncounted_terminated_pods.unwrap_or_default();
        assert!(book.succeeded.is_none() && book.failed.is_none());
    });
}

#[test]
fn a_crash_of_the_controllers_loses_no_pod_and_counts_none_twice() {
    (1..=3).for_each(|seed| survives(Part::Controllers, seed));
}

#[test]
fn a_crash_of_the_server_loses_no_pod_and_counts_none_twice() {
    (1..=3).for_each(|seed| survives(Part::ApiServer, seed));
}

#[test]
fn a_pod_that_is_deleted_while_nobody_counts_is_counted_later() {
    with_job(job(&[("exit", "0"), ("after", "5s")], json!({"completions": 2, "parallelism": 1})), async |cluster| {
        until_active(&cluster, 1).await;
        cluster.stop_part(Part::Controllers).await;
        cluster.run_for(Duration::from_secs(10)).await;
        let first = pods(&cluster).await.remove(0);
        cluster.delete::<Pod>(first.metadata.name.as_deref().unwrap()).await;
        cluster.run_for(Duration::from_secs(10)).await;
        assert_eq!(pods(&cluster).await.len(), 1, "it is held");
        cluster.start_part(Part::Controllers).await;
        assert_eq!(counts(&ended(&cluster).await), (2, 0));
    });
}

#[test]
fn a_job_that_was_deleted_while_nobody_looked_holds_no_pods() {
    with_job(job(&[], json!({"completions": 2, "parallelism": 2})), async |cluster| {
        until_active(&cluster, 2).await;
        cluster.stop_part(Part::Controllers).await;
        cluster.delete_with::<Job>("work", json!({"propagationPolicy": "Background"})).await;
        cluster.run_for(MINUTE).await;
        cluster.start_part(Part::Controllers).await;
        cluster.settle().await;
        assert!(pods(&cluster).await.is_empty());
    });
}
