//! Calls against a TLS server of their own.

use std::convert::Infallible;
use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::resolve::ServiceReference;
use super::*;
use crate::pki::Authority;

/// Knows one service.
struct One(SocketAddr);

impl Resolve for One {
    fn resolve(&self, service: &ServiceReference) -> Result<Vec<String>, String> {
        match service.name.as_str() {
            "hook" => Ok(vec!["127.0.0.1:1".into(), self.0.to_string()]),
            other => Err(format!("service {other:?} not found")),
        }
    }
}

struct Hook {
    address: SocketAddr,
    bundle: String,
    _dir: tempfile::TempDir,
}

/// Echoes what it is sent below `/echo`; fails, redirects, stalls and babbles elsewhere.
async fn hook() -> Hook {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let names = ["hook.default.svc".to_owned(), "localhost".to_owned()];
    let pair = authority.issue_server(&names, &[]).unwrap();
    let acceptor = TlsAcceptor::from(authority.server_config(&pair).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = service_fn(async |request: Request<hyper::body::Incoming>| {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let (code, body) = match path.as_str() {
                    "/echo" => (200, body),
                    "/moved" => (302, Bytes::new()),
                    "/prose" => (200, Bytes::from_static(b"hello")),
                    "/stall" => std::future::pending().await,
                    "/flood" => (200, Bytes::from(vec![b' '; REPLY_LIMIT + 1])),
                    _ => (500, Bytes::from_static(b"broken")),
                };
                Ok::<_, Infallible>(Response::builder().status(code).body(Full::new(body)).unwrap())
            });
            tokio::spawn(async move {
                // A client that goes away early is part of the test.
                drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    Hook { address, bundle: BASE64_STANDARD.encode(authority.ca_pem()), _dir: dir }
}

fn config(config: &Value) -> ClientConfig {
    ClientConfig::parse(config).unwrap()
}

#[tokio::test]
async fn a_service_and_a_url_are_called_and_certificates_checked() {
    let hook = hook().await;
    let webhooks = Webhooks::new(One(hook.address));
    let second = Duration::from_secs(5);
    let service =
        json!({"service": {"namespace": "default", "name": "hook", "path": "/echo"}, "caBundle": hook.bundle});
    let body = json!({"kind": "Review", "n": 1});
    for _ in 0..2 {
        assert_eq!(webhooks.call(&config(&service), &body, second).await.unwrap(), body);
    }
    let url = json!({"url": format!("https://localhost:{}/echo", hook.address.port()), "caBundle": hook.bundle});
    assert_eq!(webhooks.call(&config(&url), &body, second).await.unwrap(), body);
    let mut other = service.clone();
    other["service"]["namespace"] = "elsewhere".into();
    let error = webhooks.call(&config(&other), &body, second).await.unwrap_err().to_string();
    assert!(error.starts_with(r#"Post "https://hook.elsewhere.svc:443/echo": tls: "#), "{error}");
    other["service"]["name"] = "none".into();
    let error = webhooks.call(&config(&other), &body, second).await.unwrap_err().to_string();
    assert_eq!(error, r#"Post "https://none.elsewhere.svc:443/echo": service "none" not found"#);
    let mut stranger = url;
    let dir = tempfile::tempdir().unwrap();
    stranger["caBundle"] = BASE64_STANDARD.encode(Authority::open(dir.path()).unwrap().ca_pem()).into();
    let error = webhooks.call(&config(&stranger), &body, second).await.unwrap_err();
    assert!(matches!(error, WebhookError::Connection { .. }), "{error}");
}

#[tokio::test]
async fn whatever_the_other_end_does_the_call_ends() {
    let hook = hook().await;
    let webhooks = Webhooks::new(One(hook.address));
    let call = async |path: &str, millis: u64| {
        let url = format!("https://localhost:{}{path}", hook.address.port());
        let config = config(&json!({"url": url, "caBundle": hook.bundle}));
        webhooks.call(&config, &json!({}), Duration::from_millis(millis)).await.unwrap_err()
    };
    assert!(matches!(call("/broken", 5000).await, WebhookError::Refused { code, .. } if code == 500));
    assert!(matches!(call("/moved", 5000).await, WebhookError::Refused { code, .. } if code == 302));
    assert!(matches!(call("/prose", 5000).await, WebhookError::Unreadable { .. }));
    assert!(matches!(call("/flood", 20_000).await, WebhookError::TooLarge { .. }));
    let error = call("/stall", 100).await;
    assert!(error.to_string().ends_with("context deadline exceeded"), "{error}");
}

#[test]
fn a_client_config_that_makes_no_sense_is_refused() {
    for (given, part) in [
        (json!({}), "exactly one of url or service"),
        (json!({"url": "https://a/", "service": {"name": "a", "namespace": "b"}}), "exactly one of url or service"),
        (json!({"url": "http://a/"}), "'https' is the only allowed"),
        (json!({"url": "https://u:p@a/"}), "user information"),
        (json!({"url": "https://a/?b=c"}), "query parameters"),
        (json!({"service": {"name": "a"}}), "service.namespace"),
        (json!({"service": {"name": "a", "namespace": "b", "port": 70000}}), "service.port"),
        (json!({"url": "https://a/", "caBundle": "%"}), "caBundle"),
    ] {
        let error = ClientConfig::parse(&given).unwrap_err().to_string();
        assert!(error.contains(part), "{given}: {error}");
    }
}
