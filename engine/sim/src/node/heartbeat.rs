//! The node's own objects: registered once, and kept alive by a lease and a status now and then, as documented
//! (https://kubernetes.io/docs/reference/node/node-status/#heartbeats).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::machine::Machine;
use super::{NodeOptions, lock};

/// An unchanged status is written again after this.
const STATUS: Duration = Duration::from_mins(5);
/// The wait after a call that failed.
const RETRY: Duration = Duration::from_secs(1);
const LEASES: &str = "kube-node-lease";

struct Heart {
    client: Client,
    name: String,
    address: String,
    options: NodeOptions,
    /// The object's uid, once it is registered.
    uid: Option<String>,
    told: Option<Instant>,
    machine: Arc<Mutex<Machine>>,
}

/// Runs until it is dropped.
pub(super) async fn run(
    client: Client,
    name: String,
    address: String,
    options: NodeOptions,
    machine: Arc<Mutex<Machine>>,
) {
    let (renewal, retry) = (options.lease.0, RETRY.min(options.lease.0 / 4));
    let mut heart = Heart { client, name, address, options, uid: None, told: None, machine };
    loop {
        let beat = heart.beat().await;
        if let Err(error) = &beat {
            tracing::debug!(%error, node = heart.name, "no heartbeat");
            // It may be taken for lost: it tells anew how it is.
            heart.told = None;
        }
        sleep(if beat.is_ok() { renewal } else { retry }).await;
    }
}

fn missing<T>(result: &Result<T, kube::Error>, code: u16) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if status.code == code)
}

impl Heart {
    async fn beat(&mut self) -> Result<(), kube::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        if self.uid.is_none() {
            self.uid = Some(self.register(&nodes).await?);
        }
        if self.told.is_none_or(|told| told.elapsed() >= STATUS) {
            let patch = Patch::Strategic(json!({"status": self.status()}));
            let written = nodes.patch_status(&self.name, &PatchParams::default(), &patch).await;
            if missing(&written, 404) {
                self.uid = None;
            }
            written?;
            self.told = Some(Instant::now());
        }
        let sent = Instant::now();
        self.renew().await?;
        if !lock(&self.machine).renewed(sent) {
            let node = nodes.get(&self.name).await?;
            lock(&self.machine).open(&node);
        }
        Ok(())
    }

    async fn register(&self, nodes: &Api<Node>) -> Result<String, kube::Error> {
        let mut labels = json!({
            "kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        });
        for (key, value) in &self.options.labels {
            labels[key] = json!(value);
        }
        let object = json!({"metadata": {"name": self.name, "labels": labels}, "status": self.status()});
        let node: Node = serde_json::from_value(object).expect("the node's object is a node");
        let made = nodes.create(&PostParams::default(), &node).await;
        let registered = if missing(&made, 409) { nodes.get(&self.name).await } else { made };
        Ok(registered?.metadata.uid.unwrap_or_default())
    }

    fn status(&self) -> Value {
        let now = format!("{:.0}", Timestamp::now());
        let condition = |kind: &str, holds: bool, reason: &str| {
            let status = if holds { "True" } else { "False" };
            json!({"type": kind, "status": status, "reason": reason, "lastHeartbeatTime": now, "lastTransitionTime": now})
        };
        let NodeOptions { cpu, memory, pods, .. } = &self.options;
        let capacity = json!({"cpu": cpu, "memory": memory, "pods": pods.to_string(), "ephemeral-storage": "100Gi"});
        json!({
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [
                condition("MemoryPressure", false, "KubeletHasSufficientMemory"),
                condition("DiskPressure", false, "KubeletHasNoDiskPressure"),
                condition("PIDPressure", false, "KubeletHasSufficientPID"),
                condition("Ready", true, "KubeletReady"),
            ],
            "addresses": [
                {"type": "InternalIP", "address": self.address},
                {"type": "Hostname", "address": self.name},
            ],
            "nodeInfo": {
                "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "sim://1", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "v1.36.0", "machineID": "", "operatingSystem": "linux",
                "osImage": "", "systemUUID": "",
            },
        })
    }

    async fn renew(&self) -> Result<(), kube::Error> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), LEASES);
        let now = format!("{:.6}", Timestamp::now());
        let spec = json!({"holderIdentity": self.name, "leaseDurationSeconds": self.options.lease.1.as_secs(), "renewTime": now});
        let patch = Patch::Merge(json!({"spec": spec}));
        let renewed = leases.patch(&self.name, &PatchParams::default(), &patch).await;
        if !missing(&renewed, 404) {
            return renewed.map(drop);
        }
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": self.uid}]);
        let lease = json!({"metadata": {"name": self.name, "ownerReferences": owner}, "spec": spec});
        let lease: Lease = serde_json::from_value(lease).expect("it is a lease");
        leases.create(&PostParams::default(), &lease).await.map(drop)
    }
}
