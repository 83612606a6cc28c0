//! Calling webhooks: one JSON document out, one back, over TLS that the configuration's `caBundle` vouches for.
//!
//! Everything the other end can do is bounded: connecting, waiting and reading end with the call's time, replies have a
//! largest size, redirects are not followed, and only so many calls run at once. A connection carries one call (sessions
//! are resumed, so a second handshake is short); nothing is kept open in between. What the documents say is the caller's
//! business.

mod config;
mod resolve;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) use config::ClientConfig;
pub(crate) use resolve::{Resolve, ServiceReference, Services};

/// The largest reply that is read, in bytes.
const REPLY_LIMIT: usize = 32 * 1024 * 1024;
/// How many calls may be under way at once; more wait for their turn within their own time.
const CALLS: usize = 64;
/// How many bundles' TLS settings, with the sessions to resume, are kept.
const KEPT: usize = 32;

/// Why a call gave no answer.
#[derive(Debug, Error)]
pub(crate) enum WebhookError {
    /// `clientConfig` makes no sense.
    #[error("{0}")]
    Config(String),
    /// The service cannot be reached by what is known about it.
    #[error("Post {url:?}: {problem}")]
    Unresolved {
        /// What was to be called.
        url: String,
        /// What is missing.
        problem: String,
    },
    /// No connection, or it broke off.
    #[error("Post {url:?}: {problem}")]
    Connection {
        /// What was called.
        url: String,
        /// What failed.
        problem: String,
    },
    /// The time was up.
    #[error("Post {url:?}: context deadline exceeded")]
    Timeout {
        /// What was called.
        url: String,
    },
    /// The answer was no success.
    #[error("the server answered {code}: {text:?}")]
    Refused {
        /// The HTTP status.
        code: StatusCode,
        /// The beginning of what it said.
        text: String,
    },
    /// The answer was longer than it may be.
    #[error("the reply of {url:?} is longer than {REPLY_LIMIT} bytes")]
    TooLarge {
        /// What was called.
        url: String,
    },
    /// The answer was no JSON.
    #[error("the reply of {url:?} is no JSON: {problem}")]
    Unreadable {
        /// What was called.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The client for all webhooks of one server.
pub(crate) struct Webhooks {
    resolver: Box<dyn Resolve>,
    /// TLS settings by bundle, the most recently used first.
    trusts: Mutex<Vec<(Option<Bytes>, Arc<rustls::ClientConfig>)>>,
    turns: Semaphore,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhooks").field("turns", &self.turns).finish_non_exhaustive()
    }
}

impl Webhooks {
    /// A client that finds services by `resolver`.
    pub(crate) fn new(resolver: impl Resolve + 'static) -> Self {
        Self { resolver: Box::new(resolver), trusts: Mutex::default(), turns: Semaphore::new(CALLS) }
    }

    /// Posts a document and gives the one that comes back. `timeout` covers everything, waiting for a turn included.
    pub(crate) async fn call(
        &self,
        config: &ClientConfig,
        body: &Value,
        timeout: Duration,
    ) -> Result<Value, WebhookError> {
        let called = tokio::time::timeout(timeout, self.exchange(config, body));
        called.await.unwrap_or_else(|_| Err(WebhookError::Timeout { url: config.url() }))
    }

    async fn exchange(&self, config: &ClientConfig, body: &Value) -> Result<Value, WebhookError> {
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        let places = config.places(&*self.resolver)?;
        let tls = self.trust(config)?;
        let stream = connect(config, &places, tls).await?;
        let bytes = post(config, stream, body).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| WebhookError::Unreadable { url: config.url(), problem: error.to_string() })
    }

    /// The TLS settings for a bundle, made once.
    fn trust(&self, config: &ClientConfig) -> Result<Arc<rustls::ClientConfig>, WebhookError> {
        let mut kept = self.trusts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|(bundle, _)| *bundle == config.bundle) {
            kept[..=at].rotate_right(1);
            return Ok(kept[0].1.clone());
        }
        let made = Arc::new(trust(config.bundle.as_deref()).map_err(WebhookError::Config)?);
        kept.truncate(KEPT - 1);
        kept.insert(0, (config.bundle.clone(), made.clone()));
        Ok(made)
    }
}

/// The certificates of a bundle, or what this machine trusts where there is none.
pub(crate) fn roots(bundle: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match bundle {
        Some(bundle) => {
            for certificate in CertificateDer::pem_slice_iter(bundle) {
                let certificate = certificate.map_err(|error| format!("unable to load root certificates: {error}"))?;
                roots.add(certificate).map_err(|error| format!("unable to load root certificates: {error}"))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() { Err("unable to load root certificates: there is none".into()) } else { Ok(roots) }
}

/// TLS that trusts a bundle, or what this machine trusts where there is none.
fn trust(bundle: Option<&[u8]>) -> Result<rustls::ClientConfig, String> {
    let roots = roots(bundle)?;
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Connects to the first place that answers and makes sure of who is there.
async fn connect(
    config: &ClientConfig,
    places: &[String],
    tls: Arc<rustls::ClientConfig>,
) -> Result<TlsStream<TcpStream>, WebhookError> {
    let failed = |problem: String| WebhookError::Connection { url: config.url(), problem };
    let name = ServerName::try_from(config.server_name.clone()).map_err(|error| failed(error.to_string()))?;
    let mut problem = "nowhere to connect to".to_owned();
    for place in places {
        match TcpStream::connect(place.as_str()).await {
            Ok(stream) => {
                let stream = TlsConnector::from(tls).connect(name, stream).await;
                return stream.map_err(|error| failed(format!("tls: {error}")));
            }
            Err(error) => problem = format!("dial tcp {place}: {error}"),
        }
    }
    Err(failed(problem))
}

/// One request over a fresh connection.
async fn post(config: &ClientConfig, stream: TlsStream<TcpStream>, body: &Value) -> Result<Bytes, WebhookError> {
    let failed =
        |error: &dyn std::fmt::Display| WebhookError::Connection { url: config.url(), problem: error.to_string() };
    let (mut sender, connection) =
        http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let body = serde_json::to_vec(body).expect("a JSON value can be encoded");
    let request = Request::builder()
        .method(Method::POST)
        .uri(&config.path)
        .header(HOST, &config.authority)
        .header(USER_AGENT, concat!("shipway-apiserver/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| failed(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let code = response.status();
        let read = Limited::new(response.into_body(), REPLY_LIMIT).collect().await;
        let bytes = read.map_err(|error| {
            if error.is::<LengthLimitError>() { WebhookError::TooLarge { url: config.url() } } else { failed(&error) }
        })?;
        answered(code, bytes.to_bytes())
    };
    // The connection is driven by this very future, so that it ends with the call.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = exchange.as_mut() => return answer,
        ended = connection => drop(ended),
    }
    exchange.await
}

fn answered(code: StatusCode, bytes: Bytes) -> Result<Bytes, WebhookError> {
    if code.is_success() {
        return Ok(bytes);
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).into_owned();
    Err(WebhookError::Refused { code, text })
}

#[cfg(test)]
mod tests;
