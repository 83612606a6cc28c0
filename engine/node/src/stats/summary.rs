//! `/stats/summary`: what the node and each of its pods use, as a kubelet says it.
//!
//! Beside a kubelet's fields, each `cpu` has `windowNanoSeconds`: the time over which `usageNanoCores` was worked out.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::reading::{ContainerReading, Device, Disk, PodReading, Rate, Reading, Sample};

/// How much is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Processor and memory alone.
    Short,
    /// Networks and disks as well.
    All,
}

impl Wanted {
    /// From the query `only_cpu_and_memory`.
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let mut parameters = query.unwrap_or_default().split('&');
        let short = parameters.any(|one| matches!(one.split_once('='), Some(("only_cpu_and_memory", "true" | "1"))));
        if short { Self::Short } else { Self::All }
    }
}

/// The document of the newer reading, with rates since the earlier one.
pub(crate) fn document(name: &str, earlier: &Reading, newer: &Reading, wanted: Wanted) -> Value {
    let own = &newer.node;
    let mut node = json!({
        "nodeName": name,
        "startTime": second(own.since),
        "cpu": cpu(&own.sample, newer.node_rate(earlier)),
        "memory": memory(&own.sample, Some(own.memory)),
    });
    if wanted == Wanted::All {
        add_network(&mut node, own.sample.at, own.network.as_ref());
        if let Some(disk) = &own.disk {
            let disk = filesystem(own.sample.at, disk);
            node["runtime"] = json!({"imageFs": disk});
            node["fs"] = disk;
        }
    }
    let pods: Vec<Value> = newer.pods.values().map(|pod| self::pod(pod, earlier, wanted)).collect();
    json!({"node": node, "pods": pods})
}

fn pod(reading: &PodReading, earlier: &Reading, wanted: Wanted) -> Value {
    let containers = reading.containers.iter();
    let containers: Vec<Value> =
        containers.map(|(name, own)| container(name, own, reading.container_rate(name, earlier))).collect();
    let pod = &reading.pod;
    let mut document = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": second(pod.start_time),
        "containers": containers,
        "cpu": cpu(&reading.sample, reading.rate(earlier)),
        "memory": memory(&reading.sample, None),
    });
    if wanted == Wanted::All {
        add_network(&mut document, reading.sample.at, reading.network.as_ref());
    }
    document
}

fn container(name: &str, reading: &ContainerReading, rate: Option<Rate>) -> Value {
    json!({
        "name": name,
        "startTime": second(reading.since),
        "cpu": cpu(&reading.sample, rate),
        "memory": memory(&reading.sample, None),
    })
}

fn cpu(sample: &Sample, rate: Option<Rate>) -> Value {
    let mut cpu = json!({"time": sample.at.to_string(), "usageCoreNanoSeconds": sample.usage.cpu});
    if let Some(rate) = rate {
        cpu["usageNanoCores"] = rate.nanocores.into();
        cpu["windowNanoSeconds"] = rate.window.into();
    }
    cpu
}

/// `most` is what there is of it, where no limit says so.
fn memory(sample: &Sample, most: Option<u64>) -> Value {
    let usage = &sample.usage;
    let mut memory = json!({
        "time": sample.at.to_string(),
        "usageBytes": usage.memory,
        "workingSetBytes": usage.working_set(),
        "rssBytes": usage.resident,
        "pageFaults": usage.faults.0,
        "majorPageFaults": usage.faults.1,
    });
    if let Some(most) = usage.limit.or(most) {
        memory["availableBytes"] = most.saturating_sub(usage.working_set()).into();
    }
    memory
}

fn add_network(document: &mut Value, at: Timestamp, device: Option<&Device>) {
    let Some(device) = device else { return };
    let interface = json!({
        "name": device.name,
        "rxBytes": device.received.0,
        "rxErrors": device.received.1,
        "txBytes": device.sent.0,
        "txErrors": device.sent.1,
    });
    let mut network = interface.clone();
    network["time"] = at.to_string().into();
    network["interfaces"] = json!([interface]);
    document["network"] = network;
}

fn filesystem(at: Timestamp, disk: &Disk) -> Value {
    let ((bytes, used), (inodes, inodes_free)) = (disk.bytes, disk.inodes);
    json!({
        "time": at.to_string(),
        "capacityBytes": bytes,
        "availableBytes": disk.available,
        "usedBytes": used,
        "inodes": inodes,
        "inodesFree": inodes_free,
        "inodesUsed": inodes.saturating_sub(inodes_free),
    })
}

fn second(at: Timestamp) -> String {
    format!("{at:.0}")
}
