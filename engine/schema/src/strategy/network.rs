//! Network policies, addresses and the ranges that services take theirs from.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::endpoints::PROTOCOLS;
use super::rules::{Declared, Fill, Generations, at_most, check_at, fixed, one_of, required, selector, text, with};
use super::{IMMUTABLE, checks};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `networking.k8s.io/v1` `NetworkPolicy`
pub(crate) static NETWORK_POLICY: Declared = Declared {
    generations: Generations::Of(&["spec"]),
    defaults: &[
        ("spec.podSelector", Fill::Object),
        ("spec.ingress[].ports[].protocol", Fill::Text("TCP")),
        ("spec.egress[].ports[].protocol", Fill::Text("TCP")),
    ],
    fill: |object| {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        if lookup::list(spec, "policyTypes").is_empty() {
            let both = !lookup::list(spec, "egress").is_empty();
            lookup::set(spec, "policyTypes", if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }
    },
    rules: &[
        required("spec"),
        selector("spec.podSelector"),
        with("spec.ingress[].ports[]", port),
        with("spec.ingress[].from[]", peer),
        with("spec.egress[].ports[]", port),
        with("spec.egress[].to[]", peer),
        at_most("spec.policyTypes", 2),
        one_of("spec.policyTypes[]", &["Egress", "Ingress"]),
    ],
    ..Declared::PLAIN
};

fn port(port: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    check_at(&[one_of("protocol", &PROTOCOLS)], port, None, path, errors);
    let first = lookup::at(port, "port");
    if let Some(first) = first
        && let Err(problem) = checks::port_or_name(first)
    {
        errors.push(FieldError::invalid(&path.field("port"), first, &problem));
    }
    let Some(last) = lookup::integer(port, "endPort") else { return };
    let path = path.field("endPort");
    match first {
        None => {
            errors.push(FieldError::invalid(&path, &last.into(), "may not be specified when `port` is not specified"));
        }
        Some(Value::String(_)) => {
            let detail = "may not be specified when `port` is non-numeric";
            errors.push(FieldError::invalid(&path, &last.into(), detail));
        }
        Some(first) if first.as_i64() > Some(last) => {
            errors.push(FieldError::invalid(&path, &last.into(), "must be greater than or equal to `port`"));
        }
        Some(_) => {
            if let Err(problem) = checks::port(last) {
                errors.push(FieldError::invalid(&path, &last.into(), &problem));
            }
        }
    }
}

fn peer(peer: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let given = |field: &str| lookup::at(peer, field).is_some();
    let pods = given("podSelector") || given("namespaceSelector");
    if !pods && !given("ipBlock") {
        errors.push(FieldError::required(path, "must specify a peer"));
    }
    if pods && given("ipBlock") {
        errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
    }
    let rules = [
        selector("podSelector"),
        selector("namespaceSelector"),
        required("ipBlock.cidr"),
        text("ipBlock.cidr", checks::cidr),
        text("ipBlock.except[]", checks::cidr),
        with("ipBlock", within),
    ];
    check_at(&rules, peer, None, path, errors);
}

/// An exception lies within what it is one of, and is smaller.
fn within(block: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some((outer, bits, length)) = checks::network(lookup::text(block, "cidr")) else { return };
    let list = path.field("except");
    for (index, except) in lookup::list(block, "except").iter().enumerate() {
        let Some((inner, inner_bits, inner_length)) = checks::network(except.as_str().unwrap_or("")) else { continue };
        let size = if outer.is_ipv4() { 32 } else { 128 };
        let shared = |bits: u128| bits.checked_shr(size - length).unwrap_or(0);
        let inside = outer.is_ipv4() == inner.is_ipv4() && inner_length > length && shared(inner_bits) == shared(bits);
        if !inside {
            let detail = "must be a strict subset of `cidr`";
            errors.push(FieldError::invalid(&list.index(index), except, detail));
        }
    }
}

/// `networking.k8s.io/v1` `IPAddress`
pub(crate) static IP_ADDRESS: Declared = Declared {
    name: |name| match name.parse::<IpAddr>() {
        Ok(address) if address.to_string() == name => Ok(()),
        Ok(address) => Err(format!("must be in canonical form ({:?})", address.to_string())),
        Err(_) => Err("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()),
    },
    rules: &[
        required("spec.parentRef"),
        required("spec.parentRef.resource"),
        text("spec.parentRef.resource", checks::path_segment),
        required("spec.parentRef.name"),
        text("spec.parentRef.name", checks::path_segment),
        text("spec.parentRef.namespace", checks::path_segment),
        text("spec.parentRef.group", checks::dns_subdomain),
        fixed("spec.parentRef"),
    ],
    ..Declared::PLAIN
};

/// `networking.k8s.io/v1` `ServiceCIDR`
pub(crate) static SERVICE_CIDR: Declared = Declared {
    generations: Generations::None,
    rules: &[
        required("spec.cidrs"),
        at_most("spec.cidrs", 2),
        text("spec.cidrs[]", checks::cidr),
        with("spec.cidrs", |ranges, path, errors| {
            let families = ranges.as_array().into_iter().flatten().filter_map(|range| checks::network(range.as_str()?));
            let families: Vec<bool> = families.map(|(address, _, _)| address.is_ipv4()).collect();
            if families.len() == 2 && families[0] == families[1] {
                let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
                errors.push(FieldError::invalid(path, ranges, detail));
            }
        }),
    ],
    more: |object, old, errors| {
        let Some(old) = old else { return };
        let (before, after) = (lookup::list(old, "spec.cidrs"), lookup::list(object, "spec.cidrs"));
        // A range of the other family may be added.
        if !after.starts_with(before) {
            let spec = Path::Root.field("spec");
            errors.push(FieldError::invalid(&spec.field("cidrs"), &after.into(), IMMUTABLE));
        }
    },
    ..Declared::SPECIFIED
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{admit, errors, fields, valid};

    fn made(kind: &str, name: &str, spec: &Value) -> Value {
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": kind, "metadata": { "name": name }, "spec": spec })
    }

    #[test]
    fn a_policy_is_about_what_comes_in_unless_it_says_more() {
        let policy = valid(made("NetworkPolicy", "p", &json!({ "ingress": [{ "ports": [{ "port": 80 }] }] })));
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
        assert_eq!(policy["spec"]["podSelector"], json!({}));
        assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["protocol"], "TCP");
        let policy = valid(made("NetworkPolicy", "p", &json!({ "egress": [{ "to": [{ "podSelector": {} }] }] })));
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    }

    #[test]
    fn peers_and_ports_are_checked() {
        let wrong = made(
            "NetworkPolicy",
            "p",
            &json!({
                "policyTypes": ["Sideways"],
                "ingress": [{ "ports": [{ "protocol": "XTP", "port": 80, "endPort": 79 }, { "endPort": 1 }], "from": [
                    {}, { "podSelector": {}, "ipBlock": { "cidr": "10.0.0.0/8" } },
                    { "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16", "10.0.0.0/8", "x"] } },
                ] }],
            }),
        );
        assert_eq!(
            fields(&errors(wrong)),
            [
                "spec.ingress[0].ports[0].protocol",
                "spec.ingress[0].ports[0].endPort",
                "spec.ingress[0].ports[1].endPort",
                "spec.ingress[0].from[0]",
                "spec.ingress[0].from[1]",
                "spec.ingress[0].from[2].ipBlock.except[3]",
                "spec.ingress[0].from[2].ipBlock.except[1]",
                "spec.ingress[0].from[2].ipBlock.except[2]",
                "spec.policyTypes[0]",
            ]
        );
        let all = made(
            "NetworkPolicy",
            "p",
            &json!({ "ingress": [{ "from": [{ "ipBlock": { "cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"] } }] }] }),
        );
        valid(all);
    }

    #[test]
    fn an_address_is_its_name() {
        let parent = json!({ "parentRef": { "resource": "services", "name": "s", "namespace": "n" } });
        let old = valid(made("IPAddress", "10.0.0.1", &parent));
        assert_eq!(fields(&errors(made("IPAddress", "fd00::0", &parent))), ["metadata.name"]);
        assert_eq!(fields(&errors(made("IPAddress", "a", &json!({})))), ["metadata.name", "spec.parentRef"]);
        let mut new = old.clone();
        new["spec"]["parentRef"]["name"] = json!("t");
        assert_eq!(fields(&admit(new, Some(&old)).1), ["spec.parentRef"]);
    }

    #[test]
    fn a_range_may_gain_the_other_family() {
        let old = valid(made("ServiceCIDR", "c", &json!({ "cidrs": ["10.0.0.0/24"] })));
        let change = |cidrs: Value| admit(made("ServiceCIDR", "c", &json!({ "cidrs": cidrs })), Some(&old)).1;
        assert_eq!(change(json!(["10.0.0.0/24", "fd00::/112"])), Vec::<String>::new());
        assert_eq!(fields(&change(json!(["10.0.1.0/24"]))), ["spec.cidrs"]);
        assert_eq!(fields(&change(json!(["10.0.0.0/24", "10.1.0.0/24"]))), ["spec.cidrs"]);
        assert_eq!(fields(&errors(made("ServiceCIDR", "c", &json!({ "cidrs": ["10.0.0.1/24"] })))), ["spec.cidrs[0]"]);
    }
}
