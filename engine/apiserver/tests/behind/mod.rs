//! A server behind the server: TLS on loopback, believes only what the front proxy's certificate vouches for, and tells what
//! it was asked.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use shipway_apiserver::pki::Authority;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

type Reply = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

pub struct Behind {
    pub address: SocketAddr,
    pub bundle: String,
    /// Whether it answers at all.
    pub well: Arc<AtomicBool>,
    /// Feeds whoever watches.
    events: Arc<Mutex<Vec<mpsc::UnboundedSender<String>>>>,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Behind {
    /// Listens; takes only clients that `front` vouches for.
    pub async fn start(front: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls(&authority, front)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let well = Arc::new(AtomicBool::new(true));
        let events: Arc<Mutex<Vec<mpsc::UnboundedSender<String>>>> = Arc::default();
        let (answers, feeds) = (well.clone(), events.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, well, events) = (acceptor.clone(), answers.clone(), feeds.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (well, events) = (well.clone(), events.clone());
                        async move { Ok::<_, Infallible>(answer(request, &well, &events).await) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        let bundle = BASE64_STANDARD.encode(authority.ca_pem());
        Self { address, bundle, well, events, task, _dir: dir }
    }

    /// Says something to everybody who watches.
    pub fn tell(&self, text: &str) {
        for watcher in &*self.events.lock().unwrap() {
            watcher.send(text.to_owned()).unwrap();
        }
    }

    pub fn watchers(&self) -> usize {
        self.events.lock().unwrap().len()
    }
}

fn tls(authority: &Authority, front: &str) -> rustls::ServerConfig {
    let pair = authority.issue_server(&["behind.default.svc".to_owned()], &[]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(front.as_bytes()).unwrap()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap())
        .unwrap()
}

async fn answer(
    request: Request<Incoming>,
    well: &AtomicBool,
    events: &Mutex<Vec<mpsc::UnboundedSender<String>>>,
) -> Response<Reply> {
    let whole = |code: u16, value: Value| {
        let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
        Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
    };
    if !well.load(Ordering::SeqCst) {
        return whole(500, json!({}));
    }
    if request.uri().path() == "/apis/example.com/v1" {
        return whole(200, resources());
    }
    if request.uri().query().is_some_and(|query| query.contains("watch=1")) {
        let (sender, receiver) = mpsc::unbounded_channel::<String>();
        events.lock().unwrap().push(sender);
        let receiver = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|text| (text, receiver))
        });
        let stream = receiver.map(|text| Ok(Frame::data(Bytes::from(text))));
        return Response::new(StreamBody::new(stream).boxed_unsync());
    }
    let told = |name: &str| -> Vec<String> {
        request.headers().get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    let headers = json!({
        "user": told("x-remote-user"), "groups": told("x-remote-group"), "forged": told("x-remote-extra-forged"),
        "authorization": told("authorization"), "impersonate": told("impersonate-user"),
    });
    let (method, uri) = (request.method().to_string(), request.uri().to_string());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    whole(200, json!({"kind": "Echo", "method": method, "uri": uri, "headers": headers, "body": body}))
}

fn resources() -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "example.com/v1",
        "resources": [
            {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get", "list"]},
            {"name": "things/status", "singularName": "", "namespaced": true, "kind": "Thing", "verbs": ["get"]},
        ],
    })
}

/// The service that leads to a server on this machine.
pub fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "behind"},
        "spec": {"type": "ExternalName", "externalName": "localhost"}})
}

/// The object that puts a server at `example.com/v1`.
pub fn api_service(behind: &Behind) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.example.com"},
        "spec": {
            "group": "example.com", "version": "v1", "groupPriorityMinimum": 17_850, "versionPriority": 20,
            "service": {"namespace": "default", "name": "behind", "port": behind.address.port()},
            "caBundle": behind.bundle,
        },
    })
}
