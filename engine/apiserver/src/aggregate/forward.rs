//! A request on its way to a server behind this one: the caller has been let through here, and its name goes along in
//! headers that only this server can write, because only it has the front proxy's certificate.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio_util::sync::CancellationToken;

use super::Aggregation;
use super::route::Route;
use super::tls;
use crate::body::Body;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::proxy::{Connection, Passing};
use crate::webhook::Resolve;

/// How long another server may take to begin its answer; what it answers may take as long as it likes.
const PATIENCE: Duration = Duration::from_mins(1);

/// What is asked of another server, in whose name.
pub(crate) struct Asked {
    pub(crate) identity: Arc<Identity>,
    pub(crate) head: Parts,
    pub(crate) body: Body,
    pub(crate) stop: CancellationToken,
}

/// Hands a request on, if the server behind the route was found to be there.
pub(super) async fn forward(of: &Aggregation, route: &Route, asked: Asked) -> Result<Response<Body>, ApiError> {
    if !route.available {
        return Err(ApiError::Unavailable("the server is currently unable to handle the request".into()));
    }
    let sent = send(of, route, asked).await;
    if matches!(sent, Err(ApiError::Unavailable(_))) {
        of.doubt(route);
    }
    sent
}

/// Hands a request on, whatever is known of the other server.
pub(super) async fn send(of: &Aggregation, route: &Route, asked: Asked) -> Result<Response<Body>, ApiError> {
    let Asked { identity, head, body, stop } = asked;
    let unreachable = |problem: String| ApiError::Unavailable(format!("error trying to reach service: {problem}"));
    let places = of.services.resolve(&route.service).map_err(unreachable)?;
    let config = tls::config(route, of.front.as_ref().map(|front| &front.client)).map_err(unreachable)?;
    let name = route.server_name();
    let host = format!("{name}:{}", route.service.port);
    let connecting =
        async move { tls::connect(&places, name, config).await.map(|stream| Box::new(stream) as Connection) };
    let passing = Passing { host: &host, told: introduction(&identity)?, stop };
    let sending = passing.send(Request::from_parts(head, body), connecting);
    let late = |_| ApiError::Timeout(format!("{} did not answer within {} seconds", route.object, PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, sending).await.map_err(late)?
}

/// The headers that say who asks; fails when something about the caller cannot be said in a header.
fn introduction(identity: &Identity) -> Result<HeaderMap, ApiError> {
    let mut headers = HeaderMap::new();
    let mut say = |name: &str, value: &str| {
        let cannot = || ApiError::BadRequest(format!("{value:?} of the caller cannot be handed on as a header"));
        let name = name.parse::<HeaderName>().map_err(|_| cannot())?;
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| cannot())?);
        Ok::<(), ApiError>(())
    };
    say("x-remote-user", &identity.user)?;
    if !identity.uid.is_empty() {
        say("x-remote-uid", &identity.uid)?;
    }
    for group in &identity.groups {
        say("x-remote-group", group)?;
    }
    for (key, values) in &identity.extra {
        let name = format!("x-remote-extra-{}", escaped(key));
        for value in values {
            say(&name, value)?;
        }
    }
    Ok(headers)
}

/// A key as the end of a header's name: what cannot stand there is written in percent.
fn escaped(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    let written = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    key.bytes().map(written).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_introduced_in_headers() {
        let mut identity = Identity::new("jane", &["a", "b"]);
        identity.extra.insert("example.com/scope%".into(), vec!["x".into(), "y".into()]);
        let headers = introduction(&identity).unwrap();
        assert_eq!(headers["x-remote-user"], "jane");
        assert_eq!(headers.get_all("x-remote-group").iter().collect::<Vec<_>>(), ["a", "b"]);
        let extra = headers.get_all("x-remote-extra-example.com%2fscope%25").iter().collect::<Vec<_>>();
        assert_eq!(extra, ["x", "y"]);
        assert!(!headers.contains_key("x-remote-uid"));
        identity.groups.push("a\r\nx-remote-group: system:masters".into());
        assert!(matches!(introduction(&identity), Err(ApiError::BadRequest(_))));
    }
}
