//! One look at the definitions: judge them, serve what is established, say so, and go on with what is ending.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use futures::future::BoxFuture;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use shipway_schema::custom::{is_established, judge};
use tokio::sync::watch;
use tower::Service;

use super::known::Definition;
use super::removal;
use crate::ApiServer;
use crate::body::{self, full};
use crate::cache::Table;
use crate::clock;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::meta;

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";
/// The most that is read of an answer that says what went wrong, in bytes.
const REPLY: usize = 64 * 1024;
const MANAGER: &str = "shipway-apiserver";

/// Where the definitions are.
pub(super) fn table(server: &ApiServer) -> Option<Arc<Table>> {
    let resource = server.registry().find(GROUP, "v1", PLURAL)?;
    Some(server.cache().table(&resource))
}

fn definitions(server: &ApiServer) -> Vec<Arc<Definition>> {
    let Some(table) = table(server) else { return Vec::new() };
    let objects = server.cache().snapshot(&table, None, None).objects;
    server.kinds().known.lock().unwrap_or_else(PoisonError::into_inner).update(&objects)
}

/// Serves what is established already.
pub(crate) fn load(server: &ApiServer) {
    let definitions = definitions(server);
    let shown = definitions.iter().filter(|definition| is_established(&definition.light));
    serve(server, &shown.cloned().collect::<Vec<_>>(), &definitions);
}

/// Serves the kinds of some of the definitions, unless they are served already.
fn serve(server: &ApiServer, shown: &[Arc<Definition>], all: &[Arc<Definition>]) {
    let ending = all.iter().filter(|definition| meta::is_terminating(&definition.light));
    let ending: HashSet<String> = ending.map(|each| format!("{}/{}", each.group(), each.plural())).collect();
    *server.kinds().ending.write().unwrap_or_else(PoisonError::into_inner) = ending;
    let resources: Vec<_> = shown.iter().flat_map(|definition| definition.resources.iter().cloned()).collect();
    let registry = server.registry();
    let same = registry.custom().count() == resources.len()
        && registry.custom().zip(&resources).all(|(old, new)| Arc::ptr_eq(old, new));
    if !same {
        let fingerprints: HashSet<u64> = resources.iter().filter_map(|resource| resource.fingerprint()).collect();
        server.kinds().welcome(&fingerprints);
        server.set_registry(registry.with(resources));
        server.kinds().retire_others(&fingerprints);
    }
}

/// The definitions, and the status that each should have where it is another; their kinds are served from now on.
fn look(server: &ApiServer) -> Vec<(Arc<Definition>, Option<Value>)> {
    let definitions = definitions(server);
    let lights: Vec<&Value> = definitions.iter().map(|definition| &definition.light).collect();
    let judged = judge(&server.registry(), &lights, &clock::text(clock::now()));
    let established = |(definition, status): &(&Arc<Definition>, &Option<Value>)| match status {
        Some(status) => is_established(&json!({"status": status})),
        None => is_established(&definition.light),
    };
    // Whoever reads that a kind is established finds it served.
    let shown = definitions.iter().zip(&judged).filter(established).map(|(definition, _)| definition.clone());
    serve(server, &shown.collect::<Vec<_>>(), &definitions);
    definitions.into_iter().zip(judged).collect()
}

/// Brings everything up to date. Returns what else than a definition has to change before there is more to do.
pub(super) async fn step(server: &ApiServer) -> Result<Vec<watch::Receiver<u64>>, ApiError> {
    let found = look(server);
    for (definition, status) in &found {
        if let Some(status) = status {
            let path = format!("/apis/{GROUP}/v1/{PLURAL}/{}/status", definition.name());
            change(server, definition, &path, &json!({"status": status})).await?;
        }
    }
    let mut waiting = Vec::new();
    for (definition, _) in &found {
        if meta::is_terminating(&definition.light) {
            waiting.extend(removal::go_on(server, definition).await?);
        }
    }
    Ok(waiting)
}

/// Lets a definition go.
pub(super) async fn release(server: &ApiServer, definition: &Definition, finalizers: &[&str]) -> Result<(), ApiError> {
    let path = format!("/apis/{GROUP}/v1/{PLURAL}/{}", definition.name());
    change(server, definition, &path, &json!({"metadata": {"finalizers": finalizers}})).await
}

/// Changes a definition, unless somebody else did meanwhile: then the change is heard of.
async fn change(server: &ApiServer, definition: &Definition, path: &str, wish: &Value) -> Result<(), ApiError> {
    let mut wish = wish.clone();
    wish["metadata"]["resourceVersion"] = definition.light["metadata"]["resourceVersion"].clone();
    send(server, Method::PATCH, path, "application/merge-patch+json", &wish).await
}

/// A request of the server to itself.
pub(crate) async fn send(
    server: &ApiServer,
    method: Method,
    path: &str,
    content_type: &str,
    body: &Value,
) -> Result<(), ApiError> {
    let body = serde_json::to_vec(body).expect("a JSON value can be encoded");
    let uri = format!("{path}?fieldManager={MANAGER}");
    let request = Request::builder().method(method).uri(uri).header("content-type", content_type).body(full(body));
    let request = request.map_err(|error| ApiError::Internal(format!("{path}: {error}")))?;
    // Its future is boxed already: callers need not work out that it can be sent.
    let called: BoxFuture<'static, _> = server.in_process(Identity::admin()).call(request);
    let response = match called.await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let code = response.status();
    if code.is_success() || matches!(code, StatusCode::CONFLICT | StatusCode::NOT_FOUND) {
        return Ok(());
    }
    let reply = body::read(response.into_body(), REPLY).await.unwrap_or_default();
    Err(ApiError::Internal(format!("{path}: {}", String::from_utf8_lossy(&reply))))
}
