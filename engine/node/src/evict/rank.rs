//! Who goes first when the node is short of memory or disk: whoever uses more than it asked for, then the less important one,
//! then the one that uses the most beyond what it asked for. Pure.

use std::cmp::Reverse;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::{amount, pod};

/// From this priority on a pod is the system's own, and stays
/// (https://kubernetes.io/docs/tasks/administer-cluster/guaranteed-scheduling-critical-addon-pods/).
const CRITICAL: i32 = 2_000_000_000;

/// What the node is short of: what is left, and from what on that is too little, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    Memory { left: u64, least: u64 },
    Disk { left: u64, least: u64 },
}

impl Short {
    fn resource(self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            Self::Disk { .. } => "ephemeral-storage",
        }
    }
}

/// A pod that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) uid: String,
    priority: i32,
    asked: u64,
    used: u64,
}

impl Candidate {
    pub(super) fn new(pod: &Pod, short: Short, used: u64) -> Self {
        let spec = pod.spec.as_ref();
        let asked = |quantity: Option<&Quantity>| quantity.and_then(amount::units).unwrap_or(0);
        let of = |it: &k8s_openapi::api::core::v1::Container| {
            let resources = it.resources.as_ref();
            asked(resources.and_then(|all| all.requests.as_ref()?.get(short.resource())))
        };
        Self {
            uid: pod::uid(pod).to_owned(),
            priority: spec.and_then(|spec| spec.priority).unwrap_or(0),
            asked: spec.map_or(0, |spec| spec.containers.iter().map(of).sum()),
            used,
        }
    }

    /// What the pod's status says.
    pub(super) fn words(&self, short: Short) -> String {
        let (Short::Memory { left, least } | Short::Disk { left, least }) = short;
        format!(
            "The node was low on resource: {}. Threshold quantity: {}, available: {}. The pod was using {}, request is {}. ",
            short.resource(),
            ki(least),
            ki(left),
            ki(self.used),
            ki(self.asked)
        )
    }
}

fn ki(bytes: u64) -> String {
    if bytes == 0 { "0".to_owned() } else { format!("{}Ki", bytes / 1024) }
}

/// The first to go; none where all are the system's own.
pub(super) fn first(candidates: Vec<Candidate>) -> Option<Candidate> {
    let mortal = candidates.into_iter().filter(|pod| pod.priority < CRITICAL);
    mortal.min_by_key(|pod| {
        let beyond = pod.used.saturating_sub(pod.asked);
        (pod.used <= pod.asked, pod.priority, Reverse(beyond), pod.uid.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SHORT: Short = Short::Memory { left: 50 << 20, least: 100 << 20 };

    fn candidate(name: &str, priority: i32, asked: &str, used: u64) -> Candidate {
        let container = json!({"name": "c", "resources": {"requests": {"memory": asked}}});
        let spec = json!({"priority": priority, "containers": [container]});
        let pod = serde_json::from_value(json!({"metadata": {"uid": name}, "spec": spec})).expect("a pod");
        Candidate::new(&pod, SHORT, used << 20)
    }

    fn order(mut all: Vec<Candidate>) -> Vec<String> {
        let mut order = Vec::new();
        while let Some(next) = first(all.clone()) {
            all.retain(|one| *one != next);
            order.push(next.uid);
        }
        order
    }

    #[test]
    fn who_keeps_to_its_request_goes_last_and_the_systems_own_never() {
        let all = vec![
            candidate("modest", 0, "200Mi", 150),
            candidate("important", 1000, "10Mi", 900),
            candidate("greedy", 0, "10Mi", 300),
            candidate("little", 0, "0", 20),
            candidate("system", CRITICAL, "0", 999),
        ];
        assert_eq!(order(all), ["greedy", "little", "important", "modest"]);
    }

    #[test]
    fn the_status_says_what_was_short() {
        let said = candidate("greedy", 0, "10Mi", 300).words(SHORT);
        assert!(
            said.starts_with(
                "The node was low on resource: memory. Threshold quantity: 102400Ki, available: 51200Ki. "
            )
        );
        assert!(said.contains("was using 307200Ki, request is 10240Ki"), "{said}");
    }
}
