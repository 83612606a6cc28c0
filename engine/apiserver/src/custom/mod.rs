//! Custom resources at work: following the definitions, serving what they say, and clearing up when they go.
//!
//! One task hears of every change of a definition. It decides whose names hold, serves the kinds before it says so, and
//! ends the objects of a definition that is being deleted before the definition itself. The kinds of established
//! definitions are served before the first request is.

mod known;
mod removal;
mod steps;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, select_all};
use shipway_schema::Resource;
use shipway_store::Revision;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ApiServer;
use crate::background::Background;
use crate::cache::Table;
use crate::commit::Place;
use crate::error::ApiError;
use crate::meta;
use known::Known;

pub(crate) use steps::{load, send};

/// How long to leave a failed step alone.
const RETRY: Duration = Duration::from_millis(500);

/// What the server knows of custom kinds.
#[derive(Default)]
pub(crate) struct Kinds {
    /// `<group>/<plural>` of the definitions that are being deleted.
    ending: RwLock<HashSet<String>>,
    known: Mutex<Known>,
    /// What ends when a kind is served no more, or otherwise, by its fingerprint.
    served: RwLock<HashMap<u64, CancellationToken>>,
    task: Background,
}

impl Kinds {
    /// Starts the task that follows the definitions; it does not keep the server.
    pub(crate) fn follow(&self, server: &ApiServer) {
        let Some(table) = steps::table(server) else { return };
        let mut changes = table.changes();
        changes.mark_changed();
        let server = server.downgrade();
        self.task.start(async move {
            let mut waiting: Vec<watch::Receiver<u64>> = Vec::new();
            let mut failed = false;
            loop {
                if !next(&mut changes, &mut waiting, failed).await {
                    return;
                }
                let Some(server) = server.upgrade() else { return };
                (waiting, failed) = match steps::step(&server).boxed().await {
                    Ok(waiting) => (waiting, false),
                    Err(error) => {
                        tracing::warn!(%error, "custom resource definitions could not be brought up to date; trying again");
                        (Vec::new(), true)
                    }
                };
            }
        });
    }

    /// Is cancelled when the kind is served no more, or is another: with other fields, versions or conversions. What was
    /// begun under the old one has to begin again.
    pub(crate) fn retirement(&self, resource: &Resource) -> CancellationToken {
        let Some(fingerprint) = resource.fingerprint() else { return CancellationToken::new() };
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        served.get(&fingerprint).cloned().unwrap_or_else(|| {
            let retired = CancellationToken::new();
            retired.cancel();
            retired
        })
    }

    /// Says which kinds are served from now on, or in a moment.
    fn welcome(&self, fingerprints: &HashSet<u64>) {
        let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
        for fingerprint in fingerprints {
            served.entry(*fingerprint).or_default();
        }
    }

    /// Ends what was begun under kinds that are served no more.
    fn retire_others(&self, fingerprints: &HashSet<u64>) {
        let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
        served.retain(|fingerprint, token| {
            let stays = fingerprints.contains(fingerprint);
            if !stays {
                token.cancel();
            }
            stays
        });
    }

    /// Ends the task; when this returns it holds nothing any more.
    pub(crate) async fn stop(&self) {
        self.task.stop().await;
    }
}

/// Waits until a definition changes, or the objects of one that is ending, or until a failure may be tried again. False
/// when nothing can change any more.
async fn next(changes: &mut watch::Receiver<u64>, waiting: &mut [watch::Receiver<u64>], failed: bool) -> bool {
    let tables: Vec<BoxFuture<'_, _>> = waiting.iter_mut().map(|table| table.changed().boxed()).collect();
    let objects = async {
        if tables.is_empty() {
            return std::future::pending().await;
        }
        drop(select_all(tables).await);
    };
    let again = async { if failed { tokio::time::sleep(RETRY).await } else { std::future::pending().await } };
    tokio::select! {
        alive = changes.changed() => alive.is_ok(),
        () = objects => true,
        () = again => true,
    }
}

/// Refuses new objects of a kind whose definition is going away.
pub(crate) fn check_create(server: &ApiServer, place: &Place) -> Result<(), ApiError> {
    let resource = place.resource();
    if !resource.is_custom() {
        return Ok(());
    }
    let ending = server.kinds().ending.read().unwrap_or_else(PoisonError::into_inner);
    let ends = ending.contains(&format!("{}/{}", resource.group, resource.plural));
    if ends { Err(ApiError::DefinitionTerminating) } else { Ok(()) }
}

/// What must not have changed when a new object of a custom kind is committed: its definition, which may be going away.
/// Nothing for a built-in kind.
pub(crate) fn guard(server: &ApiServer, place: &Place) -> Result<Option<(Bytes, Revision)>, ApiError> {
    let resource = place.resource();
    let Some(table) = steps::table(server).filter(|_| resource.is_custom()) else { return Ok(None) };
    let name = format!("{}.{}", resource.kept.plural, resource.kept.group);
    let definition = table.get(&name).ok_or(ApiError::NoSuchPath)?;
    let known =
        server.kinds().known.lock().unwrap_or_else(PoisonError::into_inner).is_ending(&name, definition.revision);
    let ending = known.unwrap_or_else(|| {
        let metadata: serde_json::Value = serde_json::from_slice(&definition.metadata()).unwrap_or_default();
        meta::is_terminating(&serde_json::json!({ "metadata": metadata }))
    });
    if ending {
        return Err(ApiError::DefinitionTerminating);
    }
    Ok(Some((format!("{}{name}", table.prefix).into(), definition.revision)))
}

/// Whether a table holds anything.
fn is_empty(server: &ApiServer, table: &Table) -> bool {
    server.cache().snapshot(table, None, None).objects.is_empty()
}
