//! What the rows of roles, certificates and of what extends the API say.

use jiff::Timestamp;
use serde_json::Value;

use super::human::human_duration;
use super::{AGE, NAME, NONE, column, number, wide};
use crate::lookup::{at, entries, integer, list, text};
use crate::resource::{Cell, Column};

/// A kind that shows the moment of its birth instead of its age.
pub(crate) const CREATED: &[Column] =
    &[NAME, Column { kind: "date", ..column("Created At", Cell::Text("metadata.creationTimestamp", "")) }];

pub(crate) const ROLE_BINDING: &[Column] = &[
    NAME,
    column("Role", Cell::With(role)),
    AGE,
    wide("Users", Cell::With(|object, _| subjects(object, "User"))),
    wide("Groups", Cell::With(|object, _| subjects(object, "Group"))),
    wide("ServiceAccounts", Cell::With(|object, _| subjects(object, "ServiceAccount"))),
];

pub(crate) const SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    column("SignerName", Cell::Text("spec.signerName", NONE)),
    column("Requestor", Cell::Text("spec.username", "")),
    column("RequestedDuration", Cell::With(requested)),
    column("Condition", Cell::With(verdict)),
];

pub(crate) const FLOW_SCHEMA: &[Column] = &[
    NAME,
    column("PriorityLevel", Cell::Text("spec.priorityLevelConfiguration.name", NONE)),
    number("MatchingPrecedence", Cell::Number("spec.matchingPrecedence")),
    column("DistinguisherMethod", Cell::Text("spec.distinguisherMethod.type", NONE)),
    AGE,
    column("MissingPL", Cell::With(|object, _| condition(object, "Dangling").unwrap_or("?").into())),
];

pub(crate) const PRIORITY_LEVEL: &[Column] = &[
    NAME,
    column("Type", Cell::Text("spec.type", "")),
    column("NominalConcurrencyShares", Cell::With(shares)),
    column("Queues", Cell::Text("spec.limited.limitResponse.queuing.queues", NONE)),
    column("HandSize", Cell::Text("spec.limited.limitResponse.queuing.handSize", NONE)),
    column("QueueLengthLimit", Cell::Text("spec.limited.limitResponse.queuing.queueLengthLimit", NONE)),
    AGE,
];

pub(crate) const WEBHOOKS: &[Column] =
    &[NAME, number("Webhooks", Cell::With(|object, _| list(object, "webhooks").len().into())), AGE];

pub(crate) const VALIDATING_POLICY: &[Column] = &[
    NAME,
    number("Validations", Cell::With(|object, _| list(object, "spec.validations").len().into())),
    column("ParamKind", Cell::With(param_kind)),
    AGE,
];

pub(crate) const MUTATING_POLICY: &[Column] = &[
    NAME,
    number("Mutations", Cell::With(|object, _| list(object, "spec.mutations").len().into())),
    column("ParamKind", Cell::With(param_kind)),
    AGE,
];

pub(crate) const POLICY_BINDING: &[Column] =
    &[NAME, column("PolicyName", Cell::Text("spec.policyName", "")), column("ParamRef", Cell::With(param_ref)), AGE];

pub(crate) const API_SERVICE: &[Column] =
    &[NAME, column("Service", Cell::With(service)), column("Available", Cell::With(available)), AGE];

pub(crate) const PRIORITY_CLASS: &[Column] = &[
    NAME,
    number("Value", Cell::Number("value")),
    column("Global-Default", Cell::Text("globalDefault", "false")),
    AGE,
    column("PreemptionPolicy", Cell::Text("preemptionPolicy", "PreemptLowerPriority")),
];

pub(crate) const RUNTIME_CLASS: &[Column] = &[NAME, column("Handler", Cell::Text("handler", "")), AGE];

pub(crate) const QUOTA: &[Column] = &[
    NAME,
    column("Request", Cell::With(|object, _| used(object, false))),
    column("Limit", Cell::With(|object, _| used(object, true))),
    AGE,
];

fn role(binding: &Value, _: Timestamp) -> Value {
    format!("{}/{}", text(binding, "roleRef.kind"), text(binding, "roleRef.name")).into()
}

fn subjects(binding: &Value, kind: &str) -> Value {
    let all = list(binding, "subjects").iter().filter(|subject| text(subject, "kind") == kind);
    let names = all.map(|subject| match kind {
        "ServiceAccount" => format!("{}/{}", text(subject, "namespace"), text(subject, "name")),
        _ => text(subject, "name").to_owned(),
    });
    names.collect::<Vec<_>>().join(", ").into()
}

fn requested(request: &Value, _: Timestamp) -> Value {
    integer(request, "spec.expirationSeconds").map_or_else(|| NONE.to_owned(), human_duration).into()
}

fn verdict(request: &Value, _: Timestamp) -> Value {
    let said = |kind: &str| list(request, "status.conditions").iter().any(|each| text(each, "type") == kind);
    let mut words = match (said("Denied"), said("Approved")) {
        (true, _) => vec!["Denied"],
        (false, true) => vec!["Approved"],
        (false, false) => vec!["Pending"],
    };
    if said("Failed") {
        words.push("Failed");
    }
    if !text(request, "status.certificate").is_empty() {
        words.push("Issued");
    }
    words.join(",").into()
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let found = list(object, "status.conditions").iter().find(|each| text(each, "type") == kind)?;
    Some(text(found, "status"))
}

fn shares(level: &Value, _: Timestamp) -> Value {
    let found =
        ["limited", "exempt"].iter().find_map(|kind| integer(level, &format!("spec.{kind}.nominalConcurrencyShares")));
    found.map_or_else(|| NONE.to_owned(), |shares| shares.to_string()).into()
}

fn param_kind(policy: &Value, _: Timestamp) -> Value {
    let Some(kind) = at(policy, "spec.paramKind") else { return "<unset>".into() };
    format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind")).into()
}

fn param_ref(binding: &Value, _: Timestamp) -> Value {
    let Some(reference) = at(binding, "spec.paramRef") else { return "<unset>".into() };
    let (namespace, name) = (text(reference, "namespace"), text(reference, "name"));
    let name = if name.is_empty() { "*" } else { name };
    if namespace.is_empty() { name.into() } else { format!("{namespace}/{name}").into() }
}

fn service(object: &Value, _: Timestamp) -> Value {
    let Some(service) = at(object, "spec.service") else { return "Local".into() };
    format!("{}/{}", text(service, "namespace"), text(service, "name")).into()
}

fn available(object: &Value, _: Timestamp) -> Value {
    let found = list(object, "status.conditions").iter().find(|each| text(each, "type") == "Available");
    let Some(found) = found else { return "Unknown".into() };
    match (text(found, "status"), text(found, "reason")) {
        ("True", _) | (_, "") => text(found, "status").into(),
        (status, reason) => format!("{status} ({reason})").into(),
    }
}

/// What is used of each amount that is granted: of limits, or of everything else.
fn used(quota: &Value, limits: bool) -> Value {
    let mut names: Vec<&str> = entries(quota, "status.hard").map(|(name, _)| name).collect();
    names.retain(|name| name.starts_with("limits") == limits);
    names.sort_unstable();
    let amount = |list: &str, name: &str| {
        let found = quota.get("status").and_then(|status| status.get(list)?.get(name)?.as_str());
        found.unwrap_or("0").to_owned()
    };
    let shown = names.iter().map(|name| format!("{name}: {}/{}", amount("used", name), amount("hard", name)));
    shown.collect::<Vec<_>>().join(", ").into()
}
