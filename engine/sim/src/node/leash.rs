//! Pods that stop when their node cannot renew its lease, as docs/decisions/0013-leash.md has it for real nodes.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::Instant;

/// The condition that tells of it.
pub(super) const CONDITION: &str = "shipway.dev/Leashed";
/// Between the end of the leash and the end of the lease.
const TO_STOP: Duration = Duration::from_secs(1);
const GIVEN_AWAY: &str = "node.kubernetes.io/unreachable";

/// The leash of a machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leash {
    length: Duration,
    until: Instant,
    open: bool,
}

impl Leash {
    /// For a lease of that duration, which was not renewed yet.
    pub(super) fn new(lease: Duration) -> Self {
        Self { length: lease.saturating_sub(TO_STOP), until: Instant::now(), open: false }
    }

    /// Renewed by a call that was begun at `sent`. Whether it had not run out.
    pub(super) fn renew(&mut self, sent: Instant) -> bool {
        self.open &= !self.is_over(Instant::now());
        self.until = sent + self.length;
        self.open
    }

    /// Lets pods be started, unless they are being given away.
    pub(super) fn open(&mut self, node: &Node) {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        self.open = taints.iter().all(|taint| taint.key != GIVEN_AWAY);
    }

    /// Whether pods have been stopped.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }

    /// Whether pods may be started.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.open && !self.is_over(now)
    }

    pub(super) fn until(&self) -> Instant {
        self.until
    }
}

/// Whether a pod is to be on the leash.
pub(super) fn is_wanted(pod: &Pod) -> bool {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let claims = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claims = claims.filter(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some());
    owners.any(|owner| owner.controller == Some(true) && owner.kind == "StatefulSet") || claims.count() > 0
}

pub(super) fn condition(since: Timestamp) -> PodCondition {
    PodCondition {
        type_: CONDITION.to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(since)),
        ..PodCondition::default()
    }
}
