//! Holding pods to the node's lease: when the node can no longer renew it, those on the leash are stopped before anybody may
//! run them elsewhere (docs/decisions/0013-leash.md).
//!
//! Their supervisors do the stopping, by a moment that is written here to a file, so that it also happens when this process
//! hangs or is gone. After a lapse nothing is started until the node has seen that nobody is about to give its pods away.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use shipway_container::{Moment, lengthen};
use tokio::sync::watch;

use crate::volume::claim_of;

/// Between the end of the leash and the end of the lease: the time to kill and to see to it that all are dead.
const TO_STOP: Duration = Duration::from_secs(1);
/// The condition that tells that a pod is on the leash.
const CONDITION: &str = "shipway.dev/Leashed";
/// By this a pod asks for it, or asks to be left alone.
const ASK: &str = "shipway.dev/leash";
/// While a node has it, its pods are being given away.
const GIVEN_AWAY: &str = "node.kubernetes.io/unreachable";

/// The node's leash.
pub(crate) struct Leash {
    file: PathBuf,
    length: Duration,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    until: Option<Moment>,
    /// Whether pods may be started on it.
    open: bool,
}

impl Leash {
    /// For a lease of that duration.
    pub(crate) fn new(file: PathBuf, lease: Duration) -> Self {
        let state = watch::Sender::new(State { until: None, open: false });
        Self { file, length: lease.saturating_sub(TO_STOP), state }
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The lease was renewed by a request that was sent at `sent`. `false`: it had run out before; see [`Leash::open`].
    pub(crate) fn renewed(&self, sent: Moment) -> std::io::Result<bool> {
        let until = sent.after(self.length);
        lengthen(&self.file, until)?;
        self.state.send_modify(|state| {
            state.open &= state.until.is_some_and(|end| end > Moment::now());
            state.until = Some(until);
        });
        Ok(self.state.borrow().open)
    }

    /// Lets pods be started: the node object was read after the renewal, and nobody gives the node's pods away.
    pub(crate) fn open(&self, node: &Node) {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        if taints.iter().all(|taint| taint.key != GIVEN_AWAY) {
            self.state.send_modify(|state| state.open = true);
        }
    }

    /// Waits until pods may be started.
    pub(crate) async fn held(&self) {
        let mut state = self.state.subscribe();
        let holds = |state: &State| state.open && state.until.is_some_and(|end| end > Moment::now());
        if state.wait_for(holds).await.is_err() {
            // This holds the other end.
            std::future::pending::<()>().await;
        }
    }
}

/// Whether a pod is to be on a leash: it asks for it, or somebody would make one of the same name elsewhere, or it has data
/// that two must not write. What others make under another name goes on while the API is out of reach.
pub(crate) fn is_wanted(pod: &Pod) -> bool {
    let asks = pod.metadata.annotations.as_ref().and_then(|notes| notes.get(ASK)).map(String::as_str);
    let owners = pod.metadata.owner_references.iter().flatten();
    let mut owners = owners.filter(|owner| owner.controller == Some(true));
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    match asks {
        Some("true") => true,
        Some("false") => false,
        _ => {
            owners.any(|owner| owner.kind == "StatefulSet") || volumes.into_iter().any(|it| claim_of(pod, it).is_some())
        }
    }
}

/// Whether the API was told that the pod is on a leash.
pub(crate) fn is_told(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| is_own(condition) && condition.status == "True")
}

/// Whether this is the condition that tells of the leash.
pub(crate) fn is_own(condition: &PodCondition) -> bool {
    condition.type_ == CONDITION
}

/// What tells that a pod is on a leash.
pub(crate) fn condition(since: jiff::Timestamp) -> PodCondition {
    PodCondition {
        type_: CONDITION.to_owned(),
        status: "True".to_owned(),
        reason: Some("StopsWithLease".to_owned()),
        message: Some("the node stops the pod when it cannot renew its lease".to_owned()),
        last_transition_time: Some(Time(since)),
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(taint: &str) -> Node {
        let taints = json!([{"key": taint, "effect": "NoExecute"}]);
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"taints": taints}})).expect("a node")
    }

    async fn is_held(leash: &Leash) -> bool {
        tokio::time::timeout(Duration::from_millis(1), leash.held()).await.is_ok()
    }

    #[tokio::test]
    async fn pods_start_only_while_the_lease_is_held_and_nobody_gives_them_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let leash = Leash::new(folder.path().join("leash"), Duration::from_secs(5));
        assert!(!is_held(&leash).await, "nothing was renewed yet");
        assert!(!leash.renewed(Moment::now()).expect("written"));
        assert!(!is_held(&leash).await, "nobody has looked at the node yet");
        leash.open(&node(GIVEN_AWAY));
        assert!(!is_held(&leash).await, "its pods are being given away");
        leash.open(&node("another"));
        assert!(is_held(&leash).await && leash.renewed(Moment::now()).expect("written"));
    }

    #[tokio::test]
    async fn after_a_lapse_the_node_has_to_be_looked_at_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let leash = Leash::new(folder.path().join("leash"), Duration::from_millis(1030));
        leash.renewed(Moment::now()).expect("written");
        leash.open(&node("another"));
        assert!(is_held(&leash).await);
        std::thread::sleep(Duration::from_millis(40));
        assert!(!is_held(&leash).await, "it has run out");
        assert!(!leash.renewed(Moment::now()).expect("written") && !is_held(&leash).await);
        leash.open(&node("another"));
        assert!(is_held(&leash).await);
    }

    #[test]
    fn a_pod_is_leashed_that_nobody_may_run_twice() {
        let pod = |kind: &str, ask: Value, volumes: Value| -> Pod {
            let owner = json!([{"apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "u", "controller": true}]);
            let metadata = json!({"name": "p", "annotations": ask, "ownerReferences": owner});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": [], "volumes": volumes}}))
                .expect("a pod")
        };
        let claim = || json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        assert!(is_wanted(&pod("StatefulSet", json!({}), json!([]))));
        assert!(!is_wanted(&pod("ReplicaSet", json!({}), json!([{"name": "t", "emptyDir": {}}]))));
        assert!(is_wanted(&pod("ReplicaSet", json!({}), claim())));
        assert!(is_wanted(&pod("ReplicaSet", json!({ASK: "true"}), json!([]))));
        assert!(!is_wanted(&pod("StatefulSet", json!({ASK: "false"}), claim())));
    }
}
