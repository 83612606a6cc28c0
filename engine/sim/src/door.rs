//! The way of a client to the API server, whichever is up at the moment.
//!
//! A client outlives the server: while none is up its calls fail as refused connections do, and when one crashes, calls in
//! flight and watches break off in the middle.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use shipway_apiserver::{ApiServer, Body as Answer, BoxError, Identity, NodeService};
use tokio_util::sync::CancellationToken;
use tower::Service;

/// A server that is up, and what tells that it is not any more.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) server: ApiServer,
    pub(crate) crashed: CancellationToken,
}

/// Where clients find the server.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    serving: Option<Serving>,
    /// Of each user, what breaks its connections off; cancelled while it is cut off.
    links: HashMap<String, CancellationToken>,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends calls to another server from now on, or to none. Returns the one before.
    pub(crate) fn replace(&self, serving: Option<Serving>) -> Option<Serving> {
        std::mem::replace(&mut self.state().serving, serving)
    }

    /// Tells the server that is up where a node is asked for what it serves itself.
    pub(crate) fn register(&self, name: &str, service: NodeService) {
        if let Some(serving) = &self.state().serving {
            serving.server.register_node(name, service);
        }
    }

    /// Breaks a user's connections and lets it make no new ones.
    pub(crate) fn cut_off(&self, user: &str) {
        self.state().links.entry(user.to_owned()).or_default().cancel();
    }

    /// Lets a user connect again.
    pub(crate) fn reconnect(&self, user: &str) {
        self.state().links.remove(user);
    }

    /// The server, and what breaks a connection of the user to it; none when there is no way to it.
    fn connect(&self, user: &str) -> Option<(ApiServer, Broken)> {
        let mut state = self.state();
        let link = match state.links.get(user) {
            Some(link) => link.clone(),
            None => state.links.entry(user.to_owned()).or_default().clone(),
        };
        let Serving { server, crashed } = state.serving.clone()?;
        (!link.is_cancelled()).then_some((server, Broken { crashed, link }))
    }

    /// A client that acts as `identity`.
    pub(crate) fn client(&self, identity: Identity) -> kube::Client {
        kube::Client::new(Door { gate: self.clone(), identity }, "default")
    }
}

/// What breaks a connection.
struct Broken {
    crashed: CancellationToken,
    link: CancellationToken,
}

impl Broken {
    async fn wait(self) {
        tokio::select! {
            () = self.crashed.cancelled() => {}
            () = self.link.cancelled() => {}
        }
    }
}

/// One client's way in.
#[derive(Clone)]
struct Door {
    gate: Gate,
    identity: Identity,
}

impl Service<Request<kube::client::Body>> for Door {
    type Response = Response<Stream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Stream>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let (gate, identity) = (self.gate.clone(), self.identity.clone());
        Box::pin(async move {
            let Some((server, broken)) = gate.connect(&identity.user) else {
                return Err("connection refused".into());
            };
            let watches = request.uri().query().is_some_and(|query| query.contains("watch="));
            let answered = server.in_process(identity).call(request);
            drop(server);
            let mut broken = Box::pin(broken.wait());
            let response = tokio::select! {
                biased;
                () = &mut broken => return Err(reset()),
                response = answered => response?,
            };
            Ok(response.map(|body| Stream { body, cut: watches.then_some(broken as BoxFuture<'static, ()>) }))
        })
    }
}

fn reset() -> BoxError {
    "connection reset by peer".into()
}

/// The body of an answer, which may break off.
pub(crate) struct Stream {
    body: Answer,
    cut: Option<BoxFuture<'static, ()>>,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(cut) = &mut this.cut
            && cut.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(reset())));
        }
        Poll::Ready(ready!(Pin::new(&mut this.body).poll_frame(context)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
