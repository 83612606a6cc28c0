//! A revision of a deployment is a replica set with the template as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{REVISION, TEMPLATE_HASH, plan};
use crate::hash::hash;
use crate::owned::controller_reference;

/// The annotation with the numbers that a revision had before it came back.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// No history is longer, in bytes; the oldest numbers go first.
const LONGEST_HISTORY: usize = 2000;
/// The bookkeeping of kubectl and of rollouts, which a revision does not inherit.
const NOT_INHERITED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    plan::DESIRED,
    plan::MOST,
    "deprecated.deployment.rollback.to",
];

/// Whether the replica set has the deployment's template as it is now.
pub(super) fn is_of(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let Some(wanted) = deployment.spec.as_ref().map(|spec| spec.template.clone()) else { return false };
    let Some(has) = set.spec.as_ref().and_then(|spec| spec.template.clone()) else { return false };
    is_same(&without_hash(has), &without_hash(wanted))
}

/// A template copied from a replica set carries its hash.
fn without_hash(mut template: PodTemplateSpec) -> PodTemplateSpec {
    if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
        labels.remove(TEMPLATE_HASH);
    }
    template
}

/// Equal but for empty against missing metadata.
fn is_same(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    let metadata = |template: &PodTemplateSpec| {
        let metadata = template.metadata.clone().unwrap_or_default();
        (metadata.labels.unwrap_or_default(), metadata.annotations.unwrap_or_default())
    };
    one.spec == other.spec && metadata(one) == metadata(other)
}

/// The number of a revision; 0 where it has none yet.
pub(super) fn number(set: &ReplicaSet) -> i64 {
    set.annotations().get(REVISION).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The highest number among the replica sets.
pub(super) fn highest(sets: &[Arc<ReplicaSet>]) -> i64 {
    sets.iter().map(|set| number(set)).max().unwrap_or(0)
}

/// What a replica set lacks of the annotations of this revision: those of the deployment, of which none is ever taken
/// back, the number, and the numbers before it.
pub(super) fn lacking(deployment: &Deployment, set: &ReplicaSet, number: i64) -> BTreeMap<String, String> {
    let inherited = deployment.annotations().iter().filter(|(key, _)| !NOT_INHERITED.contains(&key.as_str()));
    let mut wanted: BTreeMap<_, _> = inherited.map(|(key, value)| (key.clone(), value.clone())).collect();
    wanted.insert(REVISION.to_owned(), number.to_string());
    let own = self::number(set);
    if own > 0 && own < number {
        let before = set.annotations().get(HISTORY).map(String::as_str).unwrap_or_default();
        wanted.insert(HISTORY.to_owned(), history(before, own));
    }
    wanted.retain(|key, value| set.annotations().get(key) != Some(value));
    wanted
}

fn history(before: &str, number: i64) -> String {
    let own = number.to_string();
    let mut numbers: Vec<&str> = before.split(',').filter(|number| !number.is_empty()).collect();
    numbers.push(&own);
    let length = |numbers: &[&str]| numbers.iter().map(|number| number.len() + 1).sum::<usize>() - 1;
    while length(&numbers) > LONGEST_HISTORY {
        numbers.remove(0);
    }
    numbers.join(",")
}

/// The replica set for the template as it is now.
pub(super) fn replica_set(deployment: &Deployment, number: i64, replicas: i32) -> Option<ReplicaSet> {
    let spec = deployment.spec.as_ref()?;
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let hash = hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let mut annotations = lacking(deployment, &ReplicaSet::default(), number);
    annotations.extend(plan::notes(deployment));
    let metadata = ObjectMeta {
        name: Some(format!("{}-{hash}", deployment.name_any())),
        namespace: deployment.namespace(),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: Some(vec![controller_reference(deployment)?]),
        ..ObjectMeta::default()
    };
    let spec = ReplicaSetSpec {
        replicas: Some(replicas),
        selector,
        template: Some(template),
        min_ready_seconds: spec.min_ready_seconds,
    };
    Some(ReplicaSet { metadata, spec: Some(spec), status: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(image: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "n", "uid": "u", "annotations": { "a": "b", REVISION: "7" } },
            "spec": {
                "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "c", "image": image }] },
                },
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_revision_is_found_by_its_template() {
        let set = replica_set(&deployment("one"), 3, 2).unwrap();
        assert!(is_of(&set, &deployment("one")));
        assert!(!is_of(&set, &deployment("two")));
        assert_ne!(set.name_any(), replica_set(&deployment("two"), 3, 2).unwrap().name_any());
        assert_eq!(number(&set), 3);
    }

    #[test]
    fn a_revision_follows_the_annotations_of_its_deployment_and_remembers_its_numbers() {
        let mut set = replica_set(&deployment("one"), 3, 2).unwrap();
        assert_eq!(lacking(&deployment("one"), &set, 3), BTreeMap::new());
        let cause = ("kubernetes.io/change-cause".to_owned(), "because".to_owned());
        let mut told = deployment("one");
        told.annotations_mut().extend([cause.clone(), (NOT_INHERITED[0].to_owned(), "{}".to_owned())]);
        assert_eq!(lacking(&told, &set, 3), BTreeMap::from([cause]));
        let lacks = lacking(&deployment("one"), &set, 5);
        assert_eq!((lacks[REVISION].as_str(), lacks[HISTORY].as_str()), ("5", "3"));
        set.annotations_mut().extend(lacks);
        assert_eq!(lacking(&deployment("one"), &set, 8)[HISTORY], "3,5");
        let long = history(&"123456789,".repeat(300), 7);
        assert!(long.len() <= LONGEST_HISTORY && long.ends_with("123456789,7"), "{}", long.len());
    }

    #[test]
    fn the_hash_tells_the_pods_of_revisions_apart() {
        let set = replica_set(&deployment("one"), 1, 2).unwrap();
        let hash = set.labels()[TEMPLATE_HASH].clone();
        let spec = set.spec.unwrap();
        assert_eq!(spec.selector.match_labels.unwrap()[TEMPLATE_HASH], hash);
        assert_eq!(spec.template.unwrap().metadata.unwrap().labels.unwrap()[TEMPLATE_HASH], hash);
        assert_eq!(set.metadata.annotations.unwrap().get("a").map(String::as_str), Some("b"));
    }
}
