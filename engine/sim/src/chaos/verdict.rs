//! What has to hold in the end, when nothing goes wrong any more and nobody asks for anything: everything is as it was asked
//! for, and nothing else is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use shipway_store::Range;
use tokio::time::{Instant, sleep};

use crate::Cluster;
use crate::chaos::recipes::Kind;
use crate::chaos::trace::Trace;
use crate::chaos::workload::Workload;
use crate::kinds;

/// How long it may take: the longest back-off of a container is five minutes, and so is a node's.
const PATIENCE: Duration = Duration::from_mins(20);
const STEP: Duration = Duration::from_secs(20);

/// Waits until nothing is missing, and says what still is if that takes too long.
pub(crate) async fn wait(cluster: &Cluster, workload: &Workload, trace: &Trace) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        sleep(STEP).await;
        let missing = missing(cluster, workload).await;
        if missing.is_empty() {
            trace.say("all is as it should be");
            return missing;
        }
        if Instant::now() >= deadline {
            for line in &missing {
                trace.say(format!("BROKEN: in the end {line}"));
            }
            return missing.into_iter().map(|line| format!("in the end {line}")).collect();
        }
    }
}

async fn missing(cluster: &Cluster, workload: &Workload) -> Vec<String> {
    let mut missing: Vec<String> = cluster.dead_parts().iter().map(|part| format!("{part} have ended")).collect();
    let pods: Vec<Pod> = cluster.list("", "").await;
    for (name, wanted) in &workload.wanted {
        missing.extend(compare(cluster, name, wanted, &pods).await);
    }
    missing.extend(strangers(workload, &pods));
    missing.extend(containers(cluster, &pods));
    missing.extend(orphans(cluster).await);
    missing
}

/// A workload has as many good pods as it was asked for, no others, and says so.
async fn compare(cluster: &Cluster, name: &str, wanted: &Value, pods: &[Pod]) -> Vec<String> {
    let path = kinds::path(cluster.registry(), wanted);
    let found = cluster.call(http::Method::GET, &path, "application/json", &Value::Null).await;
    let Ok(found) = found else { return vec![format!("{name} is not there")] };
    let kind = Kind::of(wanted);
    let count = asked(cluster, kind, wanted);
    let own = pods.iter().filter(|pod| {
        pod.metadata.labels.as_ref().is_some_and(|labels| labels.get("app").is_some_and(|app| app == name))
    });
    let own = own.filter(|pod| kind != Kind::Job || !is_failed(pod));
    let (good, other): (Vec<&Pod>, Vec<&Pod>) = own.partition(|pod| is_good(kind, wanted, pod));
    let mut missing = Vec::new();
    // Pods that are done may be deleted; how many there were says the job.
    let few = kind != Kind::Job && (good.len() as u64) < count;
    if few || good.len() as u64 > count || !other.is_empty() {
        let (good, other) = (good.len(), other.len());
        missing.push(format!("{name} has {good} good pods and {other} others, {count} were asked for"));
    }
    for field in kind.counts() {
        let said = found["status"][field].as_u64().unwrap_or(0);
        if said != count {
            missing.push(format!("{name} says {field}: {said}, {count} were asked for"));
        }
    }
    if kind != Kind::Job && found["status"]["observedGeneration"] != found["metadata"]["generation"] {
        missing.push(format!("{name} was not looked at since it changed"));
    }
    missing
}

/// How many pods a workload is to have in the end.
fn asked(cluster: &Cluster, kind: Kind, wanted: &Value) -> u64 {
    let field = match kind {
        Kind::DaemonSet => return cluster.node_names().len() as u64,
        Kind::Job => "completions",
        _ => "replicas",
    };
    wanted["spec"][field].as_u64().unwrap_or(0)
}

/// A pod that is as it should be in the end: ready and of the newest template, or done. What failed of a job may stay.
fn is_good(kind: Kind, wanted: &Value, pod: &Pod) -> bool {
    if kind == Kind::Job {
        return pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Succeeded"));
    }
    let image = wanted["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
    is_ready(pod) && (!kind.rolls() || image == pod.spec.as_ref().and_then(|it| it.containers[0].image.as_deref()))
}

fn is_failed(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Failed"))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
}

/// No pod is left of what was deleted.
fn strangers(workload: &Workload, pods: &[Pod]) -> Vec<String> {
    let app = |pod: &Pod| pod.metadata.labels.as_ref().and_then(|labels| labels.get("app").cloned());
    let strange = pods.iter().filter(|pod| app(pod).is_none_or(|app| !workload.wanted.contains_key(&app)));
    strange.map(|pod| format!("pod {} is left", pod.metadata.name.as_deref().unwrap_or_default())).collect()
}

/// What runs is what the API says, once and where it says.
fn containers(cluster: &Cluster, pods: &[Pod]) -> Vec<String> {
    let mut runs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in cluster.node_names() {
        for uid in cluster.running_on(&node) {
            runs.entry(uid).or_default().push(node.clone());
        }
    }
    let bound = |pod: &Pod| Some((pod.metadata.uid.clone()?, pod.spec.as_ref()?.node_name.clone()?));
    let said: BTreeMap<String, String> = pods.iter().filter_map(bound).collect();
    let wrong =
        runs.iter().filter(|(uid, nodes)| said.get(*uid).is_none_or(|node| ***nodes != *std::slice::from_ref(node)));
    wrong.map(|(uid, nodes)| format!("{uid} runs on {nodes:?}, and the API says {:?}", said.get(uid))).collect()
}

/// Whatever has owners has one that lives.
async fn orphans(cluster: &Cluster) -> Vec<String> {
    let Some(store) = cluster.store() else { return vec!["there is no store".to_owned()] };
    let Ok(all) = store.range(Range::prefix(Bytes::from_static(b"/registry/"))).await else {
        return vec!["the store cannot be read".to_owned()];
    };
    let objects = all.items.iter().filter_map(|kv| Some((&kv.key, serde_json::from_slice::<Value>(&kv.value).ok()?)));
    let objects: Vec<(&Bytes, Value)> = objects.collect();
    let uids: BTreeSet<&str> = objects.iter().filter_map(|(_, object)| object["metadata"]["uid"].as_str()).collect();
    let lost = |object: &Value| {
        let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        !owners.is_empty() && owners.iter().all(|owner| !uids.contains(owner["uid"].as_str().unwrap_or_default()))
    };
    let lost = objects.iter().filter(|(_, object)| lost(object));
    lost.map(|(key, _)| format!("{} has no owner any more", String::from_utf8_lossy(key))).collect()
}
