//! A conversion webhook behind TLS that turns every text of `spec.image` around, and misbehaves when it is told to.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
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
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub struct Hook {
    address: SocketAddr,
    pub bundle: String,
    calls: Arc<AtomicUsize>,
    trick: Arc<Mutex<String>>,
    _dir: tempfile::TempDir,
}

impl Hook {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let pair = authority.issue_server(&["localhost".to_owned()], &[]).unwrap();
        let acceptor = TlsAcceptor::from(authority.server_config(&pair).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, trick) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(String::new())));
        let (counted, played) = (calls.clone(), trick.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let (counted, played) = (counted.clone(), played.clone());
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let trick = played.lock().unwrap().clone();
                    async move {
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let review: Value = serde_json::from_slice(&body).unwrap();
                        let code = if trick == "crash" { 500 } else { 200 };
                        let answer = Bytes::from(answer(&review, &trick).to_string());
                        Ok::<_, Infallible>(Response::builder().status(code).body(Full::new(answer)).unwrap())
                    }
                });
                tokio::spawn(async move {
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Self { address, bundle: BASE64_STANDARD.encode(authority.ca_pem()), calls, trick, _dir: dir }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/convert", self.address.port())
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn play(&self, trick: &str) {
        trick.clone_into(&mut self.trick.lock().unwrap());
    }
}

fn answer(review: &Value, trick: &str) -> Value {
    let request = &review["request"];
    let convert = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = request["desiredAPIVersion"].clone();
        if let Some(image) = object["spec"]["image"].as_str() {
            object["spec"]["image"] = image.chars().rev().collect::<String>().into();
        }
        match trick {
            "name" => object["metadata"]["name"] = "other".into(),
            "version" => object["apiVersion"] = "other/v1".into(),
            _ => {}
        }
        object
    };
    let mut objects: Vec<Value> = request["objects"].as_array().unwrap().iter().map(convert).collect();
    if trick == "fewer" {
        objects.clear();
    }
    let uid = if trick == "uid" { json!("wrong") } else { request["uid"].clone() };
    let result = if trick == "refuse" {
        json!({ "status": "Failure", "message": "not today" })
    } else {
        json!({ "status": "Success" })
    };
    json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": { "uid": uid, "result": result, "convertedObjects": objects } })
}
