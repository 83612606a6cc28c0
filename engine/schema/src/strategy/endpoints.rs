//! Where a service's requests may go: endpoint slices, and the older endpoints.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::metadata::{self, text_rule};
use super::{Generations, IMMUTABLE, Strategy, checks};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

pub(super) const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// `v1` `Endpoints`
pub(crate) struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Value) {
        for subset in lookup::list_mut(object, "subsets") {
            for port in lookup::list_mut(subset, "ports") {
                lookup::fill_zero(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_subdomain, &mut errors);
        let subsets = Path::Root.field("subsets");
        for (index, subset) in lookup::list(object, "subsets").iter().enumerate() {
            let path = subsets.index(index);
            for field in ["addresses", "notReadyAddresses"] {
                let list = path.field(field);
                for (index, address) in lookup::list(subset, field).iter().enumerate() {
                    let text = lookup::text(address, "ip");
                    text_rule(&list.index(index).field("ip"), text, ip::<IpAddr>, &mut errors);
                }
            }
            ports(subset, &path.field("ports"), &mut errors);
        }
        errors
    }
}

/// `discovery.k8s.io/v1` `EndpointSlice`
pub(crate) struct EndpointSlice;

const TYPES: [&str; 3] = ["IPv4", "IPv6", "FQDN"];
const ENDPOINTS_LIMIT: usize = 1000;
const ADDRESSES_LIMIT: usize = 100;

impl Strategy for EndpointSlice {
    fn default(&self, object: &mut Value) {
        for port in lookup::list_mut(object, "ports") {
            lookup::fill(port, "name", "");
            lookup::fill(port, "protocol", "TCP");
        }
    }

    fn generations(&self) -> Generations {
        Generations::Of(&["addressType", "endpoints", "ports"])
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_subdomain, &mut errors);
        let path = Path::Root.field("addressType");
        let kind = lookup::text(object, "addressType");
        if kind.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if !TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(&path, &kind.into(), &TYPES));
        } else if old.is_some_and(|old| lookup::text(old, "addressType") != kind) {
            errors.push(FieldError::invalid(&path, &kind.into(), IMMUTABLE));
        }
        let path = Path::Root.field("endpoints");
        let endpoints = lookup::list(object, "endpoints");
        if endpoints.len() > ENDPOINTS_LIMIT {
            let detail = format!("must have at most {ENDPOINTS_LIMIT} items");
            errors.push(FieldError::invalid(&path, &endpoints.len().into(), &detail));
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            addresses(endpoint, kind, &path.index(index).field("addresses"), &mut errors);
        }
        ports(object, &Path::Root.field("ports"), &mut errors);
        errors
    }
}

fn addresses(endpoint: &Value, kind: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let addresses = lookup::list(endpoint, "addresses");
    if addresses.is_empty() {
        errors.push(FieldError::required(path, "must contain at least 1 address"));
    }
    if addresses.len() > ADDRESSES_LIMIT {
        let detail = format!("must have at most {ADDRESSES_LIMIT} items");
        errors.push(FieldError::invalid(path, &addresses.len().into(), &detail));
    }
    let rule = match kind {
        "IPv4" => ip::<Ipv4Addr>,
        "IPv6" => ip::<Ipv6Addr>,
        _ => checks::dns_subdomain,
    };
    for (index, address) in addresses.iter().enumerate() {
        text_rule(&path.index(index), address.as_str().unwrap_or(""), rule, errors);
    }
}

fn ports(holder: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let ports = lookup::list(holder, "ports");
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = lookup::text(port, "name");
        if !name.is_empty() {
            text_rule(&path.field("name"), name, checks::dns_label, errors);
        }
        if !names.insert(name) {
            errors.push(FieldError::duplicate(&path.field("name"), &name.into()));
        }
        if let Some(number) = lookup::integer(port, "port")
            && let Err(problem) = checks::port(number)
        {
            errors.push(FieldError::invalid(&path.field("port"), &number.into(), &problem));
        }
        protocol(port, &path, errors);
    }
}

/// Checks the `protocol` of a port of any kind.
pub(super) fn protocol(port: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let protocol = lookup::text(port, "protocol");
    if protocol.is_empty() {
        errors.push(FieldError::required(&path.field("protocol"), ""));
    } else if !PROTOCOLS.contains(&protocol) {
        errors.push(FieldError::not_supported(&path.field("protocol"), &protocol.into(), &PROTOCOLS));
    }
}

/// An address of a family.
pub(super) fn ip<A: std::str::FromStr>(text: &str) -> Result<(), String> {
    text.parse::<A>().map(drop).map_err(|_| "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::strategy::testing::{admit, errors, valid};

    fn slice(kind: &str, address: &str) -> serde_json::Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": { "name": "s" }, "addressType": kind,
            "endpoints": [{ "addresses": [address] }], "ports": [{ "port": 80 }],
        })
    }

    #[test]
    fn a_slices_ports_are_filled_and_its_addresses_fit_its_type() {
        let made = valid(slice("IPv4", "10.0.0.1"));
        assert_eq!(made["ports"], json!([{ "port": 80, "name": "", "protocol": "TCP" }]));
        assert_eq!(errors(slice("IPv6", "10.0.0.1")).len(), 1);
        assert_eq!(errors(slice("", "a.b")), ["addressType: Required value"]);
        assert_eq!(
            errors(slice("IPv5", "a.b")),
            [r#"addressType: Unsupported value: "IPv5": supported values: "IPv4", "IPv6", "FQDN""#]
        );
        let found = admit(slice("FQDN", "a.b"), Some(&made)).1;
        assert_eq!(found, [r#"addressType: Invalid value: "FQDN": field is immutable"#]);
    }

    #[test]
    fn endpoints_take_tcp_for_granted() {
        let made = valid(json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "e" },
            "subsets": [{ "addresses": [{ "ip": "10.0.0.1" }], "ports": [{ "port": 80 }] }],
        }));
        assert_eq!(made["subsets"][0]["ports"][0]["protocol"], "TCP");
    }
}
