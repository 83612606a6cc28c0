//! What the node answers with a connection instead of a document, on the paths of a kubelet: `/exec`, `/attach`,
//! `/portForward`.
//!
//! Everything that can be refused is refused before the switch. Each connection is a task of its own; they are counted,
//! bounded, and ended with the node. A command lives no longer than the connection that asked for it.

mod command;
mod forward;

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use shipway_container::Runtime;
use shipway_stream::{Refusal, StreamError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::logs::Runs;
use crate::observed::run_id;
use crate::pod;
use crate::service::Body;

/// Connections at once; further ones are refused.
const CONNECTIONS_MAX: usize = 512;

/// The streams of the node's pods. Clones share everything.
#[derive(Clone)]
pub(crate) struct Streams {
    runtime: Runtime,
    runs: Runs,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One run of a container, as the runtime knows it.
struct Target {
    uid: String,
    run: String,
}

/// A connection that is about to be switched.
struct Switch {
    upgrade: OnUpgrade,
    place: OwnedSemaphorePermit,
}

impl Streams {
    pub(crate) fn new(runtime: Runtime, runs: Runs) -> Self {
        let (places, stop) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), CancellationToken::new());
        Self { runtime, runs, places, tasks: TaskTracker::new(), stop }
    }

    /// Ends all connections, and what runs for them.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The running container of that name.
    fn target(&self, namespace: &str, name: &str, container: &str) -> Result<Target, Refusal> {
        let (pod, table) = self.runs.find(namespace, name).ok_or_else(|| no_pod(name))?;
        let found = table.borrow().get(container).cloned();
        let of =
            found.ok_or_else(|| refuse(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")")))?;
        let newest = of.newest.filter(|_| of.running).ok_or_else(|| {
            let message = format!("container \"{container}\" in pod \"{name}\" is not running");
            refuse(StatusCode::BAD_REQUEST, message)
        })?;
        Ok(Target { uid: pod::uid(&pod).to_owned(), run: run_id(container, newest) })
    }

    fn uid(&self, namespace: &str, name: &str) -> Result<String, Refusal> {
        let (pod, _) = self.runs.find(namespace, name).ok_or_else(|| no_pod(name))?;
        Ok(pod::uid(&pod).to_owned())
    }

    /// Takes the connection of a request, if it has one that can be taken.
    fn switch(&self, request: &mut Request<Body>) -> Result<Switch, Refusal> {
        let upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or_else(|| {
            let message = "this connection cannot be upgraded: streams need HTTP/1.1 and a connection of their own";
            refuse(StatusCode::BAD_REQUEST, message.to_owned())
        })?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            let message = format!("the node serves {CONNECTIONS_MAX} streams already");
            refuse(StatusCode::TOO_MANY_REQUESTS, message)
        })?;
        Ok(Switch { upgrade, place })
    }

    /// Serves a connection once it is switched, in a task of its own.
    fn spawn<S, F>(&self, switch: Switch, serve: S)
    where
        S: FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
        F: Future<Output = Result<(), StreamError>> + Send,
    {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let Switch { upgrade, place } = switch;
            let served = async {
                match upgrade.await {
                    Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
                    Err(error) => {
                        tracing::debug!(%error, "a connection was not switched");
                        Ok(())
                    }
                }
            };
            if let Some(Err(error)) = stop.run_until_cancelled(served).await {
                tracing::debug!(%error, "a connection of streams broke off");
            }
            drop(place);
        });
    }
}

fn no_pod(name: &str) -> Refusal {
    refuse(StatusCode::NOT_FOUND, format!("pod \"{name}\" is not on this node"))
}

fn refuse(code: StatusCode, message: String) -> Refusal {
    Refusal { code, message }
}

/// The reply that switches.
fn switched(head: Response<()>) -> Response<Body> {
    head.map(|()| Empty::new().map_err(|never| match never {}).boxed_unsync())
}
