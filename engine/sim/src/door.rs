//! The way of a client to the API server, whichever is up at the moment.
//!
//! A client outlives the server: while none is up its calls fail as refused connections do, and when one crashes, calls in
//! flight and watches break off in the middle. In bad weather calls are delayed and lost, and watches lag.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use shipway_apiserver::{ApiServer, Body as Answer, BoxError, Identity, NodeService};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::weather::{Fate, Storm, Weather};

/// Whose calls always go well: tests look at the cluster with them.
const ADMIN: &str = "admin";

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
    /// None: it is always fair.
    weather: Option<Weather>,
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

    pub(crate) fn is_cut_off(&self, user: &str) -> bool {
        self.state().links.get(user).is_some_and(CancellationToken::is_cancelled)
    }

    /// Has calls go wrong from now on, as told by [`Gate::storm`]; the administrator's never do.
    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state().weather = Some(weather);
    }

    /// Changes how bad it is.
    pub(crate) fn storm(&self, storm: Storm) {
        if let Some(weather) = &mut self.state().weather {
            weather.set(storm);
        }
    }

    /// How many creations of pods went without an answer since a moment.
    pub(crate) fn forgotten_since(&self, moment: Instant) -> usize {
        self.state().weather.as_ref().map_or(0, |weather| weather.forgotten_since(moment))
    }

    /// The users that have connected so far, but for the administrator.
    pub(crate) fn users(&self) -> Vec<String> {
        let mut users: Vec<String> = self.state().links.keys().filter(|user| *user != ADMIN).cloned().collect();
        users.sort_unstable();
        users
    }

    fn fate(&self, user: &str, request: &Request<kube::client::Body>) -> Fate {
        let creates_pod = request.method() == http::Method::POST && request.uri().path().ends_with("/pods");
        let mut state = self.state();
        let weather = state.weather.as_mut().filter(|_| user != ADMIN);
        weather.map_or_else(Fate::default, |weather| weather.fate(creates_pod))
    }

    fn lag(&self) -> Duration {
        self.state().weather.as_mut().map_or(Duration::ZERO, Weather::lag)
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
            let fate = gate.fate(&identity.user, &request);
            pause(fate.before).await;
            let Some((server, broken)) = gate.connect(&identity.user).filter(|_| !fate.lost) else {
                return Err("connection refused".into());
            };
            let watches = request.uri().query().is_some_and(|query| query.contains("watch="));
            let lags = watches && identity.user != ADMIN;
            let answered = server.in_process(identity).call(request);
            drop(server);
            let mut broken = Box::pin(broken.wait());
            let response = tokio::select! {
                biased;
                () = &mut broken => return Err(reset()),
                response = answered => response?,
            };
            pause(fate.after).await;
            if fate.forgotten {
                return Err(reset());
            }
            let cut = watches.then_some(broken as BoxFuture<'static, ()>);
            Ok(response.map(|body| Stream { body, cut, gate: lags.then_some(gate), held: None }))
        })
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

fn reset() -> BoxError {
    "connection reset by peer".into()
}

/// A frame that is not there yet.
type Held = (Pin<Box<Sleep>>, Option<Result<Frame<Bytes>, BoxError>>);

/// The body of an answer, which may break off, and the frames of which may come late.
pub(crate) struct Stream {
    body: Answer,
    cut: Option<BoxFuture<'static, ()>>,
    /// What says how late frames come, if they may.
    gate: Option<Gate>,
    held: Option<Held>,
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
        if this.held.is_none() {
            let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
            let lag = this.gate.as_ref().map_or(Duration::ZERO, Gate::lag);
            if lag.is_zero() {
                return Poll::Ready(frame);
            }
            this.held = Some((Box::pin(sleep(lag)), frame));
        }
        if let Some((due, _)) = &mut this.held {
            ready!(due.as_mut().poll(context));
        }
        Poll::Ready(this.held.take().and_then(|(_, frame)| frame))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
