//! What may be said in a job's policies: when it has failed, when an index has, and when it has done enough.

use serde_json::Value;

use super::super::checks;
use super::super::rules::{at_most, check_at, one_of, required, text};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// A job of more completions than this says how many of them may fail.
const MANY: i64 = 100_000;
/// The most indexes of such a job that may run at a time, or fail.
const MOST_OF_MANY: i64 = 10_000;
/// The longest text of indexes.
const LONGEST: usize = 64 << 10;

/// Checks everything that a job's specification says of failure and success.
pub(super) fn check(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules = [
        at_most("podFailurePolicy.rules", 20),
        one_of("podFailurePolicy.rules[].action", &["Count", "FailIndex", "FailJob", "Ignore"]),
        required("podFailurePolicy.rules[].onExitCodes.operator"),
        one_of("podFailurePolicy.rules[].onExitCodes.operator", &["In", "NotIn"]),
        at_most("podFailurePolicy.rules[].onExitCodes.values", 255),
        at_most("podFailurePolicy.rules[].onPodConditions", 20),
        required("podFailurePolicy.rules[].onPodConditions[].type"),
        text("podFailurePolicy.rules[].onPodConditions[].type", checks::qualified_name),
        one_of("podFailurePolicy.rules[].onPodConditions[].status", &["False", "True", "Unknown"]),
        at_most("successPolicy.rules", 20),
        required("successPolicy.rules"),
    ];
    check_at(&rules, spec, None, path, errors);
    if lookup::at(spec, "podFailurePolicy").is_some() {
        failure_policy(spec, path, errors);
    }
    let policy = path.field("successPolicy");
    let rules = policy.field("rules");
    for (at, rule) in lookup::list(spec, "successPolicy.rules").iter().enumerate() {
        success_rule(rule, spec, &rules.index(at), errors);
    }
    limits(spec, path, errors);
}

fn failure_policy(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if lookup::text(spec, "podReplacementPolicy") == "TerminatingOrFailed" {
        let at = path.field("podReplacementPolicy");
        errors.push(FieldError::not_supported(&at, &spec["podReplacementPolicy"], &["Failed"]));
    }
    let policy = path.field("podFailurePolicy");
    let rules = policy.field("rules");
    for (at, rule) in lookup::list(spec, "podFailurePolicy.rules").iter().enumerate() {
        failure_rule(rule, spec, &rules.index(at), errors);
    }
}

fn failure_rule(rule: &Value, spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let codes = lookup::at(rule, "onExitCodes");
    let conditions = !lookup::list(rule, "onPodConditions").is_empty();
    match (codes, conditions) {
        (None, false) => {
            let detail = "specifying one of OnExitCodes and OnPodConditions is required";
            errors.push(FieldError::invalid(path, rule, detail));
        }
        (Some(_), true) => {
            let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
            errors.push(FieldError::invalid(path, rule, detail));
        }
        (Some(codes), false) => exit_codes(codes, spec, &path.field("onExitCodes"), errors),
        (None, true) => {}
    }
    let action = path.field("action");
    match lookup::text(rule, "action") {
        "" => errors.push(FieldError::required(&action, "")),
        "FailIndex" if lookup::at(spec, "backoffLimitPerIndex").is_none() => {
            errors.push(FieldError::invalid(&action, &rule["action"], "requires the backoffLimitPerIndex to be set"));
        }
        _ => {}
    }
}

fn exit_codes(codes: &Value, spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let name = lookup::text(codes, "containerName");
    let has_name =
        |list: &str| lookup::list(spec, list).iter().any(|container| lookup::text(container, "name") == name);
    if !name.is_empty() && !has_name("template.spec.containers") && !has_name("template.spec.initContainers") {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(&path.field("containerName"), &codes["containerName"], detail));
    }
    let at = path.field("values");
    let values: Vec<i64> = lookup::list(codes, "values").iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        errors.push(FieldError::invalid(&at, &codes["values"], "at least one value is required"));
    }
    for (index, value) in values.iter().enumerate() {
        if *value == 0 && lookup::text(codes, "operator") == "In" {
            errors.push(FieldError::invalid(&at.index(index), &0.into(), "must not be 0 for the In operator"));
        }
        if values[..index].contains(value) {
            errors.push(FieldError::duplicate(&at.index(index), &(*value).into()));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(&at, &codes["values"], "must be ordered"));
    }
}

fn success_rule(rule: &Value, spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let completions = lookup::integer(spec, "completions").unwrap_or(0);
    let (indexes, count) = (lookup::at(rule, "succeededIndexes"), lookup::integer(rule, "succeededCount"));
    if indexes.is_none() && count.is_none() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(path, detail));
    }
    let at = path.field("succeededCount");
    let most = |count: i64, most: i64, what: &str, errors: &mut Vec<FieldError>| {
        if count > most {
            let detail = format!("must be less than or equal to {most} (the number of {what})");
            errors.push(FieldError::invalid(&at, &count.into(), &detail));
        }
    };
    if let Some(count) = count {
        if count < 0 {
            errors.push(FieldError::invalid(&at, &count.into(), "must be greater than or equal to 0"));
        }
        most(count, completions, "specified completions", errors);
    }
    let Some(indexes) = indexes else { return };
    let path = path.field("succeededIndexes");
    let text = indexes.as_str().unwrap_or_default();
    match total(text, completions) {
        _ if text.len() > LONGEST => errors.push(FieldError::too_long(&path, LONGEST)),
        Ok(total) => {
            if let Some(count) = count {
                most(count, total, "indexes in the specified succeededIndexes field", errors);
            }
        }
        Err(problem) => {
            errors.push(FieldError::invalid(&path, indexes, &format!("error parsing succeededIndexes: {problem}")));
        }
    }
}

/// How many indexes `0,2-4` names, in order and below `end`.
fn total(text: &str, end: i64) -> Result<i64, String> {
    let number = |text: &str| {
        let number =
            text.parse::<u32>().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if i64::from(number) < end { Ok(i64::from(number)) } else { Err(format!("too large index: {text:?}")) }
    };
    let (mut total, mut before) = (0, -1);
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first <= before || last < first {
            return Err(format!("non-increasing order, previous: {before}, current: {first}"));
        }
        total += last - first + 1;
        before = last;
    }
    Ok(total)
}

/// How often indexes may fail, and how many of them.
fn limits(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let number = |field: &str| lookup::integer(spec, field);
    let failed = number("maxFailedIndexes");
    let per_index = lookup::at(spec, "backoffLimitPerIndex").is_some();
    if lookup::text(spec, "completionMode") != "Indexed" {
        return;
    }
    let mut most = |field: &str, most: i64, detail: &str| {
        if let Some(count) = number(field).filter(|count| *count > most) {
            let detail = format!("must be less than or equal to {detail}");
            errors.push(FieldError::invalid(&path.field(field), &count.into(), &detail));
        }
    };
    let completions = number("completions").unwrap_or(0);
    most("maxFailedIndexes", completions, "completions");
    let is_large = per_index && completions > MANY;
    if is_large {
        let detail = "10000 when completions are above 100000 and used with backoff limit per index";
        most("parallelism", MOST_OF_MANY, detail);
        most("maxFailedIndexes", MOST_OF_MANY, detail);
    }
    if is_large && failed.is_none() {
        let detail = "must be specified when completions is above 100000";
        errors.push(FieldError::required(&path.field("maxFailedIndexes"), detail));
    }
    if failed.is_some() && !per_index {
        errors.push(FieldError::required(&path.field("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
}
