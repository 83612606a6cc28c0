//! What probes and lifecycle hooks must satisfy.

use serde_json::Value;

use super::super::checks;
use super::container::number_rule;
use super::spec::one_of;
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

pub(super) fn validate(container: &Value, initial: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    // An initial container that is restarted for ever is a sidecar, and may be probed like any other.
    let runs_once = initial && lookup::text(container, "restartPolicy") != "Always";
    for name in PROBES {
        let Some(probe) = lookup::at(container, name) else { continue };
        let path = path.field(name);
        if runs_once {
            errors
                .push(FieldError::forbidden(&path, "may not be set for init containers without restartPolicy=Always"));
        } else {
            one_probe(probe, name == "readinessProbe", &path, errors);
        }
    }
    let lifecycle = path.field("lifecycle");
    if runs_once && lookup::at(container, "lifecycle").is_some() {
        errors
            .push(FieldError::forbidden(&lifecycle, "may not be set for init containers without restartPolicy=Always"));
        return;
    }
    for name in ["postStart", "preStop"] {
        if let Some(handler) = lookup::at(&container["lifecycle"], name) {
            one_handler(handler, &["exec", "httpGet", "sleep", "tcpSocket"], &lifecycle.field(name), errors);
        }
    }
}

fn one_probe(probe: &Value, readiness: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    one_handler(probe, &["exec", "grpc", "httpGet", "tcpSocket"], path, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if let Some(number) = lookup::integer(probe, field).filter(|number| *number < 0) {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(&path.field(field), &number.into(), detail));
        }
    }
    let threshold = lookup::integer(probe, "successThreshold").unwrap_or(1);
    if !readiness && threshold != 1 {
        errors.push(FieldError::invalid(&path.field("successThreshold"), &threshold.into(), "must be 1"));
    }
    if let Some(seconds) = lookup::integer(probe, "terminationGracePeriodSeconds") {
        let path = path.field("terminationGracePeriodSeconds");
        if readiness {
            errors.push(FieldError::invalid(&path, &seconds.into(), "must not be set for readinessProbes"));
        } else if seconds <= 0 {
            errors.push(FieldError::invalid(&path, &seconds.into(), "must be greater than 0"));
        }
    }
}

fn one_handler(handler: &Value, kinds: &[&str], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let given: Vec<&str> = kinds.iter().copied().filter(|kind| lookup::at(handler, kind).is_some()).collect();
    match given.as_slice() {
        [] => errors.push(FieldError::required(path, "must specify a handler type")),
        [kind] => action(kind, &handler[*kind], &path.field(kind), errors),
        [_, more @ ..] => {
            for kind in more {
                let detail = "may not specify more than 1 handler type";
                errors.push(FieldError::forbidden(&path.field(kind), detail));
            }
        }
    }
}

fn action(kind: &str, action: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match kind {
        "exec" if lookup::list(action, "command").is_empty() => {
            errors.push(FieldError::required(&path.field("command"), ""));
        }
        "httpGet" => {
            port(action, path, errors);
            one_of(action, path, "scheme", &["HTTP", "HTTPS"], errors);
        }
        "tcpSocket" => port(action, path, errors),
        "grpc" => number_rule(&path.field("port"), lookup::integer(action, "port").unwrap_or(0), errors),
        "sleep" if lookup::integer(action, "seconds").unwrap_or(0) < 0 => {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(&path.field("seconds"), &action["seconds"], detail));
        }
        _ => {}
    }
}

fn port(action: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let empty = Value::from(0);
    let port = action.get("port").unwrap_or(&empty);
    if let Err(problem) = checks::port_or_name(port) {
        errors.push(FieldError::invalid(&path.field("port"), port, &problem));
    }
}
