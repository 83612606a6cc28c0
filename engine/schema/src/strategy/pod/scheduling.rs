//! Where a pod may run: tolerations, spreading, affinity.

use serde_json::Value;

use super::super::checks;
use super::super::metadata::{label_selector, text_rule};
use super::spec::one_of;
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

pub(super) fn validate(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    tolerations(&spec["tolerations"], &path.field("tolerations"), errors);
    let list = path.field("topologySpreadConstraints");
    for (index, constraint) in lookup::list(spec, "topologySpreadConstraints").iter().enumerate() {
        spread(constraint, &list.index(index), errors);
    }
    affinity(&spec["affinity"], &path.field("affinity"), errors);
}

/// Checks a list of tolerations.
pub(in crate::strategy) fn tolerations(list: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (index, toleration) in list.as_array().into_iter().flatten().enumerate() {
        tolerate(toleration, &path.index(index), errors);
    }
}

/// Checks a choice of nodes: terms of which one has to hold.
pub(in crate::strategy) fn node_selector(choice: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let list = path.field("nodeSelectorTerms");
    let terms = lookup::list(choice, "nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(FieldError::required(&list, "must have at least one node selector term"));
    }
    for (index, term) in terms.iter().enumerate() {
        let path = list.index(index);
        node_term(term, &path, errors);
    }
}

fn node_term(term: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let known = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
    for list in ["matchExpressions", "matchFields"] {
        let list_path = path.field(list);
        for (index, one) in lookup::list(term, list).iter().enumerate() {
            let path = list_path.index(index);
            text_rule(&path.field("key"), lookup::text(one, "key"), checks::qualified_name, errors);
            let values = lookup::list(one, "values").len();
            let path_of_values = path.field("values");
            match lookup::text(one, "operator") {
                "In" | "NotIn" if values == 0 => {
                    let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                    errors.push(FieldError::required(&path_of_values, detail));
                }
                "Exists" | "DoesNotExist" if values > 0 => {
                    let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    errors.push(FieldError::forbidden(&path_of_values, detail));
                }
                "Gt" | "Lt" if values != 1 => {
                    let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                    errors.push(FieldError::required(&path_of_values, detail));
                }
                operator if known.contains(&operator) => {}
                other => {
                    let detail = "not a valid selector operator";
                    errors.push(FieldError::invalid(&path.field("operator"), &other.into(), detail));
                }
            }
        }
    }
}

fn tolerate(toleration: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (key, operator) = (lookup::text(toleration, "key"), lookup::text(toleration, "operator"));
    if !key.is_empty() {
        text_rule(&path.field("key"), key, checks::qualified_name, errors);
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(&path.field("operator"), &operator.into(), detail));
    }
    let value = lookup::text(toleration, "value");
    match operator {
        "" | "Equal" => text_rule(&path.field("value"), value, checks::label_value, errors),
        "Exists" if !value.is_empty() => {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(&path.field("operator"), &value.into(), detail));
        }
        "Exists" => {}
        other => errors.push(FieldError::not_supported(&path.field("operator"), &other.into(), &["Equal", "Exists"])),
    }
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let effect = lookup::text(toleration, "effect");
    if !effect.is_empty() && !effects.contains(&effect) {
        errors.push(FieldError::not_supported(&path.field("effect"), &effect.into(), &effects));
    }
}

fn spread(constraint: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if lookup::integer(constraint, "maxSkew").unwrap_or(0) <= 0 {
        errors.push(FieldError::invalid(&path.field("maxSkew"), &constraint["maxSkew"], "must be greater than zero"));
    }
    match lookup::text(constraint, "topologyKey") {
        "" => errors.push(FieldError::required(&path.field("topologyKey"), "can not be empty")),
        key => text_rule(&path.field("topologyKey"), key, checks::qualified_name, errors),
    }
    one_of(constraint, path, "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"], errors);
    label_selector(&constraint["labelSelector"], &path.field("labelSelector"), errors);
}

fn affinity(affinity: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let node = path.field("nodeAffinity");
    if let Some(choice) = lookup::at(&affinity["nodeAffinity"], REQUIRED) {
        node_selector(choice, &node.field(REQUIRED), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let kind_path = path.field(kind);
        let list = kind_path.field(REQUIRED);
        for (index, term) in lookup::list(&affinity[kind], REQUIRED).iter().enumerate() {
            let path = list.index(index);
            if lookup::text(term, "topologyKey").is_empty() {
                errors.push(FieldError::required(&path.field("topologyKey"), "can not be empty"));
            }
            label_selector(&term["labelSelector"], &path.field("labelSelector"), errors);
        }
    }
}
