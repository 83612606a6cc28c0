//! One connection to a supervisor: requests matched with answers, news published, the end noticed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::error::ContainerError;
use crate::state::PodState;
use crate::wire::{Message, Operation, Outcome, Request};

/// A pod's list of containers is the longest line.
const LINE_MAX: u64 = 16 * 1024 * 1024;

/// Requests that wait for their answer. `None` once the connection has ended, and nothing is answered any more.
type Pending = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Outcome>>>>>;

pub(super) struct Connection {
    uid: String,
    sequence: AtomicU64,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    pending: Pending,
    reader: JoinHandle<()>,
}

impl Connection {
    /// Connects, and keeps `state` true to what the supervisor says from then on.
    pub(super) async fn open(uid: &str, socket: &Path, state: watch::Sender<PodState>) -> std::io::Result<Self> {
        let (reader, writer) = UnixStream::connect(socket).await?.into_split();
        let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
        let reader = tokio::spawn(read(reader, Arc::clone(&pending), state, uid.to_owned()));
        Ok(Self { uid: uid.to_owned(), sequence: AtomicU64::new(1), writer: writer.into(), pending, reader })
    }

    /// Asks and waits for the answer, however long it takes.
    pub(super) async fn ask(&self, operation: Operation) -> Result<Outcome, ContainerError> {
        let lost = || ContainerError::Lost { uid: self.uid.clone() };
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.pending).as_mut().ok_or_else(lost)?.insert(sequence, answer);
        let mut line = serde_json::to_vec(&Request { sequence, operation }).expect("requests are plain data");
        line.push(b'\n');
        self.writer.lock().await.write_all(&line).await.map_err(|_| lost())?;
        match answered.await.map_err(|_| lost())? {
            Outcome::Failed(failure) => Err(failure.into()),
            outcome => Ok(outcome),
        }
    }

    pub(super) fn nonsense(&self, detail: &str) -> ContainerError {
        ContainerError::Protocol { uid: self.uid.clone(), detail: detail.to_owned() }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding it, and a map is whole after every call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(socket: OwnedReadHalf, pending: Pending, state: watch::Sender<PodState>, uid: String) {
    let mut lines = BufReader::with_capacity(4096, socket);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(LINE_MAX).read_until(b'\n', &mut line).await {
            Ok(_) if line.ends_with(b"\n") => {}
            _ => break,
        }
        match serde_json::from_slice(&line) {
            Ok(message) => handle(message, &pending, &state),
            Err(error) => {
                tracing::error!(uid, %error, "a supervisor speaks another language");
                break;
            }
        }
    }
    // Dropping the senders tells those who wait.
    *lock(&pending) = None;
    state.send_modify(|state| state.lost = true);
}

fn handle(message: Message, pending: &Pending, state: &watch::Sender<PodState>) {
    match message {
        Message::Changed { id, state: changed } => {
            state.send_modify(|state| {
                state.containers.insert(id, changed);
            });
        }
        Message::Answer { sequence, outcome } => {
            if let Outcome::Listed { containers, .. } = &outcome {
                state.send_modify(|state| state.containers.clone_from(containers));
            }
            let waiting = lock(pending).as_mut().and_then(|all| all.remove(&sequence));
            if let Some(waiting) = waiting {
                // Whoever asked may have stopped waiting.
                drop(waiting.send(outcome));
            }
        }
    }
}
