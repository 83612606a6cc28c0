//! What a pod's specification must satisfy as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use super::super::metadata::{annotations, label_map, labels, text_rule};
use super::super::{checks, endpoints};
use super::{container, scheduling, volume};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// What a name has to fit.
type Rule = fn(&str) -> Result<(), String>;

/// Checks a workload's pod template.
pub(in crate::strategy) fn validate_template(template: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let metadata = path.field("metadata");
    labels(&template["metadata"], &metadata, errors);
    annotations(&template["metadata"], &metadata, errors);
    let path = path.field("spec");
    match template.get("spec").filter(|spec| spec.is_object()) {
        Some(spec) => validate(spec, &path, errors),
        None => errors.push(FieldError::required(&path, "")),
    }
}

/// Checks a `spec`.
pub(super) fn validate(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let volumes = volume::validate(lookup::list(spec, "volumes"), &path.field("volumes"), errors);
    containers(spec, &volumes, path, errors);
    one_of(spec, path, "restartPolicy", &["Always", "OnFailure", "Never"], errors);
    one_of(spec, path, "dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], errors);
    numbers(spec, path, errors);
    names(spec, path, errors);
    label_map(spec.get("nodeSelector"), &path.field("nodeSelector"), errors);
    scheduling::validate(spec, path, errors);
    dns(spec, path, errors);
    host_aliases(spec, &path.field("hostAliases"), errors);
}

/// Checks a field that is required and has few values.
pub(super) fn one_of(value: &Value, path: &Path<'_>, field: &str, known: &[&str], errors: &mut Vec<FieldError>) {
    let path = path.field(field);
    match lookup::text(value, field) {
        "" => errors.push(FieldError::required(&path, "")),
        text if known.contains(&text) => {}
        text => errors.push(FieldError::not_supported(&path, &text.into(), known)),
    }
}

fn containers(spec: &Value, volumes: &BTreeMap<&str, &Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if lookup::list(spec, "containers").is_empty() {
        errors.push(FieldError::required(&path.field("containers"), ""));
    }
    let mut seen = container::Seen { names: BTreeSet::new(), host_ports: BTreeSet::new() };
    let host_network = lookup::flag(spec, "hostNetwork");
    for list in ["containers", "initContainers"] {
        let path = path.field(list);
        for (index, each) in lookup::list(spec, list).iter().enumerate() {
            let context = container::Context { volumes, host_network, initial: list == "initContainers" };
            container::validate(each, &context, &mut seen, &path.index(index), errors);
        }
    }
}

fn numbers(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(seconds) = lookup::integer(spec, "terminationGracePeriodSeconds").filter(|seconds| *seconds < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(&path.field("terminationGracePeriodSeconds"), &seconds.into(), detail));
    }
    if let Some(seconds) = lookup::integer(spec, "activeDeadlineSeconds").filter(|seconds| *seconds < 1) {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(&path.field("activeDeadlineSeconds"), &seconds.into(), detail));
    }
}

fn names(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules: [(&str, Rule); 6] = [
        ("hostname", checks::dns_label),
        ("subdomain", checks::dns_label),
        ("nodeName", checks::dns_subdomain),
        ("serviceAccountName", checks::dns_subdomain),
        ("priorityClassName", checks::dns_subdomain),
        ("runtimeClassName", checks::dns_subdomain),
    ];
    for (field, rule) in rules {
        let text = lookup::text(spec, field);
        if !text.is_empty() {
            text_rule(&path.field(field), text, rule, errors);
        }
    }
    let user = |field: &str| lookup::integer(spec, &format!("securityContext.{field}"));
    let context = path.field("securityContext");
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(id) = user(field).filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
            errors.push(FieldError::invalid(
                &context.field(field),
                &id.into(),
                "must be between 0 and 2147483647, inclusive",
            ));
        }
    }
    if lookup::flag(spec, "hostPID") && lookup::flag(spec, "shareProcessNamespace") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&path.field("shareProcessNamespace"), &true.into(), detail));
    }
}

fn dns(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let path = path.field("dnsConfig");
    let servers = lookup::list(spec, "dnsConfig.nameservers");
    if lookup::text(spec, "dnsPolicy") == "None" && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(&path.field("nameservers"), detail));
    }
    if servers.len() > 3 {
        let detail = "must not have more than 3 nameservers";
        errors.push(FieldError::invalid(&path.field("nameservers"), &servers.into(), detail));
    }
    for (index, server) in servers.iter().enumerate() {
        let text = server.as_str().unwrap_or("");
        text_rule(&path.field("nameservers").index(index), text, endpoints::ip::<IpAddr>, errors);
    }
}

fn host_aliases(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (index, alias) in lookup::list(spec, "hostAliases").iter().enumerate() {
        let path = path.index(index);
        text_rule(&path.field("ip"), lookup::text(alias, "ip"), endpoints::ip::<IpAddr>, errors);
        for (index, name) in lookup::list(alias, "hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or("");
            text_rule(&path.field("hostnames").index(index), name, checks::dns_subdomain, errors);
        }
    }
}
