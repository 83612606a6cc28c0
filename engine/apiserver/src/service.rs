//! The server as a value: opened over a store, called in process, served on a socket.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use shipway_schema::Registry;
use shipway_store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;

use crate::admission::{self, Chain};
use crate::allocate::Ranges;
use crate::body::{Body, BoxError};
use crate::bootstrap;
use crate::cache::{Cache, Table};
use crate::error::ApiError;
use crate::handle::answer;
use crate::identity::Identity;
use crate::server;
use crate::webhook::{Services, Webhooks};

/// What a node answers log requests with.
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
}

/// The API server. Clones share everything.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

struct Inner {
    registry: RwLock<Arc<Registry>>,
    cache: Arc<Cache>,
    namespaces: Arc<Table>,
    ranges: Ranges,
    webhooks: Webhooks,
    admission: Chain,
    nodes: RwLock<HashMap<String, NodeService>>,
    /// Feeds the cache; joined by [`ApiServer::close`].
    feed: Mutex<Option<JoinHandle<()>>>,
    /// Ends what in-process callers still read when the server goes.
    closing: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closing.cancel();
        if let Some(feed) = self.feed.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            feed.abort();
        }
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
        let webhooks = Webhooks::new(services(&registry, &cache)?);
        let admission = Chain::new(&cache);
        let follower = cache.clone();
        let feed = tokio::spawn(async move { follower.follow(watcher).await });
        let ranges = Ranges { addresses: config.service_subnet, node_ports: config.node_port_range.clone() };
        let closing = CancellationToken::new();
        let inner = Inner {
            registry: RwLock::new(Arc::new(registry)),
            cache,
            namespaces,
            ranges,
            webhooks,
            admission,
            nodes: RwLock::default(),
            feed: Mutex::new(Some(feed)),
            closing,
        };
        let server = Self(Arc::new(inner));
        bootstrap::run(&server, &config).await?;
        admission::recount_all(&server).await?;
        Ok(server)
    }

    /// A service for callers in this process, acting as `identity`.
    pub fn in_process(&self, identity: Identity) -> InProcess {
        InProcess { server: self.clone(), identity: Arc::new(identity) }
    }

    /// Serves TLS connections until stopped; then lets requests in flight end, watches at once.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        stop: CancellationToken,
    ) -> Result<(), ApiError> {
        server::serve(self.clone(), listener, tls, stop).await
    }

    /// Says where `GET /containerLogs/<namespace>/<pod>/<container>` for pods of a node is sent. A later registration
    /// replaces an earlier one.
    pub fn register_node(&self, name: &str, service: NodeService) {
        self.0.nodes.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), service);
    }

    /// Ends the watches of callers in this process and lets go of the store; when this returns, nothing but clones of
    /// this value holds it. Reads fail from then on.
    pub async fn close(&self) {
        self.0.closing.cancel();
        let feed = self.0.feed.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.0.cache.lose();
        if let Some(feed) = feed {
            feed.abort();
            // It was aborted: how it ended says nothing.
            drop(feed.await);
        }
    }

    pub(crate) fn node(&self, name: &str) -> Option<NodeService> {
        self.0.nodes.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The kinds served at this moment.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.0.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
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

    pub(crate) fn webhooks(&self) -> &Webhooks {
        &self.0.webhooks
    }

    pub(crate) fn admission(&self) -> &Chain {
        &self.0.admission
    }

    pub(crate) fn ranges(&self) -> &Ranges {
        &self.0.ranges
    }
}

/// The services that webhooks are behind.
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
