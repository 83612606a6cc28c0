//! What it costs to change one service when 1,000 are there, and to attach a pod:
//! `cargo run -p shipway-network --example service_cost [services]`, as root.
//!
//! Works in a network namespace of its own; the host's network is not touched.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use shipway_network::{Network, NetworkConfig, NetworkError, Protocol, ServicePort, ServiceRules};

const ROUNDS: u32 = 500;
const PODS: u32 = 50;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let services = std::env::args().nth(1).map_or(Ok(1000), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(services))?;
    Ok(())
}

async fn measure(services: u32) -> Result<(), NetworkError> {
    let network = Network::open(config()).await?;
    let start = Instant::now();
    for number in 0..services {
        network.set_service(rules(number, 0)).await?;
    }
    println!("{services} services of 5 backends set in {:?}", start.elapsed());
    let mut taken = Vec::new();
    for round in 1..=ROUNDS {
        let start = Instant::now();
        network.set_service(rules(round * 7 % services, round)).await?;
        taken.push(start.elapsed());
    }
    report("one service changed", taken);
    let mut taken = Vec::new();
    let namespaces: Vec<PathBuf> = (0..PODS).map(|_| namespace()).collect();
    for (path, number) in namespaces.iter().zip(0..) {
        let start = Instant::now();
        network.attach(&format!("pod-{number}"), path).await?;
        taken.push(start.elapsed());
    }
    report("one pod attached", taken);
    let start = Instant::now();
    drop(network);
    Network::open(config()).await?;
    println!("open again: {:?}", start.elapsed());
    let start = Instant::now();
    Network::teardown(&config()).await?;
    println!("torn down with {PODS} pods: {:?}", start.elapsed());
    Ok(())
}

/// A network namespace that lasts as long as the process.
fn namespace() -> PathBuf {
    let (ready, path) = mpsc::channel();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root can make network namespaces");
        let thread = nix::unistd::gettid();
        ready.send(PathBuf::from(format!("/proc/self/task/{thread}/ns/net"))).expect("main waits");
        loop {
            std::thread::park();
        }
    });
    path.recv().expect("the thread sends its path")
}

fn report(what: &str, mut taken: Vec<Duration>) {
    taken.sort_unstable();
    let at = |percent: usize| taken[(taken.len() * percent / 100).min(taken.len() - 1)];
    println!("{what}: p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100));
}

fn config() -> NetworkConfig {
    NetworkConfig {
        instance: "c0575e".to_owned(),
        pod_subnet: (Ipv4Addr::new(10, 73, 0, 0), 17),
        cluster_subnet: (Ipv4Addr::new(10, 73, 0, 0), 17),
        underlay: None,
        overlay: 0x000a_1b2c,
        api_endpoint: None,
        service_subnet: (Ipv4Addr::new(10, 73, 128, 0), 17),
        dns_address: Ipv4Addr::new(10, 73, 128, 10),
        api_address: Ipv4Addr::new(10, 73, 128, 1),
        cluster_domain: "cluster.local".to_owned(),
    }
}

/// A service with five backends that differ from round to round.
fn rules(number: u32, round: u32) -> ServiceRules {
    let pods = u32::from(config().pod_subnet.0);
    let backend = |at: u32| (Ipv4Addr::from(pods + (number * 5 + at + round) % 32_000 + 1), 8080);
    let port = ServicePort {
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
        host_port: None,
        backends: (0..5).map(backend).collect(),
        outer: None,
    };
    ServiceRules {
        key: format!("default/service-{number}"),
        cluster_address: Some(Ipv4Addr::from(u32::from(config().service_subnet.0) + 100 + number)),
        ports: vec![port],
        ..ServiceRules::default()
    }
}
