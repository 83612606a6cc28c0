//! The `proxy` subresource of pods, services and nodes: a request handed on to an address of that very object, the reply
//! streamed back, upgrades passed through.
//!
//! The caller's credentials stay here. Where a request goes is decided by the object alone, never by anything in the
//! request but its name for a port; addresses that mean this machine or its surroundings are refused.

mod backend;
mod send;
mod tls;

use http::header::LOCATION;
use http::{HeaderValue, Method, Request, Response, StatusCode};

use crate::body::{Body, full};
use crate::commit::Place;
use crate::connect::{Conversation, found, with_query};
use crate::error::ApiError;
use crate::pod;

pub(crate) use send::{Connection, Passing};
pub(crate) use tls::Anybody;

use backend::{Backend, Door};

/// Splits a path at `proxy`: what names the object, and what is asked of it, as it stands.
pub(crate) fn split(path: &str) -> (&str, Option<&str>) {
    let segments: Vec<&str> = path.trim_start_matches('/').splitn(8, '/').collect();
    let at = match segments[..] {
        ["api", "v1", "namespaces", _, "pods" | "services", _, "proxy", ..] => 6,
        ["api", "v1", "nodes", _, "proxy", ..] => 4,
        _ => return (path, None),
    };
    let start = path.len() - path.trim_start_matches('/').len();
    let head: usize = start + segments[..=at].iter().map(|segment| segment.len() + 1).sum::<usize>() - 1;
    (&path[..head], Some(&path[head..]))
}

/// Hands a request on.
pub(crate) async fn answer(mut call: Conversation, mut place: Place) -> Result<Response<Body>, ApiError> {
    let asked = call.head.uri.path().to_owned();
    let (prefix, rest) = split(&asked);
    let rest = rest.unwrap_or_default();
    if rest.is_empty() && matches!(call.head.method, Method::GET | Method::HEAD) {
        return moved(&format!("{prefix}/"), call.head.uri.query());
    }
    let Door { scheme, name, port } = Door::parse(&place.name)?;
    place.name = name;
    let server = call.server.clone();
    let object = found(&server, &place).await?.value();
    if place.resource().kind == "Node" && matches!(port.as_deref(), None | Some("10250")) {
        return to_node(call, &place, rest).await;
    }
    let backend = match &*place.resource().kind {
        "Pod" => Backend::of_pod(&object, &place.name, port.as_deref()),
        "Service" => Backend::of_service(&server, &object, &place, port.as_deref()),
        _ => Backend::of_node(&object, &place.name, port.as_deref()),
    }?;
    call.head.uri = with_query(if rest.is_empty() { "/" } else { rest }, call.head.uri.query())?;
    let prefix = prefix.to_owned();
    let mut response = send::send(call, backend, scheme, &prefix).await?;
    relocate(&mut response, &prefix);
    Ok(response)
}

/// A node's own paths are served by the node's service, wherever that is.
async fn to_node(mut call: Conversation, place: &Place, rest: &str) -> Result<Response<Body>, ApiError> {
    let service = call.server.node(&place.name);
    let service = service.ok_or_else(|| ApiError::Unavailable(format!("node {:?} is not connected", place.name)))?;
    call.head.uri = with_query(rest, call.head.uri.query())?;
    Ok(pod::ask(service, Request::from_parts(call.head, call.body)).await)
}

/// Links that begin where the object's own paths do would lead out of it.
fn relocate(response: &mut Response<Body>, prefix: &str) {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let inner = location.filter(|location| location.starts_with('/') && !location.starts_with("//"));
    if let Some(outer) = inner.and_then(|inner| HeaderValue::from_str(&format!("{prefix}{inner}")).ok()) {
        response.headers_mut().insert(LOCATION, outer);
    }
}

/// Without the slash, relative links in the page would lead out of the object.
fn moved(path: &str, query: Option<&str>) -> Result<Response<Body>, ApiError> {
    let location = with_query(path, query)?;
    let mut response = Response::new(full(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    crate::reply::set(&mut response, LOCATION, &location.to_string());
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_the_object_stays_as_it_is() {
        let cases = [
            (
                "/api/v1/namespaces/n/pods/p:80/proxy/a%2Fb//c/",
                ("/api/v1/namespaces/n/pods/p:80/proxy", Some("/a%2Fb//c/")),
            ),
            (
                "/api/v1/namespaces/n/services/https:s:web/proxy",
                ("/api/v1/namespaces/n/services/https:s:web/proxy", Some("")),
            ),
            ("/api/v1/nodes/x/proxy/containerLogs/a", ("/api/v1/nodes/x/proxy", Some("/containerLogs/a"))),
            ("/api/v1/namespaces/n/pods/p/log", ("/api/v1/namespaces/n/pods/p/log", None)),
            ("/api/v1/namespaces/n/pods/p/proxying", ("/api/v1/namespaces/n/pods/p/proxying", None)),
        ];
        for (path, expected) in cases {
            assert_eq!(split(path), expected);
        }
    }

    #[test]
    fn links_into_the_object_stay_in_it() {
        let located = |location: &'static str| {
            let mut response = Response::new(full(bytes::Bytes::new()));
            response.headers_mut().insert(LOCATION, HeaderValue::from_static(location));
            relocate(&mut response, "/p/proxy");
            response.headers()[LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(located("/a?b"), "/p/proxy/a?b");
        assert_eq!(located("a"), "a");
        assert_eq!(located("//elsewhere/"), "//elsewhere/");
    }
}
