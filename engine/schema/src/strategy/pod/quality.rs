//! The quality of service that a pod's requests and limits amount to.

use serde_json::Value;

use super::resources::nanos;
use crate::lookup;

/// `Guaranteed` when every container's processor and memory are limited and requested alike, `BestEffort` when nothing
/// is said, else `Burstable`.
pub(super) fn class(spec: &Value) -> &'static str {
    let mut containers = lookup::list(spec, "initContainers").iter().chain(lookup::list(spec, "containers")).peekable();
    if containers.peek().is_none() {
        return "BestEffort";
    }
    let (mut says_something, mut guaranteed) = (false, true);
    for container in containers {
        for name in ["cpu", "memory"] {
            let amount = |list: &str| {
                lookup::at(container, "resources")
                    .and_then(|all| nanos(all.get(list)?.get(name)?))
                    .filter(|amount| *amount > 0)
            };
            let (limit, request) = (amount("limits"), amount("requests"));
            says_something |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (says_something, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
