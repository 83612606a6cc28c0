//! What a pod's volumes must satisfy.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::checks;
use super::super::metadata::text_rule;
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// Checks the volumes; gives them by name.
pub(super) fn validate<'a>(
    volumes: &'a [Value],
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) -> BTreeMap<&'a str, &'a Value> {
    let mut known = BTreeMap::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let name = lookup::text(volume, "name");
        if name.is_empty() {
            errors.push(FieldError::required(&path.field("name"), ""));
        } else {
            text_rule(&path.field("name"), name, checks::dns_label, errors);
            if known.insert(name, volume).is_some() {
                errors.push(FieldError::duplicate(&path.field("name"), &name.into()));
            }
        }
        one_source(volume, &path, errors);
    }
    known
}

fn one_source(volume: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let sources = volume.as_object().into_iter().flatten().filter(|(name, value)| *name != "name" && !value.is_null());
    let mut found = false;
    for (name, source) in sources {
        let path = path.field(name);
        if found {
            errors.push(FieldError::forbidden(&path, "may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        one_of_kind(name, source, &path, errors);
    }
    if !found {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

fn one_of_kind(kind: &str, source: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let required = match kind {
        "configMap" => Some("name"),
        "secret" => Some("secretName"),
        "hostPath" => Some("path"),
        "persistentVolumeClaim" => Some("claimName"),
        _ => None,
    };
    if let Some(field) = required.filter(|field| lookup::text(source, field).is_empty()) {
        errors.push(FieldError::required(&path.field(field), ""));
    }
    if let Some(mode) = lookup::integer(source, "defaultMode") {
        file_mode(mode, &path.field("defaultMode"), errors);
    }
    match kind {
        "configMap" | "secret" => items(source, path, errors),
        "downwardAPI" => files(source, path, errors),
        "projected" => projected(source, path, errors),
        "hostPath" => {
            let place = lookup::text(source, "path");
            if place.split('/').any(|part| part == "..") {
                errors.push(FieldError::invalid(&path.field("path"), &place.into(), "must not contain '..'"));
            }
        }
        _ => {}
    }
}

fn file_mode(mode: i64, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !(0..=0o777).contains(&mode) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(path, &mode.into(), detail));
    }
}

fn items(source: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let list = path.field("items");
    for (index, item) in lookup::list(source, "items").iter().enumerate() {
        let path = list.index(index);
        if lookup::text(item, "key").is_empty() {
            errors.push(FieldError::required(&path.field("key"), ""));
        }
        target(item, &path, errors);
    }
}

fn files(source: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let list = path.field("items");
    for (index, item) in lookup::list(source, "items").iter().enumerate() {
        target(item, &list.index(index), errors);
    }
}

/// Where an item becomes a file.
fn target(item: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match lookup::text(item, "path") {
        "" => errors.push(FieldError::required(&path.field("path"), "")),
        place => text_rule(&path.field("path"), place, checks::inner_path, errors),
    }
    if let Some(mode) = lookup::integer(item, "mode") {
        file_mode(mode, &path.field("mode"), errors);
    }
}

fn projected(source: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let list = path.field("sources");
    for (index, source) in lookup::list(source, "sources").iter().enumerate() {
        let path = list.index(index);
        for (kind, source) in source.as_object().into_iter().flatten().filter(|(_, source)| !source.is_null()) {
            let path = path.field(kind);
            match kind.as_str() {
                "configMap" | "secret" => {
                    if lookup::text(source, "name").is_empty() {
                        errors.push(FieldError::required(&path.field("name"), ""));
                    }
                    items(source, &path, errors);
                }
                "downwardAPI" => files(source, &path, errors),
                "serviceAccountToken" => target(source, &path, errors),
                _ => {}
            }
        }
    }
}
