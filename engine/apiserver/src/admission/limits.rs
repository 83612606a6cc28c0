//! Limit ranges: what containers get when they say nothing, and how little and how much they, their pods and claims may
//! ask for.

use serde_json::{Map, Value};
use shipway_schema::quantity::Quantity;

use super::Request;
use super::resources::{self, Amounts};
use crate::error::ApiError;

/// Says in a pod what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// One entry of a limit range.
struct Limit {
    /// `Container`, `Pod` or `PersistentVolumeClaim`.
    on: String,
    min: Amounts,
    max: Amounts,
    ratio: Amounts,
    /// As written, so that pods get them as written.
    default: Map<String, Value>,
    default_request: Map<String, Value>,
}

impl Limit {
    fn parse(limit: &Value) -> Self {
        let map = |field: &str| limit[field].as_object().cloned().unwrap_or_default();
        let on = limit["type"].as_str().unwrap_or_default().to_owned();
        let (mut default, mut default_request) = (map("default"), map("defaultRequest"));
        if on == "Container" {
            // What is not said follows from what is: a default from the most, a request from the default or the least.
            fill(&mut default, &map("max"));
            fill(&mut default_request, &default);
            fill(&mut default_request, &map("min"));
        }
        let amounts = |field: &str| resources::amounts(&limit[field]);
        Self {
            on,
            min: amounts("min"),
            max: amounts("max"),
            ratio: amounts("maxLimitRequestRatio"),
            default,
            default_request,
        }
    }

    fn check(&self, requests: &Amounts, limits: &Amounts, why: &mut Vec<String>) {
        let on = &self.on;
        for (name, least) in &self.min {
            let head = format!("minimum {name} usage per {on} is {least}");
            match (requests.get(name), limits.get(name)) {
                (None, _) => why.push(format!("{head}.  No request is specified")),
                (Some(request), _) if request < least => why.push(format!("{head}, but request is {request}")),
                (_, Some(limit)) if limit < least => why.push(format!("{head}, but limit is {limit}")),
                _ => {}
            }
        }
        for (name, most) in &self.max {
            let head = format!("maximum {name} usage per {on} is {most}");
            match (requests.get(name), limits.get(name)) {
                (_, None) => why.push(format!("{head}.  No limit is specified")),
                (_, Some(limit)) if limit > most => why.push(format!("{head}, but limit is {limit}")),
                (Some(request), _) if request > most => why.push(format!("{head}, but request is {request}")),
                _ => {}
            }
        }
        for (name, most) in &self.ratio {
            why.extend(ratio(on, name, most, requests.get(name), limits.get(name)));
        }
    }

    fn check_claim(&self, requests: &Amounts, why: &mut Vec<String>) {
        for (name, least) in &self.min {
            let head = format!("minimum {name} usage per {} is {least}", self.on);
            match requests.get(name) {
                None => why.push(format!("{head}.  No request is specified")),
                Some(request) if request < least => why.push(format!("{head}, but request is {request}")),
                Some(_) => {}
            }
        }
        for (name, most) in &self.max {
            let head = format!("maximum {name} usage per {} is {most}", self.on);
            match requests.get(name) {
                None => why.push(format!("{head}.  No request is specified")),
                Some(request) if request > most => why.push(format!("{head}, but request is {request}")),
                Some(_) => {}
            }
        }
    }
}

/// How many times its request a limit may be.
#[allow(clippy::cast_precision_loss)] // A ratio is compared and shown with a few digits.
fn ratio(
    on: &str,
    name: &str,
    most: &Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {on} is {most}");
    let given = |amount: Option<&Quantity>| amount.filter(|amount| !amount.is_zero()).map(Quantity::to_nanos);
    let Some(request) = given(request) else {
        return Some(format!("{head}, but no request is specified or request is 0"));
    };
    let Some(limit) = given(limit) else { return Some(format!("{head}, but no limit is specified or limit is 0")) };
    let observed = limit as f64 / request as f64;
    let allowed = most.to_nanos() as f64 / Quantity::from_units(1).to_nanos() as f64;
    (observed > allowed).then(|| format!("{head}, but provided ratio is {observed:.6}"))
}

fn fill(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (name, amount) in from {
        if !into.contains_key(name) {
            into.insert(name.clone(), amount.clone());
        }
    }
}

/// All entries that hold in the request's namespace.
fn limits(request: &Request<'_>) -> Vec<Limit> {
    let server = &request.call.server;
    let ranges = server.cache().snapshot(&server.admission().tables.limit_ranges, request.namespace(), None).objects;
    let ranges: Vec<Value> = ranges.iter().map(|range| range.value()).collect();
    ranges.iter().flat_map(|range| range["spec"]["limits"].as_array().into_iter().flatten()).map(Limit::parse).collect()
}

/// Gives containers the requests and limits that they leave open.
pub(super) fn default(request: &Request<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let (mut requests, mut most) = (Map::new(), Map::new());
    for limit in limits(request).iter().filter(|limit| limit.on == "Container") {
        fill(&mut requests, &limit.default_request);
        fill(&mut most, &limit.default);
    }
    if requests.is_empty() && most.is_empty() {
        return Ok(());
    }
    let mut said = Vec::new();
    for (list, kind) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|one| one.is_object()) {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (field, word, amounts) in [("requests", "request", &requests), ("limits", "limit", &most)] {
                let set = set(container, field, amounts);
                if !set.is_empty() {
                    said.push(format!("{} {word} for {kind} {name}", set.join(", ")));
                }
            }
        }
    }
    if !said.is_empty() && pod["metadata"].is_object() {
        if !pod["metadata"]["annotations"].is_object() {
            pod["metadata"]["annotations"] = Map::new().into();
        }
        pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", said.join("; ")).into();
    }
    Ok(())
}

/// Fills in what a container leaves open; gives the names of what was filled in.
fn set(container: &mut Value, field: &str, amounts: &Map<String, Value>) -> Vec<String> {
    if !container["resources"].is_object() {
        container["resources"] = Map::new().into();
    }
    let own = &mut container["resources"][field];
    let mut missing: Vec<&String> = amounts.keys().filter(|name| own[name.as_str()].is_null()).collect();
    missing.sort_unstable();
    if !missing.is_empty() && !own.is_object() {
        *own = Map::new().into();
    }
    for name in &missing {
        own[name.as_str()] = amounts[name.as_str()].clone();
    }
    if own.is_null()
        && let Some(resources) = container["resources"].as_object_mut()
    {
        resources.shift_remove(field);
    }
    missing.into_iter().cloned().collect()
}

/// Refuses to make a pod's containers larger or smaller than they may be.
pub(super) fn check_resize(request: &Request<'_>, object: &Value) -> Result<(), ApiError> {
    if request.subresource == "resize" { check(request, object) } else { Ok(()) }
}

/// Refuses pods and claims outside the limits.
pub(super) fn check(request: &Request<'_>, object: &Value) -> Result<(), ApiError> {
    let limits = limits(request);
    let mut why = Vec::new();
    for limit in &limits {
        match limit.on.as_str() {
            "Container" if request.is("", "Pod") => {
                for container in resources::containers(&object["spec"]) {
                    let of = |field: &str| resources::amounts(&container["resources"][field]);
                    limit.check(&of("requests"), &of("limits"), &mut why);
                }
            }
            "Pod" if request.is("", "Pod") => {
                let of = |field: &str| resources::of_pod(&object["spec"], field);
                limit.check(&of("requests"), &of("limits"), &mut why);
            }
            "PersistentVolumeClaim" if request.is("", "PersistentVolumeClaim") => {
                limit.check_claim(&resources::amounts(&object["spec"]["resources"]["requests"]), &mut why);
            }
            _ => {}
        }
    }
    match why.as_slice() {
        [] => Ok(()),
        [only] => Err(request.forbidden(only.as_str())),
        several => Err(request.forbidden(format!("[{}]", several.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(limit: &Value, requests: &Value, limits: &Value) -> Vec<String> {
        let mut why = Vec::new();
        Limit::parse(limit).check(&resources::amounts(requests), &resources::amounts(limits), &mut why);
        why
    }

    #[test]
    fn too_little_too_much_and_too_steep_are_refused() {
        let limit = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}});
        assert_eq!(refused(&limit, &json!({"cpu": "100m"}), &json!({"cpu": "1"})), Vec::<String>::new());
        let table = [
            (json!({"cpu": "50m"}), json!({"cpu": "1"}), "minimum cpu usage per Container is 100m, but request is 50m"),
            (json!({}), json!({"cpu": "1"}), "minimum cpu usage per Container is 100m.  No request is specified"),
            (json!({"cpu": "1"}), json!({"cpu": "2"}), "maximum cpu usage per Container is 1, but limit is 2"),
            (json!({"cpu": "1"}), json!({}), "maximum cpu usage per Container is 1.  No limit is specified"),
        ];
        for (requests, limits, message) in table {
            assert_eq!(refused(&limit, &requests, &limits), [message]);
        }
        let steep = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
        assert_eq!(refused(&steep, &json!({"cpu": "500m"}), &json!({"cpu": "1"})), Vec::<String>::new());
        let message = "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000";
        assert_eq!(refused(&steep, &json!({"cpu": "500m"}), &json!({"cpu": "1500m"})), [message]);
    }

    #[test]
    fn defaults_follow_from_each_other() {
        let limit = Limit::parse(&json!({"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}));
        assert_eq!(limit.default["cpu"], "2");
        assert_eq!((&limit.default_request["cpu"], &limit.default_request["memory"]), (&json!("2"), &json!("1Mi")));
        let pod = Limit::parse(&json!({"type": "Pod", "max": {"cpu": "2"}}));
        assert!(pod.default.is_empty());
    }
}
