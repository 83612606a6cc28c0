//! The server as a value: opened over a store, called in process, served on a socket.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use shipway_schema::Registry;
use shipway_store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;

use crate::access::{Accounts, TokenKey};
use crate::admission::{self, Chain};
use crate::aggregate::{self, Aggregation, FrontProxy};
use crate::allocate::Ranges;
use crate::audit::{Audit, AuditConfig};
use crate::authorize::Authorizer;
use crate::background::Background;
use crate::body::{Body, BoxError};
use crate::bootstrap;
use crate::cache::{Cache, Table};
use crate::custom::{self, Kinds};
use crate::error::ApiError;
use crate::expiry;
use crate::handle::answer;
use crate::identity::Identity;
use crate::limit::{InFlight, Limits};
use crate::metrics::Metrics;
use crate::pki::NodeCaller;
use crate::profile::Profiler;
use crate::remote;
use crate::server;
use crate::webhook::{Services, Webhooks};

/// What a node answers requests with.
pub type NodeService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The addresses that the server gives out and is reached at.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where service addresses come from: network and prefix length.
    pub service_subnet: (Ipv4Addr, u8),
    /// Where the endpoints of the `kubernetes` service point to.
    pub api_address: SocketAddr,
    /// Where node ports come from.
    pub node_port_range: RangeInclusive<u16>,
    /// What tokens of service accounts are signed with; none makes a key that lives as long as the server.
    pub token_key: Option<Arc<TokenKey>>,
    /// As whom servers behind this one are asked; with none they are told who asks and have no reason to believe it.
    pub front_proxy: Option<Arc<FrontProxy>>,
    /// What is written down about requests, and where.
    pub audit: Option<AuditConfig>,
    /// How many requests may be in flight.
    pub limits: Limits,
    /// For how long pods that say nothing stay on a node that is lost or not ready.
    pub toleration_seconds: u32,
    /// What others of this process count, served beside the server's own metrics.
    pub metrics: Vec<Arc<prometheus_client::registry::Registry>>,
}

impl Config {
    /// With a passing key for tokens, no audit, the usual limits and the tolerations that upstream gives.
    pub fn new(service_subnet: (Ipv4Addr, u8), api_address: SocketAddr, node_port_range: RangeInclusive<u16>) -> Self {
        let limits = Limits::default();
        Self {
            service_subnet,
            api_address,
            node_port_range,
            token_key: None,
            front_proxy: None,
            audit: None,
            limits,
            toleration_seconds: 300,
            metrics: Vec::new(),
        }
    }
}

/// The API server. Clones share everything.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

struct Inner {
    registry: RwLock<Arc<Registry>>,
    cache: Arc<Cache>,
    namespaces: Arc<Table>,
    ranges: Ranges,
    metrics: Metrics,
    profiler: Profiler,
    address: SocketAddr,
    authorizer: Authorizer,
    accounts: Accounts,
    flight: Arc<InFlight>,
    audit: Option<Audit>,
    webhooks: Arc<Webhooks>,
    kinds: Kinds,
    aggregation: Aggregation,
    admission: Chain,
    nodes: RwLock<HashMap<String, NodeService>>,
    /// How nodes in other processes are asked.
    caller: OnceLock<Arc<NodeCaller>>,
    /// Feeds the cache; joined by [`ApiServer::close`].
    feed: Background,
    /// Removes old events.
    expiry: Background,
    /// Ends what in-process callers still read when the server goes.
    closing: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("registry", &self.0.registry).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Loads the state and creates the system namespaces and the `kubernetes` service where they are missing.
    pub async fn open(store: Arc<dyn Store>, config: Config) -> Result<Self, ApiError> {
        let registry = Registry::builtin();
        let (cache, watcher) = Cache::load(store).await?;
        let cache = Arc::new(cache);
        let namespaces = registry.find("", "v1", "namespaces").ok_or(ApiError::NoSuchPath)?;
        let namespaces = cache.table(&namespaces);
        let authorizer = Authorizer::new(&registry, &cache);
        let key = config.token_key.clone().map_or_else(|| TokenKey::passing().map(Arc::new), Ok)?;
        let accounts = Accounts::new(key, &registry, &cache).ok_or(ApiError::NoSuchPath)?;
        let audit = config.audit.as_ref().map(Audit::open).transpose()?;
        let webhooks = Arc::new(Webhooks::new(services(&registry, &cache)?));
        let behind = services(&registry, &cache)?;
        let aggregation = Aggregation::new(&registry, &cache, behind, config.front_proxy.clone())?;
        let admission = Chain::new(&cache, config.toleration_seconds);
        let follower = cache.clone();
        let feed = Background::default();
        feed.start(async move { follower.keep_up(watcher).await });
        let ranges = Ranges { addresses: config.service_subnet, node_ports: config.node_port_range.clone() };
        let closing = CancellationToken::new();
        let inner = Inner {
            registry: RwLock::new(Arc::new(registry)),
            cache,
            namespaces,
            ranges,
            metrics: Metrics::new(config.metrics.clone()),
            profiler: Profiler::default(),
            address: config.api_address,
            authorizer,
            accounts,
            flight: InFlight::new(config.limits),
            audit,
            webhooks,
            kinds: Kinds::default(),
            aggregation,
            admission,
            nodes: RwLock::default(),
            caller: OnceLock::new(),
            feed,
            expiry: Background::default(),
            closing,
        };
        let server = Self(Arc::new(inner));
        custom::load(&server);
        server.0.kinds.follow(&server);
        bootstrap::run(&server, &config).await?;
        aggregate::register(&server).await?;
        server.0.aggregation.follow(&server);
        admission::recount_all(&server).await?;
        expiry::follow(&server);
        Ok(server)
    }

    /// A service for callers in this process, acting as `identity`.
    pub fn in_process(&self, identity: Identity) -> InProcess {
        InProcess { server: self.clone(), identity: Arc::new(identity.known()) }
    }

    /// Serves TLS connections until stopped; then lets requests in flight end, watches at once.
    pub fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), ApiError>> {
        Box::pin(server::serve(self.clone(), listener, tls, stop))
    }

    /// Says where what a node serves itself is asked for, on the paths of a kubelet: `/containerLogs/<namespace>/<pod>/<container>`
    /// and the streams of its pods, and `/stats/summary`. A later registration replaces an earlier one.
    pub fn register_node(&self, name: &str, service: NodeService) {
        self.0.nodes.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), service);
    }

    /// From now on nodes that are not registered are asked in their own processes, where their objects say that they
    /// listen. A second call changes nothing.
    pub fn call_nodes(&self, caller: NodeCaller) {
        self.0.caller.get_or_init(|| Arc::new(caller));
    }

    /// Ends the watches of callers in this process and lets go of the store; when this returns, nothing but clones of
    /// this value holds it. Reads fail from then on.
    pub async fn close(&self) {
        self.0.closing.cancel();
        self.0.kinds.stop().await;
        self.0.aggregation.stop().await;
        self.0.expiry.stop().await;
        self.0.cache.lose();
        self.0.feed.stop().await;
        if let Some(audit) = &self.0.audit {
            audit.close().await;
        }
    }

    pub(crate) fn node(&self, name: &str) -> Option<NodeService> {
        let own = self.0.nodes.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        own.or_else(|| remote::node(self, self.0.caller.get()?, name))
    }

    /// The kinds served at this moment.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.0.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it has been told to end.
    pub(crate) fn is_closing(&self) -> bool {
        self.0.closing.is_cancelled()
    }

    /// Cancelled when it ends.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.0.closing.child_token()
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    pub(crate) fn shared_cache(&self) -> Arc<Cache> {
        self.0.cache.clone()
    }

    pub(crate) fn namespaces(&self) -> &Table {
        &self.0.namespaces
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn profiler(&self) -> &Profiler {
        &self.0.profiler
    }

    /// Where the API is reached from inside.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    pub(crate) fn authorizer(&self) -> &Authorizer {
        &self.0.authorizer
    }

    pub(crate) fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    /// What is in flight.
    pub(crate) fn flight(&self) -> &Arc<InFlight> {
        &self.0.flight
    }

    pub(crate) fn audit(&self) -> Option<&Audit> {
        self.0.audit.as_ref()
    }

    /// Serves other kinds from now on.
    pub(crate) fn set_registry(&self, registry: Registry) {
        *self.0.registry.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(registry);
        self.0.aggregation.wake();
    }

    pub(crate) fn aggregation(&self) -> &Aggregation {
        &self.0.aggregation
    }

    pub(crate) fn webhooks(&self) -> &Webhooks {
        &self.0.webhooks
    }

    pub(crate) fn shared_webhooks(&self) -> Arc<Webhooks> {
        self.0.webhooks.clone()
    }

    pub(crate) fn kinds(&self) -> &Kinds {
        &self.0.kinds
    }

    pub(crate) fn expiry(&self) -> &Background {
        &self.0.expiry
    }

    /// A way to the server that does not keep it.
    pub(crate) fn downgrade(&self) -> WeakServer {
        WeakServer(Arc::downgrade(&self.0))
    }

    pub(crate) fn admission(&self) -> &Chain {
        &self.0.admission
    }

    pub(crate) fn ranges(&self) -> &Ranges {
        &self.0.ranges
    }
}

/// The server, as long as somebody else keeps it.
pub(crate) struct WeakServer(Weak<Inner>);

impl WeakServer {
    pub(crate) fn upgrade(&self) -> Option<ApiServer> {
        self.0.upgrade().map(ApiServer)
    }
}

/// The services that webhooks and other servers are behind.
fn services(registry: &Registry, cache: &Arc<Cache>) -> Result<Services, ApiError> {
    let services = registry.of_kind("v1", "Service").ok_or(ApiError::NoSuchPath)?;
    let slices = registry.of_kind("discovery.k8s.io/v1", "EndpointSlice").ok_or(ApiError::NoSuchPath)?;
    Ok(Services::new(cache.clone(), cache.table(&services), cache.table(&slices)))
}

/// The server as one caller in this process sees it.
#[derive(Clone, Debug)]
pub struct InProcess {
    server: ApiServer,
    identity: Arc<Identity>,
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let stop = self.server.0.closing.child_token();
        let answered = answer(self.server.clone(), Some(self.identity.clone()), request, stop);
        Box::pin(async move { Ok(answered.await) })
    }
}
