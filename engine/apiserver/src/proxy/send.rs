//! One request to a backend, on a connection of its own: headers that belong to one connection stay on it, credentials
//! stay here, the reply is streamed, an upgraded connection is carried until either side ends it.

use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::backend::{Backend, Scheme};
use super::tls;
use crate::body::Body;
use crate::connect::Conversation;
use crate::error::ApiError;

/// How long a backend may take to be connected to.
const PATIENCE: Duration = Duration::from_secs(10);
/// Headers of one connection (RFC 9110, section 7.6.1), beside those that `Connection` names.
const OF_CONNECTION: [HeaderName; 5] =
    [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, HeaderName::from_static("keep-alive")];
/// What tells the server who asks, and is none of the backend's business.
const CREDENTIALS: [HeaderName; 3] =
    [AUTHORIZATION, HeaderName::from_static("proxy-authorization"), HeaderName::from_static("proxy-connection")];
/// How headers begin that say in whose name something is asked: nobody but this server may say that to a backend.
const OF_CALLERS: [&str; 2] = ["impersonate-", "x-remote-"];

/// Sends it; `prefix` is the path under which the client sees the backend.
pub(super) async fn send(
    call: Conversation,
    Backend(address): Backend,
    scheme: Scheme,
    prefix: &str,
) -> Result<Response<Body>, ApiError> {
    let Conversation { mut head, body, stop, .. } = call;
    forwarded(&mut head.headers, prefix);
    let connecting = async move {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("dial tcp {address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match scheme {
            Scheme::Http => Ok(Box::new(stream) as Connection),
            Scheme::Https => tls::wrap(stream, address)
                .await
                .map(|stream| Box::new(stream) as Connection)
                .map_err(|error| format!("tls to {address}: {error}")),
        }
    };
    let passing = Passing { host: &address.to_string(), told: HeaderMap::new(), stop };
    passing.send(Request::from_parts(head, body), connecting).await
}

/// A connection of any sort.
pub(crate) type Connection = Box<dyn Stream>;

/// How a request is handed on.
pub(crate) struct Passing<'a> {
    /// What the backend is called.
    pub(crate) host: &'a str,
    /// What this server itself tells the backend.
    pub(crate) told: HeaderMap,
    /// Ends it when the server stops.
    pub(crate) stop: CancellationToken,
}

impl Passing<'_> {
    /// Sends a request over a connection of its own and streams the reply back.
    pub(crate) async fn send(
        self,
        request: Request<Body>,
        connecting: impl Future<Output = Result<Connection, String>>,
    ) -> Result<Response<Body>, ApiError> {
        let failed = |error: String| ApiError::Unavailable(format!("error trying to reach service: {error}"));
        let (mut head, body) = request.into_parts();
        let upgrade = upgrade(&head.headers).and_then(|to| Some((to, head.extensions.remove::<OnUpgrade>()?)));
        prepare(&mut head.headers, self.host, upgrade.as_ref().map(|(to, _)| to));
        head.headers.extend(self.told);
        head.version = Version::HTTP_11;
        let request = Request::from_parts(head, body);
        let mut response = ask(request, self.host, connecting, self.stop.clone()).await.map_err(failed)?;
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        clean(response.headers_mut(), switching);
        if switching {
            let Some((_, client)) = upgrade else {
                return Err(failed("it switches protocols without being asked".into()));
            };
            carry(client, hyper::upgrade::on(&mut response), self.stop);
        }
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

async fn ask(
    request: Request<Body>,
    host: &str,
    connecting: impl Future<Output = Result<Connection, String>>,
    stop: CancellationToken,
) -> Result<Response<Incoming>, String> {
    let late = |_| format!("dial tcp {host}: i/o timeout");
    let stream = tokio::time::timeout(PATIENCE, connecting).await.map_err(late)??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    drive(connection.with_upgrades().boxed(), stop);
    sender.send_request(request).await.map_err(|error| reason(&error))
}

/// It lives as long as the reply's body, which ends it when it is dropped, and no longer than the server.
fn drive(connection: BoxFuture<'static, hyper::Result<()>>, stop: CancellationToken) {
    drop(tokio::spawn(async move {
        if let Some(Err(error)) = stop.run_until_cancelled_owned(connection).await {
            tracing::debug!(%error, "a connection to a backend broke off");
        }
    }));
}

/// An error and what caused it.
fn reason(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

/// What bytes can be read from and written to.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What the client wants to switch to.
fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asked = named.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| asked).cloned()
}

/// Says where the client came from.
fn forwarded(headers: &mut HeaderMap, prefix: &str) {
    let host = headers.get(HOST).cloned();
    let mut set = |name: &'static str, value: Option<HeaderValue>| {
        value.map(|value| headers.insert(HeaderName::from_static(name), value));
    };
    set("x-forwarded-host", host);
    set("x-forwarded-proto", Some(HeaderValue::from_static("https")));
    set("x-forwarded-uri", HeaderValue::from_str(prefix).ok());
}

fn prepare(headers: &mut HeaderMap, host: &str, upgrade: Option<&HeaderValue>) {
    clean(headers, false);
    let ours = |name: &&HeaderName| {
        CREDENTIALS.contains(name) || OF_CALLERS.iter().any(|prefix| name.as_str().starts_with(prefix))
    };
    let secret: Vec<HeaderName> = headers.keys().filter(ours).cloned().collect();
    for name in secret {
        headers.remove(name);
    }
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
    if let Some(to) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, to.clone());
    }
}

/// Removes what belongs to the connection that a message came on, unless that is what is being handed on.
fn clean(headers: &mut HeaderMap, switching: bool) {
    if switching {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.into_iter().chain(OF_CONNECTION).chain([UPGRADE]) {
        headers.remove(name);
    }
}

/// Carries an upgraded connection until either side ends it, or the server stops.
fn carry(client: OnUpgrade, backend: OnUpgrade, stop: CancellationToken) {
    let carrying = async move {
        let (client, backend) = tokio::try_join!(client, backend).map_err(std::io::Error::other)?;
        tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await
    };
    drop(tokio::spawn(async move {
        if let Some(Err(error)) = stop.run_until_cancelled_owned(carrying).await {
            tracing::debug!(%error, "an upgraded connection broke off");
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn credentials_and_what_belongs_to_the_connection_stay_here() {
        let mut all = headers(&[
            ("host", "api.example"),
            ("authorization", "Bearer secret"),
            ("impersonate-user", "root"),
            ("x-remote-user", "root"),
            ("x-remote-extra-scopes", "all"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("accept", "*/*"),
        ]);
        forwarded(&mut all, "/p/proxy");
        prepare(&mut all, "10.0.0.1:80", None);
        let mut left: Vec<(&str, &str)> =
            all.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        let expected = [
            ("accept", "*/*"),
            ("host", "10.0.0.1:80"),
            ("x-forwarded-host", "api.example"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-uri", "/p/proxy"),
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn an_upgrade_is_handed_on_when_it_is_asked_for() {
        let asked = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(upgrade(&asked).unwrap(), "websocket");
        assert_eq!(upgrade(&headers(&[("upgrade", "websocket")])), None);
    }
}
