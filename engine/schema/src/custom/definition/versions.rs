//! What each version of a definition says beside its schema: columns, scale, selectable fields; and how versions become
//! each other.

use std::collections::HashSet;

use serde_json::Value;

use super::super::JsonPath;
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;
use crate::strategy::client;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
/// The most selectable fields of a version.
const SELECTABLE: usize = 8;

pub(super) fn columns(version: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let list = path.field("additionalPrinterColumns");
    for (index, column) in lookup::list(version, "additionalPrinterColumns").iter().enumerate() {
        let at = list.index(index);
        if lookup::text(column, "name").is_empty() {
            errors.push(FieldError::required(&at.field("name"), ""));
        }
        match lookup::text(column, "type") {
            "" => errors
                .push(FieldError::required(&at.field("type"), "must be one of boolean,date,integer,number,string")),
            known if COLUMN_TYPES.contains(&known) => {}
            other => errors.push(FieldError::invalid(
                &at.field("type"),
                &other.into(),
                "must be one of boolean,date,integer,number,string",
            )),
        }
        match lookup::text(column, "jsonPath") {
            "" => errors.push(FieldError::required(&at.field("jsonPath"), "")),
            given => {
                if let Err(problem) = JsonPath::parse(given) {
                    errors.push(FieldError::invalid(&at.field("jsonPath"), &given.into(), &problem));
                }
            }
        }
    }
}

/// The names of a path like `.spec.replicas`.
fn plain(given: &str) -> Option<Vec<String>> {
    let path = JsonPath::parse(given).ok().filter(|_| given.starts_with('.'))?;
    Some(path.fields()?.into_iter().map(str::to_owned).collect())
}

pub(super) fn scale(version: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(scale) = version.pointer("/subresources/scale").filter(|scale| scale.is_object()) else { return };
    let below = path.field("subresources");
    let at = below.field("scale");
    for (key, roots, optional) in [
        ("specReplicasPath", &["spec"] as &[&str], false),
        ("statusReplicasPath", &["status"], false),
        ("labelSelectorPath", &["spec", "status"], true),
    ] {
        let given = lookup::text(scale, key);
        if given.is_empty() {
            if !optional {
                errors.push(FieldError::required(&at.field(key), ""));
            }
            continue;
        }
        let good = plain(given).is_some_and(|names| names.len() > 1 && roots.contains(&names[0].as_str()));
        if !good {
            let roots: Vec<String> = roots.iter().map(|root| format!(".{root}")).collect();
            let detail = format!("should be a json path under {}", roots.join(" or "));
            errors.push(FieldError::invalid(&at.field(key), &given.into(), &detail));
        }
    }
}

pub(super) fn selectable(version: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let list = path.field("selectableFields");
    let fields = lookup::list(version, "selectableFields");
    if fields.len() > SELECTABLE {
        errors.push(FieldError::too_many(&list, fields.len(), SELECTABLE as u64));
    }
    let schema = version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
    let mut seen = HashSet::new();
    for (index, field) in fields.iter().enumerate() {
        let item = list.index(index);
        let at = item.field("jsonPath");
        let given = lookup::text(field, "jsonPath");
        let Some(names) = plain(given) else {
            errors.push(FieldError::invalid(&at, &given.into(), "is an invalid path: does not refer to a valid field"));
            continue;
        };
        if names[0] == "metadata" {
            errors.push(FieldError::invalid(&at, &given.into(), "must not point to fields in metadata"));
            continue;
        }
        let found = names.iter().try_fold(schema, |schema, name| schema.get("properties")?.get(name));
        match found.map(|found| lookup::text(found, "type")) {
            Some("string" | "integer" | "boolean") => {}
            Some(_) => {
                let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                errors.push(FieldError::invalid(&at, &given.into(), detail));
            }
            None => errors.push(FieldError::invalid(
                &at,
                &given.into(),
                "is an invalid path: does not refer to a valid field",
            )),
        }
        if !seen.insert(given) {
            errors.push(FieldError::duplicate(&item, &given.into()));
        }
    }
}

pub(super) fn conversion(spec: &Value, errors: &mut Vec<FieldError>) {
    let root = Path::Root.field("spec");
    let path = root.field("conversion");
    let webhook = spec.pointer("/conversion/webhook").filter(|webhook| webhook.is_object());
    let at = path.field("webhook");
    match (lookup::text(spec, "conversion.strategy"), webhook) {
        ("None", None) => {}
        ("None", Some(_)) => {
            errors.push(FieldError::forbidden(&at, "should not be set when strategy is not set to Webhook"));
        }
        ("Webhook", None) => {
            errors.push(FieldError::required(&at.field("clientConfig"), "required when strategy is set to Webhook"));
        }
        ("Webhook", Some(webhook)) => {
            let config = webhook.get("clientConfig").unwrap_or(&Value::Null);
            client(config, &at.field("clientConfig"), errors);
            let known = lookup::list(webhook, "conversionReviewVersions");
            let versions = at.field("conversionReviewVersions");
            if known.is_empty() {
                errors.push(FieldError::required(&versions, ""));
            } else if !known.iter().any(|version| version == "v1") {
                let detail = "must include at least one of v1";
                errors.push(FieldError::invalid(&versions, &known.to_vec().into(), detail));
            }
        }
        (other, _) => {
            errors.push(FieldError::not_supported(&path.field("strategy"), &other.into(), &["None", "Webhook"]));
        }
    }
}
