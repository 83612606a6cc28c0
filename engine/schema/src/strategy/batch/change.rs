//! What may change of a job: its work is fixed, how fast it goes is not, and where it runs is open until it does.

use serde_json::Value;

use super::super::IMMUTABLE;
use super::super::rules::{check_at, fixed};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// Compares a specification with that of the job `old`.
pub(super) fn check(spec: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let before = &old["spec"];
    let rules = [
        fixed("selector"),
        fixed("completionMode"),
        fixed("podFailurePolicy"),
        fixed("successPolicy"),
        fixed("backoffLimitPerIndex"),
        fixed("managedBy"),
    ];
    check_at(&rules, spec, Some(before), path, errors);
    if spec.get("completions") != before.get("completions") {
        let elastic = lookup::integer(spec, "completions") == lookup::integer(spec, "parallelism");
        match lookup::text(spec, "completionMode") {
            "Indexed" if elastic => {}
            mode => {
                let tandem = format!("can only be modified in tandem with {}", path.field("parallelism"));
                let detail = if mode == "Indexed" { &tandem } else { IMMUTABLE };
                errors.push(FieldError::invalid(&path.field("completions"), &spec["completions"], detail));
            }
        }
    }
    let compared = |spec: &Value| if is_held(old) { fixed_part(&spec["template"]) } else { spec["template"].clone() };
    if compared(spec) != compared(before) {
        errors.push(FieldError::invalid(&path.field("template"), &spec["template"], IMMUTABLE));
    }
}

/// Whether none of the job's pods runs, and none will before it is resumed.
fn is_held(job: &Value) -> bool {
    let begun = lookup::at(job, "status.startTime").is_some();
    let mut conditions = lookup::list(job, "status.conditions").iter();
    let told = conditions.any(|it| lookup::text(it, "type") == "Suspended" && lookup::text(it, "status") == "True");
    let idle = lookup::integer(job, "status.active").unwrap_or(0) == 0;
    lookup::flag(job, "spec.suspend") && idle && (!begun || told)
}

/// A template without what says where and with which resources its pods run: that may still be decided.
fn fixed_part(template: &Value) -> Value {
    let mut template = template.clone();
    let parts: [(&str, &[&str]); 2] = [
        ("spec", &["nodeSelector", "tolerations", "schedulingGates", "affinity"]),
        ("metadata", &["labels", "annotations"]),
    ];
    for (part, fields) in parts {
        if let Some(part) = template.get_mut(part) {
            for field in fields {
                lookup::remove(part, field);
            }
        }
    }
    for containers in ["spec.containers", "spec.initContainers"] {
        for container in lookup::list_mut(&mut template, containers) {
            lookup::remove(container, "resources");
        }
    }
    template
}
