//! Which volume suits a claim. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use kube::ResourceExt;
use shipway_driver::matching::{selects, selects_node};
use shipway_schema::quantity::Quantity;

/// What named the class before there was a field for it.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The class that a claim asks for; empty is none.
pub(super) fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let field = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    claim.annotations().get(CLASS).map(String::as_str).or(field).unwrap_or_default()
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    let field = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    volume.annotations().get(CLASS).map(String::as_str).or(field).unwrap_or_default()
}

/// Bytes of storage in a list of amounts, in thousandths.
pub(super) fn storage(amounts: Option<&BTreeMap<String, Written>>) -> i128 {
    let written = amounts.and_then(|amounts| amounts.get("storage"));
    written.and_then(|written| Quantity::parse(&written.0).ok()).map_or(0, |size| size.to_milli())
}

pub(super) fn capacity(volume: &PersistentVolume) -> i128 {
    storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

pub(super) fn requested(claim: &PersistentVolumeClaim) -> i128 {
    storage(claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref()))
}

/// Whose a volume is, as far as this claim is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    /// It was set aside for this claim, or belongs to it.
    Claim,
    Another,
}

pub(super) fn holder(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Holder {
    match volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) {
        None => Holder::Nobody,
        Some(held) if is_for(held, claim) => Holder::Claim,
        Some(_) => Holder::Another,
    }
}

/// A reference without a uid means whatever claim has the name.
pub(super) fn is_for(held: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    held.name == claim.metadata.name
        && held.namespace == claim.metadata.namespace
        && held.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
}

/// Why a volume does not do what a claim asks for, in the words of events.
pub(super) fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let (Some(offer), Some(wish)) = (&volume.spec, &claim.spec) else { return Some("it has no specification") };
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let modes = offer.access_modes.as_deref().unwrap_or_default();
    if capacity(volume) < requested(claim) {
        Some("requested PV is too small")
    } else if class_of_volume(volume) != class_of(claim) {
        Some("storageClassName does not match")
    } else if mode(&offer.volume_mode) != mode(&wish.volume_mode) {
        Some("incompatible volumeMode")
    } else if !wish.access_modes.iter().flatten().all(|mode| modes.contains(mode)) {
        Some("incompatible accessMode")
    } else if offer.volume_attributes_class_name != wish.volume_attributes_class_name {
        Some("volumeAttributesClassName does not match")
    } else {
        None
    }
}

/// The volume that suits the claim best: one that was set aside for it, else the smallest that is large enough. `only_held`
/// leaves out what was not set aside; `node` is where it has to be reachable from.
pub(super) fn best(
    volumes: &[Arc<PersistentVolume>],
    claim: &PersistentVolumeClaim,
    only_held: bool,
    node: Option<&Node>,
) -> Option<Arc<PersistentVolume>> {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let without = BTreeMap::new();
    let suits = |volume: &PersistentVolume| {
        let labels = volume.metadata.labels.as_ref().unwrap_or(&without);
        volume.metadata.deletion_timestamp.is_none()
            && mismatch(volume, claim).is_none()
            && selector.is_none_or(|selector| selects(selector, labels))
            && node.is_none_or(|node| is_reachable(volume, node))
    };
    let of = |wanted: Holder| volumes.iter().filter(move |volume| holder(volume, claim) == wanted);
    if let Some(held) = of(Holder::Claim).find(|volume| suits(volume)) {
        return Some(held.clone());
    }
    let free = of(Holder::Nobody).filter(|volume| !only_held && suits(volume));
    free.min_by_key(|volume| (capacity(volume), volume.name_any())).cloned()
}

/// Whether the volume can be used on the node.
pub(super) fn is_reachable(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    affinity.is_none_or(|affinity| selects_node(affinity, node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::{claim, node, volume};
    use serde_json::json;

    fn chosen(volumes: &[Arc<PersistentVolume>], claim: &PersistentVolumeClaim) -> Option<String> {
        best(volumes, claim, false, None).map(|volume| volume.name_any())
    }

    #[test]
    fn the_smallest_that_is_large_enough_is_chosen() {
        let volumes = [
            volume("big", "10Gi", &json!({})),
            volume("fit", "1024Mi", &json!({})),
            volume("small", "1Mi", &json!({})),
        ];
        assert_eq!(chosen(&volumes, &claim("c", "1Gi", &json!({}))), Some("fit".to_owned()));
        assert_eq!(chosen(&volumes, &claim("c", "2Gi", &json!({}))), Some("big".to_owned()));
        assert_eq!(chosen(&volumes, &claim("c", "20Gi", &json!({}))), None);
    }

    #[test]
    fn a_volume_must_suit_in_every_way() {
        let table = [
            (json!({}), json!({}), true),
            (json!({"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}), json!({"accessModes": ["ReadOnlyMany"]}), true),
            (json!({}), json!({"accessModes": ["ReadWriteMany"]}), false),
            (json!({"storageClassName": "fast"}), json!({}), false),
            (json!({"storageClassName": "fast"}), json!({"storageClassName": "fast"}), true),
            (json!({}), json!({"storageClassName": "fast"}), false),
            (json!({"volumeMode": "Block"}), json!({}), false),
            (json!({"volumeMode": "Filesystem"}), json!({}), true),
            (json!({}), json!({"selector": {"matchLabels": {"disk": "ssd"}}}), true),
            (json!({}), json!({"selector": {"matchLabels": {"disk": "tape"}}}), false),
            (json!({"claimRef": {"namespace": "n", "name": "c"}}), json!({}), true),
            (json!({"claimRef": {"namespace": "n", "name": "c", "uid": "another"}}), json!({}), false),
            (json!({"claimRef": {"namespace": "n", "name": "d"}}), json!({}), false),
        ];
        for (offer, wish, expected) in table {
            let volumes = [volume("v", "1Gi", &offer)];
            assert_eq!(chosen(&volumes, &claim("c", "1Gi", &wish)).is_some(), expected, "{offer} {wish}");
        }
    }

    #[test]
    fn what_was_set_aside_for_the_claim_comes_first_and_alone_when_it_has_to_wait() {
        let held = volume("held", "5Gi", &json!({"claimRef": {"namespace": "n", "name": "c"}}));
        let volumes = [volume("free", "1Gi", &json!({})), held];
        let claim = claim("c", "1Gi", &json!({}));
        assert_eq!(chosen(&volumes, &claim), Some("held".to_owned()));
        assert_eq!(best(&volumes[..1], &claim, true, None), None);
    }

    #[test]
    fn a_volume_is_only_of_use_where_it_can_be_reached() {
        let only = |key: &str, operator: &str, values: &[&str]| {
            let expression = json!({"key": key, "operator": operator, "values": values});
            let terms = json!([{"matchExpressions": [expression]}]);
            volume("v", "1Gi", &json!({"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}))
        };
        let here = node("a");
        let table = [
            (only("kubernetes.io/hostname", "In", &["a"]), true),
            (only("kubernetes.io/hostname", "In", &["b"]), false),
            (only("kubernetes.io/hostname", "NotIn", &["b"]), true),
            (only("zone", "DoesNotExist", &[]), true),
            (only("zone", "Exists", &[]), false),
            (only("size", "Gt", &["3"]), true),
            (only("size", "Lt", &["3"]), false),
            (only("size", "Near", &["3"]), false),
            (volume("v", "1Gi", &json!({})), true),
        ];
        for (volume, expected) in table {
            assert_eq!(is_reachable(&volume, &here), expected, "{:?}", volume.spec);
        }
    }
}
