//! An API server over a real log in a folder of its own, and raw requests to it.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

pub mod listening;

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use shipway_apiserver::{ApiServer, Body, Config, Identity};
use shipway_store::{Log, Options, Store};
use tempfile::TempDir;
use tower::ServiceExt;

pub struct Cluster {
    pub server: ApiServer,
    pub store: Arc<dyn Store>,
    pub dir: TempDir,
}

pub struct Reply {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Reply {
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {:?}", self.bytes))
    }

    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!(self.code.is_success(), "{} {}", self.code, String::from_utf8_lossy(&self.bytes));
        self.value()
    }

    /// Code and message of a failure.
    #[track_caller]
    pub fn failure(&self) -> (u16, String) {
        let status = self.value();
        assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Failure")), "{status}");
        assert_eq!(status["code"], self.code.as_u16());
        (self.code.as_u16(), status["message"].as_str().unwrap().to_owned())
    }
}

pub fn config() -> Config {
    Config::new((Ipv4Addr::new(10, 73, 128, 0), 17), "10.73.128.1:6443".parse().unwrap(), 30000..=32767)
}

impl Cluster {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::at(dir).await
    }

    pub async fn at(dir: TempDir) -> Self {
        let store: Arc<dyn Store> = Log::open(dir.path(), Options::default()).unwrap();
        Self::over(store, dir).await
    }

    pub async fn over(store: Arc<dyn Store>, dir: TempDir) -> Self {
        Self::with(store, dir, config()).await
    }

    pub async fn with(store: Arc<dyn Store>, dir: TempDir, config: Config) -> Self {
        let server = ApiServer::open(store.clone(), config).await.unwrap();
        Self { server, store, dir }
    }

    /// Stops the server and lets go of its folder.
    pub async fn close(self) -> TempDir {
        self.server.close().await;
        self.dir
    }

    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.server.in_process(Identity::admin()), "default")
    }

    pub async fn stream(&self, identity: Identity, request: Request<Full<Bytes>>) -> Response<Body> {
        self.server.in_process(identity).oneshot(request).await.unwrap()
    }

    pub async fn send(&self, identity: Identity, request: Request<Full<Bytes>>) -> Reply {
        let (head, body) = self.stream(identity, request).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Reply { code: head.status, headers: head.headers, bytes }
    }

    pub async fn call(&self, method: &str, path: &str, content_type: &str, body: impl Into<Bytes>) -> Reply {
        self.send(Identity::admin(), request(method, path, content_type, body)).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, "", "").await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path, "", "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path, "application/json", body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.call("PUT", path, "application/json", body.to_string()).await
    }

    pub async fn patch(&self, path: &str, kind: &str, body: &Value) -> Reply {
        let suffix = if kind == "apply" { "yaml" } else { "json" };
        self.call("PATCH", path, &format!("application/{kind}-patch+{suffix}"), body.to_string()).await
    }

    pub async fn watch(&self, path: &str) -> Events {
        self.watch_as(path, "application/json").await
    }

    pub async fn watch_as(&self, path: &str, accept: &str) -> Events {
        let mut request = request("GET", path, "", "");
        request.headers_mut().insert("accept", accept.parse().unwrap());
        let response = self.stream(Identity::admin(), request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Events { body: response.into_body(), buffer: Vec::new() }
    }
}

pub fn request(method: &str, path: &str, content_type: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut builder = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
    if !content_type.is_empty() {
        builder = builder.header("content-type", content_type);
    }
    builder.header("user-agent", "tester/1.0").body(Full::new(body.into())).unwrap()
}

/// The events of a watch.
pub struct Events {
    body: Body,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; none when the watch is over.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(std::time::Duration::from_secs(20), self.body.frame());
            let frame = frame.await.expect("an event within 20 seconds")?;
            self.buffer.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    /// Type and name of the next event.
    pub async fn brief(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch goes on");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

pub fn brief(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

pub fn config_map(name: &str, labels: &Value, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"k": value}})
}

pub fn pod(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "main", "image": "busybox"}]}})
}

pub fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "busybox"}]},
            },
        },
    })
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
pub const SERVICES: &str = "/api/v1/namespaces/default/services";
