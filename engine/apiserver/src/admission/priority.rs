//! Priority classes: a pod's class becomes a number, and at most one class is everybody's.

use serde_json::Value;

use super::{Operation, Request};
use crate::error::ApiError;

/// How pods behave towards lesser ones when their class does not say.
const PREEMPTS: &str = "PreemptLowerPriority";

/// Works out a pod's priority; an update keeps it.
pub(super) fn resolve(request: &Request<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if !pod["spec"].is_object() {
        return Ok(());
    }
    if let (Operation::Update, Some(old)) = (request.operation, request.old) {
        for field in ["priority", "preemptionPolicy"] {
            if pod["spec"][field].is_null() && !old["spec"][field].is_null() {
                pod["spec"][field] = old["spec"][field].clone();
            }
        }
        return Ok(());
    }
    let (priority, policy) = match class(request, &pod["spec"])? {
        Some(class) => {
            pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
            let policy = class["preemptionPolicy"].as_str().unwrap_or(PREEMPTS).to_owned();
            (class["value"].as_i64().unwrap_or(0), policy)
        }
        None => (0, PREEMPTS.to_owned()),
    };
    let spec = &mut pod["spec"];
    if let Some(given) = spec["priority"].as_i64().filter(|given| *given != priority) {
        return Err(request.forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        )));
    }
    if let Some(given) = spec["preemptionPolicy"].as_str().filter(|given| *given != policy) {
        return Err(request.forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    spec["priority"] = priority.into();
    spec["preemptionPolicy"] = policy.into();
    Ok(())
}

/// The class that a pod names, or everybody's.
fn class(request: &Request<'_>, spec: &Value) -> Result<Option<Value>, ApiError> {
    let classes = &request.call.server.admission().tables.priority_classes;
    match spec["priorityClassName"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => {
            let found = classes.get(name).map(|class| class.value());
            found.map(Some).ok_or_else(|| request.forbidden(format!("no PriorityClass with name {name} was found")))
        }
        None => Ok(default_class(request)),
    }
}

/// Everybody's class; the lowest, should there be several.
fn default_class(request: &Request<'_>) -> Option<Value> {
    let server = &request.call.server;
    let classes = server.cache().snapshot(&server.admission().tables.priority_classes, None, None).objects;
    let defaults = classes.iter().map(|class| class.value()).filter(|class| class["globalDefault"] == true);
    defaults.min_by_key(|class| class["value"].as_i64().unwrap_or(0))
}

/// Refuses a second class for everybody.
pub(super) fn check(request: &Request<'_>, class: &Value) -> Result<(), ApiError> {
    if class["globalDefault"] != true {
        return Ok(());
    }
    match default_class(request) {
        Some(other) if other["metadata"]["name"] != class["metadata"]["name"] => {
            let name = other["metadata"]["name"].as_str().unwrap_or_default();
            let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
            Err(request.forbidden(why))
        }
        _ => Ok(()),
    }
}
