//! Custom resources at work: following the definitions, serving what they say, and clearing up when they go.
//!
//! One task hears of every change of a definition. It decides whose names hold, serves the kinds before it says so, and
//! ends the objects of a definition that is being deleted before the definition itself. The kinds of established
//! definitions are served before the first request is.

mod known;
mod removal;
mod steps;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, select_all};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ApiServer;
use crate::cache::Table;
use crate::commit::Place;
use crate::error::ApiError;
use known::Known;

pub(crate) use steps::load;

/// How long to leave a failed step alone.
const RETRY: Duration = Duration::from_millis(500);

/// What the server knows of custom kinds.
#[derive(Default)]
pub(crate) struct Kinds {
    /// `<group>/<plural>` of the definitions that are being deleted.
    ending: RwLock<HashSet<String>>,
    known: Mutex<Known>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Kinds {
    /// Starts the task that follows the definitions; it does not keep the server.
    pub(crate) fn follow(&self, server: &ApiServer) {
        let Some(table) = steps::table(server) else { return };
        let mut changes = table.changes();
        changes.mark_changed();
        let server = server.downgrade();
        let task = tokio::spawn(async move {
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
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Ends the task without waiting for it.
    pub(crate) fn abort(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }

    /// Ends the task; when this returns it holds nothing any more.
    pub(crate) async fn stop(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            // It was aborted: how it ended says nothing.
            drop(task.await);
        }
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

/// Whether a table holds anything.
fn is_empty(server: &ApiServer, table: &Table) -> bool {
    server.cache().snapshot(table, None, None).objects.is_empty()
}
