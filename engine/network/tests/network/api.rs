//! An API that the test plays, and the proxy that believes it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use shipway_driver::{Shared, slim};
use shipway_network::{Network, NetworkError, Proxying, Role, proxy};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) const SOON: Duration = Duration::from_secs(10);

type Answer = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// An API that serves whatever was put there.
#[derive(Clone, Default)]
pub(crate) struct Api {
    pub(crate) state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    /// By path of the collection, then by name.
    objects: Vec<(&'static str, Value)>,
    watches: Vec<(String, mpsc::UnboundedSender<Value>)>,
    pub(crate) statuses: Vec<Value>,
    pub(crate) events: Vec<Value>,
    pub(crate) patches: Vec<Value>,
}

pub(crate) const NODE: &str = "here";
pub(crate) const SERVICES: &str = "/api/v1/services";
pub(crate) const PODS: &str = "/api/v1/pods";
pub(crate) const NAMESPACES: &str = "/api/v1/namespaces";
pub(crate) const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

impl Api {
    pub(crate) fn put(&self, path: &'static str, object: Value) {
        let mut state = self.state.lock().unwrap();
        let same =
            |known: &Value| ["namespace", "name"].iter().all(|it| known["metadata"][it] == object["metadata"][it]);
        let before = state.objects.len();
        state.objects.retain(|(at, known)| *at != path || !same(known));
        let kind = if state.objects.len() == before { "ADDED" } else { "MODIFIED" };
        state.tell(path, kind, &object);
        state.objects.push((path, object));
    }

    pub(crate) fn delete(&self, path: &'static str, name: &str) {
        let mut state = self.state.lock().unwrap();
        let at = state.objects.iter().position(|(at, known)| *at == path && known["metadata"]["name"] == name).unwrap();
        let (_, object) = state.objects.remove(at);
        state.tell(path, "DELETED", &object);
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        kube::Client::new(
            tower::service_fn(move |request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.answer(request).await) }
            }),
            "default",
        )
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let sent = || serde_json::from_slice::<Value>(&body).unwrap();
        let path = parts.uri.path().to_owned();
        let watch = parts.uri.query().unwrap_or_default().contains("watch=");
        let mut state = self.state.lock().unwrap();
        match parts.method {
            Method::GET if watch => Response::new(state.watch(path)),
            Method::GET => json_response(&state.list(&path)),
            Method::PATCH if path.ends_with("/status") => {
                state.statuses.push(sent()["status"].clone());
                json_response(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}))
            }
            Method::PATCH => {
                state.patches.push(sent());
                json_response(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}))
            }
            _ => {
                state.events.push(sent());
                json_response(&sent())
            }
        }
    }
}

impl State {
    fn tell(&mut self, path: &str, kind: &str, object: &Value) {
        let event = json!({"type": kind, "object": object});
        self.watches.retain(|(at, watch)| at != path || watch.send(event.clone()).is_ok());
    }

    fn list(&self, path: &str) -> Value {
        let items: Vec<_> = self.objects.iter().filter(|(at, _)| *at == path).map(|(_, object)| object).collect();
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})
    }

    fn watch(&mut self, path: String) -> Answer {
        let (sender, receiver) = mpsc::unbounded_channel::<Value>();
        // Said again: something may have happened since the list.
        for (_, object) in self.objects.iter().filter(|(at, _)| *at == path) {
            sender.send(json!({"type": "MODIFIED", "object": object})).unwrap();
        }
        self.watches.push((path, sender));
        let lines = stream::unfold(receiver, |mut receiver| async {
            let line = format!("{}\n", receiver.recv().await?);
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(line))), receiver))
        });
        StreamBody::new(lines.boxed())
    }
}

fn json_response(value: &Value) -> Response<Answer> {
    let frame = Ok(Frame::data(Bytes::from(value.to_string())));
    Response::new(StreamBody::new(stream::iter([frame]).boxed()))
}

/// Runs the proxy, and beside it the cache of pods that it reads.
pub(crate) fn run(api: &Api, network: &Network, stop: &CancellationToken) -> JoinHandle<Result<(), NetworkError>> {
    let (pods, watching) = Shared::new(kube::Api::all(api.client()), slim, stop.clone());
    tokio::spawn(watching);
    let with = Proxying {
        client: api.client(),
        sleeper: Some(api.client()),
        network: network.clone(),
        pods,
        role: Role::Publisher,
        node: NODE.to_owned(),
    };
    tokio::spawn(proxy(with, stop.clone()))
}

/// Asks again until it is so; the proxy gives no sign of when it has done something.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    let asking = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(SOON, asking).await.is_ok(), "never so: {what}");
}
