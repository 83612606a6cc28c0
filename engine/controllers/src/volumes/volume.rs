//! What a volume needs next, now that its claim is there or gone. Pure.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;

use super::PROVISIONED_BY;
use super::claim::LOCAL;

/// That the controller bound the volume, and not its maker.
pub(super) const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is in this phase.
    Is(&'static str),
    /// It is free again.
    Unbind,
    /// Its claim is gone, and so goes what was made for it.
    Delete,
    /// Nobody can make it as new.
    Fail,
}

/// `claim` is the one of the name that the volume is held for.
pub(super) fn step(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Step {
    let spec = volume.spec.as_ref();
    let Some(held) = spec.and_then(|spec| spec.claim_ref.as_ref()) else { return Step::Is("Available") };
    let Some(uid) = held.uid.as_ref().filter(|uid| !uid.is_empty()) else { return Step::Is("Available") };
    let named = |claim: &PersistentVolumeClaim| claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
    match claim.filter(|claim| claim.metadata.uid.as_ref() == Some(uid)) {
        None => released(volume),
        Some(claim) => match named(claim).filter(|name| !name.is_empty()) {
            // The other half of the binding is being written.
            None => Step::Is("Bound"),
            Some(name) if name == volume.name_any() => Step::Is("Bound"),
            Some(_) if is_ours(volume) => Step::Delete,
            Some(_) if volume.annotations().contains_key(BY_CONTROLLER) => Step::Unbind,
            Some(_) => Step::Is("Available"),
        },
    }
}

fn released(volume: &PersistentVolume) -> Step {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    match policy {
        Some("Delete") if is_ours(volume) => Step::Delete,
        Some("Recycle") => Step::Fail,
        _ => Step::Is("Released"),
    }
}

/// Whether this project's own provisioner made it.
pub(super) fn is_ours(volume: &PersistentVolume) -> bool {
    volume.annotations().get(PROVISIONED_BY).is_some_and(|by| by == LOCAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::{claim, volume};
    use serde_json::{Value, json};

    fn held(uid: &str, policy: &str) -> Value {
        json!({"claimRef": {"namespace": "n", "name": "c", "uid": uid}, "persistentVolumeReclaimPolicy": policy})
    }

    #[test]
    fn the_phase_follows_the_claim() {
        let bound = claim("c", "1Gi", &json!({"volumeName": "v"}));
        let unbound = claim("c", "1Gi", &json!({}));
        let elsewhere = claim("c", "1Gi", &json!({"volumeName": "w"}));
        let table = [
            (json!({}), None, false, Step::Is("Available")),
            (json!({"claimRef": {"namespace": "n", "name": "c"}}), Some(&bound), false, Step::Is("Available")),
            (held("c-uid", "Retain"), Some(&bound), false, Step::Is("Bound")),
            (held("c-uid", "Retain"), Some(&unbound), false, Step::Is("Bound")),
            (held("c-uid", "Retain"), None, false, Step::Is("Released")),
            (held("old", "Retain"), Some(&bound), false, Step::Is("Released")),
            (held("old", "Delete"), None, true, Step::Delete),
            (held("old", "Delete"), None, false, Step::Is("Released")),
            (held("old", "Retain"), None, true, Step::Is("Released")),
            (held("old", "Recycle"), None, false, Step::Fail),
            (held("c-uid", "Delete"), Some(&elsewhere), true, Step::Delete),
            (held("c-uid", "Retain"), Some(&elsewhere), false, Step::Unbind),
        ];
        for (spec, claim, ours, expected) in table {
            let mut volume = PersistentVolume::clone(&volume("v", "1Gi", &spec));
            let note = if ours { (PROVISIONED_BY, LOCAL) } else { (BY_CONTROLLER, "yes") };
            volume.annotations_mut().insert(note.0.to_owned(), note.1.to_owned());
            assert_eq!(step(&volume, claim), expected, "{spec}");
        }
    }

    #[test]
    fn a_volume_that_its_maker_set_aside_stays_set_aside() {
        let elsewhere = claim("c", "1Gi", &json!({"volumeName": "w"}));
        assert_eq!(step(&volume("v", "1Gi", &held("c-uid", "Retain")), Some(&elsewhere)), Step::Is("Available"));
    }
}
