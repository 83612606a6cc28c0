//! The engine: store, API server, controllers, scheduler, node and network wired together in one process.
//!
//! They meet only here. Everybody but the API server gets a client over it in process, each with an identity of its own.

mod further;

use std::convert::Infallible;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shipway_apiserver::pki::{Authority, FrontProxy, KeyPairPem, TokenKey};
use shipway_apiserver::{ApiServer, Config, Identity};
use shipway_container::Runtime;
use shipway_driver::{Meters, Shared, slim};
use shipway_network::{Network, Proxying, Role};
use shipway_node::{Lease, Node, NodeConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::UpArgs;
use crate::down::layout;
use crate::home::{Home, private_folder};
use crate::instance::{CLUSTER_DOMAIN, Instance};
use crate::listings::{is_ready, node_name};
use crate::output::one_line;
use crate::up::READY;

/// The ports that services may have on the node.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
/// For how long pods that say nothing stay on a node that is lost, see docs/decisions/0013-leash.md.
const TOLERATION_SECONDS: u32 = 2;
/// How long the node may take to become ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the parts may take to end when asked to.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// `shipway engine`: runs until it is told to stop. Containers go on without it.
pub(crate) async fn engine(home: Home, args: &UpArgs) -> Result<()> {
    let _lock = home.lock().inspect_err(report)?;
    start_log();
    take_all_files();
    // Not a part of the session that started us: closing a terminal does not end the engine.
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "already a session of its own");
    }
    let mut told = signal(SignalKind::hangup())?;
    let mut engine = Engine::start(home, args).await.inspect_err(report)?;
    let mut failed = false;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        ready = engine.announce() => {
            ready.inspect_err(report)?;
            let stop = engine.stop.clone();
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = stop.cancelled() => failed = true,
                () = engine.keep_nodes(&mut told) => {}
            }
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    engine.stop().await;
    if failed { Err(anyhow::anyhow!("a part of the engine failed; see engine.log")) } else { Ok(()) }
}

/// Tells the command that started us why we end; it waits for one line.
fn report(error: &anyhow::Error) {
    say(&one_line(error).replace('\n', " "));
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody listens");
    }
}

/// Lets what is told go to the standard error.
pub(crate) fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SHIPWAY_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

/// Sockets, watches and pods need descriptors; the usual soft limit is kept low for programs that use `select`.
pub(crate) fn take_all_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

struct Engine {
    api: ApiServer,
    stop: CancellationToken,
    parts: JoinSet<()>,
    home: Home,
    instance: Instance,
    network: Network,
    tls: Arc<rustls::ServerConfig>,
    /// Whether further nodes can come to it.
    open: bool,
    /// Whether the network between the nodes of this machine is laid.
    laid: bool,
}

impl Engine {
    async fn start(home: Home, args: &UpArgs) -> Result<Self> {
        let (instance, listeners) = Instance::open(&home, args.api_port, args.listen).await?;
        private_folder(&home.path("pods"))?;
        let log = shipway_store::Log::open(&home.path("store"), shipway_store::Options::default());
        let log = log.with_context(|| format!("cannot open the store in {}", home.path("store").display()))?;
        let runtime = Runtime::new(layout(&home)).context("cannot set the container runtime up")?;
        let network = Network::open(instance.network(&home)).await.context("cannot set the network up")?;
        let address = SocketAddr::from((instance.api_address(), 443));
        let mut config = Config::new(instance.service_subnet, address, NODE_PORTS);
        let key = TokenKey::open(&home.path("pki")).context("cannot open the key of service account tokens")?;
        config.token_key = Some(Arc::new(key));
        let front = FrontProxy::open(&home.path("pki")).context("cannot open the authority of the front proxy")?;
        config.front_proxy = Some(Arc::new(front));
        config.audit = args.audit();
        config.toleration_seconds = TOLERATION_SECONDS;
        let meters = Meters::default();
        config.metrics.push(meters.registry());
        let api = ApiServer::open(log.clone(), config).await.context("cannot start the API server")?;
        let authority = Authority::open(&home.path("pki")).context("cannot open the certificate authority")?;
        let tls = server_tls(&home, &instance, &authority)?;
        let (stop, parts) = (CancellationToken::new(), JoinSet::new());
        let mut engine = Self { api, stop, parts, home, instance, network, tls, open: false, laid: false };
        // What the disk did not take is never retried: the next engine starts from what it did take.
        let stop = engine.stop.clone();
        engine.spawn("store", async move {
            tokio::select! {
                error = log.failed() => Err(error),
                () = stop.cancelled() => Ok(()),
            }
        });
        engine.serve(listeners).await?;
        engine.run_parts(authority, runtime, &meters)?;
        Ok(engine)
    }

    /// Serves the API on loopback, for other machines where that is wanted, and, for pods, on the address of the service `kubernetes`.
    async fn serve(&mut self, listeners: Vec<std::net::TcpListener>) -> Result<()> {
        let inside = TcpListener::bind((self.instance.api_address(), 443)).await;
        let inside = inside.context("cannot listen on the address of the service kubernetes")?;
        for listener in listeners {
            self.answer(TcpListener::from_std(listener)?);
        }
        self.answer(inside);
        Ok(())
    }

    fn answer(&mut self, listener: TcpListener) {
        let (api, tls, stop) = (self.api.clone(), self.tls.clone(), self.stop.clone());
        self.spawn("API server", async move { api.serve(listener, tls, stop).await });
    }

    fn client(&self, identity: Identity) -> Client {
        Client::new(self.api.in_process(identity), "default")
    }

    fn run_parts(&mut self, authority: Authority, runtime: Runtime, meters: &Meters) -> Result<()> {
        let (home, instance, network) = (self.home.clone(), self.instance.clone(), self.network.clone());
        let (pods, watching) = Shared::new(Api::all(self.client(Identity::scheduler())), slim, self.stop.clone());
        self.spawn("cache of pods", watching.map(Ok::<(), Infallible>));
        let client = |name: &str| self.client(Identity::controller(name));
        let controlling = shipway_controllers::run(client, &pods, lent(authority), meters, self.stop.clone());
        self.spawn("controllers", controlling.map(Ok::<(), Infallible>));
        let scheduling = shipway_scheduler::run(self.client(Identity::scheduler()), pods.clone(), self.stop.clone());
        self.spawn("scheduler", scheduling.map(Ok::<(), Infallible>));
        let name = node_name();
        let client = self.client(Identity::controller("service-proxy"));
        let sleeper = Some(self.client(Identity::controller("sleeper")));
        let (network_too, role, node) = (network.clone(), Role::Publisher, name.clone());
        let proxying = Proxying { client, sleeper, network: network_too, pods, role, node };
        self.spawn("service proxy", shipway_network::proxy(proxying, self.stop.clone()));
        let images = shipway_oci::Store::open(&home.path("content")).context("cannot open the image store")?;
        let config = NodeConfig {
            name: name.clone(),
            home: home.root().to_owned(),
            dns_address: instance.dns_address(),
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            pod_subnet: instance.own_subnet(),
            address: IpAddr::V4(instance.listen.unwrap_or_else(shipway_network::host_address)),
            port: None,
            lease: Lease::WITH_THE_API,
            collects: Some(home.nodes()),
        };
        let layers = shipway_oci::Layers::open(&home.path("layers")).context("cannot open the folder of layers")?;
        let node = Node::new(self.client(Identity::node(&name)), runtime, network, images, layers, config);
        self.api.register_node(&name, node.service());
        self.spawn("node", node.run(self.stop.clone()));
        Ok(())
    }

    /// Runs a part until the end; one that fails takes the engine with it, so that nothing runs half.
    fn spawn<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let stop = self.stop.clone();
        self.parts.spawn(async move {
            match AssertUnwindSafe(part).catch_unwind().await {
                Ok(Ok(())) if stop.is_cancelled() => {}
                Ok(Ok(())) => tracing::error!("{name} ended by itself, the engine ends"),
                Ok(Err(error)) => tracing::error!(%error, "{name} failed, the engine ends"),
                Err(_) => tracing::error!("{name} panicked, the engine ends"),
            }
            stop.cancel();
        });
    }

    /// Waits until the node is ready and tells the command that started us.
    async fn announce(&self) -> Result<()> {
        let nodes: Api<NodeObject> = Api::all(self.client(Identity::admin()));
        let ready = |node: Option<&NodeObject>| node.is_some_and(is_ready);
        let waited = tokio::time::timeout(PATIENCE, await_condition(nodes, &node_name(), ready)).await;
        waited.context("the node is not ready after 30 s")??;
        say(READY);
        Ok(())
    }

    async fn stop(mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(LAST_WORDS, async { while self.parts.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::warn!("some parts did not end in time");
        }
        self.api.close().await;
    }
}

/// The server's certificate, for all names and addresses that it is reached under.
fn server_tls(home: &Home, instance: &Instance, authority: &Authority) -> Result<Arc<rustls::ServerConfig>> {
    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
    let full = format!("kubernetes.default.svc.{CLUSTER_DOMAIN}");
    let names: Vec<String> = names.into_iter().chain([full, node_name()]).collect();
    let own = [Ipv4Addr::LOCALHOST, instance.api_address()].into_iter();
    let own = own.chain(instance.api_for_nodes(home).map(|address| *address.ip())).chain(instance.listen);
    let addresses: Vec<IpAddr> = own.map(IpAddr::V4).collect();
    let tls = authority.server_config(&authority.issue_server(&names, &addresses)?)?;
    write_kubeconfig(home, instance, authority)?;
    Ok(tls)
}

/// What the controllers get of the authority: its certificate and the act of signing, but not the key.
fn lent(authority: Authority) -> shipway_controllers::Authority {
    let root = authority.ca_pem().into();
    let sign = move |request: &[u8], usages: &[String], valid: Duration| {
        authority.sign(request, usages, valid).map_err(|error| error.to_string())
    };
    shipway_controllers::Authority { root, sign: Arc::new(sign) }
}

/// Writes the administrator's kubeconfig for the port of this run.
fn write_kubeconfig(home: &Home, instance: &Instance, authority: &Authority) -> Result<()> {
    use base64::Engine as _;
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let KeyPairPem { certificate, key } = authority.issue_client(&Identity::admin())?;
    let name = format!("shipway-{}", home.id());
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{ "name": name, "cluster": {
            "server": format!("https://127.0.0.1:{}", instance.api_port),
            "certificate-authority-data": encode(authority.ca_pem()),
        }}],
        "users": [{ "name": name, "user": {
            "client-certificate-data": encode(&certificate),
            "client-key-data": encode(&key),
        }}],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name, "namespace": "default" } }],
    });
    let (path, fresh) = (home.path("kubeconfig"), home.path("kubeconfig.new"));
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&serde_json::to_vec_pretty(&kubeconfig)?)?;
    std::fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))
}
