//! Jobs and what starts them by the clock.

use serde_json::{Value, json};

use super::rules::{
    Declared, Fill, at_most, between, check_at, fixed, not_negative, one_of, positive, required, text, with,
};
use super::{IMMUTABLE, checks, pod, schedule};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// The label that tells one job's pods from another's.
const OWNER_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// The older names of both.
const OLD_LABELS: [&str; 2] = ["controller-uid", "job-name"];

/// The most indexes that may run at a time.
const PARALLEL_INDEXES: i64 = 100_000;

/// `batch/v1` `Job`
pub(crate) static JOB: Declared = Declared {
    defaults: &[
        ("spec.completionMode", Fill::Text("NonIndexed")),
        ("spec.suspend", Fill::Flag(false)),
        ("spec.manualSelector", Fill::Flag(false)),
    ],
    fill: |object| {
        own_pods(object);
        if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) {
            fill(spec);
        }
    },
    rules: &[required("spec")],
    more: |object, old, errors| {
        let path = Path::Root.field("spec");
        let spec = &object["spec"];
        job_spec(spec, &path, errors);
        selector(object, spec, &path, errors);
        if let Some(old) = old {
            may_change(spec, old, &path, errors);
        }
    },
    status_rules: &[
        not_negative("status.active"),
        not_negative("status.succeeded"),
        not_negative("status.failed"),
        not_negative("status.ready"),
        not_negative("status.terminating"),
        with("status", finished),
    ],
    ..Declared::SPECIFIED
};

/// Picks a job's pods by its own identity, unless its author wants to.
fn own_pods(object: &mut Value) {
    let [uid, name] = ["uid", "name"].map(|field| lookup::text(&object["metadata"], field).to_owned());
    if lookup::flag(object, "spec.manualSelector") || uid.is_empty() {
        return;
    }
    let Some(spec) = object.get_mut("spec") else { return };
    if let Some(template) = spec.get_mut("template").filter(|template| template.is_object())
        && lookup::make_object(template, "metadata").is_some()
        && let Some(labels) = lookup::make_object(&mut template["metadata"], "labels")
    {
        for (label, value) in [(OWNER_LABEL, &uid), (OLD_LABELS[0], &uid), (NAME_LABEL, &name), (OLD_LABELS[1], &name)]
        {
            labels.insert(label.to_owned(), value.clone().into());
        }
    }
    lookup::fill(spec, "selector", json!({ "matchLabels": { OWNER_LABEL: uid } }));
}

fn fill(spec: &mut Value) {
    if spec.get("completions").is_none_or(Value::is_null) && spec.get("parallelism").is_none_or(Value::is_null) {
        lookup::set(spec, "completions", 1);
    }
    lookup::fill(spec, "parallelism", 1);
    let limit = if lookup::at(spec, "backoffLimitPerIndex").is_some() { i64::from(i32::MAX) } else { 6 };
    lookup::fill(spec, "backoffLimit", limit);
    let policy = if lookup::at(spec, "podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
    lookup::fill_zero(spec, "podReplacementPolicy", policy);
    for rule in lookup::at_mut(spec, "podFailurePolicy").map(|each| lookup::list_mut(each, "rules")).unwrap_or_default()
    {
        for pattern in lookup::list_mut(rule, "onPodConditions") {
            lookup::fill_zero(pattern, "status", "True");
        }
    }
    if let Some(template) = lookup::at_mut(spec, "template.spec") {
        pod::fill_spec(template);
    }
}

/// Checks a job's specification, which may be a cron job's template.
fn job_spec(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !spec.is_object() {
        return;
    }
    let rules = [
        not_negative("parallelism"),
        not_negative("completions"),
        positive("activeDeadlineSeconds"),
        not_negative("backoffLimit"),
        not_negative("backoffLimitPerIndex"),
        not_negative("maxFailedIndexes"),
        not_negative("ttlSecondsAfterFinished"),
        one_of("completionMode", &["Indexed", "NonIndexed"]),
        one_of("podReplacementPolicy", &["Failed", "TerminatingOrFailed"]),
        text("managedBy", checks::domain_path),
        required("template"),
        at_most("podFailurePolicy.rules", 20),
        one_of("podFailurePolicy.rules[].action", &["Count", "FailIndex", "FailJob", "Ignore"]),
        one_of("podFailurePolicy.rules[].onExitCodes.operator", &["In", "NotIn"]),
        at_most("podFailurePolicy.rules[].onExitCodes.values", 255),
        with("podFailurePolicy.rules[]", failure_rule),
        at_most("successPolicy.rules", 20),
        required("successPolicy.rules"),
    ];
    check_at(&rules, spec, None, path, errors);
    indexes(spec, path, errors);
    let Some(template) = lookup::at(spec, "template") else { return };
    let path = path.field("template");
    pod::validate_template(template, &path, errors);
    let policy = lookup::text(template, "spec.restartPolicy");
    let spec_path = path.field("spec");
    let path = spec_path.field("restartPolicy");
    if !matches!(policy, "" | "OnFailure" | "Never") {
        errors.push(FieldError::not_supported(&path, &policy.into(), &["OnFailure", "Never"]));
    } else if policy == "OnFailure" && lookup::at(spec, "podFailurePolicy").is_some() {
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(FieldError::invalid(&path, &policy.into(), detail));
    }
}

fn failure_rule(rule: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let codes = lookup::at(rule, "onExitCodes").is_some();
    let conditions = !lookup::list(rule, "onPodConditions").is_empty();
    if codes == conditions {
        let detail = "specifying one of OnExitCodes and OnPodConditions is required";
        errors.push(FieldError::invalid(path, rule, detail));
    }
    if lookup::text(rule, "action").is_empty() {
        errors.push(FieldError::required(&path.field("action"), ""));
    }
}

/// What makes sense only when each completion has a number of its own.
fn indexes(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let given = |field: &str| lookup::at(spec, field).is_some();
    if lookup::text(spec, "completionMode") != "Indexed" {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
            if given(field) {
                let detail = "requires indexed completion mode";
                errors.push(FieldError::invalid(&path.field(field), &spec[field], detail));
            }
        }
        return;
    }
    if !given("completions") {
        errors.push(FieldError::required(&path.field("completions"), "when completion mode is Indexed"));
    }
    if let Some(count) = lookup::integer(spec, "parallelism").filter(|count| *count > PARALLEL_INDEXES) {
        let detail = format!("must be less than or equal to {PARALLEL_INDEXES} when completion mode is Indexed");
        errors.push(FieldError::invalid(&path.field("parallelism"), &count.into(), &detail));
    }
}

fn selector(object: &Value, spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let at = path.field("selector");
    let Some(selector) = lookup::at(spec, "selector") else {
        errors.push(FieldError::required(&at, ""));
        return;
    };
    super::metadata::label_selector(selector, &at, errors);
    let own = json!({ "matchLabels": { OWNER_LABEL: object["metadata"]["uid"] } });
    let old = json!({ "matchLabels": { OLD_LABELS[0]: object["metadata"]["uid"] } });
    if !lookup::flag(spec, "manualSelector") && *selector != own && *selector != old {
        errors.push(FieldError::invalid(&at, selector, "`selector` not auto-generated"));
    }
    let labels = lookup::at(spec, "template.metadata.labels").unwrap_or(&Value::Null);
    if checks::passes_over(selector, labels) {
        let (template, detail) = (path.field("template"), "`selector` does not match template `labels`");
        let metadata = template.field("metadata");
        errors.push(FieldError::invalid(&metadata.field("labels"), labels, detail));
    }
}

/// Compares two specifications: the work is fixed, how fast it goes is not.
fn may_change(spec: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (before, started) = (&old["spec"], lookup::at(old, "status.startTime").is_some());
    let rules = [
        fixed("selector"),
        fixed("completionMode"),
        fixed("podFailurePolicy"),
        fixed("successPolicy"),
        fixed("backoffLimitPerIndex"),
        fixed("managedBy"),
    ];
    check_at(&rules, spec, Some(before), path, errors);
    let elastic = lookup::text(spec, "completionMode") == "Indexed"
        && lookup::integer(spec, "completions") == lookup::integer(spec, "parallelism");
    if spec.get("completions") != before.get("completions") && !elastic {
        errors.push(FieldError::invalid(&path.field("completions"), &spec["completions"], IMMUTABLE));
    }
    let held = lookup::flag(before, "suspend") && !started;
    let fixed_part = |spec: &Value| if held { without_directives(&spec["template"]) } else { spec["template"].clone() };
    if fixed_part(spec) != fixed_part(before) {
        errors.push(FieldError::invalid(&path.field("template"), &spec["template"], IMMUTABLE));
    }
}

/// A template without what says where its pods may run: a job that has not begun may still be sent elsewhere.
fn without_directives(template: &Value) -> Value {
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
    template
}

/// A job that is over has one verdict, and the time when it came.
fn finished(status: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let is = |kind: &str| {
        let mut all = lookup::list(status, "conditions").iter();
        all.any(|each| lookup::text(each, "type") == kind && lookup::text(each, "status") == "True")
    };
    if is("Complete") && is("Failed") {
        let detail = "cannot set Complete=True and Failed=true conditions";
        errors.push(FieldError::invalid(&path.field("conditions"), &status["conditions"], detail));
    }
    let ended = lookup::at(status, "completionTime");
    if is("Complete") && ended.is_none() {
        errors
            .push(FieldError::required(&path.field("completionTime"), "completionTime is required for Complete jobs"));
    }
    if let Some(ended) = ended.filter(|_| !is("Complete")) {
        let detail = "cannot set completionTime when there is no Complete=True condition";
        errors.push(FieldError::invalid(&path.field("completionTime"), ended, detail));
    }
}

/// `batch/v1` `CronJob`
pub(crate) static CRON_JOB: Declared = Declared {
    // A job's name is this one's, a hyphen and ten digits.
    name: |name| {
        checks::dns_subdomain(name)?;
        if name.len() > 52 { Err("must be no more than 52 characters".to_owned()) } else { Ok(()) }
    },
    defaults: &[
        ("spec.concurrencyPolicy", Fill::Text("Allow")),
        ("spec.suspend", Fill::Flag(false)),
        ("spec.successfulJobsHistoryLimit", Fill::Number(3)),
        ("spec.failedJobsHistoryLimit", Fill::Number(1)),
    ],
    fill: |object| {
        if let Some(spec) = lookup::at_mut(object, "spec.jobTemplate.spec.template.spec") {
            pod::fill_spec(spec);
        }
    },
    rules: &[
        required("spec"),
        required("spec.schedule"),
        text("spec.schedule", schedule::cron),
        with("spec.timeZone", zone),
        not_negative("spec.startingDeadlineSeconds"),
        required("spec.concurrencyPolicy"),
        one_of("spec.concurrencyPolicy", &["Allow", "Forbid", "Replace"]),
        between("spec.successfulJobsHistoryLimit", 0, i64::MAX),
        between("spec.failedJobsHistoryLimit", 0, i64::MAX),
        required("spec.jobTemplate.spec"),
    ],
    more: |object, _, errors| {
        let spec = Path::Root.field("spec");
        let template = spec.field("jobTemplate");
        let path = template.field("spec");
        let job = &object["spec"]["jobTemplate"]["spec"];
        job_spec(job, &path, errors);
        if lookup::flag(job, "manualSelector") {
            errors.push(FieldError::not_supported(&path.field("manualSelector"), &true.into(), &["nil", "false"]));
        }
        if let Some(selector) = lookup::at(job, "selector") {
            errors.push(FieldError::invalid(&path.field("selector"), selector, "`selector` will be auto-generated"));
        }
    },
    ..Declared::SPECIFIED
};

fn zone(value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Err(problem) = schedule::time_zone(value.as_str().unwrap_or("")) {
        errors.push(FieldError::invalid(path, value, &problem));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{admit, errors, fields, valid};

    fn job(spec: &Value) -> Value {
        let mut object = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "j", "uid": "u" },
            "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "x:1" }] } } },
        });
        for (name, value) in spec.as_object().into_iter().flatten() {
            object["spec"][name] = value.clone();
        }
        object
    }

    #[test]
    fn a_job_runs_once_and_picks_its_own_pods() {
        let made = valid(job(&json!({})));
        let spec = &made["spec"];
        assert_eq!(
            [&spec["parallelism"], &spec["completions"], &spec["backoffLimit"]],
            [&json!(1), &json!(1), &json!(6)]
        );
        assert_eq!(spec["selector"], json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": "u" } }));
        assert_eq!(spec["template"]["metadata"]["labels"]["job-name"], "j");
        assert_eq!((&spec["completionMode"], &spec["suspend"]), (&json!("NonIndexed"), &json!(false)));
        assert_eq!(valid(job(&json!({ "parallelism": 3 })))["spec"].get("completions"), None);
        let other = job(&json!({ "selector": { "matchLabels": { "a": "b" } } }));
        assert_eq!(fields(&errors(other)), ["spec.selector", "spec.template.metadata.labels"]);
        let manual = json!({ "manualSelector": true, "selector": { "matchLabels": { "a": "b" } }, "template": {
            "metadata": { "labels": { "a": "b" } }, "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "x:1" }] },
        } });
        valid(job(&manual));
    }

    #[test]
    fn a_jobs_work_is_fixed_and_its_speed_is_not() {
        let old = valid(job(&json!({ "completions": 3 })));
        let mut new = old.clone();
        new["spec"]["parallelism"] = json!(7);
        new["spec"]["suspend"] = json!(true);
        assert_eq!(admit(new.clone(), Some(&old)).1, Vec::<String>::new());
        new["spec"]["completions"] = json!(4);
        new["spec"]["template"]["spec"]["nodeSelector"] = json!({ "a": "b" });
        assert_eq!(fields(&admit(new.clone(), Some(&old)).1), ["spec.completions", "spec.template"]);
        let held = valid(job(&json!({ "suspend": true, "completions": 4, "parallelism": 7 })));
        assert_eq!(admit(new, Some(&held)).1, Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_with_a_job_is_named() {
        let wrong = job(&json!({
            "parallelism": -1, "completionMode": "Indexed", "podReplacementPolicy": "Never", "ttlSecondsAfterFinished": -1,
            "podFailurePolicy": { "rules": [{ "action": "Shrug" }] },
            "template": { "spec": { "containers": [{ "name": "c", "image": "x" }] } },
        }));
        assert_eq!(
            fields(&errors(wrong)),
            [
                "spec.parallelism",
                "spec.ttlSecondsAfterFinished",
                "spec.podReplacementPolicy",
                "spec.podFailurePolicy.rules[0].action",
                "spec.podFailurePolicy.rules[0]",
                "spec.completions",
                "spec.template.spec.restartPolicy",
            ]
        );
        assert_eq!(fields(&errors(job(&json!({ "maxFailedIndexes": 1 })))), ["spec.maxFailedIndexes"]);
    }

    #[test]
    fn a_job_has_one_verdict() {
        let check = |status: Value| {
            let mut errors = Vec::new();
            finished(&status, &Path::Root.field("status"), &mut errors);
            errors.iter().map(|error| error.field.clone()).collect::<Vec<_>>()
        };
        let is = |kind: &str| json!({ "type": kind, "status": "True" });
        let time = "2024-01-01T00:00:00Z";
        assert_eq!(check(json!({ "conditions": [is("Complete")], "completionTime": time })), Vec::<String>::new());
        assert_eq!(
            check(json!({ "conditions": [is("Complete"), is("Failed")] })),
            ["status.conditions", "status.completionTime"]
        );
        assert_eq!(check(json!({ "completionTime": time })), ["status.completionTime"]);
    }

    #[test]
    fn a_cron_job_has_a_schedule_and_a_template() {
        let cron = |spec: &Value| {
            let mut object = json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "c" }, "spec": {
                "schedule": "*/5 * * * *", "jobTemplate": { "spec": job(&json!({}))["spec"] },
            } });
            for (name, value) in spec.as_object().into_iter().flatten() {
                object["spec"][name] = value.clone();
            }
            object
        };
        let made = valid(cron(&json!({ "timeZone": "UTC" })));
        assert_eq!(
            (&made["spec"]["concurrencyPolicy"], &made["spec"]["failedJobsHistoryLimit"]),
            (&json!("Allow"), &json!(1))
        );
        let wrong = cron(
            &json!({ "schedule": "* * * *", "timeZone": "Local", "concurrencyPolicy": "Maybe", "startingDeadlineSeconds": -1 }),
        );
        assert_eq!(
            fields(&errors(wrong)),
            ["spec.schedule", "spec.timeZone", "spec.startingDeadlineSeconds", "spec.concurrencyPolicy"]
        );
        let mut long = cron(&json!({}));
        long["metadata"]["name"] = Value::from("x".repeat(53));
        assert_eq!(errors(long).len(), 1);
        let mut manual = cron(&json!({}));
        manual["spec"]["jobTemplate"]["spec"]["manualSelector"] = json!(true);
        assert_eq!(fields(&errors(manual)), ["spec.jobTemplate.spec.manualSelector"]);
    }
}
