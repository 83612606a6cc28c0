//! EndpointSlices: which pods answer for a service.

pub(crate) mod legacy;
pub(crate) mod mirror;
mod slices;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};
use serde_json::json;
use shipway_driver::{Change, Queue};
use tokio_util::sync::CancellationToken;

use self::slices::Slices;
use crate::Key;
use crate::owned::{controller_reference, ignore_stale};
use crate::pods::{is_finished, ready_since};
use crate::world::{World, find, key, wake};

/// The label that names a slice's service.
const SERVICE: &str = "kubernetes.io/service-name";
/// The label that says who keeps a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Our name in that label; slices of others are left alone.
const OURS: &str = "endpointslice-controller.k8s.io";
/// How many endpoints a slice holds.
const A_SLICE: usize = 100;

/// Keeps the slices of all services, until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let (services, slices) = (world.cache::<Service>(), world.cache::<EndpointSlice>());
    wake(&services, &queue);
    let (services, slices) = (services.store(), Slices::over(&slices, service_of, &queue));
    wake_by_pod(&world, &queue, services.clone());
    world.reconcile(queue, 2, stop, move |world, key| reconcile(world, services.clone(), slices.clone(), key)).await;
}

/// Wakes the services that select a pod which changes; and all of its namespace when its labels did, which it may leave.
fn wake_by_pod(world: &World, queue: &Arc<Queue<Key>>, services: Store<Service>) {
    let (queue, seen) = (queue.clone(), Mutex::new(HashMap::<Key, u64>::new()));
    let (hasher, pods) = (RandomState::new(), world.pods.clone());
    pods.listen(move |change| {
        let pod = change.object();
        let labels = hasher.hash_one(pod.labels());
        let before = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match change {
                Change::Applied(_) => seen.insert(key(&**pod), labels),
                Change::Deleted(_) => seen.remove(&key(&**pod)),
            }
        };
        let moved = before.is_some_and(|before| before != labels);
        let near = services.state().into_iter().filter(|service| service.metadata.namespace == pod.metadata.namespace);
        near.filter(|service| moved || selects(service, pod)).for_each(|service| queue.add(key(&*service)));
    });
}

/// What the controllers read that keep `Endpoints` and mirror them.
#[derive(Clone)]
struct Seen {
    services: Store<Service>,
    slices: Slices,
    all: Store<Endpoints>,
}

/// Runs one of those: it looks at a service when it, its `Endpoints`, or a slice changes that `whose` says is of it.
async fn follow<F, Fut>(
    world: World,
    workers: usize,
    whose: fn(&EndpointSlice) -> Option<Key>,
    stop: CancellationToken,
    look: F,
) where
    F: Fn(World, Seen, Key) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<Duration>, kube::Error>> + Send + 'static,
{
    let queue = Arc::new(Queue::new());
    let (services, slices, all) =
        (world.cache::<Service>(), world.cache::<EndpointSlice>(), world.cache::<Endpoints>());
    wake(&services, &queue);
    wake(&all, &queue);
    let slices = Slices::over(&slices, whose, &queue);
    let seen = Seen { services: services.store(), slices, all: all.store() };
    world.reconcile(queue, workers, stop, move |world, key| look(world, seen.clone(), key)).await;
}

/// The service that a slice of ours belongs to.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.labels();
    let ours = labels.get(MANAGED_BY).is_some_and(|manager| manager == OURS);
    ours.then(|| Some((slice.namespace()?, labels.get(SERVICE)?.clone())))?
}

/// Whether the service sends to the pod.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let Some(selector) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { return false };
    service.metadata.namespace == pod.metadata.namespace
        && !selector.is_empty()
        && selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
}

/// Whether the service finds its pods itself.
fn has_selector(service: &Service) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| !selector.is_empty())
}

async fn reconcile(
    world: World,
    services: Store<Service>,
    slices: Slices,
    key: Key,
) -> Result<Option<Duration>, kube::Error> {
    let mut present = slices.of(&key);
    let wanted = match find(&services, &key).filter(|service| service.metadata.deletion_timestamp.is_none()) {
        Some(service) => wanted(&service, &world.pods.in_namespace(&key.0)),
        None => Vec::new(),
    };
    let api: Api<EndpointSlice> = Api::namespaced(world.client.clone(), &key.0);
    for slice in wanted {
        let name = slice.name_any();
        match present.remove(&name) {
            Some(present) if is_same(&present, &slice) => {}
            Some(_) => {
                let patch = json!({ "endpoints": slice.endpoints, "ports": slice.ports });
                ignore_stale(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
            }
            None => ignore_stale(api.create(&PostParams::default(), &slice).await)?,
        }
    }
    for name in present.into_keys() {
        ignore_stale(api.delete(&name, &DeleteParams::default()).await)?;
    }
    Ok(None)
}

/// The slices a service should have: none without a selector, since then somebody else keeps them.
fn wanted(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSlice> {
    let Some(spec) = service.spec.as_ref().filter(|_| has_selector(service)) else { return Vec::new() };
    let publish_unready = spec.publish_not_ready_addresses == Some(true);
    let ports = spec.ports.as_deref().unwrap_or_default();
    // Pods that name a port differently get slices of their own.
    let mut by_ports: BTreeMap<Vec<i32>, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| selects(service, pod) && !is_finished(pod)) {
        if let Some(endpoint) = endpoint(pod, publish_unready) {
            let numbers = ports.iter().map(|port| target(port, pod).unwrap_or(0)).collect();
            by_ports.entry(numbers).or_default().push(endpoint);
        }
    }
    if by_ports.is_empty() {
        by_ports.insert(ports.iter().map(|port| named_number(port).unwrap_or(0)).collect(), Vec::new());
    }
    let mut slices = Vec::new();
    for (numbers, mut endpoints) in by_ports {
        endpoints.sort_by(|one, other| one.addresses.cmp(&other.addresses));
        let count = endpoints.len().div_ceil(A_SLICE).max(1);
        for _ in 0..count {
            let rest = endpoints.split_off(endpoints.len().min(A_SLICE));
            slices.push(slice(service, slices.len(), ports, &numbers, endpoints));
            endpoints = rest;
        }
    }
    slices
}

fn slice(
    service: &Service,
    place: usize,
    ports: &[ServicePort],
    numbers: &[i32],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let labels = [(SERVICE, service.name_any()), (MANAGED_BY, OURS.to_owned())];
    let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value));
    let ports = ports.iter().zip(numbers).filter(|(_, number)| **number > 0);
    let ports = ports.map(|(port, number)| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(*number),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    });
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{}-{place}", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels.collect()),
            owner_references: controller_reference(service).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.collect()),
    }
}

fn endpoint(pod: &Pod, publish_unready: bool) -> Option<Endpoint> {
    let address = pod.status.as_ref()?.pod_ip.clone().filter(|address| !address.is_empty())?;
    let serving = ready_since(pod).is_some();
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let spec = pod.spec.as_ref()?;
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish_unready || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: spec.hostname.clone().filter(|_| spec.subdomain.is_some()),
        node_name: spec.node_name.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}

/// The number of the pod's port that the service's port means.
fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let Some(IntOrString::String(name)) = &port.target_port else { return named_number(port) };
    let containers = pod.spec.as_ref()?.containers.iter();
    let protocol = |of: &Option<String>| of.as_deref().unwrap_or("TCP").to_owned();
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let found = ports.find(|it| it.name.as_ref() == Some(name) && protocol(&it.protocol) == protocol(&port.protocol));
    found.map(|found| found.container_port)
}

fn named_number(port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        Some(IntOrString::Int(number)) if *number > 0 => Some(*number),
        Some(IntOrString::String(_)) => None,
        _ => Some(port.port),
    }
}

fn is_same(present: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let sorted = |slice: &EndpointSlice| {
        let mut endpoints = slice.endpoints.clone().unwrap_or_default();
        endpoints.sort_by(|one, other| one.addresses.cmp(&other.addresses));
        endpoints
    };
    sorted(present) == sorted(wanted)
        && present.ports.clone().unwrap_or_default() == wanted.ports.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(target: &serde_json::Value) -> Service {
        let ports = json!([{ "name": "http", "port": 80, "targetPort": target, "protocol": "TCP" }]);
        let spec = json!({ "selector": { "app": "web" }, "ports": ports });
        let object = json!({ "metadata": { "name": "web", "namespace": "n", "uid": "u" }, "spec": spec });
        serde_json::from_value(object).unwrap()
    }

    fn pod(address: &str, ready: bool, deleting: bool, port: i32) -> Arc<Pod> {
        let conditions = if ready { json!([{ "type": "Ready", "status": "True" }]) } else { json!([]) };
        let ports = json!([{ "name": "web", "containerPort": port }]);
        let object = json!({
            "metadata": {
                "name": address, "namespace": "n", "labels": { "app": "web" },
                "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z"),
            },
            "spec": { "nodeName": "node", "containers": [{ "name": "c", "ports": ports }] },
            "status": { "podIP": address, "conditions": conditions },
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn conditions(slice: &EndpointSlice) -> Vec<(bool, bool, bool)> {
        let endpoints = slice.endpoints.iter().flatten();
        let conditions = endpoints.map(|endpoint| endpoint.conditions.clone().unwrap());
        conditions.map(|it| (it.ready.unwrap(), it.serving.unwrap(), it.terminating.unwrap())).collect()
    }

    #[test]
    fn a_pod_that_goes_is_not_ready_but_may_still_serve() {
        let pods = [
            pod("10.0.0.1", true, false, 8080),
            pod("10.0.0.2", false, false, 8080),
            pod("10.0.0.3", true, true, 8080),
        ];
        let slices = wanted(&service(&json!(8080)), &pods);
        assert_eq!(slices.len(), 1);
        assert_eq!(conditions(&slices[0]), [(true, true, false), (false, false, false), (false, true, true)]);
        assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(8080));
    }

    #[test]
    fn a_named_port_is_looked_up_in_each_pod() {
        let pods = [pod("10.0.0.1", true, false, 8080), pod("10.0.0.2", true, false, 9090)];
        let slices = wanted(&service(&json!("web")), &pods);
        let ports: Vec<_> = slices.iter().map(|slice| slice.ports.as_ref().unwrap()[0].port).collect();
        assert_eq!(ports, [Some(8080), Some(9090)]);
        assert_eq!(service_of(&slices[0]), Some(("n".to_owned(), "web".to_owned())));
    }

    #[test]
    fn many_endpoints_fill_several_slices_and_none_leave_one_empty() {
        let pods: Vec<_> =
            (0..250).map(|n| pod(&format!("10.0.{}.{}", n / 200, n % 200 + 1), true, false, 80)).collect();
        let sizes: Vec<_> =
            wanted(&service(&json!(80)), &pods).iter().map(|slice| slice.endpoints.as_ref().unwrap().len()).collect();
        assert_eq!(sizes, [100, 100, 50]);
        let empty = wanted(&service(&json!(80)), &[]);
        assert_eq!((empty.len(), empty[0].endpoints.as_ref().unwrap().len()), (1, 0));
    }

    #[test]
    fn what_the_api_stored_compares_equal_to_what_was_wanted() {
        let wanted = wanted(&service(&json!(80)), &[pod("10.0.0.1", true, false, 80)]);
        assert!(is_same(&wanted[0].clone(), &wanted[0]));
    }
}
