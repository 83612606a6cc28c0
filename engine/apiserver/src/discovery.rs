//! What the server says about itself: API groups, schemas, version and health.

use std::hash::{DefaultHasher, Hash, Hasher};

use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::ApiServer;
use crate::accept::{AGGREGATED, wants_aggregated};
use crate::access;
use crate::body::Body;
use crate::error::ApiError;
use crate::metrics;
use crate::query::Query;
use crate::reply;

/// The release of Kubernetes whose API is served, and our own.
const GIT_VERSION: &str = concat!("v1.36.0+shipway-", env!("CARGO_PKG_VERSION"));

/// Answers a path that is not a resource.
pub(crate) fn answer(
    server: &ApiServer,
    method: &Method,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    if method != Method::GET {
        return Err(ApiError::MethodNotAllowed);
    }
    let registry = server.registry();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let document = match segments.as_slice() {
        [] => Some(paths(server)),
        ["api"] if wants_aggregated(headers) => return Ok(aggregated(&registry.aggregated(true))),
        ["apis"] if wants_aggregated(headers) => return Ok(aggregated(&registry.aggregated(false))),
        ["api"] => Some(registry.api_versions()),
        ["apis"] => Some(registry.api_groups()),
        ["api", version] => registry.api_resources("", version),
        ["apis", group] => registry.api_group(group),
        ["apis", group, version] => registry.api_resources(group, version),
        ["version"] => Some(version()),
        ["healthz" | "livez" | "readyz"] => return Ok(health(server, segments[0], query.flag("verbose"))),
        ["healthz" | "livez" | "readyz", check] => return one_check(server, check),
        ["metrics"] => {
            return Ok(reply::bytes(StatusCode::OK, metrics::TEXT, server.metrics().text(server.cache())));
        }
        [".well-known", "openid-configuration"] => return Ok(access::discovery(server.address())),
        ["openid", "v1", "jwks"] => return Ok(access::key_set(server.accounts().key())),
        ["openapi", "v2"] => return Err(ApiError::NotAcceptable),
        ["openapi", "v3"] => Some(registry.openapi_index()),
        ["openapi", "v3", rest @ ..] => return schema(server, &rest.join("/"), headers),
        _ => None,
    };
    let document = document.ok_or(ApiError::NoSuchPath)?;
    Ok(reply::value(StatusCode::OK, &document, false))
}

/// Clients compare the content type letter by letter.
fn aggregated(document: &Value) -> Response<Body> {
    let mut response = reply::value(StatusCode::OK, document, false);
    reply::set(&mut response, CONTENT_TYPE, AGGREGATED);
    reply::set(&mut response, VARY, "Accept");
    response
}

fn schema(server: &ApiServer, path: &str, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let document = server.registry().openapi_document(path).ok_or(ApiError::NoSuchPath)?;
    let mut hasher = DefaultHasher::new();
    document.hash(&mut hasher);
    let tag = format!("\"{:016X}\"", hasher.finish());
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag)) {
        reply::bytes(StatusCode::NOT_MODIFIED, reply::JSON, Vec::new())
    } else {
        let gzip = crate::accept::Accept::parse(headers).is_ok_and(|accept| accept.gzip);
        reply::json(StatusCode::OK, document, gzip)
    };
    reply::set(&mut response, ETAG, &tag);
    Ok(response)
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// The machine's architecture in the words of container images.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn paths(server: &ApiServer) -> Value {
    let mut paths = vec![
        "/api".to_owned(),
        "/apis".into(),
        "/healthz".into(),
        "/livez".into(),
        "/metrics".into(),
        "/openapi/v3".into(),
    ];
    paths.extend(["/readyz".to_owned(), "/version".into()]);
    for resource in server.registry().all() {
        paths.push(match resource.group.as_ref() {
            "" => format!("/api/{}", resource.version),
            group => format!("/apis/{group}/{}", resource.version),
        });
    }
    paths.sort_unstable();
    paths.dedup();
    json!({"paths": paths})
}

fn health(server: &ApiServer, name: &str, verbose: bool) -> Response<Body> {
    let well = server.cache().is_following();
    let (code, mark, word) =
        if well { (StatusCode::OK, "+", "ok") } else { (StatusCode::INTERNAL_SERVER_ERROR, "-", "failed") };
    let text = match (well, verbose) {
        (true, false) => "ok".to_owned(),
        (true, true) => format!("[+]ping ok\n[{mark}]cache {word}\n{name} check passed\n"),
        (false, _) => {
            format!("[+]ping ok\n[{mark}]cache {word}: the store can no longer be read\n{name} check failed\n")
        }
    };
    reply::bytes(code, "text/plain; charset=utf-8", text)
}

fn one_check(server: &ApiServer, check: &str) -> Result<Response<Body>, ApiError> {
    match check {
        "ping" => Ok(reply::bytes(StatusCode::OK, "text/plain; charset=utf-8", "ok")),
        "cache" => Ok(health(server, check, false)),
        _ => Err(ApiError::NoSuchPath),
    }
}
