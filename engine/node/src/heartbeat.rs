//! The node's own objects: Node, registered once and kept true, and the Lease that says it is alive.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use serde_json::{Value, json};
use shipway_container::Moment;
use shipway_driver::{Change, cached};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Lease as Terms;
use crate::amount::Allocatable;
use crate::capacity;
use crate::error::{NodeError, is_conflict, is_not_found};
use crate::leash::Leash;
use crate::volume::FOLDERS;

/// An unchanged status is written again after this.
const STATUS: Duration = Duration::from_mins(5);
const LEASES: &str = "kube-node-lease";

/// Who the node is.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) client: kube::Client,
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
    pub(crate) pod_subnet: String,
    pub(crate) home: PathBuf,
    pub(crate) lease: Terms,
    pub(crate) leash: Option<Arc<Leash>>,
}

/// Registers the node and keeps it alive until stopped. Gives false, and stops all that hangs on `stop`, when the node has been
/// away for longer than its lease and is back: what it knows may be old, and its connections dead without having ended.
pub(crate) async fn run(identity: Identity, stop: CancellationToken) -> bool {
    let mistaken = Arc::new(Notify::new());
    let (told, name) = (mistaken.clone(), identity.name.clone());
    let own = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let (_, watching) = cached::<Node>(Api::all(identity.client.clone()), own, stop.clone(), move |change| {
        if is_mistaken(change) {
            told.notify_one();
        }
    });
    let ((), stayed) = tokio::join!(watching, beat_on(identity, &mistaken, stop));
    stayed
}

/// Whether the API believes something else of the node than that it is well.
fn is_mistaken(change: &Change<Node>) -> bool {
    let conditions =
        change.object().status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    matches!(change, Change::Deleted(_)) || ready.is_none_or(|ready| ready.status != "True")
}

async fn beat_on(identity: Identity, mistaken: &Notify, stop: CancellationToken) -> bool {
    let mut last = None;
    let mut uid = None;
    let mut written: Option<(Value, Instant)> = None;
    let period = identity.lease.renewal;
    let mut clock = tokio::time::interval(period);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut pause = Duration::from_millis(50);
    loop {
        // An answer that does not come is no renewal.
        let beaten = tokio::time::timeout(identity.lease.duration, identity.beat(&mut uid, &mut written)).await;
        match beaten.unwrap_or_else(|_| Err(NodeError::Runtime("the API does not answer".to_owned()))) {
            Ok(()) => {
                if identity.was_away(last.replace(Instant::now())) {
                    tracing::warn!("the node is back after its lease had run out: it begins anew");
                    stop.cancel();
                    return false;
                }
                pause = Duration::from_millis(50);
                tokio::select! {
                    () = stop.cancelled() => return true,
                    _ = clock.tick() => {}
                    () = mistaken.notified() => written = None,
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the node could not report itself, trying again");
                tokio::select! {
                    () = stop.cancelled() => return true,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(period);
            }
        }
    }
}

impl Identity {
    /// Whether the lease had run out since the last beat. Not so where the API is in the same process.
    fn was_away(&self, last: Option<Instant>) -> bool {
        self.leash.is_some() && last.is_some_and(|last| last.elapsed() > self.lease.duration + self.lease.renewal)
    }

    async fn beat(&self, uid: &mut Option<String>, written: &mut Option<(Value, Instant)>) -> Result<(), NodeError> {
        if uid.is_none() {
            *uid = Some(self.register().await?);
        }
        let status = self.status(written.as_ref().map(|(status, _)| status));
        let due = written.as_ref().is_none_or(|(before, at)| !same(before, &status) || at.elapsed() >= STATUS);
        if due {
            match self.write_status(&status).await {
                Err(NodeError::Api { source, .. }) if is_not_found(&source) => {
                    // Somebody removed the node's object while the node is alive: it registers again.
                    *written = None;
                    *uid = Some(self.register().await?);
                    self.write_status(&status).await?;
                    *written = Some((status, Instant::now()));
                }
                other => {
                    other?;
                    *written = Some((status, Instant::now()));
                }
            }
        }
        let sent = Moment::now();
        self.renew(uid.as_deref()).await?;
        self.hold(sent).await
    }

    /// Lets pods on the leash go on.
    async fn hold(&self, sent: Moment) -> Result<(), NodeError> {
        let Some(leash) = &self.leash else { return Ok(()) };
        let failed = |error| NodeError::Runtime(format!("write {}: {error}", leash.file().display()));
        if leash.renewed(sent).map_err(failed)? {
            return Ok(());
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let node = api.get(&self.name).await;
        leash.open(&node.map_err(|error| NodeError::api(format!("read node {}", self.name), error))?);
        Ok(())
    }

    /// Creates the Node object, or brings labels and addresses of the existing one up to date. Returns its uid.
    async fn register(&self) -> Result<String, NodeError> {
        let api: Api<Node> = Api::all(self.client.clone());
        let failed = |error| NodeError::api(format!("register node {}", self.name), error);
        let node: Node = serde_json::from_value(self.object()).expect("the node's object is a node");
        let registered = match api.create(&PostParams::default(), &node).await {
            Err(error) if is_conflict(&error) => {
                let metadata = json!({"labels": self.labels(), "annotations": self.annotations()});
                let patch = json!({"metadata": metadata, "spec": self.spec()});
                api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await
            }
            other => other,
        };
        Ok(registered.map_err(failed)?.metadata.uid.unwrap_or_default())
    }

    fn labels(&self) -> BTreeMap<&'static str, &str> {
        let arch = capacity::architecture();
        BTreeMap::from([
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", arch),
        ])
    }

    /// Where volumes that are made for claims are to be.
    fn annotations(&self) -> Value {
        json!({"shipway.dev/volumes": self.home.join(FOLDERS)})
    }

    fn spec(&self) -> Value {
        json!({"podCIDR": self.pod_subnet, "podCIDRs": [self.pod_subnet]})
    }

    fn object(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": self.labels(), "annotations": self.annotations()},
            "spec": self.spec(),
            "status": self.status(None),
        })
    }

    /// The status now; conditions keep their times while they do not change.
    fn status(&self, before: Option<&Value>) -> Value {
        let all = capacity::capacity(&self.home);
        let (memory_short, disk_short) = capacity::pressure(&self.home);
        let now = Timestamp::now();
        let conditions = [
            ("MemoryPressure", memory_short, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ("DiskPressure", disk_short, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ("Ready", true, "KubeletReady", "kubelet is posting ready status"),
        ];
        let conditions: Vec<Value> = conditions
            .into_iter()
            .map(|(kind, holds, fine, words)| condition(before, kind, holds, (fine, words), now))
            .collect();
        let mut status = json!({
            "capacity": amounts(all),
            "allocatable": amounts(capacity::allocatable(all)),
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": self.address.to_string()},
                {"type": "Hostname", "address": self.name},
            ],
            "nodeInfo": capacity::system_info(),
        });
        if let Some(port) = self.port {
            status["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": port}});
        }
        status
    }

    async fn write_status(&self, status: &Value) -> Result<(), NodeError> {
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Strategic(json!({"status": status}));
        let written = api.patch_status(&self.name, &PatchParams::default(), &patch).await;
        written.map(drop).map_err(|error| NodeError::api(format!("write the status of node {}", self.name), error))
    }

    async fn renew(&self, uid: Option<&str>) -> Result<(), NodeError> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), LEASES);
        let failed = |error| NodeError::api(format!("renew lease {LEASES}/{}", self.name), error);
        let now = format!("{:.6}", Timestamp::now());
        let spec = json!({"holderIdentity": self.name, "leaseDurationSeconds": self.lease.duration.as_secs(), "renewTime": now});
        let patch = Patch::Merge(json!({"spec": spec}));
        match api.patch(&self.name, &PatchParams::default(), &patch).await {
            Err(error) if is_not_found(&error) => {
                let owner =
                    json!([{"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": uid.unwrap_or_default()}]);
                let lease = json!({"metadata": {"name": self.name, "ownerReferences": owner}, "spec": spec});
                let lease: Lease = serde_json::from_value(lease).expect("it is a lease");
                api.create(&PostParams::default(), &lease).await.map(drop).map_err(failed)
            }
            other => other.map(drop).map_err(failed),
        }
    }
}

fn amounts(of: Allocatable) -> Value {
    let cpu = if of.cpu_milli.is_multiple_of(1000) {
        (of.cpu_milli / 1000).to_string()
    } else {
        format!("{}m", of.cpu_milli)
    };
    json!({
        "cpu": cpu,
        "memory": format!("{}Ki", of.memory / 1024),
        "ephemeral-storage": format!("{}Ki", of.storage / 1024),
        "pods": capacity::PODS.to_string(),
    })
}

fn condition(before: Option<&Value>, kind: &str, holds: bool, (fine, words): (&str, &str), now: Timestamp) -> Value {
    let status = if holds { "True" } else { "False" };
    let old = before.and_then(|before| before["conditions"].as_array()?.iter().find(|old| old["type"] == kind));
    let since = old.filter(|old| old["status"] == status).map(|old| old["lastTransitionTime"].clone());
    let (reason, words) = match (holds, kind) {
        (true, "MemoryPressure") => ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        (true, "DiskPressure") => ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        _ => (fine, words),
    };
    let now = format!("{now:.0}");
    json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": words,
        "lastHeartbeatTime": now,
        "lastTransitionTime": since.unwrap_or_else(|| json!(now)),
    })
}

/// Equal but for the times of the heart beat.
fn same(before: &Value, after: &Value) -> bool {
    let still = |status: &Value| {
        let mut status = status.clone();
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            condition["lastHeartbeatTime"] = Value::Null;
        }
        status
    };
    still(before) == still(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn identity(client: kube::Client) -> Identity {
        Identity {
            client,
            name: "here".to_owned(),
            address: "10.1.2.3".parse().expect("an address"),
            port: None,
            pod_subnet: "10.73.0.0/17".to_owned(),
            home: "/".into(),
            lease: Terms::WITH_THE_API,
            leash: None,
        }
    }

    #[tokio::test]
    async fn the_node_is_a_node_and_its_status_stays_the_same() {
        let (client, _) = testing::api(|_| testing::Answer::NotFound);
        let identity = identity(client);
        let node: Node = serde_json::from_value(identity.object()).expect("a node");
        let status = node.status.expect("a status");
        assert_eq!(status.capacity.expect("a capacity")["pods"].0, "250");
        let info = status.node_info.expect("information");
        assert!(info.kubelet_version.starts_with("v1.36.") && info.container_runtime_version.starts_with("shipway://"));
        let first = identity.status(None);
        assert!(same(&first, &identity.status(Some(&first))));
    }

    #[test]
    fn what_is_short_is_named_and_since_when() {
        let now = |text: &str| text.parse::<Timestamp>().expect("a time");
        let (early, late) = (now("2026-01-01T00:00:00Z"), now("2026-01-01T01:00:00Z"));
        let fine = ("KubeletHasSufficientMemory", "fine");
        let first = condition(None, "MemoryPressure", true, fine, early);
        assert_eq!((&first["status"], &first["reason"]), (&json!("True"), &json!("KubeletHasInsufficientMemory")));
        let before = json!({"conditions": [first]});
        let still = condition(Some(&before), "MemoryPressure", true, fine, late);
        assert_eq!(still["lastTransitionTime"], "2026-01-01T00:00:00Z");
        let over = condition(Some(&before), "MemoryPressure", false, fine, late);
        assert_eq!((&over["reason"], &over["lastTransitionTime"]), (&json!(fine.0), &json!("2026-01-01T01:00:00Z")));
    }

    #[tokio::test]
    async fn a_node_registers_and_makes_its_lease() {
        let (client, asked) = testing::api(|request| match request.method.as_str() {
            "PATCH" if request.path.contains("leases") => testing::Answer::NotFound,
            _ => testing::Answer::Echo(json!({"metadata": {"name": "here", "uid": "u"}})),
        });
        let (mut uid, mut written) = (None, None);
        identity(client).beat(&mut uid, &mut written).await.expect("a beat");
        assert_eq!(uid.as_deref(), Some("u"));
        let asked: Vec<String> =
            asked.lock().expect("not poisoned").iter().map(|each| format!("{} {}", each.method, each.path)).collect();
        assert_eq!(
            asked,
            [
                "POST /api/v1/nodes",
                "PATCH /api/v1/nodes/here/status",
                "PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/here",
                "POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
            ]
        );
    }

    /// Whether a node by itself goes on when the API is away between these seconds.
    async fn stays(away: std::ops::Range<u64>) -> bool {
        let begun = Instant::now();
        let (client, _) = testing::api(move |_| {
            if away.contains(&begun.elapsed().as_secs()) {
                testing::Answer::NotFound
            } else {
                testing::Answer::Echo(json!({"metadata": {"name": "here", "uid": "u"}}))
            }
        });
        let folder = tempfile::tempdir().expect("a folder");
        let held = Leash::new(folder.path().join("leash"), Terms::BY_ITSELF.duration);
        let identity = Identity { lease: Terms::BY_ITSELF, leash: Some(Arc::new(held)), ..identity(client) };
        let (mistaken, stop) = (Notify::new(), CancellationToken::new());
        let beating = beat_on(identity, &mistaken, stop.clone());
        let ended = tokio::time::timeout(Duration::from_mins(1), beating).await;
        assert_eq!(ended.is_ok(), stop.is_cancelled());
        ended.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_was_away_for_longer_than_its_lease_begins_anew() {
        assert!(stays(0..0).await);
        assert!(stays(5..8).await, "its lease had not run out");
        assert!(!stays(5..20).await);
        assert!(stays(0..20).await, "it has not begun yet");
    }
}
