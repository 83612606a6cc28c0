//! Pods, services and node ports in a real kernel, inside network namespaces made for the test.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::lab::{self, HOST, OUTSIDE, Place, ask, ask_from_host, config, lab, links, outside, rules};
use shipway_network::dns::{Server, ServiceRecords};
use shipway_network::{Network, PortHolder, Protocol, free_subnets, remains};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 73, 128, 20);
const SOON: Duration = Duration::from_secs(2);

async fn pod(network: &Network, uid: &str) -> (Place, Ipv4Addr) {
    let place = Place::new();
    let address = network.attach(uid, &place.path).await.unwrap();
    (place, address)
}

/// How often each server answers 60 questions.
async fn answers(from: &Place, address: Ipv4Addr) -> HashMap<String, usize> {
    from.run(move || {
        let mut answers = HashMap::new();
        for _ in 0..60 {
            *answers.entry(ask(address, 80).unwrap().0).or_default() += 1;
        }
        answers
    })
    .await
}

#[test]
fn a_service_leads_to_every_backend_and_keeps_the_clients_address() {
    lab(|| async {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let (one, first) = pod(&network, "one").await;
        let (two, second) = pod(&network, "two").await;
        let (client, own) = pod(&network, "client").await;
        one.serve("one", 8080).await;
        two.serve("two", 8080).await;
        network.set_service(rules("default/web", SERVICE, &[first, second])).await.unwrap();

        let seen = answers(&client, SERVICE).await;
        assert!(seen.len() == 2 && seen.values().all(|count| *count > 5), "{seen:?}");
        assert_eq!(client.ask(SERVICE, 80).await.unwrap().1, IpAddr::V4(own));
        assert_eq!(client.ask(first, 8080).await.unwrap(), ("one".to_owned(), IpAddr::V4(own)));
        let from_host = ask_from_host(SERVICE, 80).await.unwrap();
        assert_eq!(from_host.1, IpAddr::V4(config("0a1b2c", 73).api_address));

        let mut sticky = rules("default/web", SERVICE, &[first, second]);
        sticky.sticky = Some(1);
        network.set_service(sticky.clone()).await.unwrap();
        let met = answers(&client, SERVICE).await;
        assert_eq!(met.len(), 1);
        // Another backend changes nothing for whoever is known; one that goes has its clients meet another.
        let (three, third) = pod(&network, "three").await;
        three.serve("three", 8080).await;
        sticky.ports[0].backends.push((third, 8080));
        network.set_service(sticky.clone()).await.unwrap();
        assert_eq!(answers(&client, SERVICE).await, met);
        let gone = if met.contains_key("one") { first } else { second };
        sticky.ports[0].backends.retain(|(address, _)| *address != gone);
        network.set_service(sticky.clone()).await.unwrap();
        let other = answers(&client, SERVICE).await;
        assert!(other.len() == 1 && other != met, "{other:?}");
        // After its time a client is as new; a service may also stop to remember.
        let mut seen = other;
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(1100)).await;
            seen.extend(client.ask(SERVICE, 80).await.map(|(name, _)| (name, 1)));
        }
        assert_eq!(seen.len(), 2, "{seen:?}");
        sticky.sticky = None;
        network.set_service(sticky).await.unwrap();
        assert_eq!(answers(&client, SERVICE).await.len(), 2);
    });
}

#[test]
fn a_client_of_udp_that_never_pauses_is_led_away_from_an_endpoint_that_is_gone() {
    lab(|| async {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let (one, first) = pod(&network, "one").await;
        let (two, second) = pod(&network, "two").await;
        let (client, _) = pod(&network, "client").await;
        one.run(|| lab::serve_datagrams("one", 8080)).await;
        two.run(|| lab::serve_datagrams("two", 8080)).await;
        let mut names = rules("default/names", SERVICE, &[first]);
        names.ports[0].protocol = Protocol::Udp;
        network.set_service(names.clone()).await.unwrap();
        let socket = client
            .run(|| {
                let socket = UdpSocket::bind("0.0.0.0:4000").unwrap();
                socket.set_read_timeout(Some(SOON)).unwrap();
                socket.connect((SERVICE, 80)).unwrap();
                socket
            })
            .await;
        let socket = Arc::new(socket);
        let asked = || {
            let socket = socket.clone();
            client.run(move || {
                let mut buffer = [0; 16];
                socket.send(b"?").unwrap();
                let length = socket.recv(&mut buffer).unwrap();
                String::from_utf8_lossy(&buffer[..length]).into_owned()
            })
        };
        assert_eq!(asked().await, "one");
        names.ports[0].backends = vec![(first, 8080), (second, 8080)];
        network.set_service(names.clone()).await.unwrap();
        assert_eq!(asked().await, "one", "who is there stays");
        names.ports[0].backends = vec![(second, 8080)];
        network.set_service(names).await.unwrap();
        assert_eq!(asked().await, "two");
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    lab(|| async {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let (one, address) = pod(&network, "one").await;
        one.serve("one", 8080).await;
        network.set_service(rules("default/web", SERVICE, &[address])).await.unwrap();
        assert_eq!(one.ask(SERVICE, 80).await.unwrap().0, "one");
    });
}

#[test]
fn node_ports_and_load_balancer_ports_answer_on_every_address_of_the_host() {
    lab(|| async {
        let outside = outside().await;
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let (one, address) = pod(&network, "one").await;
        let (client, _) = pod(&network, "client").await;
        one.serve("one", 8080).await;
        let mut web = rules("default/web", SERVICE, &[address]);
        (web.ports[0].node_port, web.ports[0].host_port) = (Some(30080), Some(80));
        assert_eq!(network.set_service(web).await.unwrap(), vec![]);
        for port in [30080, 80] {
            for to in [Ipv4Addr::LOCALHOST, HOST] {
                assert_eq!(ask_from_host(to, port).await.unwrap().0, "one", "{to}:{port}");
            }
            assert_eq!(outside.ask(HOST, port).await.unwrap(), ("one".to_owned(), IpAddr::V4(OUTSIDE)));
            assert_eq!(client.ask(HOST, port).await.unwrap().0, "one");
            assert_eq!(one.ask(HOST, port).await.unwrap().0, "one", "a pod through the host to itself");
        }
        // The instance's own addresses keep their ports to themselves.
        let own = network.config().api_address;
        assert_eq!(ask_from_host(own, 30080).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(client.ask(own, 30080).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn another_instance_cannot_take_connections_to_the_api_address() {
    lab(|| async {
        let thief = Network::open(config("0a1b2c", 73)).await.unwrap();
        let honest = Network::open(config("0d1e2f", 74)).await.unwrap();
        let (one, address) = pod(&thief, "one").await;
        one.serve("thief", 8080).await;
        let api = honest.config().api_address;
        lab::serve("api", (api, 443).into());
        let mut web = rules("default/web", SERVICE, &[address]);
        web.ports[0].host_port = Some(443);
        let conflicts = thief.set_service(web.clone()).await.unwrap();
        assert_eq!(conflicts[0].holder, PortHolder::Host);
        // Even when the rule is there, as after a port was freed and taken again.
        web.ports[0].host_port = Some(444);
        assert_eq!(thief.set_service(web).await.unwrap(), vec![]);
        let (client, _) = pod(&honest, "client").await;
        assert_eq!(client.ask(api, 444).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(client.ask(api, 443).await.unwrap().0, "api");
        assert!(ask_from_host(HOST, 444).await.is_err());
        assert_eq!(ask_from_host(Ipv4Addr::LOCALHOST, 444).await.unwrap().0, "thief");
    });
}

#[test]
fn what_has_no_backend_is_refused_at_once() {
    lab(|| async {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let (client, _) = pod(&network, "client").await;
        let mut web = rules("default/web", SERVICE, &[]);
        web.ports[0].node_port = Some(30080);
        let mut names = web.ports[0].clone();
        (names.protocol, names.node_port) = (Protocol::Udp, Some(30053));
        web.ports.push(names);
        network.set_service(web).await.unwrap();
        let start = Instant::now();
        let unclaimed = Ipv4Addr::new(10, 73, 200, 1);
        for (address, port) in [(SERVICE, 80), (SERVICE, 81), (unclaimed, 80), (network.config().api_address, 30080)] {
            assert_eq!(client.ask(address, port).await.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{address}");
            assert_eq!(
                ask_from_host(address, port).await.unwrap_err().kind(),
                ErrorKind::ConnectionRefused,
                "{address}"
            );
        }
        let local = ask_from_host(Ipv4Addr::LOCALHOST, 30080).await;
        assert_eq!(local.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // The sender of a datagram learns of it when it listens for an answer, or even as it sends.
        let send = |to: Ipv4Addr, port: u16| {
            move || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.set_read_timeout(Some(SOON)).unwrap();
                socket.connect((to, port)).unwrap();
                socket.send(b"?").and_then(|_| socket.recv(&mut [0; 1])).unwrap_err().kind()
            }
        };
        let refused = tokio::task::spawn_blocking(send(Ipv4Addr::LOCALHOST, 30053)).await.unwrap();
        assert!([ErrorKind::PermissionDenied, ErrorKind::ConnectionRefused].contains(&refused), "{refused:?}");
        assert_eq!(client.run(send(SERVICE, 80)).await, ErrorKind::ConnectionRefused);
        assert!(start.elapsed() < SOON);
    });
}

#[test]
fn opening_again_interrupts_nothing() {
    lab(|| async {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let (one, address) = pod(&network, "one").await;
        let (client, own) = pod(&network, "client").await;
        one.serve("one", 8080).await;
        let mut web = rules("default/web", SERVICE, &[address]);
        web.ports[0].node_port = Some(30080);
        network.set_service(web.clone()).await.unwrap();
        drop(network);

        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let loops: Vec<_> = {
            let (stop, asked) = (stop.clone(), asked.clone());
            let from_pod = (stop.clone(), asked.clone());
            let in_pod =
                client.run(move || std::thread::spawn(move || ask_until(&from_pod.0, &from_pod.1, SERVICE, 80))).await;
            vec![in_pod, std::thread::spawn(move || ask_until(&stop, &asked, Ipv4Addr::LOCALHOST, 30080))]
        };
        for _ in 0..10 {
            let network = Network::open(config("0a1b2c", 73)).await.unwrap();
            assert_eq!((network.address_of("one"), network.address_of("client")), (Some(address), Some(own)));
            assert_eq!(network.attach("one", &one.path).await.unwrap(), address);
            network.set_service(web.clone()).await.unwrap();
            network.retain_services(&HashSet::from(["default/web".to_owned()])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.store(true, Ordering::Relaxed);
        for running in loops {
            tokio::task::spawn_blocking(|| running.join().unwrap()).await.unwrap();
        }
        assert!(asked.load(Ordering::Relaxed) > 50);
    });
}

fn ask_until(stop: &AtomicBool, asked: &AtomicUsize, address: Ipv4Addr, port: u16) {
    while !stop.load(Ordering::Relaxed) {
        ask(address, port).unwrap();
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn services_that_are_gone_after_a_restart_are_removed() {
    lab(|| async {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let (one, address) = pod(&network, "one").await;
        one.serve("one", 8080).await;
        let other = Ipv4Addr::new(10, 73, 128, 21);
        network.set_service(rules("default/stays", SERVICE, &[address])).await.unwrap();
        network.set_service(rules("default/goes", other, &[address])).await.unwrap();
        drop(network);
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        assert!(timeout(Duration::from_millis(50), network.released(address)).await.is_err());
        network.retain_services(&HashSet::from(["default/stays".to_owned()])).await.unwrap();
        assert_eq!(ask_from_host(SERVICE, 80).await.unwrap().0, "one");
        assert!(ask_from_host(other, 80).await.is_err());
        network.remove_service("default/stays").await.unwrap();
        assert!(ask_from_host(SERVICE, 80).await.is_err());
        timeout(SOON, network.released(address)).await.unwrap();
    });
}

#[test]
fn an_address_that_changes_hands_belongs_to_its_newest_service() {
    lab(|| async {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let (one, first) = pod(&network, "one").await;
        let (two, second) = pod(&network, "two").await;
        one.serve("one", 8080).await;
        two.serve("two", 8080).await;
        network.set_service(rules("default/old", SERVICE, &[first])).await.unwrap();
        network.set_service(rules("default/new", SERVICE, &[second])).await.unwrap();
        assert_eq!(ask_from_host(SERVICE, 80).await.unwrap().0, "two");
        network.remove_service("default/old").await.unwrap();
        assert_eq!(ask_from_host(SERVICE, 80).await.unwrap().0, "two");
    });
}

#[test]
fn a_pod_is_released_when_no_service_leads_to_it() {
    lab(|| async {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let [first, second] = [Ipv4Addr::new(10, 73, 0, 1), Ipv4Addr::new(10, 73, 0, 2)];
        timeout(SOON, network.released(first)).await.unwrap();
        network.set_service(rules("default/web", SERVICE, &[first, second])).await.unwrap();
        let waiting = {
            let network = network.clone();
            tokio::spawn(async move { network.released(first).await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        network.set_service(rules("default/web", SERVICE, &[second])).await.unwrap();
        timeout(SOON, waiting).await.unwrap().unwrap();
        assert!(timeout(Duration::from_millis(20), network.released(second)).await.is_err());
    });
}

#[test]
fn teardown_leaves_nothing_and_touches_nobody_else() {
    lab(|| async {
        let mine = Network::open(config("0a1b2c", 73)).await.unwrap();
        let theirs = Network::open(config("0d1e2f", 74)).await.unwrap();
        let (one, address) = pod(&theirs, "one").await;
        one.serve("one", 8080).await;
        let service = Ipv4Addr::new(10, 74, 128, 20);
        theirs.set_service(rules("default/web", service, &[address])).await.unwrap();
        let mut places = Vec::new();
        for uid in ["a", "b", "c"] {
            places.push(pod(&mine, uid).await);
        }
        mine.set_service(rules("default/web", SERVICE, &[places[0].1])).await.unwrap();
        mine.detach("c").await.unwrap();
        Network::teardown(mine.config()).await.unwrap();
        let left: Vec<String> = links().await.into_iter().filter(|name| name.starts_with("sw0a1b2c")).collect();
        assert_eq!(left, Vec::<String>::new());
        assert_eq!(remains().unwrap().tables, ["shipway-0d1e2f"]);
        assert_eq!(ask_from_host(service, 80).await.unwrap().0, "one");
        Network::teardown(mine.config()).await.unwrap();
        Network::teardown(theirs.config()).await.unwrap();
        assert_eq!(remains().unwrap().tables, Vec::<String>::new());
        assert_eq!(links().await.iter().filter(|name| name.starts_with("sw")).count(), 0);
    });
}

#[test]
fn a_detached_pod_leaves_no_link_and_its_address_becomes_free() {
    lab(|| async {
        let mut small = config("0a1b2c", 73);
        small.pod_subnet.1 = 28;
        let network = Network::open(small).await.unwrap();
        let mut places: Vec<(Place, Ipv4Addr)> = Vec::new();
        for at in 0..14 {
            places.push(pod(&network, &at.to_string()).await);
        }
        let place = Place::new();
        assert!(network.attach("more", &place.path).await.is_err());
        for at in 0..14 {
            network.detach(&at.to_string()).await.unwrap();
            assert_eq!(network.address_of(&at.to_string()), None);
        }
        let gone = async {
            while network.attach("more", &place.path).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, gone).await.unwrap();
        assert_eq!(links().await.iter().filter(|name| name.len() > 8 && name.starts_with("sw")).count(), 1);
    });
}

#[test]
fn a_pod_in_a_new_namespace_keeps_its_address() {
    lab(|| async {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let (old, address) = pod(&network, "one").await;
        let new = Place::new();
        assert_eq!(network.attach("one", &new.path).await.unwrap(), address);
        new.serve("new", 8080).await;
        assert_eq!(ask_from_host(address, 8080).await.unwrap().0, "new");
        drop(old);
        assert!(network.attach("", &new.path).await.is_err());
        assert!(network.attach("two", "/does/not/exist".as_ref()).await.is_err());
        assert_eq!(network.address_of("two"), None);
    });
}

#[test]
fn pods_cannot_reach_what_listens_on_the_hosts_loopback() {
    lab(|| async {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let (one, own) = pod(&network, "one").await;
        lab::serve("secret", (Ipv4Addr::LOCALHOST, 9999).into());
        assert_eq!(ask_from_host(Ipv4Addr::LOCALHOST, 9999).await.unwrap().0, "secret");
        // A pod with every right in its own namespace sends loopback traffic to the host instead of to itself.
        let got = one
            .run(move || {
                std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
                lab::block_on(lab::send_loopback_to_the_host());
                lab::ask_as(own, Ipv4Addr::LOCALHOST, 9999)
            })
            .await;
        assert!(got.is_err(), "{got:?}");
    });
}

#[test]
fn pods_reach_the_world_with_the_hosts_address() {
    lab(|| async {
        let world = outside().await;
        world.serve("world", 8080).await;
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let (one, _) = pod(&network, "one").await;
        assert_eq!(one.ask(OUTSIDE, 8080).await.unwrap(), ("world".to_owned(), IpAddr::V4(HOST)));
        // And so does the host through a service whose backend is out there.
        network.set_service(rules("default/world", SERVICE, &[OUTSIDE])).await.unwrap();
        assert_eq!(ask_from_host(SERVICE, 80).await.unwrap(), ("world".to_owned(), IpAddr::V4(HOST)));
        assert_eq!(one.ask(SERVICE, 80).await.unwrap(), ("world".to_owned(), IpAddr::V4(HOST)));
    });
}

#[test]
fn a_flushed_table_is_laid_again_with_the_next_change() {
    lab(|| async {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let (one, address) = pod(&network, "one").await;
        one.serve("one", 8080).await;
        let other = Ipv4Addr::new(10, 73, 128, 21);
        network.set_service(rules("default/web", SERVICE, &[address])).await.unwrap();
        lab::delete_table("shipway-0a1b2c");
        assert!(ask_from_host(SERVICE, 80).await.is_err());
        network.set_service(rules("default/other", other, &[address])).await.unwrap();
        assert_eq!(ask_from_host(SERVICE, 80).await.unwrap().0, "one");
        assert_eq!(one.ask(other, 80).await.unwrap().0, "one");
    });
}

#[test]
fn a_pod_asks_the_clusters_dns() {
    lab(|| async {
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let (one, _) = pod(&network, "one").await;
        let records = ServiceRecords { cluster_address: Some(SERVICE), ..ServiceRecords::default() };
        network.zone().set("default", "web", records);
        let address = network.config().dns_address;
        let server = Server::listen(network.zone().clone(), address, None).await.unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.run(stop.clone()));
        let answer = one.run(move || lab::resolve(address, "web.default.svc.cluster.local")).await;
        assert_eq!(answer, vec![SERVICE]);
        stop.cancel();
        timeout(SOON, running).await.unwrap().unwrap();
    });
}

#[test]
fn subnets_of_an_instance_that_is_there_are_not_free() {
    lab(|| async {
        let (pods, services) = free_subnets(&[]).await.unwrap();
        let mut first = config("0a1b2c", 73);
        (first.pod_subnet, first.service_subnet) = (pods, services);
        first.api_address = Ipv4Addr::from(u32::from(services.0) + 1);
        first.dns_address = Ipv4Addr::from(u32::from(services.0) + 10);
        Network::open(first).await.unwrap();
        let (others, _) = free_subnets(&[]).await.unwrap();
        assert_ne!(others, pods);
        assert_ne!(free_subnets(&[others]).await.unwrap().0, others);
    });
}
