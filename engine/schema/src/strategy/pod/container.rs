//! What one container of a pod must satisfy.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::metadata::text_rule;
use super::super::{checks, endpoints};
use super::spec::one_of;
use super::{env, probe, resources};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// What the pod around a container says.
pub(super) struct Context<'a> {
    /// The pod's volumes by name.
    pub(super) volumes: &'a BTreeMap<&'a str, &'a Value>,
    /// Whether the pod uses the host's network.
    pub(super) host_network: bool,
    /// Whether this container runs before the others.
    pub(super) initial: bool,
}

/// What the containers before this one have taken.
pub(super) struct Seen<'a> {
    pub(super) names: BTreeSet<&'a str>,
    /// Protocol, address and port on the host.
    pub(super) host_ports: BTreeSet<(&'a str, &'a str, i64)>,
}

pub(super) fn validate<'a>(
    container: &'a Value,
    context: &Context<'_>,
    seen: &mut Seen<'a>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let name = lookup::text(container, "name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.field("name"), ""));
    } else {
        text_rule(&path.field("name"), name, checks::dns_label, errors);
        if !seen.names.insert(name) {
            errors.push(FieldError::duplicate(&path.field("name"), &name.into()));
        }
    }
    image(container, path, errors);
    one_of(container, path, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], errors);
    one_of(container, path, "terminationMessagePolicy", &["FallbackToLogsOnError", "File"], errors);
    ports(container, context, seen, &path.field("ports"), errors);
    env::validate(container, path, errors);
    mounts(container, context, &path.field("volumeMounts"), errors);
    resources::validate(&container["resources"], &path.field("resources"), errors);
    probe::validate(container, context.initial, path, errors);
    security(&container["securityContext"], &path.field("securityContext"), errors);
}

fn image(container: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let image = lookup::text(container, "image");
    if image.is_empty() {
        errors.push(FieldError::required(&path.field("image"), ""));
    } else if image != image.trim() {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&path.field("image"), &image.into(), detail));
    }
}

fn ports<'a>(
    container: &'a Value,
    context: &Context<'_>,
    seen: &mut Seen<'a>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let mut names = BTreeSet::new();
    for (index, port) in lookup::list(container, "ports").iter().enumerate() {
        let path = path.index(index);
        let name = lookup::text(port, "name");
        if !name.is_empty() {
            text_rule(&path.field("name"), name, checks::port_name, errors);
            if !names.insert(name) {
                errors.push(FieldError::duplicate(&path.field("name"), &name.into()));
            }
        }
        let number = lookup::integer(port, "containerPort").unwrap_or(0);
        number_rule(&path.field("containerPort"), number, errors);
        endpoints::protocol(port, &path, errors);
        let host = lookup::integer(port, "hostPort").unwrap_or(0);
        if host == 0 {
            continue;
        }
        number_rule(&path.field("hostPort"), host, errors);
        if context.host_network && host != number {
            let detail = "must match `containerPort` when `hostNetwork` is true";
            errors.push(FieldError::invalid(&path.field("hostPort"), &host.into(), detail));
        }
        let taken = (lookup::text(port, "protocol"), lookup::text(port, "hostIP"), host);
        if !context.initial && !seen.host_ports.insert(taken) {
            errors.push(FieldError::duplicate(&path.field("hostPort"), &host.into()));
        }
    }
}

/// Checks a port number.
pub(super) fn number_rule(path: &Path<'_>, number: i64, errors: &mut Vec<FieldError>) {
    if let Err(problem) = checks::port(number) {
        errors.push(FieldError::invalid(path, &number.into(), &problem));
    }
}

fn mounts(container: &Value, context: &Context<'_>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut places = BTreeSet::new();
    for (index, mount) in lookup::list(container, "volumeMounts").iter().enumerate() {
        let path = path.index(index);
        match lookup::text(mount, "name") {
            "" => errors.push(FieldError::required(&path.field("name"), "")),
            name if !context.volumes.contains_key(name) => {
                errors.push(FieldError::not_found(&path.field("name"), &name.into()));
            }
            _ => {}
        }
        let place = lookup::text(mount, "mountPath");
        if place.is_empty() {
            errors.push(FieldError::required(&path.field("mountPath"), ""));
        } else if !places.insert(place) {
            errors.push(FieldError::invalid(&path.field("mountPath"), &place.into(), "must be unique"));
        }
        for field in ["subPath", "subPathExpr"] {
            text_rule(&path.field(field), lookup::text(mount, field), checks::inner_path, errors);
        }
        if !lookup::text(mount, "subPath").is_empty() && !lookup::text(mount, "subPathExpr").is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(&path.field("subPathExpr"), &mount["subPathExpr"], detail));
        }
    }
}

fn security(context: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for field in ["runAsUser", "runAsGroup"] {
        if let Some(id) = lookup::integer(context, field).filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
            errors.push(FieldError::invalid(
                &path.field(field),
                &id.into(),
                "must be between 0 and 2147483647, inclusive",
            ));
        }
    }
    if lookup::at(context, "allowPrivilegeEscalation") != Some(&Value::Bool(false)) {
        return;
    }
    if lookup::flag(context, "privileged") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(path, context, detail));
    }
    if lookup::list(context, "capabilities.add")
        .iter()
        .any(|each| matches!(each.as_str(), Some("SYS_ADMIN" | "CAP_SYS_ADMIN")))
    {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(FieldError::invalid(path, context, detail));
    }
}
