//! Jobs and what starts them by the clock.

mod change;
mod policy;

use serde_json::{Value, json};

use super::rules::{Declared, Fill, between, check_at, not_negative, one_of, positive, required, text, with};
use super::{checks, pod};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;
use crate::schedule::{self, Schedule};

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
        host_names(object, errors);
        if let Some(old) = old {
            change::check(spec, old, &path, errors);
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
    orphans: Some(
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set \
         propagationPolicy=Orphan to suppress this warning",
    ),
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
    ];
    check_at(&rules, spec, None, path, errors);
    policy::check(spec, path, errors);
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

/// Each pod of a job with indexes has a host name of its own.
fn host_names(job: &Value, errors: &mut Vec<FieldError>) {
    let completions = lookup::integer(job, "spec.completions").unwrap_or(0);
    if lookup::text(job, "spec.completionMode") != "Indexed" || completions <= 0 {
        return;
    }
    let name = lookup::text(job, "metadata.name");
    let longest = format!("{name}-{}", completions - 1);
    if checks::dns_label(&longest).is_err() {
        let detail = format!("will not able to create pod with invalid DNS label: {longest}");
        errors.push(FieldError::invalid(&Path::Root.field("metadata").field("name"), &name.into(), &detail));
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
        text("spec.schedule", |schedule| Schedule::parse(schedule).map(drop)),
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
    fn what_has_not_begun_may_still_be_sent_elsewhere_with_other_resources() {
        let old = |status: Value| {
            let mut old = valid(job(&json!({ "suspend": true })));
            old["status"] = status;
            old
        };
        let begun = json!({ "startTime": "2024-01-01T00:00:00Z" });
        let told =
            json!({ "startTime": "2024-01-01T00:00:00Z", "conditions": [{ "type": "Suspended", "status": "True" }] });
        for (status, may) in [(json!({}), true), (json!({ "active": 1 }), false), (begun, false), (told, true)] {
            let old = old(status);
            let mut new = old.clone();
            new["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "2" } });
            new["spec"]["template"]["spec"]["nodeSelector"] = json!({ "a": "b" });
            let expected: &[&str] = if may { &[] } else { &["spec.template"] };
            assert_eq!(fields(&admit(new, Some(&old)).1), expected, "{}", old["status"]);
            let mut image = old.clone();
            image["spec"]["template"]["spec"]["containers"][0]["image"] = json!("y:1");
            assert_eq!(fields(&admit(image, Some(&old)).1), ["spec.template"]);
        }
    }

    #[test]
    fn completions_with_indexes_change_together_with_parallelism() {
        let old = valid(job(&json!({ "completionMode": "Indexed", "completions": 3, "parallelism": 3 })));
        let changed = |completions: i32, parallelism: i32| {
            let mut new = old.clone();
            new["spec"]["completions"] = json!(completions);
            new["spec"]["parallelism"] = json!(parallelism);
            admit(new, Some(&old)).1
        };
        assert_eq!((changed(5, 5).len(), changed(3, 1).len()), (0, 0));
        assert!(changed(5, 3)[0].contains("can only be modified in tandem with spec.parallelism"));
    }

    #[test]
    fn what_is_wrong_with_a_policy_is_named() {
        let codes = |more: Value| {
            let mut codes = json!({ "operator": "In", "values": [1, 2] });
            more.as_object().unwrap().iter().for_each(|(field, value)| codes[field] = value.clone());
            json!({ "podFailurePolicy": { "rules": [{ "action": "Ignore", "onExitCodes": codes }] } })
        };
        let rule = |rule: Value| json!({ "podFailurePolicy": { "rules": [rule] } });
        let pattern = json!([{ "type": "DisruptionTarget", "status": "True" }]);
        let at = "spec.podFailurePolicy.rules[0]";
        let table = [
            (codes(json!({})), vec![]),
            (codes(json!({ "containerName": "c" })), vec![]),
            (codes(json!({ "containerName": "d" })), vec![format!("{at}.onExitCodes.containerName")]),
            (codes(json!({ "values": [] })), vec![format!("{at}.onExitCodes.values")]),
            (codes(json!({ "values": [2, 1] })), vec![format!("{at}.onExitCodes.values")]),
            (codes(json!({ "values": [0, 1] })), vec![format!("{at}.onExitCodes.values[0]")]),
            (codes(json!({ "operator": "NotIn", "values": [0, 1] })), vec![]),
            (codes(json!({ "values": [1, 1] })), vec![format!("{at}.onExitCodes.values[1]")]),
            (codes(json!({ "operator": "Of" })), vec![format!("{at}.onExitCodes.operator")]),
            (rule(json!({ "action": "Count", "onPodConditions": pattern })), vec![]),
            (rule(json!({ "action": "FailIndex", "onPodConditions": pattern })), vec![format!("{at}.action")]),
            (rule(json!({ "action": "Count" })), vec![at.to_owned()]),
            (
                rule(json!({ "action": "Count", "onPodConditions": [{ "type": "a", "status": "Maybe" }] })),
                vec![format!("{at}.onPodConditions[0].status")],
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(fields(&errors(job(&spec))), expected, "{spec}");
        }
        let mut both = codes(json!({}));
        both["podReplacementPolicy"] = json!("TerminatingOrFailed");
        assert_eq!(fields(&errors(job(&both))), ["spec.podReplacementPolicy"]);
    }

    #[test]
    fn what_is_wrong_with_indexes_is_named() {
        let table = [
            (json!({ "backoffLimitPerIndex": 1, "maxFailedIndexes": 2 }), vec![]),
            (json!({ "backoffLimitPerIndex": 1, "maxFailedIndexes": 6 }), vec!["spec.maxFailedIndexes"]),
            (json!({ "maxFailedIndexes": 2 }), vec!["spec.backoffLimitPerIndex"]),
            (json!({ "backoffLimitPerIndex": 1, "completions": 200_000 }), vec!["spec.maxFailedIndexes"]),
            (json!({ "successPolicy": { "rules": [{ "succeededCount": 5 }] } }), vec![]),
            (
                json!({ "successPolicy": { "rules": [{ "succeededCount": 6 }] } }),
                vec!["spec.successPolicy.rules[0].succeededCount"],
            ),
            (json!({ "successPolicy": { "rules": [{}] } }), vec!["spec.successPolicy.rules[0]"]),
            (json!({ "successPolicy": { "rules": [] } }), vec!["spec.successPolicy.rules"]),
            (json!({ "successPolicy": { "rules": [{ "succeededIndexes": "0,2-4" }] } }), vec![]),
            (
                json!({ "successPolicy": { "rules": [{ "succeededIndexes": "0,2-5" }] } }),
                vec!["spec.successPolicy.rules[0].succeededIndexes"],
            ),
            (
                json!({ "successPolicy": { "rules": [{ "succeededIndexes": "2,1" }] } }),
                vec!["spec.successPolicy.rules[0].succeededIndexes"],
            ),
            (
                json!({ "successPolicy": { "rules": [{ "succeededIndexes": "a" }] } }),
                vec!["spec.successPolicy.rules[0].succeededIndexes"],
            ),
            (
                json!({ "successPolicy": { "rules": [{ "succeededIndexes": "1,2", "succeededCount": 3 }] } }),
                vec!["spec.successPolicy.rules[0].succeededCount"],
            ),
        ];
        for (spec, expected) in table {
            let mut whole = json!({ "completionMode": "Indexed", "completions": 5, "parallelism": 1 });
            spec.as_object().unwrap().iter().for_each(|(field, value)| whole[field] = value.clone());
            assert_eq!(fields(&errors(job(&whole))), expected, "{spec}");
        }
        let mut long = job(&json!({ "completionMode": "Indexed", "completions": 11 }));
        long["metadata"]["name"] = Value::from("x".repeat(61));
        assert_eq!(fields(&errors(long)), ["metadata.name"]);
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
