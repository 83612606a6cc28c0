//! How fast the scheduler decides: 50,000 pods of a mix onto 5,000 nodes, on one core, without an API. Prints a name and a
//! number a line, for `cargo xtask cost scheduler`.
//!
//! A pod's time is all that is done for it between two pods: reading it, the choice, taking it as placed, and taking in
//! what the watch shows of its binding.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use shipway_scheduler::{Snapshot, Volumes, Wanted, choose};

const NODES: usize = 5_000;
const PODS: usize = 50_000;
/// So many pods have the same template.
const REPLICAS: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let mut snapshot = Snapshot::default();
    for number in 0..NODES {
        snapshot.set_node(&node(number)?);
    }
    let before = memory()?;
    let (volumes, mut taken, mut placed) = (Volumes::default(), Vec::with_capacity(PODS), 0_u32);
    for number in 0..PODS {
        let (pod, mut bound) = pod(number)?;
        let begin = Instant::now();
        let wanted = Arc::new(Wanted::of(pod));
        let chosen = choose(&wanted, &mut snapshot, &volumes);
        if let Ok(choice) = chosen {
            snapshot.place(&wanted, &choice.node);
            let decided = begin.elapsed();
            // Making what the watch would show is not the scheduler's work.
            bound.spec.get_or_insert_default().node_name = Some(choice.node.clone());
            let (shown, again) = (Arc::new(bound), Instant::now());
            snapshot.place(&Arc::new(Wanted::of(shown)), &choice.node);
            taken.push((decided, decided + again.elapsed()));
            placed += 1;
        } else {
            taken.push((begin.elapsed(), begin.elapsed()));
        }
    }
    report(&mut taken, placed, memory()?.saturating_sub(before));
    Ok(())
}

fn report(taken: &mut [(Duration, Duration)], placed: u32, memory: u32) {
    let all: Duration = taken.iter().map(|(_, whole)| *whole).sum();
    taken.sort();
    let at = |share: usize| taken[(taken.len() - 1) * share / 100].0.as_secs_f64() * 1000.0;
    println!("placed {placed}");
    println!("pods_per_second {:.0}", f64::from(placed) / all.as_secs_f64());
    println!("decision_p50_ms {:.4}", at(50));
    println!("decision_p99_ms {:.4}", at(99));
    println!("decision_max_ms {:.4}", at(100));
    println!("memory_mib {:.1}", f64::from(memory) / 1024.0);
}

/// Ten zones; half of the nodes with fast disks, every tenth for somebody special.
fn node(number: usize) -> Result<Arc<Node>, serde_json::Error> {
    let name = format!("node-{number}");
    let taints = if number.is_multiple_of(10) {
        json!([{ "key": "dedicated", "value": "special", "effect": "NoSchedule" }])
    } else {
        json!([])
    };
    let disk = if number.is_multiple_of(2) { "slow" } else { "fast" };
    let labels = json!({ "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", number % 10), "disk": disk });
    let node = json!({
        "metadata": { "name": name, "labels": labels },
        "spec": { "taints": taints },
        "status": { "allocatable": { "cpu": "32", "memory": "128Gi", "pods": "110" } },
    });
    serde_json::from_value(node).map(Arc::new)
}

/// The pod as it is made, and a copy to be shown as bound.
fn pod(number: usize) -> Result<(Arc<Pod>, Pod), serde_json::Error> {
    let set = number / REPLICAS % (PODS / REPLICAS);
    let app = format!("app-{set}");
    let owner = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "uid": app, "controller": true }]);
    let metadata = json!({ "name": format!("pod-{number}"), "namespace": format!("team-{}", set % 20), "uid": format!("{number}"),
        "labels": { "app": app }, "ownerReferences": owner });
    let mut spec = json!({
        "containers": [{ "name": "main", "image": "app:1", "resources": { "requests": { "cpu": "500m", "memory": "1Gi" } } }],
        "tolerations": [
            { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
            { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
        ],
    });
    rules(&mut spec, set % 10, &app);
    let pod: Pod = serde_json::from_value(json!({ "metadata": metadata, "spec": spec }))?;
    Ok((Arc::new(pod.clone()), pod))
}

/// Of ten sets four ask for nothing special, and one or two for each of the rest.
fn rules(spec: &mut Value, kind: usize, app: &str) {
    let own = json!({ "matchLabels": { "app": app } });
    let term = |topology: &str| json!({ "topologyKey": topology, "labelSelector": own });
    let spread = |topology: &str, how: &str| json!({ "topologyKey": topology, "maxSkew": 1, "whenUnsatisfiable": how, "labelSelector": own });
    match kind {
        4 | 5 => {
            let fast = json!({ "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["fast"] }] });
            let zone = json!({ "matchExpressions": [{ "key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone-3"] }] });
            spec["affinity"] = json!({ "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [fast] },
                "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 10, "preference": zone }],
            } });
        }
        6 => {
            spec["affinity"] = json!({ "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [term("kubernetes.io/hostname")] } });
        }
        7 => {
            spec["affinity"] = json!({ "podAffinity": { "preferredDuringSchedulingIgnoredDuringExecution":
                [{ "weight": 50, "podAffinityTerm": term("topology.kubernetes.io/zone") }] } });
        }
        8 => {
            spec["topologySpreadConstraints"] = json!([
                spread("topology.kubernetes.io/zone", "DoNotSchedule"),
                spread("kubernetes.io/hostname", "ScheduleAnyway")
            ]);
        }
        9 => {
            let special =
                json!({ "key": "dedicated", "operator": "Equal", "value": "special", "effect": "NoSchedule" });
            spec["tolerations"].as_array_mut().into_iter().for_each(|tolerations| tolerations.push(special.clone()));
        }
        _ => {}
    }
}

/// The resident memory of this process, in KiB.
fn memory() -> Result<u32, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("the kernel tells no VmRSS")?;
    Ok(line.split_whitespace().next().ok_or("VmRSS has a number")?.parse()?)
}
