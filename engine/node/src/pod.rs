//! Small questions to a pod object that several parts of the node ask.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, ObjectReference, Pod};

/// The container or init container of that name.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.iter().flatten();
    spec.containers.iter().chain(init).find(|container| container.name == name)
}

/// The container of that name, of whatever kind. Ephemeral ones have all fields that others have, and one more.
pub(crate) fn any_container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    container(pod, name).map(Cow::Borrowed).or_else(|| {
        let same = ephemeral(pod, name).map(serde_json::to_value)?.and_then(serde_json::from_value);
        same.ok().map(Cow::Owned)
    })
}

/// The ephemeral container of that name.
pub(crate) fn ephemeral<'a>(pod: &'a Pod, name: &str) -> Option<&'a EphemeralContainer> {
    ephemerals(pod).find(|container| container.name == name)
}

/// Every container that was added to the running pod.
pub(crate) fn ephemerals(pod: &Pod) -> impl Iterator<Item = &EphemeralContainer> {
    pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_ref()).into_iter().flatten()
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

/// The most that the kernel takes.
const LONGEST_HOSTNAME: usize = 64;

/// What the kernel calls the pod's host: the short name, or the full one where the pod asks for that.
pub(crate) fn kernel_hostname(pod: &Pod, node: &str, cluster_domain: &str) -> Result<String, String> {
    let asks = pod.spec.as_ref().is_some_and(|spec| spec.set_hostname_as_fqdn == Some(true));
    match fully_qualified(pod, node, cluster_domain).filter(|_| asks && !host_network(pod)) {
        Some(full) if full.len() > LONGEST_HOSTNAME => Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long \
             ({LONGEST_HOSTNAME} characters is the max, {} characters requested)",
            full.len()
        )),
        Some(full) => Ok(full),
        None => Ok(hostname(pod, node)),
    }
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
        field_path: container.map(|name| field_path(pod, name)),
    }
}

fn field_path(pod: &Pod, name: &str) -> String {
    let init = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let list = if init.into_iter().any(|each| each.name == name) {
        "initContainers"
    } else if ephemeral(pod, name).is_some() {
        "ephemeralContainers"
    } else {
        "containers"
    };
    format!("spec.{list}{{{name}}}")
}
