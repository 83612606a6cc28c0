//! Whether the servers behind this one can be asked: bounded checks, written into the objects' status when the answer
//! changes. What a server says it serves is kept for discovery.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use http::header::ACCEPT;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::forward::{self, Asked};
use super::route::{Route, condition};
use super::{GROUP, PLURAL, routes};
use crate::ApiServer;
use crate::body::{self, full};
use crate::clock;
use crate::custom;
use crate::error::ApiError;
use crate::identity::{Identity, MASTERS};

/// How often a server that can be asked is checked, and one that cannot.
const EVERY: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(5)];
/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many servers are checked at once.
const AT_ONCE: usize = 8;
/// The most that is read of what a server serves, in bytes.
const DOCUMENT: usize = 1024 * 1024;
/// As whom the checks are made.
const CHECKER: &str = "system:kube-aggregator";

/// What a check found.
pub(super) struct Found {
    /// What was checked: another address or other trust needs another check.
    spec: u64,
    next: Instant,
    /// The reason and the words of what stood against it; none when it was passed.
    problem: Option<(&'static str, String)>,
    /// The `resources` of the server's own `APIResourceList`, as it was last seen.
    pub(super) resources: Option<Arc<Value>>,
}

impl Found {
    /// Whether the last check was passed.
    pub(super) fn is_well(&self) -> bool {
        self.problem.is_none()
    }

    /// Lets the next look check again.
    pub(super) fn expire(&mut self) {
        self.next = Instant::now();
    }
}

fn fingerprint(route: &Route) -> u64 {
    let mut hasher = DefaultHasher::new();
    let service = &route.service;
    (&service.namespace, &service.name, service.port, &route.bundle, route.blind).hash(&mut hasher);
    hasher.finish()
}

/// Checks what is due and writes down what changed. Says when the next check is due; never, when there is nothing to
/// check.
pub(super) async fn all(server: &ApiServer) -> Result<Option<Duration>, ApiError> {
    let routes = routes(server);
    let of = server.aggregation();
    let lock = || of.found.lock().unwrap_or_else(PoisonError::into_inner);
    lock().retain(|name, _| routes.iter().any(|route| route.object == *name));
    let checks: Vec<_> = routes.iter().map(|route| one(server, route).boxed()).collect();
    futures::stream::iter(checks).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    for route in &routes {
        report(server, route).await?;
    }
    let now = Instant::now();
    Ok(lock().values().map(|found| found.next.saturating_duration_since(now)).min())
}

/// Checks one server, if that is due or something about its service has changed.
async fn one(server: &ApiServer, route: &Route) {
    let of = server.aggregation();
    let lock = || of.found.lock().unwrap_or_else(PoisonError::into_inner);
    let (spec, obstacle) = (fingerprint(route), of.services.obstacle(&route.service));
    let missing = obstacle.as_ref().map(|(reason, _)| *reason);
    let known = lock().get(&route.object).is_some_and(|found| {
        let before = found.problem.as_ref().map(|(reason, _)| *reason).filter(|reason| *reason != FAILED);
        found.spec == spec && found.next > Instant::now() && before == missing
    });
    if known {
        return;
    }
    let answer = match obstacle {
        Some(obstacle) => Err(obstacle),
        None => probe(server, route).await.map_err(|problem| (FAILED, problem)),
    };
    let mut found = lock();
    let before = found.remove(&route.object).filter(|found| found.spec == spec).and_then(|found| found.resources);
    let (problem, resources) = match answer {
        Ok(resources) => (None, resources.or(before)),
        Err(problem) => (Some(problem), before),
    };
    let next = Instant::now() + EVERY[usize::from(problem.is_some())];
    found.insert(route.object.clone(), Found { spec, next, problem, resources });
}

const FAILED: &str = "FailedDiscoveryCheck";

/// Asks the server what it serves.
async fn probe(server: &ApiServer, route: &Route) -> Result<Option<Arc<Value>>, String> {
    let url = format!("https://{}:{}{}", route.server_name(), route.service.port, route.root());
    let failed = |problem: String| format!("failing or missing response from {url}: {problem}");
    let request = Request::builder().method(Method::GET).uri(route.root()).header(ACCEPT, "application/json");
    let request = request.body(full(bytes::Bytes::new())).map_err(|error| failed(error.to_string()))?;
    let (head, body) = request.into_parts();
    // Dropped with the check, so that no connection outlives it.
    let stop = CancellationToken::new();
    let _ended = stop.clone().drop_guard();
    let asked = Asked { identity: Arc::new(Identity::new(CHECKER, &[MASTERS])), head, body, stop };
    let asking = async {
        let response = forward::send(server.aggregation(), route, asked).await.map_err(|error| error.to_string())?;
        let code = response.status();
        if !code.is_success() {
            return Err(format!("bad status from {url}: {}", code.as_u16()));
        }
        body::read(response.into_body(), DOCUMENT).await.map_err(|error| error.to_string())
    };
    let bytes = tokio::time::timeout(PATIENCE, asking).await;
    let bytes = bytes.map_err(|_| failed("context deadline exceeded".into()))?.map_err(failed)?;
    let document: Option<Value> = serde_json::from_slice(&bytes).ok();
    Ok(document.and_then(|mut list| Some(Arc::new(list.get_mut("resources")?.take()))))
}

/// Writes into the status what the last check found, where it says something else.
async fn report(server: &ApiServer, route: &Route) -> Result<(), ApiError> {
    let of = server.aggregation();
    let wanted = {
        let found = of.found.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = found.get(&route.object) else { return Ok(()) };
        match &found.problem {
            None => json!({"type": "Available", "status": "True", "reason": "Passed", "message": "all checks passed"}),
            Some((reason, message)) => {
                json!({"type": "Available", "status": "False", "reason": reason, "message": message})
            }
        }
    };
    let Some(live) = of.table.get(&route.object) else { return Ok(()) };
    let Some(status) = changed(&live.value(), wanted, &clock::text(clock::now())) else { return Ok(()) };
    let path = format!("/apis/{GROUP}/v1/{PLURAL}/{}/status", route.object);
    let wish = json!({"metadata": {"resourceVersion": live.revision.to_string()}, "status": status});
    custom::send(server, Method::PATCH, &path, "application/merge-patch+json", &wish).await
}

/// The status with a condition, if that says something else than before; its time is that of the last change of its
/// truth.
pub(super) fn changed(object: &Value, mut wanted: Value, now: &str) -> Option<Value> {
    let before = condition(object);
    let same = |field: &str| before.is_some_and(|before| before[field] == wanted[field]);
    if ["status", "reason", "message"].into_iter().all(same) {
        return None;
    }
    wanted["lastTransitionTime"] = match before.filter(|_| same("status")) {
        Some(before) => before["lastTransitionTime"].clone(),
        None => now.into(),
    };
    let others = object["status"]["conditions"].as_array().into_iter().flatten();
    let mut conditions: Vec<Value> = others.filter(|own| own["type"] != wanted["type"]).cloned().collect();
    conditions.push(wanted);
    Some(json!({ "conditions": conditions }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_when_it_says_something_else() {
        let of = |status: &str, reason: &str| json!({"type": "Available", "status": status, "reason": reason, "message": "m"});
        let first = changed(&json!({}), of("False", "A"), "t1").expect("there was none");
        assert_eq!(first["conditions"][0]["lastTransitionTime"], "t1");
        let object = json!({"status": first});
        assert_eq!(changed(&object, of("False", "A"), "t2"), None);
        let other = changed(&object, of("False", "B"), "t2").expect("another reason");
        assert_eq!(other["conditions"][0]["lastTransitionTime"], "t1");
        let mut two = object;
        two["status"]["conditions"].as_array_mut().expect("a list").push(json!({"type": "Other", "status": "True"}));
        let other = changed(&two, of("True", "A"), "t3").expect("the truth changed");
        assert_eq!(other["conditions"][0]["type"], "Other");
        assert_eq!(other["conditions"][1]["lastTransitionTime"], "t3");
    }
}
