//! A laboratory: a network namespace that plays the host, and threads in namespaces of their own that play pods and
//! the world outside. The real host's network is never touched.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use futures::TryStreamExt;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use shipway_network::{NetworkConfig, Protocol, ServicePort, ServiceRules};

/// The address of the laboratory's host towards the world.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// A machine beside the host that knows nothing of pods.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a test inside a fresh network namespace, on threads that are all born in it.
pub(crate) fn lab<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let inside = std::thread::spawn(|| {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            eprintln!("skipped: only root can make network namespaces");
            return;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            bring_up("lo", None).await;
            test().await;
        });
    });
    if let Err(panic) = inside.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn config(instance: &str, second_byte: u8) -> NetworkConfig {
    NetworkConfig {
        instance: instance.to_owned(),
        pod_subnet: (Ipv4Addr::new(10, second_byte, 0, 0), 17),
        cluster_subnet: (Ipv4Addr::new(10, second_byte, 0, 0), 17),
        underlay: None,
        overlay: 0x000a_1b2c,
        api_endpoint: None,
        service_subnet: (Ipv4Addr::new(10, second_byte, 128, 0), 17),
        dns_address: Ipv4Addr::new(10, second_byte, 128, 10),
        api_address: Ipv4Addr::new(10, second_byte, 128, 1),
        cluster_domain: "cluster.local".to_owned(),
    }
}

pub(crate) fn rules(key: &str, cluster_address: Ipv4Addr, backends: &[Ipv4Addr]) -> ServiceRules {
    let port = ServicePort {
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
        host_port: None,
        backends: backends.iter().map(|address| (*address, 8080)).collect(),
        outer: None,
    };
    ServiceRules {
        key: key.to_owned(),
        cluster_address: Some(cluster_address),
        ports: vec![port],
        ..ServiceRules::default()
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// A network namespace with a thread in it.
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    work: mpsc::Sender<Work>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let (work, todo) = mpsc::channel::<Work>();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let thread = nix::unistd::gettid();
            ready.send(PathBuf::from(format!("/proc/{}/task/{thread}/ns/net", std::process::id()))).unwrap();
            for work in todo {
                work();
            }
        });
        Self { path: is_ready.recv().unwrap(), work }
    }

    /// Runs something inside and waits for it.
    pub(crate) async fn run<T: Send + 'static>(&self, inside: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let work = Box::new(move || {
            assert!(answer.send(inside()).is_ok(), "the test no longer waits");
        });
        self.work.send(work).unwrap();
        answered.await.unwrap()
    }

    /// Serves inside: every connection is told `name` and the address that it came from.
    pub(crate) async fn serve(&self, name: &'static str, port: u16) {
        self.run(move || serve(name, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))).await;
    }

    /// Asks a server from inside.
    pub(crate) async fn ask(&self, address: Ipv4Addr, port: u16) -> io::Result<(String, IpAddr)> {
        self.run(move || ask(address, port)).await
    }
}

/// Serves in the namespace of the calling thread.
pub(crate) fn serve(name: &'static str, address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            // An asker that went away is no failure of the server.
            stream.write_all(format!("{name} {peer}").as_bytes()).ok();
        }
    });
}

/// Answers datagrams in the namespace of the calling thread with `name`.
pub(crate) fn serve_datagrams(name: &'static str, port: u16) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((_, asker)) = socket.recv_from(&mut buffer) {
            // An asker that went away is no failure of the server.
            socket.send_to(name.as_bytes(), asker).ok();
        }
    });
}

/// Asks a server from the namespace of the calling thread.
pub(crate) fn ask(address: Ipv4Addr, port: u16) -> io::Result<(String, IpAddr)> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (name, peer) = answer.split_once(' ').ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((name.to_owned(), peer.parse().unwrap()))
}

/// Asks from the host.
pub(crate) async fn ask_from_host(address: Ipv4Addr, port: u16) -> io::Result<(String, IpAddr)> {
    tokio::task::spawn_blocking(move || ask(address, port)).await.unwrap()
}

/// Connects the host to a machine outside, which has no route to any pod.
pub(crate) async fn outside() -> Place {
    let place = Place::new();
    let file = std::fs::File::open(&place.path).unwrap();
    let handle = handle();
    let peer = LinkMessageBuilder::<LinkUnspec>::default()
        .name("out0")
        .setns_by_fd(std::os::fd::AsRawFd::as_raw_fd(&file))
        .build();
    let pair = LinkVeth::new("host0", "out0").set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
    handle.link().add(pair).execute().await.unwrap();
    bring_up("host0", Some(HOST)).await;
    place.run(|| block_on(bring_up("out0", Some(OUTSIDE)))).await;
    place
}

/// Runs netlink work in the namespace of the calling thread.
pub(crate) fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

pub(crate) async fn bring_up(name: &str, address: Option<Ipv4Addr>) {
    let handle = handle();
    let index = nix::net::if_::if_nametoindex(name).unwrap();
    if let Some(address) = address {
        handle.address().add(index, address.into(), 24).execute().await.unwrap();
    }
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
}

pub(crate) fn handle() -> rtnetlink::Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

/// The names of all links of the host.
pub(crate) async fn links() -> Vec<String> {
    let links: Vec<_> = handle().link().get().execute().try_collect().await.unwrap();
    let name = |attribute: &LinkAttribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    };
    links.iter().filter_map(|link| link.attributes.iter().find_map(name)).collect()
}

/// Takes the loopback network away from the calling thread's namespace and routes it to the host.
pub(crate) async fn send_loopback_to_the_host() {
    let handle = handle();
    let addresses: Vec<_> = handle.address().get().execute().try_collect().await.unwrap();
    for address in addresses.into_iter().filter(|address| address.header.index == 1) {
        handle.address().del(address).execute().await.unwrap();
    }
    let eth0 = nix::net::if_::if_nametoindex("eth0").unwrap();
    let route = rtnetlink::RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::new(127, 0, 0, 0), 8)
        .gateway(Ipv4Addr::new(169, 254, 1, 1))
        .output_interface(eth0)
        .onlink()
        .build();
    handle.route().add(route).execute().await.unwrap();
}

/// Asks a server, sending from a certain address.
pub(crate) fn ask_as(own: Ipv4Addr, address: Ipv4Addr, port: u16) -> io::Result<String> {
    block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((own, 0)))?;
        let connecting = socket.connect(SocketAddr::from((address, port)));
        let mut stream = tokio::time::timeout(Duration::from_millis(700), connecting).await??;
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await?;
        Ok(answer)
    })
}

/// Deletes a table as somebody else would.
pub(crate) fn delete_table(name: &str) {
    let mut socket = rtnetlink::sys::Socket::new(12).unwrap();
    socket.bind_auto().unwrap();
    let message = |kind: u16, family: u8, resource: u16, payload: &[u8]| {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&u32::try_from(20 + payload.len()).unwrap().to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&1_u16.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[family, 0]);
        bytes.extend_from_slice(&resource.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    };
    let mut attribute = u16::try_from(name.len() + 5).unwrap().to_ne_bytes().to_vec();
    attribute.extend_from_slice(&1_u16.to_ne_bytes());
    attribute.extend_from_slice(name.as_bytes());
    attribute.resize((name.len() + 5).next_multiple_of(4), 0);
    let batch = [message(16, 0, 10, &[]), message(10 << 8 | 2, 2, 0, &attribute), message(17, 0, 10, &[])].concat();
    socket.send_to(&batch, &rtnetlink::sys::SocketAddr::new(0, 0), 0).unwrap();
}

/// Asks a DNS server for addresses.
pub(crate) fn resolve(server: Ipv4Addr, name: &str) -> Vec<Ipv4Addr> {
    use hickory_proto::op::{Message, Query};
    use hickory_proto::rr::{RData, RecordType};
    let mut question = Message::query();
    question.add_query(Query::query(format!("{name}.").parse().unwrap(), RecordType::A));
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect((server, 53)).unwrap();
    socket.send(&question.to_vec().unwrap()).unwrap();
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).unwrap();
    let answers = Message::from_vec(&buffer[..length]).unwrap().answers;
    let address = |data: &RData| match data {
        RData::A(address) => Some(address.0),
        _ => None,
    };
    answers.iter().filter_map(|record| address(&record.data)).collect()
}
