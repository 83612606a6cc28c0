//! Ports of the host that pods ask for, as if each pod were a service of its own. Pure.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use kube::ResourceExt;

use crate::rules::{Protocol, ServicePort, ServiceRules};

/// What the keys of pods begin with, which no namespace's name does.
const PREFIX: &str = "pod:";

/// The key of a pod among those of services.
pub(crate) fn key(pod: &Pod) -> String {
    format!("{PREFIX}{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

/// The namespace and name of the pod with that key; none if it is a service's.
pub(crate) fn pod_of(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(PREFIX)?.split_once('/')
}

/// Whether the pod asks for a port of that node.
pub(crate) fn asks(pod: &Pod, node: &str) -> bool {
    let spec = pod.spec.as_ref();
    let here = spec.is_some_and(|spec| spec.host_network != Some(true) && spec.node_name.as_deref() == Some(node));
    here && ports(pod).next().is_some()
}

/// What the kernel is to know; nothing once the pod ends, so that nobody new comes to it.
pub(crate) fn rules(pod: &Pod, node: &str) -> Option<ServiceRules> {
    let status = pod.status.as_ref()?;
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if over || pod.metadata.deletion_timestamp.is_some() || !asks(pod, node) {
        return None;
    }
    let address: Ipv4Addr = status.pod_ip.as_deref()?.parse().ok()?;
    let mut rules = ServiceRules { key: key(pod), ..ServiceRules::default() };
    for port in ports(pod) {
        let number = |port: i32| u16::try_from(port).ok();
        let (Some(protocol), Some(own), Some(wanted)) =
            (Protocol::parse(port.protocol.as_deref()), number(port.container_port), port.host_port.and_then(number))
        else {
            continue;
        };
        let certain = port.host_ip.as_deref().and_then(|text| text.parse::<Ipv4Addr>().ok());
        let certain = certain.filter(|address| !address.is_unspecified());
        rules.external_addresses.extend(certain);
        rules.ports.push(ServicePort {
            protocol,
            port: wanted,
            node_port: certain.is_none().then_some(wanted),
            host_port: None,
            backends: vec![(address, own)],
            outer: None,
        });
    }
    Some(rules)
}

fn ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| port.host_port.is_some_and(|it| it > 0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ports: &serde_json::Value) -> Pod {
        let spec = json!({"nodeName": "here", "containers": [{"name": "c", "ports": ports}]});
        let metadata = json!({"namespace": "n", "name": "p"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": {"podIP": "10.73.0.2"}})).unwrap()
    }

    #[test]
    fn a_pods_ports_of_the_host_are_a_service_of_its_own() {
        let asking = pod(&json!([
            {"containerPort": 80, "hostPort": 8080}, {"containerPort": 81},
            {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "127.0.0.1"},
        ]));
        let rules = rules(&asking, "here").unwrap();
        assert_eq!(pod_of(&rules.key), Some(("n", "p")));
        assert_eq!(pod_of("n/p"), None);
        assert_eq!(rules.external_addresses, [Ipv4Addr::LOCALHOST]);
        let seen: Vec<_> =
            rules.ports.iter().map(|it| (it.protocol, it.port, it.node_port, it.backends[0].1)).collect();
        assert_eq!(seen, [(Protocol::Tcp, 8080, Some(8080), 80), (Protocol::Udp, 5353, None, 53)]);
    }

    #[test]
    fn other_nodes_and_pods_that_end_take_no_port() {
        let mut asking = pod(&json!([{"containerPort": 80, "hostPort": 8080}]));
        assert!(rules(&asking, "there").is_none() && !asks(&asking, "there"));
        assert!(!asks(&pod(&json!([{"containerPort": 80}])), "here"));
        asking.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).ok();
        assert!(rules(&asking, "here").is_none() && asks(&asking, "here"));
        let mut hosted = pod(&json!([{"containerPort": 80, "hostPort": 80}]));
        hosted.spec.as_mut().unwrap().host_network = Some(true);
        assert!(!asks(&hosted, "here"));
    }
}
