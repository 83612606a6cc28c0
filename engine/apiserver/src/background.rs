//! One task beside the requests; it ends with whoever holds it.

use std::sync::{Mutex, PoisonError};

use tokio::task::JoinHandle;

/// The task, once there is one. Dropping it ends the task without waiting.
#[derive(Default)]
pub(crate) struct Background(Mutex<Option<JoinHandle<()>>>);

impl Background {
    /// Starts it.
    pub(crate) fn start(&self, work: impl Future<Output = ()> + Send + 'static) {
        *self.task() = Some(tokio::spawn(work));
    }

    /// Ends it; when this returns it holds nothing any more.
    pub(crate) async fn stop(&self) {
        let task = self.task().take();
        if let Some(task) = task {
            task.abort();
            // It was aborted: how it ended says nothing.
            drop(task.await);
        }
    }

    fn task(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(task) = self.task().take() {
            task.abort();
        }
    }
}
