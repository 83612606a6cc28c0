//! What the server says about itself: API groups, schemas, version and health.

use std::hash::{DefaultHasher, Hash, Hasher};

use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};
use shipway_schema::Swagger;
use tokio::sync::Semaphore;

use crate::ApiServer;
use crate::accept::{self, AGGREGATED, wants_aggregated};
use crate::access;
use crate::aggregate;
use crate::body::Body;
use crate::error::ApiError;
use crate::health;
use crate::metrics;
use crate::profile;
use crate::query::Query;
use crate::reply;

/// The release of Kubernetes whose API is served, and our own.
const GIT_VERSION: &str = concat!("v1.36.0+shipway-", env!("CARGO_PKG_VERSION"));

/// The media type of the document of version 2 as protobuf, and what older clients call it.
const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const OLD_GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Answers a path that is not a resource.
pub(crate) async fn answer(
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
        ["apis"] if wants_aggregated(headers) => {
            return Ok(aggregated(&aggregate::add_to_aggregated(server, registry.aggregated(false))));
        }
        ["api"] => Some(registry.api_versions()),
        ["apis"] => Some(aggregate::add_to_groups(server, registry.api_groups())),
        ["api", version] => registry.api_resources("", version),
        ["apis", group] => aggregate::group(server, group),
        ["apis", group, version] => registry.api_resources(group, version),
        ["version"] => Some(version()),
        [probe @ ("healthz" | "livez" | "readyz"), check @ ..] => {
            return health::answer(server, probe, &check.join("/"), query).await;
        }
        ["metrics"] => {
            return Ok(reply::bytes(StatusCode::OK, metrics::TEXT, server.metrics().text(server.cache())));
        }
        ["debug", "profile"] => return profile::answer(server, query).await,
        [".well-known", "openid-configuration"] => return Ok(access::discovery(server.address())),
        ["openid", "v1", "jwks"] => return Ok(access::key_set(server.accounts().key())),
        ["openapi", "v2"] => return openapi_v2(server, headers).await,
        ["openapi", "v3"] => Some(aggregate::add_documents(server, registry.openapi_index())),
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
    let mut response = if is_known(headers, &tag) {
        reply::bytes(StatusCode::NOT_MODIFIED, reply::JSON, Vec::new())
    } else {
        let gzip = crate::accept::Accept::parse(headers).is_ok_and(|accept| accept.gzip);
        reply::json(StatusCode::OK, document, gzip)
    };
    reply::set(&mut response, ETAG, &tag);
    Ok(response)
}

/// Whether the client says that it has the document of this tag.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag))
}

/// The document of version 2, made apart from the other work and once at a time: it is long.
async fn openapi_v2(server: &ApiServer, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    static TURN: Semaphore = Semaphore::const_new(1);
    let (form, media) = swagger(headers).ok_or(ApiError::NotAcceptable)?;
    let registry = server.registry();
    let tag = format!("\"{}{}\"", registry.openapi_v2_hash(), if form == Swagger::Json { "" } else { "P" });
    let mut response = if is_known(headers, &tag) {
        reply::bytes(StatusCode::NOT_MODIFIED, media, Vec::new())
    } else {
        let _turn = TURN.acquire().await.expect("the semaphore is never closed");
        let made = tokio::task::spawn_blocking(move || registry.openapi_v2(form)).await;
        let document = made.map_err(|error| ApiError::Internal(error.to_string()))?;
        let gzip = form == Swagger::Json && accept::takes_gzip(headers);
        if gzip { reply::json(StatusCode::OK, document, true) } else { reply::bytes(StatusCode::OK, media, document) }
    };
    reply::set(&mut response, ETAG, &tag);
    reply::set(&mut response, VARY, "Accept");
    Ok(response)
}

/// The first form that the client takes, with its content type.
fn swagger(headers: &HeaderMap) -> Option<(Swagger, &'static str)> {
    accept::media(headers).find_map(|media| match media {
        "application/json" | "application/*" | "*/*" => Some((Swagger::Json, reply::JSON)),
        GNOSTIC | OLD_GNOSTIC => Some((Swagger::Protobuf, GNOSTIC)),
        _ => None,
    })
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
        "/debug/profile".into(),
        "/healthz".into(),
        "/livez".into(),
        "/metrics".into(),
        "/openapi/v2".into(),
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
