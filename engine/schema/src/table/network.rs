//! What the rows of services and of their endpoints say.

use jiff::Timestamp;
use serde_json::Value;

use super::workload::labels;
use super::{AGE, NAME, NONE, column, few, wide};
use crate::lookup::{integer, list, text};
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
            let handed_out = list(service, "status.loadBalancer.ingress").iter().map(|ingress| {
                let address = text(ingress, "ip");
                if address.is_empty() { text(ingress, "hostname") } else { address }
            });
            let all: Vec<&str> = handed_out.filter(|address| !address.is_empty()).chain(given).collect();
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
