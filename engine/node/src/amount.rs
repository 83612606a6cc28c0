//! Quantities as the machine wants them: thousandths of a processor, bytes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths, rounded up; `None` for what is no quantity.
pub(crate) fn milli(quantity: &Quantity) -> Option<u64> {
    let parsed = shipway_schema::quantity::Quantity::parse(&quantity.0).ok()?;
    u64::try_from(parsed.to_milli()).ok()
}

/// Whole units (bytes), rounded up; `None` for what is no quantity.
pub(crate) fn units(quantity: &Quantity) -> Option<u64> {
    let parsed = shipway_schema::quantity::Quantity::parse(&quantity.0).ok()?;
    u64::try_from(parsed.to_units_rounded_up()).ok()
}

/// What this machine has to give, where a container sets no limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allocatable {
    pub(crate) cpu_milli: u64,
    pub(crate) memory: u64,
    pub(crate) storage: u64,
}

fn request<'a>(container: &'a Container, name: &str) -> Option<&'a Quantity> {
    of(container.resources.as_ref()?.requests.as_ref(), name).or_else(|| limit(container, name))
}

fn limit<'a>(container: &'a Container, name: &str) -> Option<&'a Quantity> {
    of(container.resources.as_ref()?.limits.as_ref(), name)
}

fn of<'a>(list: Option<&'a BTreeMap<String, Quantity>>, name: &str) -> Option<&'a Quantity> {
    list?.get(name)
}

/// The runtime's account of a container's requests and limits.
pub(crate) fn resources(container: &Container, pids_limit: i64) -> shipway_container::Resources {
    shipway_container::Resources {
        cpu_request_milli: request(container, "cpu").and_then(milli),
        cpu_limit_milli: limit(container, "cpu").and_then(milli),
        memory_limit: limit(container, "memory").and_then(units),
        pids_limit: Some(pids_limit),
    }
}

/// What a pod as a whole may use.
pub(crate) fn of_pod(pod: &Pod) -> shipway_container::Resources {
    let resources = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let limit = |name: &str| of(resources.and_then(|resources| resources.limits.as_ref()), name);
    shipway_container::Resources {
        cpu_limit_milli: limit("cpu").and_then(milli),
        memory_limit: limit("memory").and_then(units),
        ..shipway_container::Resources::default()
    }
}

/// How readily the kernel ends the container when memory runs out: by its pod's class, as documented in
/// https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#node-out-of-memory-behavior.
pub(crate) fn oom_score(pod: &Pod, container: &Container, allocatable: &Allocatable) -> i32 {
    match crate::status::qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let asked = request(container, "memory").and_then(units).unwrap_or(0);
            let share = asked.saturating_mul(1000) / allocatable.memory.max(1);
            1000 - i32::try_from(share).unwrap_or(1000).clamp(1, 998)
        }
    }
}

/// A `resourceFieldRef`: the amount divided by the divisor, rounded up.
pub(crate) fn resource_field(
    container: &Container,
    resource: &str,
    divisor: Option<&Quantity>,
    allocatable: &Allocatable,
) -> Result<String, String> {
    let (bound, name) =
        resource.split_once('.').ok_or_else(|| format!("unsupported container resource: {resource}"))?;
    let quantity = match bound {
        "limits" => limit(container, name),
        "requests" => request(container, name),
        _ => None,
    };
    let thousandths = match (quantity, bound, name) {
        (Some(quantity), _, _) => milli(quantity).ok_or_else(|| format!("{} is no quantity", quantity.0))?,
        (None, "limits", "cpu") => allocatable.cpu_milli,
        (None, "limits", "memory") => allocatable.memory.saturating_mul(1000),
        (None, "limits", "ephemeral-storage") => allocatable.storage.saturating_mul(1000),
        (None, "requests", "cpu" | "memory" | "ephemeral-storage") => 0,
        _ => return Err(format!("unsupported container resource: {resource}")),
    };
    let divisor = divisor.and_then(milli).filter(|divisor| *divisor > 0).unwrap_or(1000);
    Ok(thousandths.div_ceil(divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container() -> Container {
        let resources = json!({"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}});
        serde_json::from_value(json!({"name": "a", "resources": resources})).expect("a container")
    }

    #[test]
    fn a_resource_field_is_divided_and_rounded_up() {
        let here = Allocatable { cpu_milli: 4000, memory: 1 << 30, storage: 0 };
        let field = |resource: &str, divisor: Option<&str>| {
            resource_field(&container(), resource, divisor.map(|d| Quantity(d.to_owned())).as_ref(), &here)
        };
        assert_eq!(field("limits.cpu", None), Ok("2".to_owned()));
        assert_eq!(field("limits.cpu", Some("1m")), Ok("1500".to_owned()));
        assert_eq!(field("requests.memory", Some("1Mi")), Ok("64".to_owned()));
        assert_eq!(field("limits.memory", Some("1Gi")), Ok("1".to_owned()));
        assert!(field("limits.gold", None).is_err());
    }

    #[test]
    fn a_limit_without_a_request_is_the_request_too() {
        assert_eq!(resources(&container(), 100).cpu_request_milli, Some(1500));
    }
}
