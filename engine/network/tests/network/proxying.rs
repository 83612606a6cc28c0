//! The service proxy against an API that the test plays, in a real kernel inside a network namespace of its own.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::lab::{self, HOST, Place, ask_from_host, config, lab, outside, rules};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use shipway_network::{Network, Role, proxy};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 73, 128, 20);
const SOON: Duration = Duration::from_secs(10);

type Answer = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// An API that serves services and endpoint slices.
#[derive(Clone, Default)]
struct Api {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By path of the collection, then by name.
    objects: Vec<(&'static str, Value)>,
    watches: Vec<(String, mpsc::UnboundedSender<Value>)>,
    statuses: Vec<Value>,
    events: Vec<Value>,
}

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

impl Api {
    fn put(&self, path: &'static str, object: Value) {
        let mut state = self.state.lock().unwrap();
        let name = object["metadata"]["name"].clone();
        let before = state.objects.len();
        state.objects.retain(|(at, known)| *at != path || known["metadata"]["name"] != name);
        let kind = if state.objects.len() == before { "ADDED" } else { "MODIFIED" };
        state.tell(path, kind, &object);
        state.objects.push((path, object));
    }

    fn delete(&self, path: &'static str, name: &str) {
        let mut state = self.state.lock().unwrap();
        let at = state.objects.iter().position(|(at, known)| *at == path && known["metadata"]["name"] == name).unwrap();
        let (_, object) = state.objects.remove(at);
        state.tell(path, "DELETED", &object);
    }

    fn client(&self) -> kube::Client {
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

fn service(name: &str, address: Ipv4Addr, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": name, "uid": name, "resourceVersion": "1"},
        "spec": {"type": "LoadBalancer", "clusterIP": address.to_string(), "ports": [{"name": "http", "port": port, "protocol": "TCP"}]},
    })
}

fn slice(service: &str, addresses: &[Ipv4Addr]) -> Value {
    let endpoints: Vec<_> =
        addresses.iter().map(|a| json!({"addresses": [a.to_string()], "conditions": {"ready": true}})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "default", "name": service, "resourceVersion": "1", "labels": {"kubernetes.io/service-name": service}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

/// Asks again until it is so; the proxy gives no sign of when it has done something.
async fn until<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    let asking = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(SOON, asking).await.is_ok(), "never so: {what}");
}

#[test]
fn what_the_api_says_becomes_true_in_the_kernel_and_in_dns() {
    lab(|| async {
        let _world = outside().await;
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        let place = Place::new();
        let address = network.attach("one", &place.path).await.unwrap();
        place.serve("one", 8080).await;
        let stale = Ipv4Addr::new(10, 73, 128, 30);
        network.set_service(rules("default/stale", stale, &[address])).await.unwrap();

        let api = Api::default();
        api.put(SERVICES, service("web", SERVICE, 80));
        api.put(SLICES, slice("web", &[address]));
        let stop = CancellationToken::new();
        let running = tokio::spawn(proxy(api.client(), network.clone(), Role::Publisher, stop.clone()));

        until("the service answers", || async { ask_from_host(SERVICE, 80).await.is_ok() }).await;
        assert!(ask_from_host(stale, 80).await.is_err());
        assert_eq!(ask_from_host(HOST, 80).await.unwrap().0, "one");
        let dns = network.config().dns_address;
        let resolved = place.run(move || lab::resolve(dns, "web.default.svc.cluster.local")).await;
        assert_eq!(resolved, vec![SERVICE]);
        let published = json!({"loadBalancer": {"ingress": [{"ip": HOST.to_string(), "ipMode": "VIP"}]}});
        until("the address is published", || async { api.state.lock().unwrap().statuses.contains(&published) }).await;

        api.put(SLICES, slice("web", &[]));
        until("nobody answers", || async { ask_from_host(SERVICE, 80).await.is_err() }).await;
        timeout(SOON, network.released(address)).await.unwrap();
        api.put(SLICES, slice("web", &[address]));
        until("it answers again", || async { ask_from_host(SERVICE, 80).await.is_ok() }).await;
        api.delete(SERVICES, "web");
        until("it is gone", || async { ask_from_host(SERVICE, 80).await.is_err() }).await;
        stop.cancel();
        timeout(SOON, running).await.unwrap().unwrap().unwrap();
    });
}

#[test]
fn a_port_that_is_taken_is_told_and_handed_over_when_it_is_free() {
    lab(|| async {
        let _world = outside().await;
        let network = Network::open(config("0a1b2c", 73)).await.unwrap();
        lab::serve("program", (Ipv4Addr::LOCALHOST, 8088).into());
        let api = Api::default();
        api.put(SERVICES, service("busy", SERVICE, 8088));
        api.put(SERVICES, service("first", Ipv4Addr::new(10, 73, 128, 21), 80));
        let stop = CancellationToken::new();
        let running = tokio::spawn(proxy(api.client(), network.clone(), Role::Publisher, stop.clone()));
        let told = |about: &'static str| {
            let state = api.state.lock().unwrap();
            state.events.iter().any(|event| {
                event["reason"] == "PortInUse"
                    && (event["involvedObject"]["name"] == about || event["regarding"]["name"] == about)
            })
        };
        until("the taken port is told", || async { told("busy") }).await;
        assert_eq!(ask_from_host(Ipv4Addr::LOCALHOST, 8088).await.unwrap().0, "program");
        until("the first is published", || async { api.state.lock().unwrap().statuses.len() == 1 }).await;
        api.put(SERVICES, service("second", Ipv4Addr::new(10, 73, 128, 22), 80));
        until("the second is refused", || async { told("second") }).await;
        api.delete(SERVICES, "first");
        until("the second has the port", || async { api.state.lock().unwrap().statuses.len() == 2 }).await;
        stop.cancel();
        timeout(SOON, running).await.unwrap().unwrap().unwrap();
    });
}
