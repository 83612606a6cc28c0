//! Requests for certificates: who asks for what cannot change, and is approved elsewhere.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::checks;
use super::rules::{Declared, Generations, between, distinct, one_of, required, text, with};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// What a certificate may be used for.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// `certificates.k8s.io/v1` `CertificateSigningRequest`
pub(crate) static SIGNING_REQUEST: Declared = Declared {
    name: checks::path_segment,
    generations: Generations::None,
    kept: &["spec"],
    rules: &[
        required("spec"),
        required("spec.request"),
        with("spec.request", request),
        required("spec.signerName"),
        text("spec.signerName", checks::domain_path),
        between("spec.expirationSeconds", 600, i64::MAX),
        required("spec.usages"),
        one_of("spec.usages[]", USAGES),
        distinct("spec.usages", &[]),
    ],
    status_rules: &[with("status", verdict), with("status.certificate", certificate)],
    ..Declared::SPECIFIED
};

/// Whether bytes in base64 hold a block of this name in PEM.
fn holds(value: &Value, name: &str) -> bool {
    let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let begin = text.find(&format!("-----BEGIN {name}-----"));
    begin.is_some_and(|begin| text[begin..].contains(&format!("-----END {name}-----")))
}

fn request(value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !holds(value, "CERTIFICATE REQUEST") {
        errors.push(FieldError::invalid(path, value, "PEM block type must be CERTIFICATE REQUEST"));
    }
}

fn certificate(value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !holds(value, "CERTIFICATE") {
        errors.push(FieldError::invalid(path, value, "must contain a PEM block of type CERTIFICATE"));
    }
}

/// A request is approved or denied, not both, and what was said stays said.
fn verdict(status: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let conditions = lookup::list(status, "conditions");
    let said = |kind: &str| conditions.iter().any(|each| lookup::text(each, "type") == kind);
    let list = path.field("conditions");
    if said("Approved") && said("Denied") {
        let detail = "Approved and Denied conditions are mutually exclusive";
        errors.push(FieldError::invalid(&list, &status["conditions"], detail));
    }
    for (index, condition) in conditions.iter().enumerate() {
        let kind = lookup::text(condition, "type");
        if matches!(kind, "Approved" | "Denied" | "Failed") && lookup::text(condition, "status") != "True" {
            let path = list.index(index);
            let detail = "Approved, Denied and Failed conditions may not be \"False\" or \"Unknown\"";
            errors.push(FieldError::invalid(&path.field("status"), &condition["status"], detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::shared;
    use crate::strategy::testing::{admit, errors, fields, valid};

    fn pem(name: &str) -> String {
        STANDARD.encode(format!("-----BEGIN {name}-----\nAAAA\n-----END {name}-----\n"))
    }

    fn asked(spec: &Value) -> Value {
        json!({ "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": { "name": "user:a" }, "spec": spec })
    }

    #[test]
    fn what_was_asked_for_never_changes() {
        let spec =
            json!({ "request": pem("CERTIFICATE REQUEST"), "signerName": "example.com/s", "usages": ["client auth"] });
        let old = valid(asked(&spec));
        let mut new = old.clone();
        new["spec"]["signerName"] = json!("example.com/other");
        assert_eq!(admit(new, Some(&old)).0["spec"], old["spec"]);
        let wrong = asked(&json!({
            "request": pem("PRIVATE KEY"), "signerName": "s", "usages": ["world peace"], "expirationSeconds": 5,
        }));
        assert_eq!(
            fields(&errors(wrong)),
            ["spec.request", "spec.signerName", "spec.expirationSeconds", "spec.usages[0]"]
        );
    }

    #[test]
    fn a_verdict_is_one_word() {
        let resource = shared().of_kind("certificates.k8s.io/v1", "CertificateSigningRequest").expect("served");
        let check = |status: Value| {
            let found = resource.strategy().validate_below("status", &json!({ "status": status }), &json!({}));
            found.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        let is = |kind: &str, status: &str| json!({ "type": kind, "status": status });
        assert_eq!(
            check(json!({ "conditions": [is("Approved", "True")], "certificate": pem("CERTIFICATE") })),
            Vec::<String>::new()
        );
        assert_eq!(
            check(json!({ "conditions": [is("Approved", "True"), is("Denied", "True")] })),
            ["status.conditions"]
        );
        assert_eq!(
            check(json!({ "conditions": [is("Denied", "False")], "certificate": "AAAA" })),
            ["status.conditions[0].status", "status.certificate"]
        );
    }
}
