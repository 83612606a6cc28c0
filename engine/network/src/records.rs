//! From Kubernetes objects to rules and names: pure, so that it can be tried on any objects.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::dns::{EndpointRecord, PortRecord, ServiceRecords};
use crate::rules::{Protocol, ServicePort, ServiceRules};

/// What a service needs from the kernel and from DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// None for headless and external-name services.
    pub(crate) rules: Option<ServiceRules>,
    pub(crate) records: ServiceRecords,
    /// Whether we are the load balancer of this service.
    pub(crate) balanced: bool,
}

/// Reads a service and its endpoint slices.
pub(crate) fn wanted<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice>) -> Wanted {
    let Some(spec) = &service.spec else { return Wanted::default() };
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if kind == "ExternalName" {
        let records = ServiceRecords { external_name: spec.external_name.clone(), ..ServiceRecords::default() };
        return Wanted { records, ..Wanted::default() };
    }
    let endpoints = endpoints(slices);
    let cluster_address = spec.cluster_ip.as_deref().and_then(|text| text.parse().ok());
    if cluster_address.is_none() {
        let records = ServiceRecords { endpoints: endpoint_records(&endpoints), ..ServiceRecords::default() };
        return Wanted { records, ..Wanted::default() };
    }
    let balanced = kind == "LoadBalancer" && spec.load_balancer_class.is_none();
    let rules = ServiceRules {
        key: key(service),
        cluster_address,
        external_addresses: spec.external_ips.iter().flatten().filter_map(|text| text.parse().ok()).collect(),
        ports: service_ports(spec, &endpoints, balanced),
        sticky: spec.session_affinity.as_deref() == Some("ClientIP"),
    };
    let records = ServiceRecords { cluster_address, ports: own_port_records(spec), ..ServiceRecords::default() };
    Wanted { rules: Some(rules), records, balanced }
}

/// `namespace/name`.
pub(crate) fn key(service: &Service) -> String {
    let metadata = &service.metadata;
    format!("{}/{}", metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// One usable endpoint: its address and the ports of its slice by name.
struct Found<'a> {
    address: Ipv4Addr,
    endpoint: &'a Endpoint,
    slice: &'a EndpointSlice,
}

/// The ready endpoints; when there are none, those that still serve while they end.
fn endpoints<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> Vec<Found<'a>> {
    let all: Vec<Found<'a>> = slices
        .filter(|slice| slice.address_type == "IPv4")
        .flat_map(|slice| slice.endpoints.iter().flatten().map(move |endpoint| (slice, endpoint)))
        .filter_map(|(slice, endpoint)| {
            Some(Found { address: endpoint.addresses.first()?.parse().ok()?, endpoint, slice })
        })
        .collect();
    let (ready, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|found| is_ready(found.endpoint));
    if ready.is_empty() { others.into_iter().filter(|found| is_ending(found.endpoint)).collect() } else { ready }
}

/// No condition counts as ready.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn is_ending(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.is_some_and(|conditions| conditions.serving == Some(true) && conditions.terminating == Some(true))
}

fn service_ports(spec: &ServiceSpec, endpoints: &[Found<'_>], balanced: bool) -> Vec<ServicePort> {
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            let protocol = Protocol::parse(port.protocol.as_deref())?;
            let number = u16::try_from(port.port).ok()?;
            let name = port.name.as_deref().unwrap_or_default();
            let node_port = port.node_port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0);
            let backends = endpoints.iter().filter_map(|found| Some((found.address, found.port(name, protocol)?)));
            let host_port = balanced.then_some(number);
            Some(ServicePort { protocol, port: number, node_port, host_port, backends: backends.collect() })
        })
        .collect()
}

impl Found<'_> {
    fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.ports().find(|port| port.name == name && port.protocol == protocol).map(|port| port.port)
    }

    fn ports(&self) -> impl Iterator<Item = PortRecord> {
        self.slice.ports.iter().flatten().filter_map(|port| {
            Some(PortRecord {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(port.protocol.as_deref())?,
                port: u16::try_from(port.port?).ok()?,
            })
        })
    }
}

fn own_port_records(spec: &ServiceSpec) -> Vec<PortRecord> {
    let record = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(PortRecord {
            name: port.name.clone().unwrap_or_default(),
            protocol: Protocol::parse(port.protocol.as_deref())?,
            port: u16::try_from(port.port).ok()?,
        })
    };
    spec.ports.iter().flatten().filter_map(record).collect()
}

fn endpoint_records(endpoints: &[Found<'_>]) -> Vec<EndpointRecord> {
    let record = |found: &Found<'_>| EndpointRecord {
        address: found.address,
        hostname: found.endpoint.hostname.clone().filter(|name| !name.is_empty()),
        ports: found.ports().collect(),
    };
    endpoints.iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: &Value) -> Service {
        serde_json::from_value(json!({"metadata": {"namespace": "default", "name": "web"}, "spec": spec})).unwrap()
    }

    fn slice(endpoints: &Value) -> EndpointSlice {
        let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
        let object = json!({"metadata": {}, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
        serde_json::from_value(object).unwrap()
    }

    fn cluster_service(kind: &str) -> Service {
        let ports = json!([{"name": "http", "port": 80, "nodePort": 30080, "targetPort": "web"}]);
        service(&json!({"type": kind, "clusterIP": "10.73.128.20", "ports": ports}))
    }

    #[test]
    fn only_ready_endpoints_are_backends() {
        let slice = slice(&json!([
            {"addresses": ["10.73.0.2"], "conditions": {"ready": true}},
            {"addresses": ["10.73.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.73.0.4"]},
        ]));
        let rules = wanted(&cluster_service("NodePort"), [&slice].into_iter()).rules.unwrap();
        let expected = vec![("10.73.0.2".parse().unwrap(), 8080), ("10.73.0.4".parse().unwrap(), 8080)];
        assert_eq!(rules.ports[0].backends, expected);
        assert_eq!((rules.ports[0].node_port, rules.ports[0].host_port), (Some(30080), None));
    }

    #[test]
    fn endpoints_that_end_serve_when_nothing_else_does() {
        let slice = slice(&json!([
            {"addresses": ["10.73.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.73.0.4"], "conditions": {"ready": false, "serving": false, "terminating": true}},
        ]));
        let rules = wanted(&cluster_service("ClusterIP"), [&slice].into_iter()).rules.unwrap();
        assert_eq!(rules.ports[0].backends, vec![("10.73.0.3".parse().unwrap(), 8080)]);
    }

    #[test]
    fn a_load_balancer_takes_its_port_on_the_host_unless_somebody_else_balances() {
        let ours = wanted(&cluster_service("LoadBalancer"), std::iter::empty());
        assert!(ours.balanced);
        assert_eq!(ours.rules.unwrap().ports[0].host_port, Some(80));
        let mut theirs = cluster_service("LoadBalancer");
        theirs.spec.as_mut().unwrap().load_balancer_class = Some("example.com/other".to_owned());
        assert!(!wanted(&theirs, std::iter::empty()).balanced);
    }

    #[test]
    fn a_headless_service_is_names_only() {
        let slice = slice(&json!([{"addresses": ["10.73.0.2"], "hostname": "db-0"}]));
        let headless = wanted(&service(&json!({"clusterIP": "None"})), [&slice].into_iter());
        assert_eq!(headless.rules, None);
        assert_eq!(headless.records.endpoints[0].hostname.as_deref(), Some("db-0"));
        let alias = wanted(&service(&json!({"type": "ExternalName", "externalName": "a.b"})), std::iter::empty());
        assert_eq!((alias.rules, alias.records.external_name.as_deref()), (None, Some("a.b")));
    }
}
