//! Work on a throw-away thread with a netlink socket of its own: inside another network namespace, or work that the
//! kernel makes wait (deleting links) and that must not hold up the caller's runtime.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};
use rtnetlink::Handle;
use tokio::sync::oneshot;

use crate::NetworkError;

/// A network namespace to enter.
pub(crate) struct Namespace {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

impl Namespace {
    /// Another handle to the same namespace.
    pub(crate) fn try_clone(&self) -> Result<Self, NetworkError> {
        let cloned = self.file.try_clone();
        let file = cloned.map_err(|source| NetworkError::Namespace { path: self.path.clone(), source })?;
        Ok(Self { file, path: self.path.clone() })
    }
}

/// Runs `work` on a fresh thread, inside `namespace` if one is given.
///
/// The thread ends with the work: a thread that has entered a namespace is never given back to a pool.
pub(crate) async fn apart<T, W, F>(namespace: Option<Namespace>, work: W) -> Result<T, NetworkError>
where
    W: FnOnce(Handle) -> F + Send + 'static,
    F: Future<Output = Result<T, NetworkError>>,
    T: Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    std::thread::Builder::new()
        .name("netlink".to_owned())
        .spawn(move || {
            let result = enter(namespace).and_then(|()| drive(work));
            if answer.send(result).is_err() {
                tracing::debug!("nobody waits any more for work on the network");
            }
        })
        .map_err(NetworkError::kernel("start a thread"))?;
    answered.await.unwrap_or_else(|_| Err(NetworkError::kernel("work on the network")(io::Error::other("panicked"))))
}

fn enter(namespace: Option<Namespace>) -> Result<(), NetworkError> {
    let Some(Namespace { file, path }) = namespace else { return Ok(()) };
    setns(&file, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| NetworkError::Namespace { path, source: io::Error::from(errno) })
}

fn drive<T, W, F>(work: W) -> Result<T, NetworkError>
where
    W: FnOnce(Handle) -> F,
    F: Future<Output = Result<T, NetworkError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(NetworkError::kernel("start a runtime"))?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(NetworkError::kernel("open a netlink socket"))?;
        let connection = tokio::spawn(connection);
        let result = work(handle).await;
        connection.abort();
        result
    })
}
