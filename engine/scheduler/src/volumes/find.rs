//! Which volume a claim gets: of those that are what it asks for, the smallest, unless one was kept for it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use shipway_driver::matching::{self, Labels};
use shipway_schema::quantity::Quantity;

/// The name of the best volume for the claim.
pub(super) fn smallest<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl Iterator<Item = &'a Arc<PersistentVolume>>,
    is_free: impl Fn(&str) -> bool,
) -> Option<String> {
    let name = |volume: &PersistentVolume| volume.metadata.name.clone().unwrap_or_default();
    let good = volumes.filter(|volume| is_good(claim, volume) && is_free(&name(volume)));
    let best = good.min_by_key(|volume| (reference(volume).is_none(), capacity(volume), name(volume)));
    best.map(|volume| name(volume))
}

fn is_good(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let (Some(asked), Some(given)) = (&claim.spec, &volume.spec) else { return false };
    let class = |class: &Option<String>| class.clone().unwrap_or_default();
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let none = Labels::new();
    let labels = volume.metadata.labels.as_ref().unwrap_or(&none);
    let given_modes = given.access_modes.as_deref().unwrap_or_default();
    is_available(claim, volume)
        && class(&asked.storage_class_name) == class(&given.storage_class_name)
        && mode(&asked.volume_mode) == mode(&given.volume_mode)
        && asked.access_modes.iter().flatten().all(|mode| given_modes.contains(mode))
        && asked.selector.as_ref().is_none_or(|selector| matching::selects(selector, labels))
        && capacity(volume) >= size(asked.resources.as_ref().and_then(|it| it.requests.as_ref()?.get("storage")))
}

fn is_available(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Available");
    let is_for_it = |reference: &ObjectReference| {
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && reference.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
    };
    volume.metadata.deletion_timestamp.is_none()
        && matches!(phase, "Available" | "Pending")
        && reference(volume).is_none_or(is_for_it)
}

fn reference(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

fn capacity(volume: &PersistentVolume) -> i128 {
    size(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage")))
}

fn size(written: Option<&Written>) -> i128 {
    written.and_then(|written| Quantity::parse(&written.0).ok()).map_or(0, |size| size.to_units())
}

/// Whether the class makes volumes that can be had on the node.
pub(super) fn is_reached(class: &StorageClass, node: &Node) -> bool {
    let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
    let empty = Labels::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    topologies.is_empty()
        || topologies.iter().any(|topology| {
            let mut all = topology.match_label_expressions.iter().flatten();
            all.all(|it| labels.get(&it.key).is_some_and(|value| it.values.contains(value)))
        })
}
