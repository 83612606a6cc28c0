//! Ingresses and their classes.

use serde_json::{Value, json};

use super::checks;
use super::rules::{Declared, Generations, check_at, fixed, one_of, required, text, with};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `networking.k8s.io/v1` `Ingress`
pub(crate) static INGRESS: Declared = Declared {
    status: Some(|| json!({ "loadBalancer": {} })),
    rules: &[
        required("spec"),
        with("spec", |spec, path, errors| {
            if lookup::at(spec, "defaultBackend").is_none() && lookup::list(spec, "rules").is_empty() {
                let detail = "either `defaultBackend` or `rules` must be specified";
                errors.push(FieldError::invalid(path, spec, detail));
            }
        }),
        text("spec.tls[].hosts[]", checks::host),
        text("spec.rules[].host", checks::host),
        required("spec.rules[].http.paths"),
        required("spec.rules[].http.paths[].pathType"),
        one_of("spec.rules[].http.paths[].pathType", &["Exact", "ImplementationSpecific", "Prefix"]),
        with("spec.rules[].http.paths[]", path_rule),
        with("spec.rules[].http.paths[].backend", backend),
        with("spec.defaultBackend", backend),
        text("spec.ingressClassName", checks::dns_subdomain),
    ],
    ..Declared::SPECIFIED
};

/// What a path may not hold: it would mean another one to somebody.
const BAD_PARTS: [&str; 6] = ["//", "/./", "/../", "%2f", "%2F", "\\"];

fn path_rule(rule: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let text = lookup::text(rule, "path");
    let path = path.field("path");
    if !matches!(lookup::text(rule, "pathType"), "Exact" | "Prefix") {
        return;
    }
    if !text.starts_with('/') {
        errors.push(FieldError::invalid(&path, &text.into(), "must be an absolute path"));
    }
    for part in BAD_PARTS.iter().filter(|part| text.contains(**part)) {
        errors.push(FieldError::invalid(&path, &text.into(), &format!("must not contain '{part}'")));
    }
    for end in ["/..", "/."].iter().filter(|end| text.ends_with(**end)) {
        errors.push(FieldError::invalid(&path, &text.into(), &format!("cannot end with '{end}'")));
    }
}

fn backend(backend: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match (lookup::at(backend, "service"), lookup::at(backend, "resource")) {
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(path, &"".into(), detail));
        }
        (None, None) => errors.push(FieldError::required(path, "resource or service backend is required")),
        (None, Some(resource)) => {
            check_at(&[required("kind"), required("name")], resource, None, &path.field("resource"), errors);
        }
        (Some(service), None) => {
            let path = path.field("service");
            check_at(&[required("name"), text("name", checks::dns1035_label)], service, None, &path, errors);
            service_port(&service["port"], &path.field("port"), errors);
        }
    }
}

fn service_port(port: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (name, number) = (lookup::text(port, "name"), lookup::integer(port, "number").unwrap_or(0));
    match (name.is_empty(), number == 0) {
        (true, true) => errors.push(FieldError::required(path, "port name or number is required")),
        (false, false) => {
            let detail = "cannot set both port name & port number";
            errors.push(FieldError::invalid(path, &"".into(), detail));
        }
        (false, true) => super::metadata::text_rule(&path.field("name"), name, checks::port_name, errors),
        (true, false) => {
            if let Err(problem) = checks::port(number) {
                errors.push(FieldError::invalid(&path.field("number"), &number.into(), &problem));
            }
        }
    }
}

/// `networking.k8s.io/v1` `IngressClass`
pub(crate) static INGRESS_CLASS: Declared = Declared {
    generations: Generations::Of(&["spec"]),
    fill: |object| {
        if let Some(parameters) = lookup::at_mut(object, "spec.parameters").filter(|each| each.is_object()) {
            lookup::fill_zero(parameters, "scope", "Cluster");
        }
    },
    rules: &[
        required("spec.controller"),
        text("spec.controller", checks::domain_path),
        required("spec.parameters.kind"),
        required("spec.parameters.name"),
        one_of("spec.parameters.scope", &["Cluster", "Namespace"]),
        with("spec.parameters", |parameters, path, errors| {
            let path = path.field("namespace");
            match (lookup::text(parameters, "scope"), lookup::text(parameters, "namespace")) {
                ("Namespace", "") => {
                    let detail = "`parameters.scope` is set to 'Namespace'";
                    errors.push(FieldError::required(&path, detail));
                }
                ("Cluster", namespace) if !namespace.is_empty() => {
                    let detail = "`parameters.scope` is set to 'Cluster'";
                    errors.push(FieldError::forbidden(&path, detail));
                }
                _ => {}
            }
        }),
        fixed("spec.controller"),
    ],
    ..Declared::PLAIN
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{admit, errors, fields, valid};

    fn made(kind: &str, spec: &Value) -> Value {
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": kind, "metadata": { "name": "i" }, "spec": spec })
    }

    #[test]
    fn an_ingress_leads_somewhere() {
        let service = json!({ "service": { "name": "s", "port": { "number": 80 } } });
        let made_one = valid(made(
            "Ingress",
            &json!({ "rules": [
            { "host": "*.example.com", "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": service }] } },
        ] }),
        ));
        assert_eq!(made_one["status"], json!({ "loadBalancer": {} }));
        assert_eq!(fields(&errors(made("Ingress", &json!({})))), ["spec"]);
        let wrong = made(
            "Ingress",
            &json!({ "rules": [{ "host": "10.0.0.1", "http": { "paths": [
            { "path": "x/../y", "pathType": "Exact", "backend": {} },
            { "backend": { "service": { "name": "1s", "port": { "name": "a", "number": 1 } } } },
        ] } }], "defaultBackend": { "resource": { "kind": "K" } } }),
        );
        assert_eq!(
            fields(&errors(wrong)),
            [
                "spec.rules[0].host",
                "spec.rules[0].http.paths[1].pathType",
                "spec.rules[0].http.paths[0].path",
                "spec.rules[0].http.paths[0].path",
                "spec.rules[0].http.paths[0].backend",
                "spec.rules[0].http.paths[1].backend.service.name",
                "spec.rules[0].http.paths[1].backend.service.port",
                "spec.defaultBackend.resource.name",
            ]
        );
    }

    #[test]
    fn a_class_keeps_its_controller() {
        let old = valid(made(
            "IngressClass",
            &json!({ "controller": "example.com/a", "parameters": { "kind": "K", "name": "n" } }),
        ));
        assert_eq!(old["spec"]["parameters"]["scope"], "Cluster");
        let mut new = old.clone();
        new["spec"]["controller"] = json!("example.com/b");
        assert_eq!(fields(&admit(new, Some(&old)).1), ["spec.controller"]);
        let wrong = made(
            "IngressClass",
            &json!({ "controller": "x", "parameters": { "kind": "K", "name": "n", "scope": "Namespace" } }),
        );
        assert_eq!(fields(&errors(wrong)), ["spec.controller", "spec.parameters.namespace"]);
    }
}
