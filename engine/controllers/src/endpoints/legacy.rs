//! `Endpoints` objects, which older clients read: the same as the slices of a service with a selector, in one object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Seen, follow, ignore_stale, service_of};
use crate::Key;
use crate::owned::controller_reference;
use crate::world::{World, find};

/// How many addresses the object holds, and the annotation that says that there are more.
const MOST: usize = 1000;
const OVER: &str = "endpoints.kubernetes.io/over-capacity";
/// Who keeps the object, so that nobody mirrors it back into slices.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OURS: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Keeps them until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    follow(world, 2, service_of, stop, reconcile).await;
}

async fn reconcile(world: World, seen: Seen, key: Key) -> Result<Option<Duration>, kube::Error> {
    let Seen { services, slices, all } = seen;
    let api: Api<Endpoints> = Api::namespaced(world.client.clone(), &key.0);
    let present = find(&all, &key);
    let Some(service) = find(&services, &key) else {
        let ours = present.filter(|it| it.labels().get(MANAGED_BY).is_some_and(|manager| manager == OURS));
        if ours.is_some() {
            ignore_stale(api.delete(&key.1, &DeleteParams::default()).await)?;
        }
        return Ok(None);
    };
    if !super::has_selector(&service) || service.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let slices: Vec<Arc<EndpointSlice>> = slices.of(&key).into_values().collect();
    let wanted = wanted(&service, &slices);
    match present {
        Some(present) if is_same(&present, &wanted) => {}
        Some(present) => {
            let mut notes = wanted.metadata.annotations.clone().map_or_else(|| json!({}), |notes| json!(notes));
            if present.annotations().contains_key(OVER) && notes[OVER].is_null() {
                notes[OVER] = Value::Null;
            }
            let metadata = json!({"labels": wanted.metadata.labels, "annotations": notes});
            let patch = json!({"metadata": metadata, "subsets": wanted.subsets});
            ignore_stale(api.patch(&key.1, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        }
        None => ignore_stale(api.create(&PostParams::default(), &wanted).await)?,
    }
    Ok(None)
}

/// One of the two lists of a subset.
type List = fn(&mut EndpointSubset) -> &mut Option<Vec<EndpointAddress>>;

fn is_same(present: &Endpoints, wanted: &Endpoints) -> bool {
    let labels = wanted.labels().iter().all(|(key, value)| present.labels().get(key) == Some(value));
    let empty = |subsets: &Option<Vec<EndpointSubset>>| subsets.clone().unwrap_or_default();
    labels
        && present.annotations().get(OVER) == wanted.annotations().get(OVER)
        && empty(&present.subsets) == empty(&wanted.subsets)
}

fn wanted(service: &Service, slices: &[Arc<EndpointSlice>]) -> Endpoints {
    let spec = service.spec.as_ref();
    let unready = spec.is_some_and(|spec| spec.publish_not_ready_addresses == Some(true));
    let (subsets, cut) = subsets(slices, unready);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), OURS.to_owned());
    if spec.is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None")) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let annotations = cut.then(|| BTreeMap::from([(OVER.to_owned(), "truncated".to_owned())]));
    let metadata = ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        annotations,
        owner_references: controller_reference(service).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    Endpoints { metadata, subsets: Some(subsets) }
}

/// One subset for each set of ports, and whether addresses had to be left out; those that are ready stay first.
fn subsets(slices: &[Arc<EndpointSlice>], unready: bool) -> (Vec<EndpointSubset>, bool) {
    let mut by_ports: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    for slice in slices {
        let ports: Vec<EndpointPort> = slice.ports.iter().flatten().filter_map(port).collect();
        let name = serde_json::to_string(&ports).unwrap_or_default();
        let subset = by_ports.entry(name).or_default();
        subset.ports = Some(ports).filter(|ports| !ports.is_empty());
        for endpoint in slice.endpoints.iter().flatten() {
            let is = |condition: fn(&Endpoint) -> Option<bool>| condition(endpoint) == Some(true);
            let ready = is(|it| it.conditions.as_ref()?.ready);
            if is(|it| it.conditions.as_ref()?.terminating) && !unready {
                continue;
            }
            let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
            list.get_or_insert_default().extend(endpoint.addresses.iter().map(|ip| address(ip, endpoint)));
        }
    }
    let mut left = MOST;
    let mut cut = false;
    let mut all: Vec<EndpointSubset> = by_ports.into_values().collect();
    let lists: [List; 2] = [|subset| &mut subset.addresses, |subset| &mut subset.not_ready_addresses];
    for list in lists {
        for addresses in all.iter_mut().filter_map(|subset| list(subset).as_mut()) {
            addresses.sort_by(|one, other| one.ip.cmp(&other.ip));
            cut |= addresses.len() > left;
            addresses.truncate(left);
            left -= addresses.len();
        }
    }
    let filled = |list: &Option<Vec<EndpointAddress>>| list.as_ref().is_some_and(|list| !list.is_empty());
    all.retain(|subset| filled(&subset.addresses) || filled(&subset.not_ready_addresses));
    (all, cut)
}

fn port(port: &k8s_openapi::api::discovery::v1::EndpointPort) -> Option<EndpointPort> {
    Some(EndpointPort {
        name: port.name.clone().filter(|name| !name.is_empty()),
        port: port.port?,
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    })
}

fn address(ip: &str, endpoint: &Endpoint) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_owned(),
        hostname: endpoint.hostname.clone(),
        node_name: endpoint.node_name.clone(),
        target_ref: endpoint.target_ref.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(port: i32, endpoints: &[(&str, bool, bool)]) -> Arc<EndpointSlice> {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(ip, ready, terminating)| {
                json!({"addresses": [ip], "conditions": {"ready": ready, "serving": ready, "terminating": terminating}})
            })
            .collect();
        let ports = json!([{"name": "", "port": port, "protocol": "TCP"}]);
        let object = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn short(subsets: &[EndpointSubset]) -> Vec<(i32, Vec<&str>, Vec<&str>)> {
        let ips = |list: &'_ Option<Vec<EndpointAddress>>| -> Vec<String> {
            list.iter().flatten().map(|address| address.ip.clone()).collect()
        };
        let leak = |ips: Vec<String>| ips.into_iter().map(|ip| &*ip.leak()).collect();
        let port = |subset: &EndpointSubset| subset.ports.as_ref().unwrap()[0].port;
        subsets.iter().map(|it| (port(it), leak(ips(&it.addresses)), leak(ips(&it.not_ready_addresses)))).collect()
    }

    #[test]
    fn slices_with_the_same_ports_are_one_subset() {
        let slices = [
            slice(80, &[("10.0.0.2", true, false), ("10.0.0.3", false, false)]),
            slice(80, &[("10.0.0.1", true, false)]),
            slice(90, &[("10.0.0.9", true, false)]),
        ];
        let (subsets, cut) = subsets(&slices, false);
        assert_eq!(
            short(&subsets),
            [(80, vec!["10.0.0.1", "10.0.0.2"], vec!["10.0.0.3"]), (90, vec!["10.0.0.9"], vec![])]
        );
        assert!(!cut && subsets[0].ports.as_ref().unwrap()[0].name.is_none());
    }

    #[test]
    fn pods_that_go_are_left_out_unless_all_are_published() {
        let slices = [slice(80, &[("10.0.0.1", false, true)])];
        assert_eq!(subsets(&slices, false), (vec![], false));
        assert_eq!(short(&subsets(&slices, true).0), [(80, vec![], vec!["10.0.0.1"])]);
    }

    #[test]
    fn beyond_a_thousand_the_ready_ones_stay_and_it_is_said() {
        let ips: Vec<String> = (0..1200).map(|n| format!("10.0.{}.{}", n / 200, n % 200)).collect();
        let endpoints: Vec<(&str, bool, bool)> =
            ips.iter().enumerate().map(|(n, ip)| (ip.as_str(), n >= 300, false)).collect();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "n", "uid": "u", "labels": {"a": "b"}},
            "spec": {"clusterIP": "None", "selector": {"a": "b"}},
        }))
        .unwrap();
        let made = wanted(&service, &[slice(80, &endpoints)]);
        let subset = &made.subsets.as_ref().unwrap()[0];
        let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
        assert_eq!((count(&subset.addresses), count(&subset.not_ready_addresses)), (900, 100));
        assert_eq!(made.annotations().get(OVER).map(String::as_str), Some("truncated"));
        assert!(made.labels().contains_key(HEADLESS) && made.labels()["a"] == "b");
        assert!(is_same(&made, &made.clone()));
        assert!(!is_same(&wanted(&service, &[]), &made));
    }
}
