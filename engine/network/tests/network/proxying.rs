//! The service proxy against an API that the test plays, in a real kernel inside a network namespace of its own.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use shipway_network::Network;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, SERVICES, SLICES, SOON, run, until};
use crate::lab::{self, HOST, Place, ask_from_host, config, lab, outside, rules};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 73, 128, 20);

fn service(name: &str, address: Ipv4Addr, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": name, "uid": name, "resourceVersion": "1"},
        "spec": {"type": "LoadBalancer", "clusterIP": address.to_string(), "ports": [{"name": "http", "port": port, "protocol": "TCP"}]},
    })
}

fn slice(service: &str, addresses: &[Ipv4Addr]) -> Value {
    let endpoints: Vec<_> =
        addresses.iter().map(|a| json!({"addresses": [a.to_string()], "conditions": {"ready": true}})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "default", "name": service, "resourceVersion": "1", "labels": {"kubernetes.io/service-name": service}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

#[test]
fn what_the_api_says_becomes_true_in_the_kernel_and_in_dns() {
    lab(|| async {
        let _world = outside().await;
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let place = Place::new();
        let address = network.attach("one", &place.path).await.unwrap();
        place.serve("one", 8080).await;
        let stale = Ipv4Addr::new(10, 73, 128, 30);
        network.set_service(rules("default/stale", stale, &[address])).await.unwrap();

        let api = Api::default();
        api.put(SERVICES, service("web", SERVICE, 80));
        api.put(SLICES, slice("web", &[address]));
        let stop = CancellationToken::new();
        let running = run(&api, &network, &stop);

        until("the service answers", || async { ask_from_host(SERVICE, 80).await.is_ok() }).await;
        assert!(ask_from_host(stale, 80).await.is_err());
        assert_eq!(ask_from_host(HOST, 80).await.unwrap().0, "one");
        let dns = network.config().dns_address;
        let resolved = place.run(move || lab::resolve(dns, "web.default.svc.cluster.local")).await;
        assert_eq!(resolved, vec![SERVICE]);
        let published = json!({"loadBalancer": {"ingress": [{"ip": HOST.to_string(), "ipMode": "VIP"}]}});
        until("the address is published", || async { api.state.lock().unwrap().statuses.contains(&published) }).await;

        api.put(SLICES, slice("web", &[]));
        until("nobody answers", || async { ask_from_host(SERVICE, 80).await.is_err() }).await;
        timeout(SOON, network.released(address)).await.unwrap();
        api.put(SLICES, slice("web", &[address]));
        until("it answers again", || async { ask_from_host(SERVICE, 80).await.is_ok() }).await;
        api.delete(SERVICES, "web");
        until("it is gone", || async { ask_from_host(SERVICE, 80).await.is_err() }).await;
        stop.cancel();
        timeout(SOON, running).await.unwrap().unwrap().unwrap();
    });
}

#[test]
fn a_port_that_is_taken_is_told_and_handed_over_when_it_is_free() {
    lab(|| async {
        let _world = outside().await;
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        lab::serve("program", (Ipv4Addr::LOCALHOST, 8088).into());
        let api = Api::default();
        api.put(SERVICES, service("busy", SERVICE, 8088));
        api.put(SERVICES, service("first", Ipv4Addr::new(10, 73, 128, 21), 80));
        let stop = CancellationToken::new();
        let running = run(&api, &network, &stop);
        let told = |about: &'static str| {
            let state = api.state.lock().unwrap();
            state.events.iter().any(|event| {
                event["reason"] == "PortInUse"
                    && (event["involvedObject"]["name"] == about || event["regarding"]["name"] == about)
            })
        };
        until("the taken port is told", || async { told("busy") }).await;
        assert_eq!(ask_from_host(Ipv4Addr::LOCALHOST, 8088).await.unwrap().0, "program");
        until("the first is published", || async { !api.state.lock().unwrap().statuses.is_empty() }).await;
        api.put(SERVICES, service("second", Ipv4Addr::new(10, 73, 128, 22), 80));
        until("the second is refused", || async { told("second") }).await;
        api.state.lock().unwrap().statuses.clear();
        api.delete(SERVICES, "first");
        until("the second has the port", || async { !api.state.lock().unwrap().statuses.is_empty() }).await;
        stop.cancel();
        timeout(SOON, running).await.unwrap().unwrap().unwrap();
    });
}
