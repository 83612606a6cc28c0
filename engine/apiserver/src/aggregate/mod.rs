//! Aggregation: group versions that other servers serve appear as this server's own.
//!
//! An `APIService` with a service makes its group version lead there ([`route`], [`forward`]); authentication and
//! authorization happen here, first. One task keeps the objects true ([`check`], [`local`]): it waits for changes of what
//! it depends on, and for the time of the next check only as long as there is something to check. Kinds that are compiled
//! in cannot be taken over.

mod check;
mod forward;
mod front_proxy;
mod listing;
mod local;
mod publish;
mod route;
mod tls;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use http::Response;
use shipway_schema::Registry;
use tokio::sync::{Notify, watch};

use crate::ApiServer;
use crate::background::Background;
use crate::body::Body;
use crate::cache::{Cache, Table};
use crate::derived::Derived;
use crate::error::ApiError;
use crate::limit::{self, Permit};
use crate::webhook::Services;
use check::Found;
use route::{Route, Routes};

pub(crate) use forward::Asked;
pub use front_proxy::FrontProxy;
pub(crate) use listing::{add_documents, add_to_aggregated, add_to_groups, group};
pub(crate) use local::register;
pub(crate) use publish::publish;

const GROUP: &str = "apiregistration.k8s.io";
const PLURAL: &str = "apiservices";
/// At least so long after one look comes the next.
const PAUSE: Duration = Duration::from_millis(200);
/// How long to leave a failed step alone.
const RETRY: Duration = Duration::from_millis(500);

/// What the server knows of the servers behind it.
pub(crate) struct Aggregation {
    routes: Derived<Routes>,
    table: Arc<Table>,
    services: Services,
    /// None when nobody could believe this server anything.
    front: Option<Arc<FrontProxy>>,
    /// What the last check of each route found, by the objects' names.
    found: Mutex<HashMap<Arc<str>, Found>>,
    woken: Arc<Notify>,
    task: Background,
}

impl Aggregation {
    pub(crate) fn new(
        registry: &Registry,
        cache: &Cache,
        services: Services,
        front: Option<Arc<FrontProxy>>,
    ) -> Result<Self, ApiError> {
        let objects = registry.find(GROUP, "v1", PLURAL).ok_or(ApiError::NoSuchPath)?;
        let table = cache.table(&objects);
        Ok(Self {
            routes: Derived::new(vec![table.clone()]),
            table,
            services,
            front,
            found: Mutex::default(),
            woken: Arc::default(),
            task: Background::default(),
        })
    }

    /// Starts the task that keeps the objects true; it does not keep the server.
    pub(crate) fn follow(&self, server: &ApiServer) {
        let mut changes = self.table.changes();
        changes.mark_changed();
        let mut services = self.services.changes();
        let (server, woken) = (server.downgrade(), self.woken.clone());
        self.task.start(async move {
            let mut after = None;
            loop {
                if !next(&mut changes, &mut services, &woken, after).await {
                    return;
                }
                let Some(server) = server.upgrade() else { return };
                after = step(&server).boxed().await;
                drop(server);
                tokio::time::sleep(PAUSE).await;
            }
        });
    }

    /// Says that something the task depends on has changed.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    /// What the last check found no longer holds.
    fn doubt(&self, route: &Route) {
        if let Some(found) = self.found.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&route.object) {
            found.expire();
        }
        self.wake();
    }

    /// Ends the task; when this returns it holds nothing any more.
    pub(crate) async fn stop(&self) {
        self.task.stop().await;
    }
}

/// Waits for something to do; false when nothing can change any more. Services matter only while there are routes, which
/// is when there is a time to check again.
async fn next(
    changes: &mut watch::Receiver<u64>,
    services: &mut [watch::Receiver<u64>; 2],
    woken: &Notify,
    after: Option<Duration>,
) -> bool {
    let [known, slices] = services;
    let behind = async {
        let Some(after) = after else { return std::future::pending().await };
        tokio::select! {
            _ = known.changed() => {}
            _ = slices.changed() => {}
            () = tokio::time::sleep(after) => {}
        }
    };
    tokio::select! {
        alive = changes.changed() => alive.is_ok(),
        () = woken.notified() => true,
        () = behind => true,
    }
}

/// Brings the objects up to date. Says after how long to look again even when nothing changes.
async fn step(server: &ApiServer) -> Option<Duration> {
    let done = async {
        register(server).await?;
        check::all(server).await
    };
    match done.await {
        Ok(after) => after,
        Err(error) => {
            tracing::warn!(%error, "API services could not be brought up to date; trying again");
            Some(RETRY)
        }
    }
}

/// The route that a path leads to, if another server serves it, given everything acknowledged so far.
pub(crate) async fn route(server: &ApiServer, path: &str) -> Result<Option<Arc<Route>>, ApiError> {
    let own = path.strip_prefix("/openapi/v3").unwrap_or(path);
    let mut segments = own.strip_prefix("/apis/").into_iter().flat_map(|rest| rest.splitn(3, '/'));
    let (Some(group), Some(version)) = (segments.next(), segments.next()) else { return Ok(None) };
    if server.registry().is_builtin(group, version) {
        return Ok(None);
    }
    server.cache().catch_up().await?;
    Ok(server.aggregation().routes.read(server.cache(), |routes| routes.of(group, version)))
}

/// Hands a request on to the server behind a route; the caller may do what it asks.
pub(crate) async fn forward(
    server: &ApiServer,
    route: &Route,
    asked: Asked,
    permit: Permit,
) -> Result<Response<Body>, ApiError> {
    let answered = forward::forward(server.aggregation(), route, asked).await?;
    Ok(limit::hold(answered, permit))
}

/// Every route that holds.
fn routes(server: &ApiServer) -> Vec<Arc<Route>> {
    let all = server.aggregation().routes.read(server.cache(), Routes::all);
    let registry = server.registry();
    all.into_iter().filter(|route| !registry.is_builtin(&route.group, &route.version)).collect()
}
