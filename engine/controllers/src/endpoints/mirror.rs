//! Slices for `Endpoints` that somebody writes by hand: a service without a selector leads where they say.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{A_SLICE, MANAGED_BY, SERVICE, Seen, follow, ignore_stale, is_same};
use crate::Key;
use crate::owned::controller_reference;
use crate::world::{World, find};

/// Our name in the label of who keeps a slice.
const OURS: &str = "endpointslicemirroring-controller.k8s.io";
/// By this label endpoints are left alone; by this annotation they are a leader election.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// How many addresses of a subset are mirrored.
const A_SUBSET: usize = 1000;

/// Mirrors until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    follow(world, 1, mirror_of, stop, reconcile).await;
}

fn mirror_of(slice: &EndpointSlice) -> Option<Key> {
    let ours = slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == OURS);
    ours.then(|| Some((slice.namespace()?, slice.labels().get(SERVICE)?.clone())))?
}

async fn reconcile(world: World, seen: Seen, key: Key) -> Result<Option<Duration>, kube::Error> {
    let Seen { services, slices, all } = seen;
    let mut present = slices.of(&key);
    let service = find(&services, &key).filter(|service| !super::has_selector(service));
    let source = find(&all, &key).filter(|source| service.is_some() && is_mirrored(source));
    let api: Api<EndpointSlice> = Api::namespaced(world.client.clone(), &key.0);
    for slice in source.iter().flat_map(|source| mirrored(source)) {
        let name = slice.name_any();
        match present.remove(&name) {
            Some(known) if is_same(&known, &slice) && known.address_type == slice.address_type => {}
            Some(known) if known.address_type == slice.address_type => {
                let patch = json!({"endpoints": slice.endpoints, "ports": slice.ports});
                ignore_stale(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
            }
            // The kind of address cannot change: a new one follows when this one is gone.
            Some(_) => ignore_stale(api.delete(&name, &DeleteParams::default()).await)?,
            None => ignore_stale(api.create(&PostParams::default(), &slice).await)?,
        }
    }
    for name in present.into_keys() {
        ignore_stale(api.delete(&name, &DeleteParams::default()).await)?;
    }
    Ok(None)
}

fn is_mirrored(source: &Endpoints) -> bool {
    source.labels().get(SKIP).is_none_or(|skip| skip != "true")
        && !source.annotations().contains_key(LEADER)
        && source.metadata.deletion_timestamp.is_none()
}

/// The slices that say what the endpoints say: each subset, and each kind of address in it, has its own.
fn mirrored(source: &Endpoints) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    for subset in source.subsets.iter().flatten() {
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let others = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let all: Vec<(&EndpointAddress, bool)> = ready.chain(others).take(A_SUBSET).collect();
        for (kind, of_kind) in [("IPv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("IPv6", IpAddr::is_ipv6)] {
            let fits = |address: &EndpointAddress| address.ip.parse().is_ok_and(|ip| of_kind(&ip));
            let endpoints: Vec<Endpoint> = all
                .iter()
                .filter(|(address, _)| fits(address))
                .map(|(address, ready)| endpoint(address, *ready))
                .collect();
            for part in endpoints.chunks(A_SLICE) {
                slices.push(slice(source, subset, (kind, slices.len()), part.to_vec()));
            }
        }
    }
    slices
}

fn slice(
    source: &Endpoints,
    subset: &EndpointSubset,
    (kind, place): (&str, usize),
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let mut labels = source.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE.to_owned(), source.name_any());
    labels.insert(MANAGED_BY.to_owned(), OURS.to_owned());
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    });
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{}-mirrored-{place}", source.name_any())),
            namespace: source.namespace(),
            labels: Some(labels),
            owner_references: controller_reference(source).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        address_type: kind.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.collect()),
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[expect(clippy::needless_pass_by_value, reason = "the calls write json! in place")]
    fn source(metadata: Value, subsets: Value) -> Endpoints {
        let mut metadata = metadata;
        metadata["name"] = "db".into();
        serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).unwrap()
    }

    #[test]
    fn every_subset_and_kind_of_address_has_a_slice() {
        let subsets = json!([
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}],
                "ports": [{"port": 5432}]},
            {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "admin", "port": 80, "protocol": "TCP"}]},
        ]);
        let made = mirrored(&source(json!({"labels": {"a": "b"}}), subsets));
        let told: Vec<_> = made
            .iter()
            .map(|slice| {
                let ends = slice.endpoints.iter().flatten();
                let ends = ends.map(|end| (end.addresses[0].as_str(), end.conditions.as_ref().unwrap().ready.unwrap()));
                (slice.address_type.as_str(), slice.ports.as_ref().unwrap()[0].port.unwrap(), ends.collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("IPv4", 5432, vec![("10.0.0.1", true), ("10.0.0.2", false)]),
                ("IPv6", 5432, vec![("fd00::1", true)]),
                ("IPv4", 80, vec![("10.0.0.1", true)]),
            ]
        );
        assert_eq!(made[0].labels()["a"], "b");
        assert_eq!(mirror_of(&made[1]), None, "a slice without a namespace is nobody's");
    }

    #[test]
    fn endpoints_that_ask_for_it_or_elect_a_leader_are_left_alone() {
        assert!(is_mirrored(&source(json!({}), json!([]))));
        assert!(!is_mirrored(&source(json!({"labels": {SKIP: "true"}}), json!([]))));
        assert!(!is_mirrored(&source(json!({"annotations": {LEADER: "{}"}}), json!([]))));
        assert!(
            mirrored(&source(json!({}), json!([{"addresses": [{"ip": "nonsense"}], "ports": [{"port": 1}]}])))
                .is_empty()
        );
    }
}
