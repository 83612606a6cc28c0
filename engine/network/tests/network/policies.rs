//! Network policies in a real kernel: what the model decides is what packets experience.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use shipway_network::{Network, remains};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, NAMESPACES, PODS, POLICIES, SERVICES, SLICES, SOON, run, until};
use crate::lab::{self, HOST, Place, ask_from_host, config, lab, outside};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 73, 128, 20);

struct World {
    api: Api,
    network: Network,
    stop: CancellationToken,
}

impl World {
    async fn new() -> Self {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let world = Self { api: Api::default(), network, stop: CancellationToken::new() };
        for name in ["default", "mine"] {
            let labels = json!({"kubernetes.io/metadata.name": name});
            let metadata = json!({"name": name, "labels": labels, "resourceVersion": "1"});
            world.api.put(NAMESPACES, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
        }
        world
    }

    /// A pod that serves its own name on two ports; the API hears of it first, as it does in life.
    async fn pod(&self, namespace: &str, name: &'static str, labels: &Value) -> (Place, Ipv4Addr) {
        self.api.put(PODS, pod(namespace, name, labels));
        let place = Place::new();
        let address = self.network.attach(name, &place.path).await.unwrap();
        place.serve(name, 8080).await;
        place.serve(name, 8081).await;
        (place, address)
    }

    fn policy(&self, namespace: &str, name: &str, spec: &Value) {
        self.api.put(POLICIES, policy(namespace, name, spec));
    }
}

fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    let metadata = json!({"namespace": namespace, "name": name, "resourceVersion": "1"});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
}

fn pod(namespace: &str, name: &str, labels: &Value) -> Value {
    let ports = json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"}]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": name, "labels": labels, "resourceVersion": "1"},
        "spec": {"nodeName": "here", "containers": [{"name": "c", "ports": ports}]},
    })
}

async fn reaches(from: &Place, to: Ipv4Addr, port: u16) -> bool {
    from.ask(to, port).await.is_ok()
}

#[test]
fn who_may_not_speak_is_told_at_once_and_everybody_else_is_heard() {
    lab(|| async {
        let outside = outside().await;
        let world = World::new().await;
        let running = run(&world.api, &world.network, &world.stop);
        let (db, db_address) = world.pod("default", "db", &json!({"role": "db"})).await;
        let (web, web_address) = world.pod("default", "web", &json!({"role": "web"})).await;
        let (other, _) = world.pod("mine", "other", &json!({"role": "web"})).await;
        assert_eq!(remains().unwrap().tables, ["shipway-0a1b2c"], "no policy, no table");
        assert!(reaches(&other, db_address, 8080).await);

        let labelled = |role: &str| json!({"matchLabels": {"role": role}});
        let from = json!([{"podSelector": labelled("web")}, {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}]);
        let ingress = json!([{"from": from, "ports": [{"port": "http"}, {"port": 9000, "endPort": 9010}]}]);
        world.policy("default", "db", &json!({"podSelector": labelled("db"), "ingress": ingress}));
        until("the policy holds", || async { !reaches(&other, db_address, 8080).await }).await;
        let refused = other.ask(db_address, 8080).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::HostUnreachable, "{refused}");
        assert!(reaches(&web, db_address, 8080).await);
        assert!(!reaches(&web, db_address, 8081).await, "a port that is not named");
        assert_eq!(
            web.ask(db_address, 9005).await.unwrap_err().kind(),
            ErrorKind::ConnectionRefused,
            "passed, but nobody is there"
        );
        assert!(!reaches(&web, db_address, 9011).await);
        assert!(reaches(&db, web_address, 8080).await, "answers come back");
        assert!(ask_from_host(db_address, 8081).await.is_ok(), "the host itself always may");
        assert!(reaches(&db, db_address, 8081).await);
        // A pod is known by its address behind its service as well, and clients outside by theirs.
        world.api.put(SERVICES, service(SERVICE));
        world.api.put(SLICES, slice(db_address));
        until("the service answers", || async { reaches(&web, SERVICE, 80).await }).await;
        assert!(!reaches(&other, SERVICE, 80).await);
        until("the port of the host answers", || async { reaches(&outside, HOST, 30080).await }).await;
        world.policy(
            "default",
            "db",
            &json!({"podSelector": labelled("db"), "ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.0/28"}}]}]}),
        );
        until("the client outside is shut out", || async { !reaches(&outside, HOST, 30080).await }).await;
        assert!(!reaches(&web, SERVICE, 80).await);
        assert!(reaches(&db, SERVICE, 80).await, "a pod cannot be kept from itself");

        world.api.delete(POLICIES, "db");
        until("everybody is heard again", || async { reaches(&other, db_address, 8080).await }).await;
        assert_eq!(remains().unwrap().tables, ["shipway-0a1b2c"]);
        world.stop.cancel();
        timeout(SOON, running).await.unwrap().unwrap().unwrap();
    });
}

#[test]
fn what_leaves_is_decided_too_and_dns_is_a_pod_like_any_other() {
    lab(|| async {
        let outside = outside().await;
        let world = World::new().await;
        let running = run(&world.api, &world.network, &world.stop);
        let (client, _) = world.pod("default", "client", &json!({"role": "client"})).await;
        let (_db, db_address) = world.pod("mine", "db", &json!({"role": "db"})).await;
        let dns = world.network.config().dns_address;
        lab::serve("host", (HOST, 9000).into());
        let closed = json!({"podSelector": {}, "policyTypes": ["Egress"]});
        world.policy("default", "closed", &closed);
        until("the policy holds", || async { !reaches(&client, db_address, 8080).await }).await;
        assert!(!reaches(&client, HOST, 9000).await, "programs of the host are as far as anybody");
        assert_eq!(asks(&client, dns).await, None);
        assert!(reaches(&outside, HOST, 9000).await);

        let system = json!({"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}});
        let labels = json!({"kubernetes.io/metadata.name": "kube-system"});
        world.api.put(
            NAMESPACES,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system", "labels": labels}}),
        );
        let to = json!([{"namespaceSelector": system, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]);
        let names = json!({"to": to, "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]});
        let mine = json!({"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "mine"}}}], "ports": [{"port": "http"}]});
        world.policy(
            "default",
            "some",
            &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [names, mine]}),
        );
        until("names are answered", || async { asks(&client, dns).await.is_some() }).await;
        assert!(reaches(&client, db_address, 8080).await);
        assert!(!reaches(&client, db_address, 8081).await, "not the named port");
        assert!(!reaches(&client, HOST, 9000).await);
        world.stop.cancel();
        timeout(SOON, running).await.unwrap().unwrap().unwrap();
    });
}

#[test]
fn a_new_pod_is_closed_from_its_first_moment_and_a_restart_opens_nothing() {
    lab(|| async {
        let world = World::new().await;
        world.policy("default", "closed", &json!({"podSelector": {}, "ingress": []}));
        let running = run(&world.api, &world.network, &world.stop);
        let (client, _) = world.pod("mine", "client", &json!({})).await;
        for name in ["a", "b", "c", "d"] {
            let (_place, address) = world.pod("default", name, &json!({})).await;
            assert!(!reaches(&client, address, 8080).await, "{name}");
        }
        let (_late, late) = {
            let place = Place::new();
            let (network, path) = (world.network.clone(), place.path.clone());
            let attaching = tokio::spawn(async move { network.attach("late", &path).await.unwrap() });
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!attaching.is_finished(), "nobody knows yet what may reach it");
            world.api.put(PODS, pod("default", "late", &json!({})));
            let address = timeout(SOON, attaching).await.unwrap().unwrap();
            place.serve("late", 8080).await;
            (place, address)
        };
        assert!(!reaches(&client, late, 8080).await);
        world.stop.cancel();
        timeout(SOON, running).await.unwrap().unwrap().unwrap();
        let World { api, network, .. } = world;
        drop(network);
        assert!(!reaches(&client, late, 8080).await, "nobody is there, the rules are");
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let stop = CancellationToken::new();
        let running = run(&api, &network, &stop);
        for _ in 0..3 {
            assert!(!reaches(&client, late, 8080).await);
        }
        lab::delete_table("shipway-0a1b2c-policies");
        assert!(reaches(&client, late, 8080).await);
        let other = json!({"podSelector": {}, "ingress": [{"ports": [{"port": 1}]}]});
        api.put(POLICIES, policy("default", "other", &other));
        until("the rules are laid again", || async { !reaches(&client, late, 8080).await }).await;
        api.delete(POLICIES, "closed");
        api.delete(POLICIES, "other");
        until("it is open", || async { reaches(&client, late, 8080).await }).await;
        stop.cancel();
        timeout(SOON, running).await.unwrap().unwrap().unwrap();
        Network::teardown(&config("0a1b2c", 73)).await.unwrap();
        assert_eq!(remains().unwrap().tables, Vec::<String>::new());
    });
}

/// Whether the DNS server answers at all.
async fn asks(from: &Place, server: Ipv4Addr) -> Option<usize> {
    from.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.connect((server, 53)).unwrap();
        let question = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x07cluster\x05local\0\0\x01\0\x01";
        socket.send(question).and_then(|_| socket.recv(&mut [0; 512])).ok()
    })
    .await
}

fn service(address: Ipv4Addr) -> Value {
    let ports = json!([{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}]);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": "web", "uid": "web", "resourceVersion": "1"},
        "spec": {"type": "NodePort", "clusterIP": address.to_string(), "ports": ports},
    })
}

fn slice(address: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "default", "name": "web", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}
