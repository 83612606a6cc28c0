//! What a claim needs next. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;

use super::matching::{Holder, best, capacity, class_of, holder, mismatch, requested, storage};

/// That a claim is bound for good: from then on a missing volume means lost data.
pub(super) const BOUND: &str = "pv.kubernetes.io/bind-completed";
/// The provisioner of this project's class.
pub(super) const LOCAL: &str = "shipway.dev/local";

/// All that decides about one claim.
pub(super) struct Picture<'a> {
    pub(super) claim: &'a PersistentVolumeClaim,
    /// The volumes that name it, or that nobody holds.
    pub(super) volumes: &'a [Arc<PersistentVolume>],
    /// The class that it asks for, where there is one.
    pub(super) class: Option<&'a StorageClass>,
    /// Where its first pod will run.
    pub(super) node: Option<&'a Node>,
    /// A pod that wants it and has no node yet.
    pub(super) waiting: Option<&'a str>,
}

/// Something to tell in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) warning: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// What is next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// It has what it needs.
    Rest,
    /// It gets this volume; all that is missing on either side is written.
    Bind(Arc<PersistentVolume>),
    /// A volume is made on this node.
    Provision(String),
    /// Somebody else makes the volume.
    Ask(String),
    /// Its volume and it are made to say that it is as large as it asks for.
    Grow(Arc<PersistentVolume>),
    /// It has to wait, for this.
    Wait(Told),
    /// What it had is gone.
    Lost(Told),
}

fn wait(reason: &'static str, message: impl Into<String>) -> Step {
    Step::Wait(Told { warning: false, reason, message: message.into() })
}

fn warn(reason: &'static str, message: impl Into<String>) -> Step {
    Step::Wait(Told { warning: true, reason, message: message.into() })
}

fn lost(reason: &'static str, message: &str) -> Step {
    Step::Lost(Told { warning: true, reason, message: message.to_owned() })
}

/// What is next for a claim.
pub(super) fn step(picture: &Picture<'_>) -> Step {
    let named = picture.claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    match named.filter(|name| !name.is_empty()) {
        Some(name) => step_named(picture, name),
        None if picture.claim.metadata.deletion_timestamp.is_some() => Step::Rest,
        None => step_unbound(picture),
    }
}

fn step_named(picture: &Picture<'_>, name: &str) -> Step {
    let claim = picture.claim;
    let bound = claim.annotations().contains_key(BOUND);
    let Some(volume) = picture.volumes.iter().find(|volume| volume.name_any() == name) else {
        return if bound {
            lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
        } else {
            wait("FailedBinding", format!("waiting for volume \"{name}\", which is not there"))
        };
    };
    match holder(volume, claim) {
        Holder::Another if bound => {
            lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
        }
        Holder::Another => warn("FailedBinding", format!("volume \"{name}\" already bound to a different claim.")),
        Holder::Nobody if bound => {
            lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
        }
        Holder::Nobody => match mismatch(volume, claim) {
            Some(why) => warn("VolumeMismatch", format!("Cannot bind to requested volume \"{name}\": {why}")),
            None => Step::Bind(volume.clone()),
        },
        Holder::Claim if !is_bound(volume, claim) => Step::Bind(volume.clone()),
        Holder::Claim => step_bound(picture, volume),
    }
}

/// Whether both sides say all that they have to.
fn is_bound(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let held = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.uid.as_ref());
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    held.is_some()
        && held == claim.metadata.uid.as_ref()
        && phase == Some("Bound")
        && claim.annotations().contains_key(BOUND)
}

fn step_bound(picture: &Picture<'_>, volume: &Arc<PersistentVolume>) -> Step {
    let given = storage(picture.claim.status.as_ref().and_then(|status| status.capacity.as_ref()));
    let wanted = requested(picture.claim);
    if wanted <= given {
        return Step::Rest;
    }
    // A folder has no size: it grows by saying so.
    if capacity(volume) >= wanted || volume.annotations().get(super::PROVISIONED_BY).is_some_and(|by| by == LOCAL) {
        return Step::Grow(volume.clone());
    }
    warn("ExternalExpanding", "waiting for an external controller to expand this PVC")
}

fn step_unbound(picture: &Picture<'_>) -> Step {
    let claim = picture.claim;
    let late = picture.class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let must_wait = late && picture.node.is_none();
    let node = picture.node.filter(|_| late);
    if let Some(volume) = best(picture.volumes, claim, must_wait, node) {
        return Step::Bind(volume);
    }
    let name = class_of(claim);
    match picture.class {
        None if name.is_empty() => {
            wait("FailedBinding", "no persistent volumes available for this claim and no storage class is set")
        }
        None => warn("ProvisioningFailed", format!("storageclass.storage.k8s.io \"{name}\" not found")),
        Some(_) if must_wait => match picture.waiting {
            Some(pod) => wait("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            None => wait("WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
        },
        Some(class) => provision(picture, class),
    }
}

fn provision(picture: &Picture<'_>, class: &StorageClass) -> Step {
    match class.provisioner.as_str() {
        LOCAL => {}
        "kubernetes.io/no-provisioner" => {
            return wait("FailedBinding", "no persistent volumes available for this claim");
        }
        other => return Step::Ask(other.to_owned()),
    }
    let spec = picture.claim.spec.as_ref();
    if spec.is_some_and(|spec| spec.selector.is_some()) {
        return warn("ProvisioningFailed", "claim.Spec.Selector is not supported for dynamic provisioning");
    }
    if spec.is_some_and(|spec| spec.volume_mode.as_deref() == Some("Block")) {
        return warn("ProvisioningFailed", format!("{LOCAL} makes no block devices: volumeMode must be Filesystem"));
    }
    if spec.is_some_and(|spec| spec.data_source.is_some() || spec.data_source_ref.is_some()) {
        return warn("ProvisioningFailed", format!("{LOCAL} does not copy volumes: dataSource must not be set"));
    }
    match picture.node {
        Some(node) => Step::Provision(node.name_any()),
        None => warn("ProvisioningFailed", "there is no node to make the volume on"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::{claim, class, node, volume};
    use serde_json::{Value, json};

    #[derive(Default)]
    struct Around {
        volumes: Vec<Arc<PersistentVolume>>,
        class: Option<StorageClass>,
        node: Option<Node>,
        waiting: Option<&'static str>,
    }

    fn next(claim: &PersistentVolumeClaim, around: &Around) -> String {
        let Around { volumes, class, node, waiting } = around;
        let picture = Picture { claim, volumes, class: class.as_ref(), node: node.as_ref(), waiting: *waiting };
        match step(&picture) {
            Step::Rest => "rest".to_owned(),
            Step::Bind(volume) => format!("bind {}", volume.name_any()),
            Step::Provision(node) => format!("provision on {node}"),
            Step::Ask(whom) => format!("ask {whom}"),
            Step::Grow(volume) => format!("grow {}", volume.name_any()),
            Step::Wait(told) => format!("wait {}", told.reason),
            Step::Lost(told) => format!("lost {}", told.reason),
        }
    }

    fn held() -> Value {
        json!({"claimRef": {"namespace": "n", "name": "c", "uid": "c-uid"}})
    }

    fn bound(size: &str, capacity: &str) -> PersistentVolumeClaim {
        let mut bound = claim("c", size, &json!({"volumeName": "v"}));
        bound.annotations_mut().insert(BOUND.to_owned(), "yes".to_owned());
        bound.status =
            Some(serde_json::from_value(json!({"phase": "Bound", "capacity": {"storage": capacity}})).unwrap());
        bound
    }

    #[test]
    fn a_claim_that_names_its_volume_waits_for_it_or_gets_it() {
        let named = claim("c", "1Gi", &json!({"volumeName": "v"}));
        let with = |spec: Value| Around { volumes: vec![volume("v", "1Gi", &spec)], ..Around::default() };
        assert_eq!(next(&named, &Around::default()), "wait FailedBinding");
        assert_eq!(next(&named, &with(json!({}))), "bind v");
        assert_eq!(next(&named, &with(held())), "bind v");
        assert_eq!(next(&named, &with(json!({"storageClassName": "fast"}))), "wait VolumeMismatch");
        let others = json!({"claimRef": {"namespace": "n", "name": "d", "uid": "d-uid"}});
        assert_eq!(next(&named, &with(others)), "wait FailedBinding");
    }

    #[test]
    fn a_bound_claim_rests_grows_or_is_lost() {
        let with = |spec: Value| Around { volumes: vec![volume("v", "1Gi", &spec)], ..Around::default() };
        assert_eq!(next(&bound("1Gi", "1Gi"), &with(held())), "rest");
        assert_eq!(next(&bound("1Gi", "1Gi"), &Around::default()), "lost ClaimLost");
        assert_eq!(next(&bound("1Gi", "1Gi"), &with(json!({}))), "lost ClaimLost");
        let others = json!({"claimRef": {"namespace": "n", "name": "d", "uid": "d-uid"}});
        assert_eq!(next(&bound("1Gi", "1Gi"), &with(others)), "lost ClaimMisbound");
        assert_eq!(next(&bound("2Gi", "1Gi"), &with(held())), "wait ExternalExpanding");
        let mut ours = PersistentVolume::clone(&volume("v", "1Gi", &held()));
        ours.annotations_mut().insert(super::super::PROVISIONED_BY.to_owned(), LOCAL.to_owned());
        let around = Around { volumes: vec![Arc::new(ours)], ..Around::default() };
        assert_eq!(next(&bound("2Gi", "1Gi"), &around), "grow v");
    }

    #[test]
    fn a_claim_without_a_volume_finds_one_waits_or_has_one_made() {
        let of_class = |name: &str| claim("c", "1Gi", &json!({"storageClassName": name}));
        let free = || vec![volume("v", "1Gi", &json!({"storageClassName": "s"}))];
        let set_aside = json!({"storageClassName": "s", "claimRef": {"namespace": "n", "name": "c"}});
        let late = |provisioner| Some(class("s", provisioner, "WaitForFirstConsumer"));
        let early = |provisioner| Some(class("s", provisioner, "Immediate"));
        let table = vec![
            ("", Around::default(), "wait FailedBinding"),
            ("s", Around::default(), "wait ProvisioningFailed"),
            ("s", Around { volumes: free(), ..Around::default() }, "bind v"),
            ("s", Around { volumes: free(), class: early(LOCAL), ..Around::default() }, "bind v"),
            ("s", Around { volumes: free(), class: late(LOCAL), ..Around::default() }, "wait WaitForFirstConsumer"),
            (
                "s",
                Around { volumes: free(), class: late(LOCAL), waiting: Some("p"), ..Around::default() },
                "wait WaitForPodScheduled",
            ),
            (
                "s",
                Around { volumes: vec![volume("v", "1Gi", &set_aside)], class: late(LOCAL), ..Around::default() },
                "bind v",
            ),
            ("s", Around { volumes: free(), class: late(LOCAL), node: Some(node("a")), ..Around::default() }, "bind v"),
            ("s", Around { class: late(LOCAL), node: Some(node("a")), ..Around::default() }, "provision on a"),
            ("s", Around { class: early(LOCAL), node: Some(node("a")), ..Around::default() }, "provision on a"),
            ("s", Around { class: early(LOCAL), ..Around::default() }, "wait ProvisioningFailed"),
            ("s", Around { class: early("example.com/disk"), ..Around::default() }, "ask example.com/disk"),
            ("s", Around { class: early("kubernetes.io/no-provisioner"), ..Around::default() }, "wait FailedBinding"),
        ];
        for (name, around, expected) in table {
            assert_eq!(next(&of_class(name), &around), expected);
        }
    }

    #[test]
    fn what_a_folder_cannot_be_is_not_made() {
        let around =
            || Around { class: Some(class("s", LOCAL, "Immediate")), node: Some(node("a")), ..Around::default() };
        for wish in [
            json!({"storageClassName": "s", "volumeMode": "Block"}),
            json!({"storageClassName": "s", "selector": {"matchLabels": {"a": "b"}}}),
            json!({"storageClassName": "s", "dataSource": {"kind": "PersistentVolumeClaim", "name": "o"}}),
        ] {
            assert_eq!(next(&claim("c", "1Gi", &wish), &around()), "wait ProvisioningFailed", "{wish}");
        }
    }

    #[test]
    fn a_claim_that_goes_gets_nothing_any_more() {
        let mut going = claim("c", "1Gi", &json!({}));
        going.metadata.deletion_timestamp = going
            .metadata
            .creation_timestamp
            .clone()
            .or(Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap()));
        let around = Around { volumes: vec![volume("v", "1Gi", &json!({}))], ..Around::default() };
        assert_eq!(next(&going, &around), "rest");
    }
}
