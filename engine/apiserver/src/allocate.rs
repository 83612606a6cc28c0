//! Addresses and node ports of services.
//!
//! Each address and port taken is a key of its own, written in the transaction that writes the service, so two services
//! can never hold the same one, whoever raced. The cache's view of these keys only makes the first guess good.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use serde_json::{Value, json};
use shipway_schema::{FieldError, Reason};

use crate::commit::Claims;

/// The first addresses are left to those who ask for a certain one.
const RESERVED: u32 = 16;

/// The ranges to take from.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    pub(crate) addresses: (Ipv4Addr, u8),
    pub(crate) node_ports: RangeInclusive<u16>,
}

/// What a service holds. Other kinds hold nothing.
pub(crate) fn claims(object: &Value) -> Claims {
    if object["kind"] != "Service" || object["apiVersion"] != "v1" {
        return Claims::new();
    }
    let spec = &object["spec"];
    let mut claims = Claims::new();
    if let Some(address) = spec["clusterIP"].as_str().filter(|text| !matches!(*text, "" | "None")) {
        claims.insert(format!("addresses/{address}"));
    }
    let ports = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
    for port in ports.chain([&spec["healthCheckNodePort"]]).filter_map(Value::as_u64).filter(|port| *port > 0) {
        claims.insert(format!("ports/{port}"));
    }
    claims
}

/// The refusal of an address or port that somebody else holds.
pub(crate) fn taken(service: &Value, claim: &str) -> FieldError {
    if let Some(port) = claim.strip_prefix("ports/") {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let number: Option<u64> = port.parse().ok();
        let at = ports.into_iter().position(|own| own["nodePort"].as_u64() == number).unwrap_or(0);
        let message = format!("Invalid value: {port}: provided port is already allocated");
        return FieldError { field: format!("spec.ports[{at}].nodePort"), reason: Reason::Invalid, message };
    }
    let address = claim.trim_start_matches("addresses/");
    let message =
        format!("Invalid value: [{address:?}]: failed to allocate IP {address}: provided IP is already allocated");
    FieldError { field: "spec.clusterIPs".into(), reason: Reason::Invalid, message }
}

/// Fills in what a service leaves to the server. `held` says what is taken already.
pub(crate) fn fill(
    ranges: &Ranges,
    service: &mut Value,
    old: Option<&Value>,
    held: impl Fn(&str) -> bool,
) -> Result<(), FieldError> {
    let kind = service["spec"]["type"].as_str().unwrap_or("ClusterIP").to_owned();
    if kind == "ExternalName" {
        drop_kept(service, old, true);
        return Ok(());
    }
    fill_address(ranges, service, old, &held)?;
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        fill_node_ports(ranges, service, old, &held)
    } else {
        drop_kept(service, old, false);
        Ok(())
    }
}

fn fill_address(
    ranges: &Ranges,
    service: &mut Value,
    old: Option<&Value>,
    held: &impl Fn(&str) -> bool,
) -> Result<(), FieldError> {
    let text = |spec: &Value| {
        let first = spec["clusterIP"].as_str().or_else(|| spec["clusterIPs"][0].as_str());
        first.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let given = text(&service["spec"]).or_else(|| old.and_then(|old| text(&old["spec"])));
    let address = match given {
        Some(headless) if headless == "None" => headless,
        Some(given) => check_address(ranges, given)?,
        None => free_address(ranges, held)?.to_string(),
    };
    let spec = &mut service["spec"];
    if address != "None" && spec["ipFamilies"].is_null() {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    if spec["ipFamilyPolicy"].is_null() {
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }
    spec["clusterIPs"] = json!([address]);
    spec["clusterIP"] = address.into();
    Ok(())
}

fn check_address(ranges: &Ranges, given: String) -> Result<String, FieldError> {
    let (first, last) = bounds(ranges);
    let inside = |address: Ipv4Addr| (first..=last).contains(&u32::from(address));
    if given.parse().is_ok_and(inside) {
        return Ok(given);
    }
    let (network, bits) = ranges.addresses;
    let message = format!(
        "Invalid value: [{given:?}]: failed to allocate IP {given}: the provided IP is not in the valid range. The range \
         of valid IPs is {network}/{bits}"
    );
    Err(FieldError { field: "spec.clusterIPs".into(), reason: Reason::Invalid, message })
}

/// The first and the last usable address.
fn bounds(ranges: &Ranges) -> (u32, u32) {
    let (network, bits) = ranges.addresses;
    let size = 1_u64 << (32 - u32::from(bits.min(30)));
    let first = u32::from(network) & !u32::try_from(size - 1).unwrap_or(u32::MAX);
    (first + 1, first + u32::try_from(size - 2).unwrap_or(u32::MAX))
}

/// A free address, tried from a random one on so that an address is not given away again at once.
fn free_address(ranges: &Ranges, held: &impl Fn(&str) -> bool) -> Result<Ipv4Addr, FieldError> {
    let (first, last) = bounds(ranges);
    let low = (first - 1 + RESERVED).min(last);
    let count = last - low + 1;
    let start = fastrand::u32(..count);
    let tried = (0..count).map(|step| Ipv4Addr::from(low + (start + step) % count));
    tried.into_iter().find(|address| !held(&format!("addresses/{address}"))).ok_or_else(|| FieldError {
        field: "spec.clusterIPs".into(),
        reason: Reason::Invalid,
        message: "Invalid value: []: failed to allocate a service IP: range is full".into(),
    })
}

fn fill_node_ports(
    ranges: &Ranges,
    service: &mut Value,
    old: Option<&Value>,
    held: &impl Fn(&str) -> bool,
) -> Result<(), FieldError> {
    let before: Vec<Value> = old.and_then(|old| old["spec"]["ports"].as_array()).cloned().unwrap_or_default();
    let mut own = HashSet::new();
    let ports = service["spec"].get_mut("ports").and_then(Value::as_array_mut);
    for (at, port) in ports.into_iter().flatten().enumerate() {
        let kept = || before.iter().find(|old| same_port(old, port)).and_then(|old| old["nodePort"].as_u64());
        let given = port["nodePort"].as_u64().filter(|given| *given > 0).or_else(kept);
        let number = match given {
            Some(given) => {
                let inside = u16::try_from(given).is_ok_and(|given| ranges.node_ports.contains(&given));
                inside.then_some(given).ok_or_else(|| outside(ranges, at, given))?
            }
            None => free_port(ranges, at, &own, held)?,
        };
        own.insert(number);
        port["nodePort"] = number.into();
    }
    Ok(())
}

fn same_port(old: &Value, new: &Value) -> bool {
    old["port"] == new["port"] && old["protocol"] == new["protocol"]
}

fn outside(ranges: &Ranges, at: usize, given: u64) -> FieldError {
    let (low, high) = (ranges.node_ports.start(), ranges.node_ports.end());
    let message = format!(
        "Invalid value: {given}: provided port is not in the valid range. The range of valid ports is {low}-{high}"
    );
    FieldError { field: format!("spec.ports[{at}].nodePort"), reason: Reason::Invalid, message }
}

fn free_port(ranges: &Ranges, at: usize, own: &HashSet<u64>, held: &impl Fn(&str) -> bool) -> Result<u64, FieldError> {
    let low = u64::from(*ranges.node_ports.start());
    let count = ranges.node_ports.len() as u64;
    let start = fastrand::u64(..count.max(1));
    let mut tried = (0..count).map(|step| low + (start + step) % count);
    tried.find(|port| !own.contains(port) && !held(&format!("ports/{port}"))).ok_or_else(|| FieldError {
        field: format!("spec.ports[{at}].nodePort"),
        reason: Reason::Invalid,
        message: "Invalid value: 0: failed to allocate a nodePort: range is full".into(),
    })
}

/// A change of type gives back what the old type had, unless the client changed it itself.
fn drop_kept(service: &mut Value, old: Option<&Value>, address_too: bool) {
    let Some(old) = old else { return };
    let before: Vec<&Value> = old["spec"]["ports"].as_array().into_iter().flatten().collect();
    let ports = service["spec"].get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten() {
        let kept = before.iter().any(|old| same_port(old, port) && old["nodePort"] == port["nodePort"]);
        if let Some(port) = port.as_object_mut().filter(|_| kept) {
            port.shift_remove("nodePort");
        }
    }
    if address_too
        && service["spec"]["clusterIP"] == old["spec"]["clusterIP"]
        && let Some(spec) = service["spec"].as_object_mut()
    {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.shift_remove(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Ranges {
        Ranges { addresses: (Ipv4Addr::new(10, 73, 128, 0), 24), node_ports: 30000..=30003 }
    }

    fn service(spec: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "spec": spec})
    }

    #[test]
    fn a_service_gets_an_address_and_ports_that_are_free() {
        let mut new = service(&json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}));
        let error = fill(&ranges(), &mut new.clone(), None, |claim| claim.starts_with("ports/")).unwrap_err();
        assert_eq!(error.field, "spec.ports[0].nodePort");
        fill(&ranges(), &mut new, None, |claim| {
            claim.starts_with("addresses/") && claim != "addresses/10.73.128.20" || claim == "ports/30001"
        })
        .unwrap();
        assert_eq!(new["spec"]["clusterIP"], "10.73.128.20");
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.73.128.20"]));
        assert_eq!(claims(&new).len(), 3);
        assert!(!claims(&new).contains("ports/30001"));
    }

    #[test]
    fn a_full_range_is_an_error_that_names_the_field() {
        let mut new = service(&json!({}));
        let error = fill(&ranges(), &mut new, None, |_| true).unwrap_err();
        assert_eq!(error.field, "spec.clusterIPs");
    }

    #[test]
    fn addresses_outside_the_range_are_refused() {
        for address in ["10.73.129.1", "10.73.128.0", "10.73.128.255", "x", "::1"] {
            let mut new = service(&json!({"clusterIP": address}));
            assert!(fill(&ranges(), &mut new, None, |_| false).is_err(), "{address}");
        }
        let mut headless = service(&json!({"clusterIP": "None"}));
        fill(&ranges(), &mut headless, None, |_| true).unwrap();
        assert_eq!((claims(&headless).len(), &headless["spec"]["clusterIPs"]), (0, &json!(["None"])));
    }

    #[test]
    fn an_update_keeps_what_it_had_and_a_change_of_type_gives_it_back() {
        let mut old = service(&json!({"type": "NodePort", "ports": [{"port": 1}]}));
        fill(&ranges(), &mut old, None, |_| false).unwrap();
        let mut new = service(&json!({"type": "NodePort", "ports": [{"port": 1}]}));
        fill(&ranges(), &mut new, Some(&old), |_| true).unwrap();
        assert_eq!(claims(&new), claims(&old));
        new["spec"]["type"] = "ClusterIP".into();
        fill(&ranges(), &mut new, Some(&old), |_| true).unwrap();
        assert_eq!(claims(&new).len(), 1);
        new["spec"]["type"] = "ExternalName".into();
        fill(&ranges(), &mut new, Some(&old), |_| true).unwrap();
        assert!(claims(&new).is_empty());
    }
}
