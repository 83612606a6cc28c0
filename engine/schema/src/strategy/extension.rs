//! Servers behind this one, and how webhooks are reached.

use serde_json::Value;

use super::checks;
use super::metadata::text_rule;
use super::rules::{Declared, Fill, Generations, between, check_at, required, text, with};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// Checks how a webhook is reached: by a URL or by a service.
pub(crate) fn client(client: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match (lookup::at(client, "url"), lookup::at(client, "service")) {
        (Some(url), None) => {
            text_rule(&path.field("url"), url.as_str().unwrap_or(""), |url| checks::url_of(url, "https"), errors);
        }
        (None, Some(service)) => {
            let rules =
                [required("name"), required("namespace"), between("port", 1, 65_535), text("path", checks_path)];
            check_at(&rules, service, None, &path.field("service"), errors);
        }
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

/// A path below which a service is asked: `/`, or segments that are names.
fn checks_path(path: &str) -> Result<(), String> {
    if matches!(path, "" | "/") {
        return Ok(());
    }
    let segments = path.strip_prefix('/').ok_or("must start with a '/'")?;
    let segments = segments.strip_suffix('/').unwrap_or(segments);
    for (index, segment) in segments.split('/').enumerate() {
        if segment.is_empty() {
            return Err(format!("segment[{index}] may not be empty"));
        }
        checks::dns_subdomain(segment).map_err(|problem| format!("segment[{index}]: {problem}"))?;
    }
    Ok(())
}

/// `apiregistration.k8s.io/v1` `APIService`
pub(crate) static API_SERVICE: Declared = Declared {
    generations: Generations::None,
    defaults: &[("spec.service.port", Fill::Number(443))],
    rules: &[
        required("spec"),
        required("spec.version"),
        text("spec.version", checks::dns1035_label),
        text("spec.group", checks::dns_subdomain),
        between("spec.groupPriorityMinimum", 1, 20_000),
        between("spec.versionPriority", 1, 1_000),
        required("spec.service.namespace"),
        required("spec.service.name"),
        between("spec.service.port", 1, 65_535),
        with("spec", behind),
    ],
    more: |object, _, errors| {
        let text = |path: &str| lookup::text(object, path);
        let (name, wanted) = (text("metadata.name"), format!("{}.{}", text("spec.version"), text("spec.group")));
        if name != wanted {
            let metadata = Path::Root.field("metadata");
            let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            errors.push(FieldError::invalid(&metadata.field("name"), &name.into(), &detail));
        }
    },
    ..Declared::SPECIFIED
};

/// A server behind this one is trusted by its certificate, or not at all.
fn behind(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (trusted, blind) = (!lookup::text(spec, "caBundle").is_empty(), lookup::flag(spec, "insecureSkipTLSVerify"));
    if lookup::at(spec, "service").is_none() {
        if trusted {
            let detail = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid(&path.field("caBundle"), &"".into(), detail));
        }
        if blind {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid(&path.field("insecureSkipTLSVerify"), &true.into(), detail));
        }
    } else if trusted && blind {
        let detail = "may not be true if caBundle is present";
        errors.push(FieldError::invalid(&path.field("insecureSkipTLSVerify"), &true.into(), detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::testing::{errors, fields, valid};

    #[test]
    fn a_path_of_a_service_is_made_of_names() {
        for good in ["", "/", "/convert", "/a/b.c/", "/crd-convert"] {
            assert_eq!(checks_path(good), Ok(()), "{good}");
        }
        for (bad, problem) in [
            ("convert", "must start with a '/'"),
            ("//", "segment[0] may not be empty"),
            ("/a//b", "segment[1] may not be empty"),
            ("/a/../b", "segment[1]: "),
            ("/a?x=1", "segment[0]: "),
        ] {
            let said = checks_path(bad).expect_err(bad);
            assert!(said.starts_with(problem), "{bad}: {said}");
        }
    }

    #[test]
    fn a_server_behind_this_one_is_named_for_what_it_serves() {
        let service = |name: &str, spec: Value| json!({ "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": name }, "spec": spec });
        let spec = json!({ "group": "metrics.k8s.io", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100, "service": { "name": "m", "namespace": "n" } });
        assert_eq!(valid(service("v1.metrics.k8s.io", spec.clone()))["spec"]["service"]["port"], 443);
        let mut wrong = spec;
        wrong["versionPriority"] = json!(0);
        wrong["caBundle"] = json!("AAAA");
        wrong["insecureSkipTLSVerify"] = json!(true);
        assert_eq!(
            fields(&errors(service("v2.metrics.k8s.io", wrong))),
            ["spec.versionPriority", "spec.insecureSkipTLSVerify", "metadata.name"]
        );
    }
}
