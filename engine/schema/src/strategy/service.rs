//! Services. Addresses and node ports are handed out elsewhere; here is what they must fit.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::metadata::{self, label_map, text_rule};
use super::{Strategy, checks, endpoints, keep};
use crate::invalid::FieldError;
use crate::lookup::{self, fill, fill_zero, flag, integer, list, set, text};
use crate::path::Path;

/// `v1` `Service`
pub(crate) struct Service;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// How long a client sticks to a pod: three hours.
const AFFINITY_SECONDS: i64 = 10_800;

impl Strategy for Service {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        fill_zero(spec, "type", "ClusterIP");
        fill_zero(spec, "sessionAffinity", "None");
        if text(spec, "sessionAffinity") == "ClientIP" {
            fill(spec, "sessionAffinityConfig", json!({}));
            fill(&mut spec["sessionAffinityConfig"], "clientIP", json!({}));
            if let Some(config) = lookup::at_mut(spec, "sessionAffinityConfig.clientIP") {
                fill(config, "timeoutSeconds", AFFINITY_SECONDS);
            }
        }
        for port in lookup::list_mut(spec, "ports") {
            fill_zero(port, "protocol", "TCP");
            if let Some(number) = port.get("port").cloned() {
                fill_zero(port, "targetPort", number);
            }
        }
        fill_by_type(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({ "loadBalancer": {} }));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        keep(object, old, "status");
        if let (Some(spec), Some(old)) = (object.get_mut("spec"), old.get("spec")) {
            keep_handed_out(spec, old);
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns1035_label, &mut errors);
        let path = Path::Root.field("spec");
        let Some(spec) = object.get("spec").filter(|spec| spec.is_object()) else {
            errors.push(FieldError::required(&path, ""));
            return errors;
        };
        let kind = text(spec, "type");
        if !TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(&path.field("type"), &kind.into(), &TYPES));
        }
        let affinity = text(spec, "sessionAffinity");
        if !matches!(affinity, "None" | "ClientIP") {
            let known = ["ClientIP", "None"];
            errors.push(FieldError::not_supported(&path.field("sessionAffinity"), &affinity.into(), &known));
        }
        label_map(spec.get("selector"), &path.field("selector"), &mut errors);
        addresses(spec, kind, &path, &mut errors);
        ports(spec, kind, &path, &mut errors);
        traffic(spec, &path, &mut errors);
        if let Some(old) = old.and_then(|old| old.get("spec")) {
            fixed_address(spec, old, &path, &mut errors);
        }
        errors
    }
}

fn reaches_outside(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

fn fill_by_type(spec: &mut Value) {
    let kind = text(spec, "type").to_owned();
    if reaches_outside(&kind) || (kind == "ClusterIP" && !list(spec, "externalIPs").is_empty()) {
        fill_zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
    if kind == "ExternalName" {
        return;
    }
    fill(spec, "internalTrafficPolicy", "Cluster");
    fill(spec, "ipFamilyPolicy", "SingleStack");
    if list(spec, "ipFamilies").is_empty() {
        set(spec, "ipFamilies", json!(["IPv4"]));
    }
    // The address is written twice; whoever gives one form means both.
    let address = text(spec, "clusterIP").to_owned();
    let first = text(spec, "clusterIPs.0").to_owned();
    if !address.is_empty() && first.is_empty() {
        set(spec, "clusterIPs", json!([address]));
    } else if address.is_empty() && !first.is_empty() {
        set(spec, "clusterIP", first);
    }
}

/// An update that does not repeat what was handed out keeps it.
fn keep_handed_out(spec: &mut Value, old: &Value) {
    let kind = text(spec, "type").to_owned();
    if kind != "ExternalName" && text(old, "type") != "ExternalName" && text(spec, "clusterIP").is_empty() {
        keep(spec, old, "clusterIP");
        keep(spec, old, "clusterIPs");
    }
    if reaches_outside(&kind) && reaches_outside(text(old, "type")) {
        let before = list(old, "ports");
        for port in
            lookup::list_mut(spec, "ports").iter_mut().filter(|port| integer(port, "nodePort").is_none_or(|n| n == 0))
        {
            let same = |other: &&Value| ["protocol", "port"].iter().all(|field| other.get(field) == port.get(field));
            if let Some(number) = before.iter().find(same).and_then(|other| other.get("nodePort")).cloned() {
                set(port, "nodePort", number);
            }
        }
    }
    if kind == "LoadBalancer"
        && text(spec, "externalTrafficPolicy") == "Local"
        && integer(spec, "healthCheckNodePort").is_none()
    {
        keep(spec, old, "healthCheckNodePort");
    }
}

fn addresses(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let address = text(spec, "clusterIP");
    let at = path.field("clusterIP");
    match kind {
        "ExternalName" => {
            if !matches!(address, "" | "None") {
                errors.push(FieldError::forbidden(&at, "may not be set when `type` is 'ExternalName'"));
            }
            let name = text(spec, "externalName");
            if name.is_empty() {
                errors.push(FieldError::required(&path.field("externalName"), ""));
            } else {
                text_rule(&path.field("externalName"), name.trim_end_matches('.'), checks::dns_subdomain, errors);
            }
        }
        kind if reaches_outside(kind) && address == "None" => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid(&at, &address.into(), &detail));
        }
        _ if !matches!(address, "" | "None") => text_rule(&at, address, endpoints::ip::<IpAddr>, errors),
        _ => {}
    }
    let first = text(spec, "clusterIPs.0");
    if !first.is_empty() && first != address {
        let detail = "first value must match `clusterIP`";
        errors.push(FieldError::invalid(&path.field("clusterIPs"), &spec["clusterIPs"], detail));
    }
    let external = path.field("externalIPs");
    for (index, address) in list(spec, "externalIPs").iter().enumerate() {
        text_rule(&external.index(index), address.as_str().unwrap_or(""), endpoints::ip::<IpAddr>, errors);
    }
}

fn ports(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let ports = list(spec, "ports");
    let at = path.field("ports");
    if ports.is_empty() && kind != "ExternalName" && text(spec, "clusterIP") != "None" {
        errors.push(FieldError::required(&at, ""));
    }
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = at.index(index);
        let name = text(port, "name");
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(&path.field("name"), ""));
        } else if !name.is_empty() {
            text_rule(&path.field("name"), name, checks::dns_label, errors);
            if !names.insert(name) {
                errors.push(FieldError::duplicate(&path.field("name"), &name.into()));
            }
        }
        one_port(port, kind, &path, errors);
        let (protocol, number) = (text(port, "protocol"), integer(port, "port"));
        if !numbers.insert((protocol, number)) {
            errors.push(FieldError::duplicate(&path, &json!({ "port": number, "protocol": protocol })));
        }
        let node_port = integer(port, "nodePort").filter(|port| *port != 0);
        if node_port.is_some_and(|number| !node_ports.insert((protocol, number))) {
            errors.push(FieldError::duplicate(&path.field("nodePort"), &port["nodePort"]));
        }
    }
}

fn one_port(port: &Value, kind: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let number = integer(port, "port").unwrap_or(0);
    if let Err(problem) = checks::port(number) {
        errors.push(FieldError::invalid(&path.field("port"), &number.into(), &problem));
    }
    endpoints::protocol(port, path, errors);
    if let Some(target) = lookup::at(port, "targetPort")
        && let Err(problem) = checks::port_or_name(target)
    {
        errors.push(FieldError::invalid(&path.field("targetPort"), target, &problem));
    }
    let Some(node_port) = integer(port, "nodePort").filter(|port| *port != 0) else { return };
    if !reaches_outside(kind) {
        let detail = format!("may not be used when `type` is '{kind}'");
        errors.push(FieldError::forbidden(&path.field("nodePort"), &detail));
    } else if let Err(problem) = checks::port(node_port) {
        errors.push(FieldError::invalid(&path.field("nodePort"), &node_port.into(), &problem));
    }
}

fn traffic(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let known = ["Cluster", "Local"];
    for field in ["externalTrafficPolicy", "internalTrafficPolicy"] {
        let policy = text(spec, field);
        if !policy.is_empty() && !known.contains(&policy) {
            errors.push(FieldError::not_supported(&path.field(field), &policy.into(), &known));
        }
    }
    if let Some(seconds) =
        integer(spec, "sessionAffinityConfig.clientIP.timeoutSeconds").filter(|n| !(1..=86_400).contains(n))
    {
        let config = path.field("sessionAffinityConfig");
        let client = config.field("clientIP");
        let detail = "must be greater than 0 and less than 86400";
        errors.push(FieldError::invalid(&client.field("timeoutSeconds"), &seconds.into(), detail));
    }
    if flag(spec, "publishNotReadyAddresses") && text(spec, "type") == "ExternalName" {
        errors.push(FieldError::forbidden(
            &path.field("publishNotReadyAddresses"),
            "may not be set when `type` is 'ExternalName'",
        ));
    }
}

/// An address once handed out stays as long as the service has one.
fn fixed_address(spec: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let named = |spec: &Value| text(spec, "type") == "ExternalName";
    let (before, after) = (text(old, "clusterIP"), text(spec, "clusterIP"));
    if !named(spec) && !named(old) && !before.is_empty() && before != after {
        let detail = "may not change once set";
        errors.push(FieldError::invalid(&path.field("clusterIPs").index(0), &json!([after]), detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::strategy::testing::{admit, errors, valid};

    fn service(spec: &Value) -> Value {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" }, "spec": spec })
    }

    #[test]
    fn a_service_is_inside_the_cluster_unless_it_says_more() {
        let made = valid(service(&json!({ "ports": [{ "port": 80 }] })));
        assert_eq!(
            made["spec"],
            json!({
                "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 80 }], "type": "ClusterIP", "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"],
            })
        );
        assert_eq!(made["status"], json!({ "loadBalancer": {} }));
        let made = valid(service(
            &json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }], "sessionAffinity": "ClientIP" }),
        ));
        assert_eq!(made["spec"]["externalTrafficPolicy"], "Cluster");
        assert_eq!(made["spec"]["allocateLoadBalancerNodePorts"], true);
        assert_eq!(made["spec"]["sessionAffinityConfig"], json!({ "clientIP": { "timeoutSeconds": 10800 } }));
        let made = valid(service(&json!({ "clusterIP": "None" })));
        assert_eq!(made["spec"]["clusterIPs"], json!(["None"]));
        let made = valid(service(&json!({ "type": "ExternalName", "externalName": "example.com" })));
        assert!(made["spec"].get("ipFamilies").is_none());
    }

    #[test]
    fn ports_are_named_known_and_unique() {
        let found = errors(service(&json!({ "ports": [
            { "port": 0 }, { "name": "a", "port": 80, "nodePort": 30000 }, { "name": "a", "port": 80, "targetPort": "9x-" },
        ] })));
        assert_eq!(
            found,
            [
                "spec.ports[0].name: Required value",
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
                r#"spec.ports[2].name: Duplicate value: "a""#,
                r#"spec.ports[2].targetPort: Invalid value: "9x-": must consist of lower case letters, digits and single hyphens, must contain at least one letter, and must not begin or end with a hyphen"#,
                r#"spec.ports[2]: Duplicate value: {"port":80,"protocol":"TCP"}"#,
            ]
        );
        assert_eq!(errors(service(&json!({}))), ["spec.ports: Required value"]);
        assert_eq!(errors(service(&json!({ "type": "ExternalName" }))), ["spec.externalName: Required value"]);
    }

    #[test]
    fn what_was_handed_out_is_kept_and_never_changed() {
        let old = valid(service(
            &json!({ "type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{ "port": 80, "nodePort": 30001 }] }),
        ));
        let (kept, found) = admit(service(&json!({ "type": "NodePort", "ports": [{ "port": 80 }] })), Some(&old));
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(kept["spec"]["clusterIP"], "10.0.0.1");
        assert_eq!(kept["spec"]["clusterIPs"], json!(["10.0.0.1"]));
        assert_eq!(kept["spec"]["ports"][0]["nodePort"], 30001);
        let mut moved = old.clone();
        moved["spec"]["clusterIP"] = json!("10.0.0.2");
        moved["spec"]["clusterIPs"] = json!(["10.0.0.2"]);
        assert_eq!(
            admit(moved, Some(&old)).1,
            [r#"spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set"#]
        );
    }

    #[test]
    fn a_services_name_serves_as_a_host_name() {
        let mut object = service(&json!({ "ports": [{ "port": 80 }] }));
        object["metadata"]["name"] = json!("1st");
        assert!(errors(object)[0].starts_with(r#"metadata.name: Invalid value: "1st": a DNS-1035 label"#));
    }
}
