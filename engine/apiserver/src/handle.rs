//! From a request to its reply: authorize, read the body, find the resource, do what the verb says.
//!
//! The only place that turns a failure or a panic into a reply.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::ApiServer;
use crate::accept;
use crate::access;
use crate::aggregate::{self, Asked};
use crate::audit;
use crate::authorize::{self, Attributes};
use crate::body::{self, Body};
use crate::call::{BODY_LIMIT, Call};
use crate::commit::Place;
use crate::component;
use crate::connect::{self, Conversation};
use crate::convert;
use crate::custom;
use crate::decode;
use crate::delete::{DeleteOptions, delete, delete_collection};
use crate::discovery;
use crate::error::ApiError;
use crate::evict::evict;
use crate::identity::Identity;
use crate::limit;
use crate::list::{self, At};
use crate::metrics;
use crate::patch::patch;
use crate::path::{self, ResourcePath};
use crate::pod;
use crate::profile;
use crate::proxy;
use crate::query::Query;
use crate::read;
use crate::reply;
use crate::reviews;
use crate::scale;
use crate::select::Selection;
use crate::trace::Trace;
use crate::usage;
use crate::view::View;
use crate::write::{Change, Part, create, manager, modify};
use crate::yaml;

/// The longest path and query, in bytes.
const URI_LIMIT: usize = 16 * 1024;

/// Answers a request. `identity` is none when the credential shown is not valid.
///
/// Boxed, so that the handlers are compiled here and once, not again in every crate that awaits them.
pub(crate) fn answer(
    server: ApiServer,
    identity: Option<Arc<Identity>>,
    request: Request<Body>,
    stop: CancellationToken,
) -> BoxFuture<'static, Response<Body>> {
    Box::pin(answered(server, identity, request, stop))
}

async fn answered(
    server: ApiServer,
    identity: Option<Arc<Identity>>,
    request: Request<Body>,
    stop: CancellationToken,
) -> Response<Body> {
    let begin = Instant::now();
    let asked = Mutex::new(metrics::Asked::default());
    let mut request = request;
    let trace = Trace::begin(&mut request, identity.as_deref());
    let yaml = accept::wants_yaml(request.headers());
    let (request, record) = audit::begin(&server, identity.as_deref(), request);
    let profiled = identity.clone().filter(|_| server.profiler().is_active());
    let work = AssertUnwindSafe(route(server.clone(), identity, request, stop, &asked)).catch_unwind();
    let (ended, busy) = profile::timed(profiled.is_some(), pin!(work.instrument(trace.span()))).await;
    let mut response = match ended {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => reply::failure(&error),
        Err(_) => reply::failure(&ApiError::Internal("the handler of this request panicked".into())),
    };
    if yaml {
        response = yaml::turned(response).await;
    }
    let asked = asked.into_inner().unwrap_or_else(PoisonError::into_inner);
    let taken = begin.elapsed();
    if let Some(identity) = profiled {
        server.profiler().answered(&identity.user, &asked, (busy, taken));
    }
    server.metrics().answered(asked, response.status().as_u16(), taken);
    trace.end(&mut response, taken);
    match record {
        Some(record) => record.end(response),
        None => response,
    }
}

async fn route(
    server: ApiServer,
    identity: Option<Arc<Identity>>,
    request: Request<Body>,
    stop: CancellationToken,
    asked: &Mutex<metrics::Asked>,
) -> Result<Response<Body>, ApiError> {
    let identity = identity.ok_or(ApiError::Unauthorized)?;
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if head.uri.path_and_query().is_some_and(|both| both.as_str().len() > URI_LIMIT) {
        return Err(ApiError::UriTooLong(URI_LIMIT));
    }
    let query = Query::parse(head.uri.query().unwrap_or_default())?;
    let caller = identity;
    let impersonated = access::impersonated(&server, &caller, &head.headers).await?;
    audit::tell(&head.extensions, impersonated.as_deref());
    let identity = impersonated.unwrap_or_else(|| caller.clone());
    let remote = aggregate::route(&server, path).await?;
    let (object, beyond) = proxy::split(path);
    let target = if remote.is_some() { path::parse_remote(path)? } else { path::parse(object)? };
    let Some(target) = target else {
        let permit = server.flight().enter(&caller, false)?;
        authorize::check_path(&server, &identity, &head.method.as_str().to_ascii_lowercase(), path).await?;
        return match remote {
            Some(route) => aggregate::forward(&server, &route, Asked { identity, head, body, stop }, permit).await,
            None => discovery::answer(&server, &head.method, path, &query, &head.headers).await,
        };
    };
    let converses = beyond.is_some() || (remote.is_none() && connect::is_wanted(&target));
    let verb = match verb(&head.method, &target, &query) {
        _ if converses => connect::verb(&head.method)?,
        // Another server may know more methods than this one.
        Err(_) if remote.is_some() => connect::verb(&head.method)?,
        own => own?,
    };
    if let Some(resource) = server.registry().find(&target.group, &target.version, &target.plural) {
        let now = metrics::Asked::of(verb, &resource, target.subresource.as_deref());
        *asked.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
    let long = limit::is_long(verb, target.subresource.as_deref().unwrap_or_default());
    // Who acts for others is counted as itself: taking on names is no way around a bound.
    let permit = server.flight().enter(&caller, long)?;
    let decided = authorize::check(&server, &identity, &attributes(&target, verb, &query)).await;
    audit::decided(&head.extensions, decided.is_ok());
    decided?;
    if let Some(route) = remote {
        return aggregate::forward(&server, &route, Asked { identity, head, body, stop }, permit).await;
    }
    if converses {
        let answered = connect::answer(Conversation { server, identity, target, query, head, body, stop }).await?;
        return Ok(limit::hold(answered, permit));
    }
    refuse_encoded(&head.headers)?;
    let body = body::read(body, BODY_LIMIT).await?;
    let notes = audit::Notes::of(&head.extensions);
    let (method, headers) = (head.method, head.headers);
    let call = Call { server, identity, method, query, headers, body, stop, warnings: Mutex::default(), notes };
    // What was warned of is told with a refusal, too.
    let mut response = resource(&call, target).await.unwrap_or_else(|error| reply::failure(&error));
    reply::add_warnings(&mut response, call.warnings.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(limit::hold(response, permit))
}

/// Bodies come as they are: what unpacks to much more than was sent is not let in.
fn refuse_encoded(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(ApiError::UnsupportedMediaType("those of the API without Content-Encoding"))
        }
        _ => Ok(()),
    }
}

/// What the method means for the path.
pub(crate) fn verb(method: &Method, target: &ResourcePath, query: &Query) -> Result<&'static str, ApiError> {
    let named = target.name.is_some();
    match *method {
        Method::GET if named => Ok("get"),
        Method::GET if query.flag("watch") => Ok("watch"),
        Method::GET => Ok("list"),
        Method::POST => Ok("create"),
        Method::PUT => Ok("update"),
        Method::PATCH => Ok("patch"),
        Method::DELETE if named => Ok("delete"),
        Method::DELETE => Ok("deletecollection"),
        _ => Err(ApiError::MethodNotAllowed),
    }
}

fn attributes<'a>(target: &'a ResourcePath, verb: &'static str, query: &'a Query) -> Attributes<'a> {
    let own_namespace = target.plural == "namespaces" && target.group.is_empty();
    let fields = query.get("fieldSelector").filter(|_| matches!(verb, "list" | "watch")).unwrap_or_default();
    let labels = query.get("labelSelector").filter(|_| matches!(verb, "list" | "watch")).unwrap_or_default();
    // A list of one object is allowed to whom that object is allowed.
    let name = target.name.as_deref().or_else(|| authorize::selected(fields, "metadata.name")).unwrap_or_default();
    Attributes {
        verb,
        group: &target.group,
        resource: &target.plural,
        subresource: target.subresource.as_deref().unwrap_or_default(),
        namespace: target.namespace.as_deref().unwrap_or(if own_namespace { name } else { "" }),
        name,
        fields,
        labels,
    }
}

async fn resource(call: &Call, target: ResourcePath) -> Result<Response<Body>, ApiError> {
    if reviews::is_review(&target) {
        return reviews::answer(call, &target).await;
    }
    if pod::is_binding(&target) {
        return pod::bind_named(call, &target).await;
    }
    let found = call.server.registry().find(&target.group, &target.version, &target.plural);
    let resource = found.ok_or(ApiError::NoSuchPath)?;
    if let Some(text) = &resource.deprecation {
        call.warn(text.to_string());
    }
    let asked = verb(&call.method, &target, &call.query)?;
    if target.subresource.is_none() && !resource.verbs.contains(&asked) {
        return Err(ApiError::MethodNotAllowed);
    }
    let table = call.server.cache().table(&resource);
    let misplaced = if resource.namespaced {
        target.namespace.is_none() && target.name.is_some()
    } else {
        target.namespace.is_some()
    };
    if misplaced {
        return Err(ApiError::NoSuchPath);
    }
    if component::is_seen(&resource) {
        return component::answer(call, &resource, target.name.as_deref());
    }
    if usage::is_measured(&resource) {
        return usage::answer(call, &resource, &target).await;
    }
    let place = Place { resource, table, namespace: target.namespace, name: target.name.clone().unwrap_or_default() };
    match (target.name, target.subresource) {
        (None, _) => collection(call, place).await,
        (Some(_), None) => object(call, &place).await,
        (Some(_), Some(subresource)) => below(call, &place, &subresource).await,
    }
}

async fn collection(call: &Call, place: Place) -> Result<Response<Body>, ApiError> {
    let resource = place.resource().clone();
    let across = resource.namespaced && place.namespace.is_none();
    let selection = Selection::parse(&resource, place.namespace.as_deref(), &call.query);
    match call.method {
        Method::GET if call.query.flag("watch") => read::watch(call, &place, selection?).await,
        Method::GET => read::list(call, &place, &selection?).await,
        Method::POST if !across => post(call, place).await,
        Method::DELETE if !across => {
            let options = DeleteOptions::parse(call)?;
            let objects = delete_collection(call, &place, &selection?, &options).await?;
            let objects = convert::all(call.server.webhooks(), &resource, objects).await?;
            let revision = call.server.cache().revision();
            let page = list::Page { objects, revision, next: None, remaining: None };
            Ok(View::of(call, resource)?.list(page))
        }
        _ => Err(ApiError::MethodNotAllowed),
    }
}

async fn post(call: &Call, place: Place) -> Result<Response<Body>, ApiError> {
    custom::check_create(&call.server, &place)?;
    let view = View::of(call, place.resource().clone())?;
    let mut decoded = decode::decode(call)?;
    decode::identify(place.resource(), &mut decoded.value)?;
    decode::check_shape(call, place.resource(), &mut decoded.value, &decoded.duplicates)?;
    let manager = manager(call, &place, None)?;
    let written = create(call, place, decoded.value, Some(manager)).await?;
    Ok(view.object(StatusCode::CREATED, &written))
}

async fn object(call: &Call, place: &Place) -> Result<Response<Body>, ApiError> {
    match call.method {
        Method::GET => read::get(call, place).await,
        Method::PUT => replace(call, place, Part::Main).await,
        Method::PATCH => patched(call, place, Part::Main).await,
        Method::DELETE => remove(call, place).await,
        _ => Err(ApiError::MethodNotAllowed),
    }
}

async fn replace(call: &Call, place: &Place, part: Part) -> Result<Response<Body>, ApiError> {
    let view = View::of(call, place.resource().clone())?;
    let mut decoded = decode::decode(call)?;
    decode::identify(place.resource(), &mut decoded.value)?;
    decode::check_shape(call, place.resource(), &mut decoded.value, &decoded.duplicates)?;
    let edit = |_: &serde_json::Value| Ok(decoded.value.clone());
    let manager = manager(call, place, part.subresource())?;
    let written = modify(call, place, Change { part, manager: Some(manager), edit: &edit }).await?;
    Ok(view.object(StatusCode::OK, &written))
}

async fn patched(call: &Call, place: &Place, part: Part) -> Result<Response<Body>, ApiError> {
    let view = View::of(call, place.resource().clone())?;
    let (written, created) = patch(call, place, part).await?;
    Ok(view.object(if created { StatusCode::CREATED } else { StatusCode::OK }, &written))
}

async fn remove(call: &Call, place: &Place) -> Result<Response<Body>, ApiError> {
    let view = View::of(call, place.resource().clone())?;
    let deleted = delete(call, place, &DeleteOptions::parse(call)?).await?;
    if !deleted.gone || place.resource().returns_deleted {
        let object = read::shown(call, place, deleted.object).await?;
        return Ok(view.object(StatusCode::OK, &object));
    }
    let mut details = json!({"name": place.name, "kind": place.resource().plural, "uid": deleted.object.uid});
    if !place.resource().group.is_empty() {
        details["group"] = place.resource().group.as_ref().into();
    }
    Ok(reply::success(StatusCode::OK, Some(details)))
}

/// Subresources. The row says which ones there are and which verbs they take.
async fn below(call: &Call, place: &Place, name: &str) -> Result<Response<Body>, ApiError> {
    let subresource = place.resource().subresource(name).ok_or(ApiError::NoSuchPath)?;
    let verb = match call.method {
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        _ => "delete",
    };
    if !subresource.verbs.contains(&verb) {
        return Err(ApiError::MethodNotAllowed);
    }
    match (name, verb) {
        ("status" | "approval" | "ephemeralcontainers" | "resize", "get") => read::get(call, place).await,
        ("status", "update") => replace(call, place, Part::Status).await,
        ("status", _) => patched(call, place, Part::Status).await,
        ("approval", "update") => replace(call, place, Part::Approval).await,
        ("approval", _) => patched(call, place, Part::Approval).await,
        ("finalize", _) => replace(call, place, Part::Finalize).await,
        ("ephemeralcontainers", "update") => replace(call, place, Part::Ephemeral).await,
        ("ephemeralcontainers", _) => patched(call, place, Part::Ephemeral).await,
        ("scale", "get") => {
            let object = read::live(call, place, At::Latest).await?;
            let object = read::shown(call, place, object).await?;
            Ok(reply::value(StatusCode::OK, &scale::get(place, &object)?, false))
        }
        ("scale", "update") => Ok(reply::value(StatusCode::OK, &scale::replace(call, place).await?, false)),
        ("scale", _) => Ok(reply::value(StatusCode::OK, &scale::patch(call, place).await?, false)),
        ("binding", _) => {
            pod::bind(call, place).await?;
            Ok(reply::success(StatusCode::CREATED, None))
        }
        ("eviction", _) => {
            evict(call, place).await?;
            Ok(reply::success(StatusCode::CREATED, None))
        }
        ("resize", "update") => replace(call, place, Part::Resize).await,
        ("resize", _) => patched(call, place, Part::Resize).await,
        ("log", _) => pod::log(call, place).await,
        ("token", _) => Ok(reply::value(StatusCode::CREATED, &access::issue(call, place).await?, false)),
        _ => Err(ApiError::NoSuchPath),
    }
}
