//! What the rows of jobs and of what starts and scales them say.

use jiff::Timestamp;
use serde_json::Value;

use super::human::{human_duration, since};
use super::workload::{containers, images, selector};
use super::{AGE, NAME, NONE, column, number, wide};
use crate::lookup::{at, flag, integer, list, text};
use crate::resource::{Cell, Column};

pub(crate) const JOB: &[Column] = &[
    NAME,
    column("Status", Cell::With(job_status)),
    column("Completions", Cell::With(completions)),
    column("Duration", Cell::With(duration)),
    AGE,
    wide("Containers", Cell::With(containers)),
    wide("Images", Cell::With(images)),
    wide("Selector", Cell::With(selector)),
];

pub(crate) const CRON_JOB: &[Column] = &[
    NAME,
    column("Schedule", Cell::Text("spec.schedule", "")),
    column("Timezone", Cell::Text("spec.timeZone", NONE)),
    column("Suspend", Cell::With(suspended)),
    number("Active", Cell::With(|object, _| list(object, "status.active").len().into())),
    column("Last Schedule", Cell::With(last_schedule)),
    AGE,
    wide("Containers", Cell::With(|object, _| of_job(object, containers))),
    wide("Images", Cell::With(|object, _| of_job(object, images))),
    wide("Selector", Cell::With(|object, _| of_job(object, selector))),
];

pub(crate) const AUTOSCALER: &[Column] = &[
    NAME,
    column("Reference", Cell::With(reference)),
    column("Targets", Cell::With(targets)),
    column("MinPods", Cell::Text("spec.minReplicas", "<unset>")),
    number("MaxPods", Cell::Number("spec.maxReplicas")),
    number("Replicas", Cell::Number("status.currentReplicas")),
    AGE,
];

pub(crate) const AUTOSCALER_V1: &[Column] = &[
    NAME,
    column("Reference", Cell::With(reference)),
    column(
        "Targets",
        Cell::With(|object, now| targets(&crate::convert::autoscaler(object.clone(), "autoscaling/v2"), now)),
    ),
    column("MinPods", Cell::Text("spec.minReplicas", "<unset>")),
    number("MaxPods", Cell::Number("spec.maxReplicas")),
    number("Replicas", Cell::Number("status.currentReplicas")),
    AGE,
];

pub(crate) const DISRUPTION_BUDGET: &[Column] = &[
    NAME,
    column("Min Available", Cell::Text("spec.minAvailable", "N/A")),
    column("Max Unavailable", Cell::Text("spec.maxUnavailable", "N/A")),
    number("Allowed Disruptions", Cell::Number("status.disruptionsAllowed")),
    AGE,
];

fn condition(job: &Value, kind: &str) -> bool {
    let mut conditions = list(job, "status.conditions").iter();
    conditions.any(|each| text(each, "type") == kind && text(each, "status") == "True")
}

fn job_status(job: &Value, _: Timestamp) -> Value {
    if at(job, "metadata.deletionTimestamp").is_some() && !condition(job, "Complete") && !condition(job, "Failed") {
        return "Terminating".into();
    }
    let words = ["Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet"];
    words.into_iter().find(|kind| condition(job, kind)).unwrap_or("Running").into()
}

fn completions(job: &Value, _: Timestamp) -> Value {
    let done = integer(job, "status.succeeded").unwrap_or(0);
    match (integer(job, "spec.completions"), integer(job, "spec.parallelism").unwrap_or(0)) {
        (Some(wanted), _) => format!("{done}/{wanted}").into(),
        (None, parallelism) if parallelism > 1 => format!("{done}/1 of {parallelism}").into(),
        (None, _) => format!("{done}/1").into(),
    }
}

fn duration(job: &Value, now: Timestamp) -> Value {
    let time = |path: &str| text(job, path).parse::<Timestamp>().ok();
    let Some(start) = time("status.startTime") else { return "".into() };
    human_duration(time("status.completionTime").unwrap_or(now).duration_since(start).as_secs()).into()
}

fn last_schedule(job: &Value, now: Timestamp) -> Value {
    let last = text(job, "status.lastScheduleTime");
    if last.is_empty() { NONE.into() } else { since(last, now).into() }
}

/// A cell of the job that a cron job makes.
fn of_job(object: &Value, cell: fn(&Value, Timestamp) -> Value) -> Value {
    let empty = Value::Null;
    cell(at(object, "spec.jobTemplate").unwrap_or(&empty), Timestamp::UNIX_EPOCH)
}

fn reference(scaler: &Value, _: Timestamp) -> Value {
    let target = |field: &str| text(scaler, &format!("spec.scaleTargetRef.{field}")).to_owned();
    format!("{}/{}", target("kind"), target("name")).into()
}

/// What is measured and what is wanted, for up to two metrics.
fn targets(scaler: &Value, _: Timestamp) -> Value {
    const SHOWN: usize = 2;
    let metrics = list(scaler, "spec.metrics");
    if metrics.is_empty() {
        return NONE.into();
    }
    let current = list(scaler, "status.currentMetrics");
    let all: Vec<String> =
        metrics.iter().take(SHOWN).enumerate().map(|(index, metric)| one_target(metric, current.get(index))).collect();
    let shown = all.join(", ");
    if metrics.len() > SHOWN { format!("{shown} + {} more...", metrics.len() - SHOWN).into() } else { shown.into() }
}

fn one_target(metric: &Value, current: Option<&Value>) -> String {
    let kind = text(metric, "type");
    let field = format!("{}{}", kind.get(..1).unwrap_or("").to_lowercase(), kind.get(1..).unwrap_or(""));
    let empty = Value::Null;
    let source = metric.get(&field).unwrap_or(&empty);
    let now = current.and_then(|current| current.get(&field)?.get("current")).unwrap_or(&empty);
    let amount = |value: &Value, field: &str| match at(value, field) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let unknown = || "<unknown>".to_owned();
    let (present, wanted) = match text(source, "target.type") {
        "Utilization" => {
            let share = |value: &Value, field: &str| amount(value, field).map(|share| format!("{share}%"));
            (share(now, "averageUtilization"), share(source, "target.averageUtilization"))
        }
        "AverageValue" => {
            let wanted = amount(source, "target.averageValue");
            let mark = if matches!(kind, "Object" | "External") { " (avg)" } else { "" };
            (amount(now, "averageValue"), wanted.map(|wanted| format!("{wanted}{mark}")))
        }
        _ => (amount(now, "value"), amount(source, "target.value")),
    };
    let prefix = match kind {
        "Resource" | "ContainerResource" => format!("{}: ", text(source, "name")),
        _ => String::new(),
    };
    format!("{prefix}{}/{}", present.unwrap_or_else(unknown), wanted.unwrap_or_else(|| "<auto>".to_owned()))
}

/// As a word with a capital.
fn suspended(job: &Value, _: Timestamp) -> Value {
    if flag(job, "spec.suspend") { "True".into() } else { "False".into() }
}
