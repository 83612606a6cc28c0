//! Evictions: deletions that keep to the disruption budget of the pod.
//!
//! How many pods of a budget may go, its controller says in its status. An eviction takes one of them in a write of its own
//! before the pod is deleted, so that two evictions never share one; the controller sees the rest.

use std::sync::Arc;

use serde_json::{Value, json};
use shipway_schema::selector::LabelSelector;

use crate::ApiServer;
use crate::admission::{self, Operation, Request};
use crate::cache::Table;
use crate::call::Call;
use crate::clock;
use crate::commit::Place;
use crate::decode;
use crate::delete::{DeleteOptions, delete};
use crate::error::{About, ApiError, Denial};
use crate::object::Object;

const ATTEMPTS: usize = 16;
/// The most evictions that a budget's controller has not seen the end of.
const UNCONFIRMED: usize = 2000;

/// Evicts a pod: a delete with the options that the eviction carries, if its budget allows.
pub(crate) async fn evict(call: &Call, place: &Place) -> Result<(), ApiError> {
    let mut eviction = decode::decode(call)?.value;
    admission::admit_below(call, place, Operation::Create, "eviction", &mut eviction).await?;
    if eviction["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty() && name != place.name) {
        return Err(ApiError::BadRequest("name in URL does not match name in Eviction object".into()));
    }
    let options = DeleteOptions::of_eviction(call, &eviction)?;
    // Before a budget is spent: who may not delete the pod does not make it poorer.
    let pod = place.table.get(&place.key()).ok_or_else(|| ApiError::NotFound(place.about()))?.value();
    admission::restrict(&Request::delete(call, place, &pod, options.is_dry_run()))?;
    take(&call.server, place, options.is_dry_run()).await?;
    delete(call, place, &options).await.map(drop)
}

/// Says in the status of a pod why it goes, for whoever judges its end.
pub(crate) fn tell(pod: &mut Value) {
    let status = &mut pod["status"];
    let said = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": clock::text(clock::now()),
    });
    match status["conditions"].as_array_mut() {
        Some(conditions) => {
            conditions.retain(|one| one["type"] != said["type"]);
            conditions.push(said);
        }
        None => status["conditions"] = json!([said]),
    }
}

/// Takes the pod out of its budget.
async fn take(server: &ApiServer, place: &Place, dry_run: bool) -> Result<(), ApiError> {
    let table = server.cache().named("policy", "poddisruptionbudgets");
    for _ in 0..ATTEMPTS {
        server.cache().catch_up().await?;
        let pod = place.table.get(&place.key()).ok_or_else(|| ApiError::NotFound(place.about()))?.value();
        let found = if disrupts(&pod) { budgets(server, &table, &pod) } else { Vec::new() };
        let budget = match found.as_slice() {
            [] => return Ok(()),
            [only] => only,
            _ => return Err(several()),
        };
        let Some(next) = spent(budget.value(), &pod)? else { return Ok(()) };
        if dry_run || admission::put(server, &table, budget, &next).await?.is_some() {
            return Ok(());
        }
    }
    Err(ApiError::Unavailable("couldn't update the PodDisruptionBudget due to conflicts".into()))
}

/// Whether it makes a difference to anybody that the pod goes.
fn disrupts(pod: &Value) -> bool {
    !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
        && pod["metadata"]["deletionTimestamp"].is_null()
}

/// The budgets that are about a pod.
fn budgets(server: &ApiServer, table: &Table, pod: &Value) -> Vec<Arc<Object>> {
    let labels = &pod["metadata"]["labels"];
    let meant = |budget: &Arc<Object>| {
        let selector = &budget.value()["spec"]["selector"];
        !selector.is_null()
            && LabelSelector::from_value(selector).is_ok_and(|selector| selector.matches(|key| labels[key].as_str()))
    };
    let all = server.cache().snapshot(table, pod["metadata"]["namespace"].as_str(), None).objects;
    all.into_iter().filter(meant).collect()
}

/// The budget with one pod less to go; none where the pod may go without being counted.
fn spent(mut budget: Value, pod: &Value) -> Result<Option<Value>, ApiError> {
    let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let (healthy, desired, allowed) =
        (number("currentHealthy"), number("desiredHealthy"), number("disruptionsAllowed"));
    if !is_ready(pod) {
        let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        if always || (desired > 0 && healthy >= desired) {
            return Ok(None);
        }
    }
    let name = budget["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(&why, Some(10)));
    }
    let forbidden = |why: &str| {
        let about = About { group: "policy".into(), resource: "poddisruptionbudget".into(), name: name.clone() };
        ApiError::Forbidden(about, why.into())
    };
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    if allowed == 0 {
        let why = format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
        return Err(refused(&why, None));
    }
    let mut gone = budget["status"]["disruptedPods"].as_object().cloned().unwrap_or_default();
    if gone.len() > UNCONFIRMED {
        return Err(forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
    }
    gone.insert(pod["metadata"]["name"].as_str().unwrap_or_default().into(), clock::text(clock::now()).into());
    budget["status"]["disruptedPods"] = gone.into();
    budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
    Ok(Some(budget))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

fn several() -> ApiError {
    let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    Denial { code: 500, reason: String::new(), message: message.into(), details: None }.into()
}

fn refused(why: &str, after: Option<u64>) -> ApiError {
    let mut details = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
    if let Some(seconds) = after {
        details["retryAfterSeconds"] = seconds.into();
    }
    let message = "Cannot evict pod as it would violate the pod's disruption budget.".to_owned();
    Denial { code: 429, reason: "TooManyRequests".into(), message, details: Some(details) }.into()
}
