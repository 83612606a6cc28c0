//! The pods that a job makes.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::manage::New;
use super::pods::{FAILURES, IGNORED, INDEX, TRACKING};

/// The variable that tells a container for which completion it works.
const VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// The longest name that a generated name may begin with.
const PREFIX: usize = 58;

/// Completes a pod of the template for what it is to work for.
pub(super) fn complete(mut pod: Pod, job: &str, spec: &JobSpec, new: New) -> Pod {
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if finalizers.iter().all(|finalizer| finalizer != TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    if let Some((counted, ignored)) = new.failures {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED.to_owned(), ignored.to_string());
        }
    }
    if let Some(index) = new.index.filter(|_| spec.completion_mode.as_deref() == Some("Indexed")) {
        number(&mut pod, job, index);
    }
    pod
}

/// Gives the pod its index: in its name, its host name, a label, an annotation, and in the environment of its containers.
fn number(pod: &mut Pod, job: &str, index: u32) {
    let tail = format!("-{index}-");
    let head: String = job.chars().take(PREFIX.saturating_sub(tail.len())).collect();
    pod.metadata.generate_name = Some(head + &tail);
    let tell = |map: &mut Option<BTreeMap<String, String>>| {
        map.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    };
    tell(&mut pod.metadata.labels);
    tell(&mut pod.metadata.annotations);
    let Some(spec) = &mut pod.spec else { return };
    spec.hostname = Some(format!("{job}-{index}"));
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(tell_container);
}

fn tell_container(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == VARIABLE) {
        return;
    }
    let path = format!("metadata.labels['{INDEX}']");
    let field_ref = Some(ObjectFieldSelector { api_version: None, field_path: path });
    let value_from = Some(EnvVarSource { field_ref, ..EnvVarSource::default() });
    variables.push(EnvVar { name: VARIABLE.to_owned(), value: None, value_from });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(job: &str, mode: &str, new: New) -> serde_json::Value {
        let spec = json!({"completionMode": mode, "template": {}});
        let pod = json!({"metadata": {"generateName": format!("{job}-"), "finalizers": ["mine/own"]}, "spec": {
            "containers": [{"name": "c"}, {"name": "d", "env": [{"name": VARIABLE, "value": "mine"}]}],
            "initContainers": [{"name": "i"}]}});
        let pod = serde_json::from_value(pod).unwrap();
        serde_json::to_value(complete(pod, job, &serde_json::from_value(spec).unwrap(), new)).unwrap()
    }

    #[test]
    fn every_pod_is_held_until_it_is_counted() {
        let pod = made("j", "NonIndexed", New::default());
        assert_eq!(pod["metadata"]["finalizers"], json!(["mine/own", TRACKING]));
        assert_eq!(pod["metadata"]["generateName"], "j-");
        assert_eq!((&pod["metadata"]["labels"], &pod["spec"]["hostname"]), (&json!(null), &json!(null)));
    }

    #[test]
    fn an_index_is_told_in_every_way() {
        let pod = made("j", "Indexed", New { index: Some(12), failures: Some((2, 1)) });
        let metadata = &pod["metadata"];
        assert_eq!((&metadata["generateName"], &pod["spec"]["hostname"]), (&json!("j-12-"), &json!("j-12")));
        assert_eq!((&metadata["labels"][INDEX], &metadata["annotations"][INDEX]), (&json!("12"), &json!("12")));
        assert_eq!((&metadata["annotations"][FAILURES], &metadata["annotations"][IGNORED]), (&json!("2"), &json!("1")));
        let path = format!("metadata.labels['{INDEX}']");
        let told = json!([{"name": VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": path}}}]);
        assert_eq!((&pod["spec"]["containers"][0]["env"], &pod["spec"]["initContainers"][0]["env"]), (&told, &told));
        assert_eq!(pod["spec"]["containers"][1]["env"], json!([{"name": VARIABLE, "value": "mine"}]));
        let long = made(&"x".repeat(63), "Indexed", New { index: Some(7), failures: None });
        assert_eq!(long["metadata"]["generateName"], format!("{}-7-", "x".repeat(55)));
    }
}
