//! The claims of a stateful set's pods: one for each template and ordinal, and who has to go for it to go.
//!
//! The garbage collector deletes a claim with its owner, so the retention policy is kept by owner references alone.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;

use super::identity;
use crate::owned::controller_reference;

/// The templates by name.
pub(super) fn templates(set: &StatefulSet) -> impl Iterator<Item = (&str, &PersistentVolumeClaim)> {
    let templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    templates.filter_map(|template| Some((template.metadata.name.as_deref()?, template)))
}

/// The name of the claim of a template and an ordinal.
pub(super) fn name(set: &StatefulSet, template: &str, ordinal: i64) -> String {
    format!("{template}-{}", identity::name(set, ordinal))
}

/// Whether a claim of that name is one of the set's.
pub(super) fn is_of(set: &StatefulSet, claim: &str) -> bool {
    let rest = |template: &str| claim.strip_prefix(template)?.strip_prefix('-')?.strip_prefix(&set.name_any());
    let ordinal = |template: &str| rest(template)?.strip_prefix('-').map(|rest| rest.parse::<u32>().is_ok());
    templates(set).any(|(template, _)| ordinal(template) == Some(true))
}

/// The claims of an ordinal, as they are made.
pub(super) fn of(set: &StatefulSet, ordinal: i64) -> Vec<PersistentVolumeClaim> {
    let selector = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.as_ref());
    let claim = |(template, claim): (&str, &PersistentVolumeClaim)| {
        let mut labels = claim.labels().clone();
        labels.extend(selector.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        let metadata = ObjectMeta {
            name: Some(name(set, template, ordinal)),
            namespace: set.namespace(),
            labels: Some(labels),
            annotations: claim.metadata.annotations.clone(),
            finalizers: claim.metadata.finalizers.clone(),
            owner_references: wanted(set, None).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        PersistentVolumeClaim { metadata, spec: claim.spec.clone(), status: None }
    };
    templates(set).map(claim).collect()
}

/// Who owns a claim by the set's policy; `condemned` is its pod, where that is to go for good.
fn wanted(set: &StatefulSet, condemned: Option<&Pod>) -> Option<OwnerReference> {
    let deletes = |field: &str| policy(set, field) == "Delete";
    match condemned {
        Some(pod) if deletes("whenScaled") => controller_reference(pod),
        Some(_) if !deletes("whenScaled") && deletes("whenDeleted") => controller_reference(set),
        None if deletes("whenDeleted") => controller_reference(set),
        _ => None,
    }
}

fn policy<'a>(set: &'a StatefulSet, field: &str) -> &'a str {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let value = policy.and_then(|policy| match field {
        "whenScaled" => policy.when_scaled.as_deref(),
        _ => policy.when_deleted.as_deref(),
    });
    value.unwrap_or("Retain")
}

/// The owners that a claim should have, where they differ from what it has. Owners that are neither the set nor the pod
/// stay; where one of them is in control, it alone is.
pub(super) fn owners(
    claim: &PersistentVolumeClaim,
    set: &StatefulSet,
    pod: &Pod,
    condemned: bool,
) -> Option<Vec<OwnerReference>> {
    let before = claim.owner_references();
    let of_set = |owner: &OwnerReference| owner.kind == "StatefulSet" && owner.name == set.name_any();
    let of_pod = |owner: &OwnerReference| owner.kind == "Pod" && owner.name == pod.name_any();
    let stale = |owner: &&OwnerReference| {
        (of_set(owner) && Some(&owner.uid) != set.metadata.uid.as_ref())
            || (of_pod(owner) && Some(&owner.uid) != pod.metadata.uid.as_ref())
    };
    if before.iter().any(|owner| stale(&owner)) {
        return None; // it belongs to a former set or pod of that name, and goes with it
    }
    let mut after: Vec<_> = before.iter().filter(|owner| !of_set(owner) && !of_pod(owner)).cloned().collect();
    if after.iter().all(|owner| owner.controller != Some(true)) {
        after.extend(wanted(set, condemned.then_some(pod)));
    }
    (after != before).then_some(after)
}

/// Whether the claim is to go with a former pod of that name: a new pod must not take it up.
pub(super) fn is_stale(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &str) -> bool {
    let former = |owner: &OwnerReference| owner.kind == "Pod" && owner.name == pod;
    policy(set, "whenScaled") == "Delete" && claim.owner_references().iter().any(former)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(deleted: &str, scaled: &str) -> StatefulSet {
        let template =
            json!({"metadata": {"name": "data", "labels": {"tier": "x"}}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "set"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {}, "volumeClaimTemplates": [template],
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled}},
        }))
        .unwrap()
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-0", "uid": "pod"}})).unwrap()
    }

    fn claim(owners: &[(&str, &str, &str)]) -> PersistentVolumeClaim {
        let owner = |(kind, name, uid): &(&str, &str, &str)| {
            let (version, controls) = if *kind == "StatefulSet" { ("apps/v1", true) } else { ("v1", *kind != "Note") };
            let block = (controls).then_some(true);
            json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": controls, "blockOwnerDeletion": block})
        };
        let owners: Vec<Value> = owners.iter().map(owner).collect();
        serde_json::from_value(json!({"metadata": {"name": "data-web-0", "ownerReferences": owners}})).unwrap()
    }

    #[test]
    fn a_claim_is_made_from_its_template() {
        let made = of(&set("Retain", "Retain"), 2);
        assert_eq!((made.len(), made[0].name_any().as_str()), (1, "data-web-2"));
        assert_eq!(json!(made[0].labels()), json!({"app": "web", "tier": "x"}));
        assert_eq!(json!(made[0].spec), json!({"accessModes": ["ReadWriteOnce"]}));
        assert!(made[0].owner_references().is_empty());
        assert_eq!(of(&set("Delete", "Retain"), 2)[0].owner_references()[0].uid, "set");
    }

    #[test]
    fn claims_are_known_by_their_names() {
        let known = |name: &str| is_of(&set("Retain", "Retain"), name);
        assert!(known("data-web-0") && known("data-web-17"));
        assert!(["data-web", "data-web-x", "other-web-0", "data-webs-0", "web-0"].map(known).iter().all(|it| !it));
    }

    #[test]
    fn who_owns_a_claim_follows_from_the_policy() {
        // Deleted, scaled, condemned, and whose the claim is to be.
        let table = [
            ("Retain", "Retain", false, None),
            ("Retain", "Retain", true, None),
            ("Delete", "Retain", false, Some("set")),
            ("Delete", "Retain", true, Some("set")),
            ("Retain", "Delete", false, None),
            ("Retain", "Delete", true, Some("pod")),
            ("Delete", "Delete", false, Some("set")),
            ("Delete", "Delete", true, Some("pod")),
        ];
        let all = [claim(&[]), claim(&[("StatefulSet", "web", "set")]), claim(&[("Pod", "web-0", "pod")])];
        for (deleted, scaled, condemned, expected) in table {
            for claim in &all {
                let set = set(deleted, scaled);
                let after = owners(claim, &set, &pod(), condemned).unwrap_or_else(|| claim.owner_references().to_vec());
                let uids: Vec<_> = after.iter().map(|owner| owner.uid.as_str()).collect();
                assert_eq!(uids, expected.into_iter().collect::<Vec<_>>(), "{deleted} {scaled} {condemned}");
            }
        }
    }

    #[test]
    fn what_is_right_is_not_written_and_what_is_others_stays() {
        let owned = claim(&[("StatefulSet", "web", "set")]);
        assert_eq!(owners(&owned, &set("Delete", "Retain"), &pod(), false), None);
        let former = claim(&[("StatefulSet", "web", "before")]);
        assert_eq!(owners(&former, &set("Delete", "Retain"), &pod(), false), None, "a former set's");
        let noted = claim(&[("Note", "x", "y")]);
        let after = owners(&noted, &set("Delete", "Retain"), &pod(), false).unwrap();
        assert_eq!(after.iter().map(|owner| owner.uid.as_str()).collect::<Vec<_>>(), ["y", "set"]);
        let other = claim(&[("Other", "x", "y")]);
        assert_eq!(owners(&other, &set("Delete", "Retain"), &pod(), false), None, "somebody else is in control");
    }

    #[test]
    fn a_claim_that_goes_with_a_former_pod_is_not_taken_up() {
        let going = claim(&[("Pod", "web-0", "former")]);
        assert!(is_stale(&going, &set("Retain", "Delete"), "web-0"));
        assert!(!is_stale(&going, &set("Retain", "Delete"), "web-1"));
        assert!(!is_stale(&going, &set("Retain", "Retain"), "web-0"));
        assert!(!is_stale(&claim(&[]), &set("Retain", "Delete"), "web-0"));
    }
}
