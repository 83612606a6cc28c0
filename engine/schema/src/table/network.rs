//! What the rows of services, of their endpoints and of what leads to them say.

use jiff::Timestamp;
use serde_json::Value;

use super::workload::{label_selector, labels};
use super::{AGE, NAME, NONE, column, few, wide};
use crate::lookup::{at, integer, list, text};
use crate::resource::{Cell, Column};

pub(crate) const SERVICE: &[Column] = &[
    NAME,
    column("Type", Cell::Text("spec.type", NONE)),
    column("Cluster-IP", Cell::With(cluster_address)),
    column("External-IP", Cell::With(external_address)),
    column("Port(s)", Cell::With(service_ports)),
    AGE,
    wide("Selector", Cell::With(selector)),
];

pub(crate) const ENDPOINTS: &[Column] = &[NAME, column("Endpoints", Cell::With(endpoints)), AGE];

pub(crate) const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    column("AddressType", Cell::Text("addressType", "")),
    column("Ports", Cell::With(slice_ports)),
    column("Endpoints", Cell::With(slice_endpoints)),
    AGE,
];

pub(crate) const INGRESS: &[Column] = &[
    NAME,
    column("Class", Cell::With(ingress_class)),
    column("Hosts", Cell::With(hosts)),
    column("Address", Cell::With(|object, _| balanced(object).join(",").into())),
    column("Ports", Cell::With(ingress_ports)),
    AGE,
];

pub(crate) const INGRESS_CLASS: &[Column] =
    &[NAME, column("Controller", Cell::Text("spec.controller", "")), column("Parameters", Cell::With(parameters)), AGE];

pub(crate) const NETWORK_POLICY: &[Column] = &[
    NAME,
    column(
        "Pod-Selector",
        Cell::With(|object, _| at(object, "spec.podSelector").map_or_else(|| NONE.to_owned(), label_selector).into()),
    ),
    AGE,
];

pub(crate) const IP_ADDRESS: &[Column] = &[NAME, column("ParentRef", Cell::With(parent)), AGE];

pub(crate) const SERVICE_CIDR: &[Column] = &[NAME, column("CIDRs", Cell::With(ranges)), AGE];

fn texts<'a>(object: &'a Value, path: &str) -> Vec<&'a str> {
    list(object, path).iter().filter_map(Value::as_str).collect()
}

fn ingress_class(ingress: &Value, _: Timestamp) -> Value {
    let older = ingress.pointer("/metadata/annotations/kubernetes.io~1ingress.class").and_then(Value::as_str);
    let class = at(ingress, "spec.ingressClassName").and_then(Value::as_str).or(older);
    class.unwrap_or(NONE).into()
}

fn hosts(ingress: &Value, _: Timestamp) -> Value {
    let hosts = list(ingress, "spec.rules").iter().map(|rule| text(rule, "host")).filter(|host| !host.is_empty());
    let hosts: Vec<String> = hosts.map(str::to_owned).collect();
    let total = hosts.len();
    if total == 0 { "*".into() } else { few(hosts, total).into() }
}

/// The addresses that a load balancer handed out.
fn balanced(object: &Value) -> Vec<&str> {
    let handed_out = list(object, "status.loadBalancer.ingress").iter().map(|ingress| {
        let address = text(ingress, "ip");
        if address.is_empty() { text(ingress, "hostname") } else { address }
    });
    handed_out.filter(|address| !address.is_empty()).collect()
}

fn ingress_ports(ingress: &Value, _: Timestamp) -> Value {
    if list(ingress, "spec.tls").is_empty() { "80".into() } else { "80, 443".into() }
}

fn parameters(class: &Value, _: Timestamp) -> Value {
    let Some(parameters) = at(class, "spec.parameters") else { return NONE.into() };
    let group = text(parameters, "apiGroup");
    let kind = text(parameters, "kind");
    let dot = if group.is_empty() { "" } else { "." };
    format!("{kind}{dot}{group}/{}", text(parameters, "name")).into()
}

fn parent(address: &Value, _: Timestamp) -> Value {
    let Some(parent) = at(address, "spec.parentRef") else { return NONE.into() };
    let parts = [text(parent, "group"), text(parent, "resource"), text(parent, "namespace"), text(parent, "name")];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let (first, rest) = parts.split_at(parts.len().min(if text(parent, "group").is_empty() { 1 } else { 2 }));
    let mut whole = vec![first.join(".")];
    whole.extend(rest.iter().map(|part| (*part).to_owned()));
    whole.join("/").into()
}

fn ranges(object: &Value, _: Timestamp) -> Value {
    texts(object, "spec.cidrs").join(",").into()
}

fn or_none(text: String) -> Value {
    if text.is_empty() { NONE.into() } else { text.into() }
}

fn cluster_address(service: &Value, _: Timestamp) -> Value {
    let first = text(service, "spec.clusterIPs.0");
    or_none(if first.is_empty() { text(service, "spec.clusterIP") } else { first }.to_owned())
}

fn external_address(service: &Value, _: Timestamp) -> Value {
    let given: Vec<&str> = list(service, "spec.externalIPs").iter().filter_map(Value::as_str).collect();
    match text(service, "spec.type") {
        "ExternalName" => text(service, "spec.externalName").into(),
        "LoadBalancer" => {
            let all: Vec<&str> = balanced(service).into_iter().chain(given).collect();
            if all.is_empty() { "<pending>".into() } else { all.join(",").into() }
        }
        _ => or_none(given.join(",")),
    }
}

fn service_ports(service: &Value, _: Timestamp) -> Value {
    let ports = list(service, "spec.ports").iter().map(|port| {
        let (number, protocol) = (integer(port, "port").unwrap_or(0), text(port, "protocol"));
        match integer(port, "nodePort").filter(|node_port| *node_port > 0) {
            Some(node_port) => format!("{number}:{node_port}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    });
    or_none(ports.collect::<Vec<_>>().join(","))
}

fn selector(service: &Value, _: Timestamp) -> Value {
    labels(service, "spec.selector").into()
}

fn endpoints(object: &Value, _: Timestamp) -> Value {
    let mut all = Vec::new();
    for subset in list(object, "subsets") {
        let (addresses, ports) = (list(subset, "addresses"), list(subset, "ports"));
        for address in addresses.iter().map(|each| text(each, "ip")).filter(|_| ports.is_empty()) {
            all.push(address.to_owned());
        }
        for port in ports.iter().filter_map(|port| integer(port, "port")) {
            all.extend(addresses.iter().map(|each| join(text(each, "ip"), port)));
        }
    }
    let total = all.len();
    or_none(few(all, total))
}

fn join(address: &str, port: i64) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn slice_ports(slice: &Value, _: Timestamp) -> Value {
    let ports = list(slice, "ports");
    if ports.is_empty() {
        return "<unset>".into();
    }
    let shown = ports.iter().map(|port| integer(port, "port").map_or_else(|| "*".to_owned(), |port| port.to_string()));
    few(shown.collect(), ports.len()).into()
}

fn slice_endpoints(slice: &Value, _: Timestamp) -> Value {
    let addresses = list(slice, "endpoints").iter().flat_map(|endpoint| list(endpoint, "addresses"));
    let all: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    if all.is_empty() {
        return "<unset>".into();
    }
    let total = all.len();
    few(all, total).into()
}
