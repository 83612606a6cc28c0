//! The end of a definition: its objects go first, as if somebody deleted each of them; then it may go itself.

use std::collections::BTreeSet;

use http::Method;
use serde_json::json;
use shipway_schema::custom::FINALIZER;
use shipway_store::Txn;
use tokio::sync::watch;

use super::is_empty;
use super::known::Definition;
use super::steps::{release, send};
use crate::ApiServer;
use crate::admission;
use crate::cache::Table;
use crate::error::ApiError;
use crate::meta;

/// Deletes what is left, or lets the definition go. Returns what to wait for, if there is anything.
pub(super) async fn go_on(
    server: &ApiServer,
    definition: &Definition,
) -> Result<Option<watch::Receiver<u64>>, ApiError> {
    let finalizers = meta::finalizers(&definition.light);
    if !finalizers.contains(&FINALIZER) {
        return Ok(None);
    }
    let table = server.cache().table_of(definition.group(), definition.plural());
    let changes = table.changes();
    server.cache().catch_up().await?;
    if !is_empty(server, &table) {
        delete_all(server, definition, &table).await?;
        server.cache().catch_up().await?;
    }
    if !is_empty(server, &table) {
        return Ok(Some(changes));
    }
    let others: Vec<&str> = finalizers.into_iter().filter(|name| *name != FINALIZER).collect();
    release(server, definition, &others).await?;
    Ok(None)
}

async fn delete_all(server: &ApiServer, definition: &Definition, table: &Table) -> Result<(), ApiError> {
    let objects = server.cache().snapshot(table, None, None).objects;
    let Some(resource) = definition.resources.first() else {
        // No version of it is served, so nobody could ever let go of the objects.
        let keys = objects.iter().map(|object| format!("{}{}", table.prefix, object.key));
        let txn = keys.fold(Txn::new(), Txn::delete);
        server.cache().store().txn(txn).await?;
        // Nothing but here goes past what counts for quotas.
        return admission::recount_all(server).await;
    };
    let root = format!("/apis/{}/{}", resource.group, resource.version);
    let namespaces: BTreeSet<Option<&str>> = objects.iter().map(|object| object.namespace()).collect();
    for namespace in namespaces {
        let within = namespace.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
        let path = format!("{root}{within}/{}", resource.plural);
        send(server, Method::DELETE, &path, "application/json", &json!({})).await?;
    }
    Ok(())
}
