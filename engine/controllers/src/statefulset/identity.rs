//! Who a pod of a stateful set is: its ordinal, its name, its host name and its storage. All of it outlives the pod.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, Volume};
use kube::ResourceExt;

use super::claims;
use crate::history::REVISION_HASH;

/// The label with the pod's own name, by which a service can select one pod.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label with the ordinal.
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal of a pod; none where the set would not call any pod so.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i64> {
    let name = pod.metadata.name.as_deref()?;
    let number = name.strip_prefix(set.metadata.name.as_deref()?)?.strip_prefix('-')?;
    let ordinal = number.parse::<u32>().ok()?;
    (ordinal.to_string() == number).then(|| i64::from(ordinal))
}

/// The name of the pod with that ordinal.
pub(super) fn name(set: &StatefulSet, ordinal: i64) -> String {
    format!("{}-{ordinal}", set.name_any())
}

/// The name of the revision that a pod was made of.
pub(super) fn revision(pod: &Pod) -> &str {
    pod.labels().get(REVISION_HASH).map_or("", String::as_str)
}

/// Gives a pod of the template the identity of an ordinal.
pub(super) fn give(mut pod: Pod, set: &StatefulSet, ordinal: i64, revision: &str) -> Pod {
    let name = name(set, ordinal);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.extend(labels_of(set, ordinal));
    labels.insert(REVISION_HASH.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    let mut volumes = storage(set, ordinal);
    let of_template = spec.volumes.take().unwrap_or_default();
    // A claim takes the place of a volume of the same name.
    volumes
        .extend(of_template.into_iter().filter(|volume| claims::templates(set).all(|(name, _)| name != volume.name)));
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
    pod.metadata.name = Some(name);
    pod
}

fn storage(set: &StatefulSet, ordinal: i64) -> Vec<Volume> {
    let volume = |template: &str| Volume {
        name: template.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claims::name(set, template, ordinal),
            read_only: None,
        }),
        ..Volume::default()
    };
    claims::templates(set).map(|(name, _)| volume(name)).collect()
}

fn labels_of(set: &StatefulSet, ordinal: i64) -> BTreeMap<String, String> {
    [(POD_NAME.to_owned(), name(set, ordinal)), (POD_INDEX.to_owned(), ordinal.to_string())].into()
}

/// The labels that a pod lacks to be who its name says.
pub(super) fn lacking(set: &StatefulSet, pod: &Pod, ordinal: i64) -> BTreeMap<String, String> {
    let mut wanted = labels_of(set, ordinal);
    wanted.retain(|key, value| pod.labels().get(key) != Some(value));
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set() -> StatefulSet {
        let claim = json!({"metadata": {"name": "data"}, "spec": {}});
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n"},
            "spec": {"serviceName": "near", "selector": {}, "template": {}, "volumeClaimTemplates": [claim]},
        }))
        .unwrap()
    }

    fn pod(metadata: &Value, spec: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn only_names_that_the_set_would_give_have_an_ordinal() {
        let of = |name: &str| ordinal(&set(), &pod(&json!({"name": name}), &json!({"containers": []})));
        assert_eq!(["web-0", "web-12"].map(of), [Some(0), Some(12)]);
        let others = ["web-", "web-01", "web-x", "web--1", "web-+1", "web", "db-1", "web-db-1", "web-99999999999"];
        assert_eq!(others.map(of), [None; 9]);
    }

    #[test]
    fn a_pod_gets_name_host_labels_and_storage() {
        let volumes = json!([{"name": "tmp", "emptyDir": {}}, {"name": "data", "emptyDir": {}}]);
        let plain = pod(&json!({"labels": {"app": "web"}}), &json!({"containers": [], "volumes": volumes}));
        let given = give(plain, &set(), 3, "web-abc");
        let labels = json!({"app": "web", POD_NAME: "web-3", POD_INDEX: "3", REVISION_HASH: "web-abc"});
        assert_eq!(json!(given.labels()), labels);
        let spec = given.spec.as_ref().unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-3"), Some("near")));
        let claim = json!({"name": "data", "persistentVolumeClaim": {"claimName": "data-web-3"}});
        assert_eq!(json!(spec.volumes), json!([claim, {"name": "tmp", "emptyDir": {}}]));
        assert_eq!((given.name_any().as_str(), revision(&given)), ("web-3", "web-abc"));
        assert!(lacking(&set(), &given, 3).is_empty());
    }

    #[test]
    fn a_pod_without_service_has_no_subdomain() {
        let mut set = set();
        set.spec.as_mut().unwrap().service_name = Some(String::new());
        let given = give(pod(&json!({}), &json!({"containers": []})), &set, 0, "r");
        assert_eq!(given.spec.unwrap().subdomain, None);
    }

    #[test]
    fn a_pod_that_was_taken_over_lacks_labels() {
        let taken = pod(&json!({"name": "web-1", "labels": {POD_INDEX: "0"}}), &json!({"containers": []}));
        assert_eq!(json!(lacking(&set(), &taken, 1)), json!({POD_NAME: "web-1", POD_INDEX: "1"}));
    }
}
