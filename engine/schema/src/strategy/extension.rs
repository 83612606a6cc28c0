//! What adds kinds: custom resource definitions, and servers behind this one.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks;
use super::metadata::text_rule;
use super::rules::{
    Declared, Fill, Generations, between, check_at, distinct, fixed, one_of, required, required_as, text, with,
};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `apiextensions.k8s.io/v1` `CustomResourceDefinition`. The schemas of its versions are checked elsewhere.
pub(crate) static CUSTOM_RESOURCE: Declared = Declared {
    defaults: &[
        ("spec.conversion", Fill::Object),
        ("spec.conversion.strategy", Fill::Text("None")),
        ("spec.conversion.webhook.clientConfig.service.port", Fill::Number(443)),
    ],
    fill: |object| {
        let Some(names) = lookup::at_mut(object, "spec.names").filter(|names| names.is_object()) else { return };
        let kind = lookup::text(names, "kind").to_owned();
        if !kind.is_empty() {
            lookup::fill_zero(names, "singular", kind.to_lowercase());
            lookup::fill_zero(names, "listKind", format!("{kind}List"));
        }
    },
    rules: &[
        required("spec"),
        required("spec.group"),
        text("spec.group", checks::dns_subdomain),
        with("spec.group", |group, path, errors| {
            if !group.as_str().unwrap_or("").contains('.') {
                errors.push(FieldError::invalid(path, group, "should be a domain with at least one dot"));
            }
        }),
        required("spec.scope"),
        one_of("spec.scope", &["Cluster", "Namespaced"]),
        required("spec.names"),
        with("spec.names", names),
        required("spec.versions"),
        with("spec.versions[]", version),
        distinct("spec.versions", &["name"]),
        one_of("spec.conversion.strategy", &["None", "Webhook"]),
        with("spec.conversion", conversion),
        fixed("spec.group"),
        fixed("spec.names.plural"),
    ],
    more: |object, old, errors| {
        let spec = &object["spec"];
        let (plural, group) = (lookup::text(spec, "names.plural"), lookup::text(spec, "group"));
        let metadata = Path::Root.field("metadata");
        let name = lookup::text(object, "metadata.name");
        if name != format!("{plural}.{group}") {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            errors.push(FieldError::invalid(&metadata.field("name"), &name.into(), detail));
        }
        let path = Path::Root.field("spec");
        if lookup::flag(spec, "preserveUnknownFields")
            && !old.is_some_and(|old| lookup::flag(old, "spec.preserveUnknownFields"))
        {
            let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                          spec.versions[*].schema instead";
            errors.push(FieldError::invalid(&path.field("preserveUnknownFields"), &true.into(), detail));
        }
        stored(object, &path.field("versions"), errors);
        // From then on there may be objects of it.
        if let Some(old) = old.filter(|old| is_established(old)) {
            check_at(&[fixed("scope"), fixed("names.kind")], spec, Some(&old["spec"]), &path, errors);
        }
    },
    ..Declared::SPECIFIED
};

fn is_established(object: &Value) -> bool {
    let mut conditions = lookup::list(object, "status.conditions").iter();
    conditions.any(|each| lookup::text(each, "type") == "Established" && lookup::text(each, "status") == "True")
}

/// Just one version is written, and what was written stays readable.
fn stored(object: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let versions = lookup::list(&object["spec"], "versions");
    let count = versions.iter().filter(|version| lookup::flag(version, "storage")).count();
    if !versions.is_empty() && count != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(path, &versions.into(), detail));
    }
    let status = Path::Root.field("status");
    let list = status.field("storedVersions");
    for (index, name) in lookup::list(object, "status.storedVersions").iter().enumerate() {
        if !versions.iter().any(|version| version.get("name") == Some(name)) {
            let detail = "must appear in spec.versions";
            errors.push(FieldError::invalid(&list.index(index), name, detail));
        }
    }
}

fn names(names: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules = [
        required("plural"),
        text("plural", checks::dns1035_label),
        text("singular", checks::dns1035_label),
        required("kind"),
        text("kind", kind_name),
        text("listKind", kind_name),
        text("shortNames[]", checks::dns1035_label),
        text("categories[]", checks::dns1035_label),
    ];
    check_at(&rules, names, None, path, errors);
    let (kind, list) = (lookup::text(names, "kind"), lookup::text(names, "listKind"));
    if !kind.is_empty() && kind == list {
        errors.push(FieldError::invalid(
            &path.field("listKind"),
            &list.into(),
            "kind and listKind may not be the same",
        ));
    }
}

/// A kind is a label when its capitals are forgotten.
fn kind_name(text: &str) -> Result<(), String> {
    checks::dns1035_label(&text.to_lowercase()).map_err(|_| {
        "a DNS-1035 label must consist of alphanumeric characters or '-', start with an alphabetic character, and end with \
         an alphanumeric character"
            .to_owned()
    })
}

fn version(version: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules = [
        required("name"),
        text("name", checks::dns1035_label),
        required("schema"),
        required_as("schema.openAPIV3Schema", "schemas are required"),
        required("additionalPrinterColumns[].name"),
        required("additionalPrinterColumns[].type"),
        one_of("additionalPrinterColumns[].type", &["boolean", "date", "integer", "number", "string"]),
        required("additionalPrinterColumns[].jsonPath"),
        distinct("additionalPrinterColumns", &["name"]),
        required("subresources.scale.specReplicasPath"),
        required("subresources.scale.statusReplicasPath"),
        text("subresources.scale.specReplicasPath", |path| below(path, ".spec.")),
        text("subresources.scale.statusReplicasPath", |path| below(path, ".status.")),
        required("selectableFields[].jsonPath"),
        distinct("selectableFields", &["jsonPath"]),
    ];
    check_at(&rules, version, None, path, errors);
    if lookup::at(version, "deprecationWarning").is_some() && !lookup::flag(version, "deprecated") {
        let detail = "can only be set for deprecated versions";
        errors.push(FieldError::invalid(&path.field("deprecationWarning"), &version["deprecationWarning"], detail));
    }
}

fn below(path: &str, root: &str) -> Result<(), String> {
    if path.starts_with(root) { Ok(()) } else { Err(format!("should be a json path under {root}")) }
}

fn conversion(conversion: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let path_of_webhook = path.field("webhook");
    match (lookup::text(conversion, "strategy"), lookup::at(conversion, "webhook")) {
        ("Webhook", None) => {
            errors.push(FieldError::required(&path_of_webhook, "required when strategy is set to Webhook"));
        }
        ("Webhook", Some(webhook)) => {
            check_at(&[required("conversionReviewVersions")], webhook, None, &path_of_webhook, errors);
            client(&webhook["clientConfig"], &path_of_webhook.field("clientConfig"), errors);
            let known: BTreeSet<&str> =
                lookup::list(webhook, "conversionReviewVersions").iter().filter_map(Value::as_str).collect();
            if !known.is_empty() && known.is_disjoint(&BTreeSet::from(["v1", "v1beta1"])) {
                let detail = "must include at least one of v1, v1beta1";
                let at = path_of_webhook.field("conversionReviewVersions");
                errors.push(FieldError::invalid(&at, &webhook["conversionReviewVersions"], detail));
            }
        }
        ("None", Some(_)) => {
            errors
                .push(FieldError::forbidden(&path_of_webhook, "should not be set when strategy is not set to Webhook"));
        }
        _ => {}
    }
}

/// Checks how a webhook is reached: by a URL or by a service.
pub(super) fn client(client: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
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

fn checks_path(path: &str) -> Result<(), String> {
    if path.starts_with('/') { Ok(()) } else { Err("must start with a '/'".to_owned()) }
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
    use crate::strategy::testing::{admit, errors, fields, valid};

    fn definition(spec: &Value) -> Value {
        let mut object = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "tops.example.com" },
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": { "plural": "tops", "kind": "Top" },
                "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } } }],
            },
        });
        for (name, value) in spec.as_object().into_iter().flatten() {
            object["spec"][name] = value.clone();
        }
        object
    }

    #[test]
    fn a_definition_gets_its_other_names() {
        let made = valid(definition(&json!({})));
        assert_eq!(made["spec"]["names"]["singular"], "top");
        assert_eq!(made["spec"]["names"]["listKind"], "TopList");
        assert_eq!(made["spec"]["conversion"], json!({ "strategy": "None" }));
        let mut renamed = made.clone();
        renamed["spec"]["scope"] = json!("Cluster");
        renamed["spec"]["names"]["kind"] = json!("Pot");
        assert_eq!(admit(renamed.clone(), Some(&made)).1, Vec::<String>::new());
        let mut established = made;
        established["status"]["conditions"] = json!([{ "type": "Established", "status": "True" }]);
        assert_eq!(fields(&admit(renamed, Some(&established)).1), ["spec.scope", "spec.names.kind"]);
    }

    #[test]
    fn names_and_versions_have_to_fit() {
        let version = |name: &str, storage: bool| json!({ "name": name, "served": true, "storage": storage, "schema": { "openAPIV3Schema": {} } });
        assert_eq!(
            fields(&errors(definition(&json!({ "names": { "plural": "pots", "kind": "Pot", "listKind": "Pot" } })))),
            ["spec.names.listKind", "metadata.name"]
        );
        assert_eq!(
            fields(&errors(definition(&json!({ "versions": [version("v1", true), version("v1", true)] })))),
            ["spec.versions[1].name", "spec.versions"]
        );
        assert_eq!(fields(&errors(definition(&json!({ "versions": [version("v1", false)] })))), ["spec.versions"]);
        assert_eq!(fields(&errors(definition(&json!({ "versions": [] })))), ["spec.versions"]);
        assert_eq!(
            fields(&errors(definition(&json!({ "preserveUnknownFields": true })))),
            ["spec.preserveUnknownFields"]
        );
        let bare = json!({ "name": "1", "served": true, "storage": true, "subresources": { "scale": { "specReplicasPath": ".x", "statusReplicasPath": ".status.n" } } });
        assert_eq!(
            fields(&errors(definition(&json!({ "versions": [bare] })))),
            [
                "spec.versions[0].name",
                "spec.versions[0].schema",
                "spec.versions[0].subresources.scale.specReplicasPath"
            ]
        );
        let conversion = json!({ "strategy": "Webhook", "webhook": { "conversionReviewVersions": ["v9"], "clientConfig": { "url": "http://x" } } });
        assert_eq!(
            fields(&errors(definition(&json!({ "conversion": conversion })))),
            ["spec.conversion.webhook.clientConfig.url", "spec.conversion.webhook.conversionReviewVersions"]
        );
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
