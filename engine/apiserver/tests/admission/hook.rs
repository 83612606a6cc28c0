//! A webhook that does what its path says, and remembers what it was asked.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use shipway_apiserver::pki::Authority;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(crate) struct Hook {
    pub(crate) address: SocketAddr,
    pub(crate) bundle: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    _dir: TempDir,
}

impl Hook {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let pair = authority.issue_server(&[], &[IpAddr::V4(Ipv4Addr::LOCALHOST)]).unwrap();
        let acceptor = TlsAcceptor::from(authority.server_config(&pair).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let seen = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request: Request<hyper::body::Incoming>| {
                        let seen = seen.clone();
                        async move {
                            let path = request.uri().path().to_owned();
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            let review: Value = serde_json::from_slice(&body).unwrap();
                            seen.lock().unwrap().push((path.clone(), review["request"].clone()));
                            Ok::<_, Infallible>(Response::new(Full::new(answer(&path, &review["request"]).await)))
                        }
                    });
                    // A client that goes away early is part of the test.
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Self { address, bundle: BASE64_STANDARD.encode(authority.ca_pem()), asked, _dir: dir }
    }

    /// The requests that came to a path.
    pub(crate) fn asked(&self, path: &str) -> Vec<Value> {
        self.asked.lock().unwrap().iter().filter(|(own, _)| own == path).map(|(_, request)| request.clone()).collect()
    }

    /// A webhook for config maps at a path, with these fields changed.
    pub(crate) fn webhook(&self, path: &str, fields: &Value) -> Value {
        let mut webhook = json!({
            "name": "hook.example.com",
            "clientConfig": {"url": format!("https://{}{path}", self.address), "caBundle": self.bundle},
            "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": 10,
        });
        for (key, value) in fields.as_object().unwrap() {
            webhook[key] = value.clone();
        }
        webhook
    }
}

async fn answer(path: &str, request: &Value) -> Bytes {
    let mut response = json!({"uid": request["uid"], "allowed": true});
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts.as_slice() {
        ["deny"] => {
            response["allowed"] = false.into();
            response["status"] = json!({"code": 403, "reason": "Forbidden", "message": "not today"});
        }
        ["note", key, value] => response["auditAnnotations"] = json!({ *key: value }),
        ["warn"] => response["warnings"] = json!(["mind the gap"]),
        ["label", key, value] => set_label(&mut response, request, key, value),
        ["count"] => {
            let labels = request["object"]["metadata"]["labels"].as_object().map_or(0, serde_json::Map::len);
            set_label(&mut response, request, "counted", &format!("n{labels}"));
        }
        ["set", field, at, value] => {
            patch(&mut response, &json!([{"op": "replace", "path": format!("/{field}/{at}"), "value": value}]));
        }
        ["rename"] => patch(&mut response, &json!([{"op": "replace", "path": "/metadata/name", "value": "other"}])),
        ["badpatch"] => patch(&mut response, &json!([{"op": "remove", "path": "/nowhere"}])),
        ["wrongtype"] => patch(&mut response, &json!([{"op": "add", "path": "/data", "value": 7}])),
        ["unknownfield"] => patch(&mut response, &json!([{"op": "add", "path": "/nonsense", "value": 7}])),
        ["wronguid"] => response["uid"] = "another".into(),
        ["stall"] => return std::future::pending().await,
        ["prose"] => return Bytes::from_static(b"hello"),
        ["flood"] => return vec![b' '; 40 << 20].into(),
        _ => {}
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string().into()
}

fn set_label(response: &mut Value, request: &Value, key: &str, value: &str) {
    let labelled = request["object"]["metadata"]["labels"].is_object();
    let operation = if labelled {
        json!({"op": "add", "path": format!("/metadata/labels/{key}"), "value": value})
    } else {
        json!({"op": "add", "path": "/metadata/labels", "value": {key: value}})
    };
    patch(response, &json!([operation]));
}

fn patch(response: &mut Value, operations: &Value) {
    response["patchType"] = "JSONPatch".into();
    response["patch"] = BASE64_STANDARD.encode(operations.to_string()).into();
}
