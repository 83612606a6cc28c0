//! Workloads that sleep, in a real kernel: the test plays the API and the controllers that start pods.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shipway_network::{Network, remains};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, DEPLOYMENTS, SERVICES, SLICES, SOON, run, until};
use crate::lab::{self, Place, ask_from_host, config, lab};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 73, 128, 20);

fn service() -> Value {
    let ports = json!([{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}, {"name": "echo", "port": 7, "protocol": "UDP"}]);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": "web", "uid": "web", "resourceVersion": "1"},
        "spec": {"type": "NodePort", "clusterIP": SERVICE.to_string(), "selector": {"app": "web"}, "ports": ports},
    })
}

fn slice(addresses: &[Ipv4Addr]) -> Value {
    let endpoints: Vec<_> =
        addresses.iter().map(|it| json!({"addresses": [it.to_string()], "conditions": {"ready": true}})).collect();
    let ports =
        json!([{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "echo", "port": 8007, "protocol": "UDP"}]);
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "default", "name": "web", "resourceVersion": "1", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": endpoints, "ports": ports,
    })
}

fn deployment(replicas: u32, annotations: &Value) -> Value {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "default", "name": "web", "resourceVersion": "1", "annotations": annotations},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    })
}

/// The replicas that the deployment was last told to have.
fn told(api: &Api) -> Option<u64> {
    api.state.lock().unwrap().patches.iter().rev().find_map(|patch| patch["spec"]["replicas"].as_u64())
}

#[test]
fn first_connections_wait_until_a_pod_is_there_and_none_is_refused() {
    lab(|| async {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let place = Place::new();
        let address = network.attach("web", &place.path).await.unwrap();
        let client = Place::new();
        let own = network.attach("client", &client.path).await.unwrap();
        place.serve("web", 8080).await;
        place.run(|| lab::serve_datagrams("echo", 8007)).await;
        let api = Api::default();
        api.put(DEPLOYMENTS, deployment(0, &json!({"shipway.io/sleep-after": "1s", "shipway.io/slept-with": "2"})));
        let stop = CancellationToken::new();
        let running = run(&api, &network, &stop);
        // The service comes later than what it leads to.
        tokio::time::sleep(Duration::from_millis(50)).await;
        api.put(SERVICES, service());
        api.put(SLICES, slice(&[]));
        until("there is a table of sleepers", || async {
            remains().unwrap().tables.iter().any(|it| it.ends_with("sleep"))
        })
        .await;

        let start = Instant::now();
        let asking: Vec<_> = (0..100).map(|_| tokio::spawn(ask_from_host(SERVICE, 80))).collect();
        let from_pod = {
            let client = Arc::new(client);
            let asked = client.clone();
            (client, tokio::spawn(async move { asked.ask(SERVICE, 80).await }))
        };
        let through_port = tokio::spawn(ask_from_host(Ipv4Addr::LOCALHOST, 30080));
        until("it is woken", || async { told(&api) == Some(2) }).await;
        assert!(asking.iter().all(|it| !it.is_finished()), "nobody answers yet");
        api.put(DEPLOYMENTS, deployment(2, &json!({"shipway.io/sleep-after": "1s"})));
        tokio::time::sleep(Duration::from_millis(100)).await;
        api.put(SLICES, slice(&[address]));
        for one in asking {
            assert_eq!(one.await.unwrap().unwrap().0, "web");
        }
        assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
        assert_eq!(from_pod.1.await.unwrap().unwrap(), ("web".to_owned(), own.into()), "the pod sees its client");
        assert_eq!(through_port.await.unwrap().unwrap().0, "web");
        // Awake, it sleeps again after its time, but not while somebody is connected.
        assert_eq!(ask_from_host(SERVICE, 80).await.unwrap().0, "web");
        until("it sleeps again", || async { told(&api) == Some(0) }).await;
        let mark =
            api.state.lock().unwrap().patches.last().unwrap()["metadata"]["annotations"]["shipway.io/slept-with"]
                .clone();
        assert_eq!(mark, "2");
        api.put(DEPLOYMENTS, deployment(0, &json!({"shipway.io/sleep-after": "1s", "shipway.io/slept-with": "2"})));
        api.put(SLICES, slice(&[]));
        until("nobody serves", || async { network_is_idle(&network).await }).await;
        // A datagram wakes it as well.
        let asked = from_pod.0.clone();
        let answer = tokio::spawn(async move {
            asked
                .run(|| {
                    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                    socket.set_read_timeout(Some(SOON)).unwrap();
                    socket.connect((SERVICE, 7)).unwrap();
                    socket.send(b"?").unwrap();
                    let mut buffer = [0; 16];
                    let length = socket.recv(&mut buffer).unwrap();
                    String::from_utf8_lossy(&buffer[..length]).into_owned()
                })
                .await
        });
        until("the datagram wakes it", || async { told(&api) == Some(2) }).await;
        api.put(DEPLOYMENTS, deployment(2, &json!({"shipway.io/sleep-after": "1s"})));
        api.put(SLICES, slice(&[address]));
        assert_eq!(timeout(SOON, answer).await.unwrap().unwrap(), "echo");
        // Without the annotation nothing of it is left.
        api.put(DEPLOYMENTS, deployment(2, &json!({})));
        until("the table is gone", || async { remains().unwrap().tables == ["shipway-0a1b2c"] }).await;
        stop.cancel();
        timeout(SOON, running).await.unwrap().unwrap().unwrap();
    });
}

/// Whether no service leads to any pod.
async fn network_is_idle(network: &Network) -> bool {
    let first = Ipv4Addr::new(10, 73, 0, 1);
    timeout(Duration::from_millis(20), network.released(first)).await.is_ok()
}
