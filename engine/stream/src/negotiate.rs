//! From a request's headers to the dialect that both sides know, and the reply that switches to it.

use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::websocket;

const SPDY: &str = "SPDY/3.1";
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const FOURTH: &str = "v4.channel.k8s.io";
const FIFTH: &str = "v5.channel.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const FORWARD: &str = "portforward.k8s.io";

/// How a client runs a command or attaches to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandDialect {
    /// WebSocket channels, fourth or fifth protocol.
    Channels {
        /// Whether the client can end its input: the fifth.
        half_close: bool,
    },
    /// SPDY/3.1, fourth protocol.
    Spdy,
}

/// How a client forwards ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardDialect {
    /// WebSocket channels.
    Channels,
    /// SPDY/3.1.
    Spdy,
    /// SPDY/3.1 inside of WebSocket messages.
    Tunnel,
}

/// A request that cannot be switched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The reply's code.
    pub code: StatusCode,
    /// One line for the user.
    pub message: String,
}

impl CommandDialect {
    /// The dialect of a request, and the head of the reply that switches to it.
    pub fn negotiate(headers: &HeaderMap) -> Result<(Self, Response<()>), Refusal> {
        negotiate(headers, &[FIFTH, FOURTH], FOURTH, |chosen| match chosen {
            FIFTH => Self::Channels { half_close: true },
            FOURTH => Self::Channels { half_close: false },
            _ => Self::Spdy,
        })
    }
}

impl ForwardDialect {
    /// The dialect of a request, and the head of the reply that switches to it.
    pub fn negotiate(headers: &HeaderMap) -> Result<(Self, Response<()>), Refusal> {
        negotiate(headers, &[TUNNEL, FIFTH, FOURTH], FORWARD, |chosen| match chosen {
            TUNNEL => Self::Tunnel,
            SPDY => Self::Spdy,
            _ => Self::Channels,
        })
    }
}

/// `sockets`: the protocols known over WebSocket; `spdy`: the one known over SPDY.
fn negotiate<D>(
    headers: &HeaderMap,
    sockets: &[&'static str],
    spdy: &'static str,
    dialect: impl Fn(&str) -> D,
) -> Result<(D, Response<()>), Refusal> {
    let upgrades = words(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"));
    let to = |name: &str| upgrades && words(headers, &UPGRADE).any(|word| word.eq_ignore_ascii_case(name));
    if to("websocket") {
        let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).filter(|key| websocket::is_key(key));
        let key = key.ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "the WebSocket key is missing or malformed"))?;
        let chosen = choose(headers, &SEC_WEBSOCKET_PROTOCOL, sockets)?;
        let mut reply = switch("websocket", &SEC_WEBSOCKET_PROTOCOL, chosen);
        let accept = HeaderValue::from_str(&websocket::accept(key)).expect("base64 is a header value");
        reply.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
        return Ok((dialect(chosen), reply));
    }
    if to(SPDY) {
        let chosen = choose(headers, &PROTOCOL, &[spdy])?;
        return Ok((dialect(SPDY), switch(SPDY, &PROTOCOL, chosen)));
    }
    Err(refuse(StatusCode::BAD_REQUEST, "Upgrade request required"))
}

/// The first protocol of the client's that is known here.
fn choose(headers: &HeaderMap, name: &HeaderName, known: &[&'static str]) -> Result<&'static str, Refusal> {
    let offered: Vec<&str> = words(headers, name).collect();
    let common = offered.iter().find_map(|word| known.iter().find(|own| *own == word));
    common.copied().ok_or_else(|| {
        let message = format!("unable to negotiate protocol: client supports {offered:?}, server accepts {known:?}");
        refuse(StatusCode::FORBIDDEN, &message)
    })
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

fn switch(to: &'static str, name: &HeaderName, chosen: &'static str) -> Response<()> {
    let mut reply = Response::new(());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(to));
    headers.insert(name, HeaderValue::from_static(chosen));
    reply
}

fn refuse(code: StatusCode, message: &str) -> Refusal {
    Refusal { code, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut all = HeaderMap::new();
        for (name, value) in pairs {
            all.append(*name, HeaderValue::from_static(value));
        }
        all
    }

    fn socket(protocols: &'static str) -> HeaderMap {
        headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocols),
        ])
    }

    #[test]
    fn the_clients_first_choice_that_is_known_is_taken() {
        let (dialect, reply) =
            CommandDialect::negotiate(&socket("v6.channel.k8s.io, v5.channel.k8s.io,v4.channel.k8s.io")).unwrap();
        assert_eq!(dialect, CommandDialect::Channels { half_close: true });
        assert_eq!(reply.status(), 101);
        assert_eq!(reply.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        assert_eq!(reply.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let forward = |protocols| ForwardDialect::negotiate(&socket(protocols)).unwrap().0;
        assert_eq!(forward("SPDY/3.1+portforward.k8s.io"), ForwardDialect::Tunnel);
        assert_eq!(forward("v4.channel.k8s.io"), ForwardDialect::Channels);
    }

    #[test]
    fn spdy_is_switched_to_with_its_protocol_named() {
        let mut asked = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]);
        for protocol in ["v4.channel.k8s.io", "v3.channel.k8s.io", "portforward.k8s.io"] {
            asked.append(PROTOCOL, HeaderValue::from_static(protocol));
        }
        let (dialect, reply) = CommandDialect::negotiate(&asked).unwrap();
        assert_eq!((dialect, &reply.headers()[PROTOCOL]), (CommandDialect::Spdy, &HeaderValue::from_static(FOURTH)));
        assert_eq!(ForwardDialect::negotiate(&asked).unwrap().0, ForwardDialect::Spdy);
    }

    #[test]
    fn others_are_refused_with_a_reason() {
        let code = |headers: &HeaderMap| CommandDialect::negotiate(headers).unwrap_err().code.as_u16();
        assert_eq!(code(&HeaderMap::new()), 400);
        assert_eq!(code(&headers(&[("upgrade", "websocket")])), 400);
        assert_eq!(code(&socket("v1.channel.k8s.io")), 403);
        assert_eq!(code(&headers(&[("connection", "upgrade"), ("upgrade", "SPDY/3.1")])), 403);
        let mut without_key = socket(FIFTH);
        without_key.remove("sec-websocket-key");
        assert_eq!(code(&without_key), 400);
    }
}
