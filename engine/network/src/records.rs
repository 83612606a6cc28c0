//! From Kubernetes objects to rules and names: pure, so that it can be tried on any objects.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::dns::{EndpointRecord, PortRecord, ServiceRecords};
use crate::nft::{ElementKey, destination};
use crate::rules::{Protocol, ServicePort, ServiceRules};

/// Three hours.
const USUAL_AFFINITY: u32 = 10_800;

/// What a service needs from the kernel and from DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// None for headless and external-name services.
    pub(crate) rules: Option<ServiceRules>,
    pub(crate) records: ServiceRecords,
    /// Whether we are the load balancer of this service.
    pub(crate) balanced: bool,
}

/// Reads a service and its endpoint slices, as the node of that name needs them.
pub(crate) fn wanted<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice>, node: &str) -> Wanted {
    let Some(spec) = &service.spec else { return Wanted::default() };
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if kind == "ExternalName" {
        let records = ServiceRecords { external_name: spec.external_name.clone(), ..ServiceRecords::default() };
        return Wanted { records, ..Wanted::default() };
    }
    let all = all(slices);
    let endpoints = usable(&all.iter().collect::<Vec<_>>());
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
        ports: service_ports(spec, &Reach::of(spec, &all, node), balanced),
        sticky: affinity(spec),
    };
    let records = ServiceRecords { cluster_address, ports: own_port_records(spec), ..ServiceRecords::default() };
    Wanted { rules: Some(rules), records, balanced }
}

/// `namespace/name`.
pub(crate) fn key(service: &Service) -> String {
    let metadata = &service.metadata;
    format!("{}/{}", metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// Where connections to a service may go: its ports at its addresses and on the host.
pub(crate) fn service_keys(service: &Service) -> BTreeSet<ElementKey> {
    let Some(rules) = wanted(service, std::iter::empty(), "").rules else { return BTreeSet::new() };
    let mut keys = BTreeSet::new();
    for port in &rules.ports {
        let addresses = rules.cluster_address.iter().chain(&rules.external_addresses);
        keys.extend(addresses.map(|address| destination(Some(*address), port.protocol, port.port)));
        let on_host = [port.node_port, port.host_port].into_iter().flatten();
        keys.extend(on_host.map(|number| destination(None, port.protocol, number)));
    }
    keys
}

/// For how many seconds a client is to meet the same endpoint.
fn affinity(spec: &ServiceSpec) -> Option<u32> {
    let asked = spec.session_affinity.as_deref() == Some("ClientIP");
    let configured =
        spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    asked.then(|| configured.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(USUAL_AFFINITY))
}

/// One endpoint: its address and the ports of its slice by name.
struct Found<'a> {
    address: Ipv4Addr,
    endpoint: &'a Endpoint,
    slice: &'a EndpointSlice,
}

/// Where connections may go, by where they come from.
struct Reach<'a> {
    inner: Vec<&'a Found<'a>>,
    /// None for the same.
    outer: Option<Vec<&'a Found<'a>>>,
}

impl<'a> Reach<'a> {
    fn of(spec: &ServiceSpec, all: &'a [Found<'a>], node: &str) -> Self {
        let among = |local: bool| {
            let near = |found: &&Found<'_>| !local || found.endpoint.node_name.as_deref() == Some(node);
            usable(&all.iter().filter(near).collect::<Vec<_>>())
        };
        let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        let (inside, outside) = (is_local(&spec.internal_traffic_policy), is_local(&spec.external_traffic_policy));
        Self { inner: among(inside), outer: (inside != outside).then(|| among(outside)) }
    }
}

fn all<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> Vec<Found<'a>> {
    slices
        .filter(|slice| slice.address_type == "IPv4")
        .flat_map(|slice| slice.endpoints.iter().flatten().map(move |endpoint| (slice, endpoint)))
        .filter_map(|(slice, endpoint)| {
            Some(Found { address: endpoint.addresses.first()?.parse().ok()?, endpoint, slice })
        })
        .collect()
}

/// The ready endpoints; when there are none, those that still serve while they end.
fn usable<'a>(all: &[&'a Found<'a>]) -> Vec<&'a Found<'a>> {
    let (ready, others): (Vec<_>, Vec<_>) = all.iter().copied().partition(|found| is_ready(found.endpoint));
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

fn service_ports(spec: &ServiceSpec, reach: &Reach<'_>, balanced: bool) -> Vec<ServicePort> {
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            let protocol = Protocol::parse(port.protocol.as_deref())?;
            let number = u16::try_from(port.port).ok()?;
            let name = port.name.as_deref().unwrap_or_default();
            let node_port = port.node_port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0);
            let backends = |endpoints: &Vec<&Found<'_>>| {
                let backend = |found: &&Found<'_>| Some((found.address, found.port(name, protocol)?));
                endpoints.iter().filter_map(backend).collect()
            };
            let (inner, outer) = (backends(&reach.inner), reach.outer.as_ref().map(backends));
            let host_port = balanced.then_some(number);
            Some(ServicePort { protocol, port: number, node_port, host_port, backends: inner, outer })
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

fn endpoint_records(endpoints: &[&Found<'_>]) -> Vec<EndpointRecord> {
    let record = |found: &&Found<'_>| EndpointRecord {
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
        let rules = wanted(&cluster_service("NodePort"), [&slice].into_iter(), "here").rules.unwrap();
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
        let rules = wanted(&cluster_service("ClusterIP"), [&slice].into_iter(), "here").rules.unwrap();
        assert_eq!(rules.ports[0].backends, vec![("10.73.0.3".parse().unwrap(), 8080)]);
    }

    #[test]
    fn a_load_balancer_takes_its_port_on_the_host_unless_somebody_else_balances() {
        let ours = wanted(&cluster_service("LoadBalancer"), std::iter::empty(), "here");
        assert!(ours.balanced);
        assert_eq!(ours.rules.unwrap().ports[0].host_port, Some(80));
        let mut theirs = cluster_service("LoadBalancer");
        theirs.spec.as_mut().unwrap().load_balancer_class = Some("example.com/other".to_owned());
        assert!(!wanted(&theirs, std::iter::empty(), "here").balanced);
    }

    #[test]
    fn traffic_that_is_to_stay_on_the_node_goes_nowhere_else() {
        let slice = slice(&json!([
            {"addresses": ["10.73.0.2"], "nodeName": "here", "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.73.0.3"], "nodeName": "there", "conditions": {"ready": true}},
        ]));
        let (near, far) = (("10.73.0.2".parse().unwrap(), 8080), ("10.73.0.3".parse().unwrap(), 8080));
        let of = |inside: &str, outside: &str, node: &str| {
            let mut service = cluster_service("NodePort");
            let spec = service.spec.as_mut().unwrap();
            spec.internal_traffic_policy = Some(inside.to_owned());
            spec.external_traffic_policy = Some(outside.to_owned());
            let rules = wanted(&service, [&slice].into_iter(), node).rules.unwrap();
            (rules.ports[0].backends.clone(), rules.ports[0].outer.clone())
        };
        assert_eq!(of("Cluster", "Cluster", "here"), (vec![far], None));
        assert_eq!(of("Local", "Cluster", "here"), (vec![near], Some(vec![far])));
        assert_eq!(of("Cluster", "Local", "here"), (vec![far], Some(vec![near])));
        assert_eq!(of("Local", "Local", "there"), (vec![far], None));
        assert_eq!(of("Local", "Local", "elsewhere"), (vec![], None));
    }

    #[test]
    fn affinity_lasts_as_long_as_the_service_says() {
        let mut service = cluster_service("ClusterIP");
        let of = |service: &Service| wanted(service, std::iter::empty(), "here").rules.unwrap().sticky;
        assert_eq!(of(&service), None);
        service.spec.as_mut().unwrap().session_affinity = Some("ClientIP".to_owned());
        assert_eq!(of(&service), Some(10_800));
        let config = json!({"clientIP": {"timeoutSeconds": 5}});
        service.spec.as_mut().unwrap().session_affinity_config = Some(serde_json::from_value(config).unwrap());
        assert_eq!(of(&service), Some(5));
    }

    #[test]
    fn a_headless_service_is_names_only() {
        let slice = slice(&json!([{"addresses": ["10.73.0.2"], "hostname": "db-0"}]));
        let headless = wanted(&service(&json!({"clusterIP": "None"})), [&slice].into_iter(), "here");
        assert_eq!(headless.rules, None);
        assert_eq!(headless.records.endpoints[0].hostname.as_deref(), Some("db-0"));
        let alias =
            wanted(&service(&json!({"type": "ExternalName", "externalName": "a.b"})), std::iter::empty(), "here");
        assert_eq!((alias.rules, alias.records.external_name.as_deref()), (None, Some("a.b")));
    }
}
