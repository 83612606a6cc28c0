//! The quality of service that a pod's requests and limits amount to.

use serde_json::Value;

use super::resources::nanos;
use crate::lookup;

/// `Guaranteed` when every container's processor and memory are limited and requested alike, `BestEffort` when nothing
/// is said, else `Burstable`. Where the pod as a whole has amounts, they count instead of its containers'.
pub(super) fn class(spec: &Value) -> &'static str {
    let whole = amounts(spec);
    let containers = lookup::list(spec, "initContainers").iter().chain(lookup::list(spec, "containers"));
    let all: Vec<(Option<i128>, Option<i128>)> =
        if whole == [(None, None); 2] { containers.flat_map(amounts).collect() } else { whole.to_vec() };
    let says_something = all.iter().any(|amounts| *amounts != (None, None));
    let guaranteed = all.iter().all(|(request, limit)| limit.is_some() && request.or(*limit) == *limit);
    match (says_something, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Request and limit of processor and memory of what has `resources`; nothing is none.
fn amounts(holder: &Value) -> [(Option<i128>, Option<i128>); 2] {
    ["cpu", "memory"].map(|name| {
        let amount = |list: &str| {
            lookup::at(holder, "resources")
                .and_then(|all| nanos(all.get(list)?.get(name)?))
                .filter(|amount| *amount > 0)
        };
        (amount("requests"), amount("limits"))
    })
}
