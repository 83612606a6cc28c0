//! The verbs that read: get, list, watch.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};

use crate::accept::Shape;
use crate::body::{Body, stream};
use crate::call::Call;
use crate::commit::Place;
use crate::convert;
use crate::error::ApiError;
use crate::list::{self, At, Page, Paging};
use crate::object::Object;
use crate::reply;
use crate::select::Selection;
use crate::view::View;
use crate::watch::{Options, Start, Watch};

/// How long a watch lasts at least when the client does not say; up to twice as long, so that clients do not all come
/// back at once.
const WATCH_SECONDS: u64 = 1800;

/// The object as it is now, or not older than asked.
pub(crate) async fn live(call: &Call, place: &Place, at: At) -> Result<Arc<Object>, ApiError> {
    list::settle(call.server.cache(), at).await?;
    place.table.get(&place.key()).ok_or_else(|| ApiError::NotFound(place.about()))
}

/// The object in the version that the request speaks.
pub(crate) async fn shown(call: &Call, place: &Place, object: Arc<Object>) -> Result<Arc<Object>, ApiError> {
    convert::one(call.server.webhooks(), place.resource(), object).await
}

/// GET of one object.
pub(crate) async fn get(call: &Call, place: &Place) -> Result<Response<Body>, ApiError> {
    let view = View::of(call, place.resource().clone())?;
    let object = shown(call, place, live(call, place, list::at(&call.query, false)?).await?).await?;
    Ok(view.object(StatusCode::OK, &object))
}

/// LIST.
pub(crate) async fn list(call: &Call, place: &Place, selection: &Selection) -> Result<Response<Body>, ApiError> {
    let view = View::of(call, place.resource().clone())?;
    let paging = Paging::parse(&call.query)?;
    let cache = call.server.cache();
    if let Some(key) = selection.only_key(place.resource()).filter(|_| paging.is_simple()) {
        list::settle(cache, paging.at()).await?;
        let (object, revision) = place.table.get_at(&key, cache.revision());
        let objects = object.into_iter().filter(|object| selection.matches(place.resource(), object)).collect();
        let objects = convert::all(call.server.webhooks(), place.resource(), objects).await?;
        return Ok(view.list(Page { objects, revision, next: None, remaining: None }));
    }
    let mut page = list::list(cache, place, selection, &paging).await?;
    page.objects = convert::all(call.server.webhooks(), place.resource(), page.objects).await?;
    Ok(view.list(page))
}

/// WATCH.
pub(crate) async fn watch(call: &Call, place: &Place, selection: Selection) -> Result<Response<Body>, ApiError> {
    if call.accept()?.yaml {
        return Err(ApiError::NotAcceptable);
    }
    let mut view = View::of(call, place.resource().clone())?;
    view.gzip = false;
    let start = start(call).await?;
    let seconds = call.query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
    let timeout = seconds.unwrap_or_else(|| WATCH_SECONDS + fastrand::u64(..WATCH_SECONDS));
    let options = Options {
        selection,
        start,
        bookmarks: call.query.flag("allowWatchBookmarks"),
        timeout: Duration::from_secs(timeout.min(24 * 3600)),
    };
    let streamed = if view.shape == Shape::Object { reply::JSON } else { view.content_type() };
    let server = &call.server;
    let (cache, webhooks) = (server.shared_cache(), server.shared_webhooks());
    let ends = [call.stop.clone(), server.kinds().retirement(place.resource())];
    let watch = Watch::begin(cache, webhooks, place, view, options, ends);
    let lasting = server.metrics().watch();
    let events = futures::stream::unfold((watch, lasting), |(mut watch, lasting)| async move {
        let lines = watch.next().await?;
        Some((Ok(lines), (watch, lasting)))
    });
    let mut response = reply::bytes(StatusCode::OK, reply::JSON, Vec::new());
    reply::set(&mut response, http::header::CONTENT_TYPE, streamed);
    *response.body_mut() = stream(events);
    Ok(response)
}

/// Where the watch begins, once the cache is there.
async fn start(call: &Call) -> Result<Start, ApiError> {
    let query = &call.query;
    let initial = query.optional_flag("sendInitialEvents");
    check_initial(query.get("resourceVersionMatch"), initial)?;
    let cache = call.server.cache();
    let revision = query.number("resourceVersion")?.filter(|revision| *revision > 0);
    match revision {
        Some(revision) => cache.reach(revision).await?,
        None if query.get("resourceVersion").is_none() => cache.catch_up().await?,
        None => {}
    }
    Ok(match (initial, revision) {
        (Some(true), _) => Start::Objects { announce: query.flag("allowWatchBookmarks") },
        (None, None) => Start::Objects { announce: false },
        (Some(false), None) => Start::Now,
        (_, Some(revision)) => Start::After(revision),
    })
}

/// `sendInitialEvents` and `resourceVersionMatch` come together or not at all.
fn check_initial(given: Option<&str>, initial: Option<bool>) -> Result<(), ApiError> {
    match (initial, given) {
        (None, None) | (Some(_), Some("NotOlderThan")) => Ok(()),
        (Some(_), _) => Err(list::refuse("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")),
        (None, _) => {
            Err(list::refuse("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"))
        }
    }
}
