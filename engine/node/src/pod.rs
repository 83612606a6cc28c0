//! Small questions to a pod object that several parts of the node ask.

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, PodSpec};

/// The container or init container of that name.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.iter().flatten();
    spec.containers.iter().chain(init).find(|container| container.name == name)
}

/// Every container of the pod, init containers first.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    init.chain(spec.into_iter().flat_map(|spec| spec.containers.iter()))
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

pub(crate) fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub(crate) fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
}

/// The host name that its containers see; at most 63 characters, as the kernel and DNS demand.
pub(crate) fn hostname(pod: &Pod, node: &str) -> String {
    let spec = pod.spec.as_ref();
    if host_network(pod) {
        return node.to_owned();
    }
    let chosen = spec.and_then(|spec| spec.hostname_override.clone().or_else(|| spec.hostname.clone()));
    let full = chosen.unwrap_or_else(|| name(pod).to_owned());
    let cut: String = full.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The name under the pod's subdomain, when it has one.
pub(crate) fn fully_qualified(pod: &Pod, node: &str, cluster_domain: &str) -> Option<String> {
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty())?;
    Some(format!("{}.{subdomain}.{}.svc.{cluster_domain}", hostname(pod, node), namespace(pod)))
}

/// How events refer to the pod, or to one of its containers.
pub(crate) fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: container.map(|name| field_path(pod.spec.as_ref(), name)),
    }
}

fn field_path(spec: Option<&PodSpec>, name: &str) -> String {
    let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten().any(|each| each.name == name);
    if init { format!("spec.initContainers{{{name}}}") } else { format!("spec.containers{{{name}}}") }
}
