//! What the API server asks the node for, on the paths of a kubelet: `GET /containerLogs/<namespace>/<pod>/<container>`, the
//! connections of `streams` and the figures of `stats`.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use serde_json::json;
use tower::util::BoxCloneSyncService;

use crate::log::Query;
use crate::logs::{Runs, ended};
use crate::stats::{self, Stats, Wanted};
use crate::streams::Streams;

/// A request's or reply's body.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// What the node answers requests with.
pub type NodeService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Serves the logs, the streams and the figures of the node `name` and its pods.
pub(crate) fn new(name: String, home: PathBuf, runs: Runs, streams: Streams, stats: Stats) -> NodeService {
    let name: Arc<str> = name.into();
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Body>| {
        let (name, stats) = (name.clone(), stats.clone());
        let answered = match Figures::of(&request) {
            Some(figures) => Err(figures),
            None => Ok(route(&home, &runs, &streams, request).unwrap_or_else(refuse)),
        };
        async move {
            Ok(match answered {
                Ok(answered) => answered,
                Err(figures) => figures.answer(&name, &stats).await,
            })
        }
    }))
}

/// A question about what is used.
enum Figures {
    Summary(Wanted),
    Resource,
}

impl Figures {
    fn of(request: &Request<Body>) -> Option<Self> {
        if request.method() != Method::GET {
            return None;
        }
        match request.uri().path().trim_end_matches('/') {
            "/stats/summary" => Some(Self::Summary(Wanted::parse(request.uri().query()))),
            "/metrics/resource" => Some(Self::Resource),
            _ => None,
        }
    }

    async fn answer(self, name: &str, stats: &Stats) -> Response<Body> {
        match self {
            Self::Summary(wanted) => {
                let (earlier, newer) = stats.pair().await;
                let document = stats::summary_document(name, &earlier, &newer, wanted);
                reply(StatusCode::OK, "application/json", whole(document.to_string()))
            }
            Self::Resource => {
                let text = stats::resource_text(&*stats.now().await);
                reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", whole(text))
            }
        }
    }
}

fn whole(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

type Refusal = (StatusCode, String);

fn route(home: &Path, runs: &Runs, streams: &Streams, request: Request<Body>) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let switched = match parts[..] {
        ["containerLogs", namespace, name, container] => {
            return log(home, runs, &request, [namespace, name, container]);
        }
        ["exec", namespace, name, container] => streams.exec(request, [namespace, name, container]),
        ["attach", namespace, name, container] => streams.attach(request, [namespace, name, container]),
        ["portForward", namespace, name] => streams.forward(request, [namespace, name]),
        _ => return Err((StatusCode::NOT_FOUND, format!("the node serves nothing at {path}"))),
    };
    switched.map_err(|refusal| (refusal.code, refusal.message))
}

fn log(
    home: &Path,
    runs: &Runs,
    request: &Request<Body>,
    [namespace, name, container]: [&str; 3],
) -> Result<Response<Body>, Refusal> {
    if request.method() != Method::GET {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "logs can only be read".to_owned()));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default(), Timestamp::now());
    let mut query = query.map_err(|message| (StatusCode::BAD_REQUEST, message))?;
    let known = runs.find(namespace, name);
    let (pod, table) = known.ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod \"{name}\" is not on this node")))?;
    let of = table.borrow().get(container).cloned();
    let of =
        of.ok_or_else(|| (StatusCode::NOT_FOUND, format!("container \"{container}\" is not in pod \"{name}\"")))?;
    let run = if query.previous { of.previous } else { of.newest };
    let Some(run) = run else {
        let message = if query.previous {
            format!("previous terminated container \"{container}\" in pod \"{name}\" not found")
        } else {
            let reason = of.waiting.unwrap_or_else(|| "ContainerCreating".to_owned());
            format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}")
        };
        return Err((StatusCode::BAD_REQUEST, message));
    };
    query.follow &= !query.previous;
    let file = crate::log::file(home, &pod, container, run);
    let chunks = crate::log::stream(file, query, ended(table, container.to_owned(), run));
    let frames = futures::stream::unfold(chunks, |mut chunks| async { Some((chunks.recv().await?, chunks)) });
    let body = StreamBody::new(frames.map(|chunk| chunk.map(Frame::data).map_err(Into::into))).boxed_unsync();
    Ok(reply(StatusCode::OK, "text/plain", body))
}

fn refuse((code, message): Refusal) -> Response<Body> {
    let reason = match code {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        _ => "BadRequest",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    reply(code, "application/json", whole(status.to_string()))
}

fn reply(code: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut reply = Response::new(body);
    *reply.status_mut() = code;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{Happened, Observed, Phase};
    use k8s_openapi::api::core::v1::Pod;
    use std::collections::BTreeMap;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": {"containers": [{"name": "c"}]}
        }))
        .expect("a pod")
    }

    fn get((home, runs): &(PathBuf, Runs), container: &str) -> (u16, Body) {
        let body = Full::default().map_err(|never: Infallible| match never {}).boxed_unsync();
        let path = format!("/containerLogs/shop/web/{container}");
        let request = Request::get(path).body(body).expect("a request");
        let container = container.split('?').next().unwrap_or_default();
        let reply = log(home, runs, &request, ["shop", "web", container]).unwrap_or_else(refuse);
        (reply.status().as_u16(), reply.into_body())
    }

    async fn text(body: Body) -> String {
        String::from_utf8(body.collect().await.expect("a body").to_bytes().to_vec()).expect("text")
    }

    #[tokio::test]
    async fn a_log_is_served_and_followed_until_its_container_ends() {
        let home = tempfile::tempdir().expect("a folder");
        let (runs, pod) = (Runs::default(), pod());
        let service = (home.path().to_owned(), runs.clone());
        assert_eq!(get(&service, "c").0, 404);

        let mut observed = Observed::fresh(&pod, Timestamp::now());
        runs.update(&pod, &observed);
        let (code, body) = get(&service, "c");
        assert_eq!(code, 400);
        assert!(text(body).await.contains("is waiting to start: ContainerCreating"));

        let file = crate::log::file(home.path(), &pod, "c", 0);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(&file, "2026-01-01T00:00:00Z stdout F hello\n").expect("written");
        observed.containers[0].runs = 1;
        observed.containers[0].phase = Phase::Running { pid: 1, since: Timestamp::now() };
        runs.update(&pod, &observed);
        assert_eq!(text(get(&service, "c").1).await, "hello\n");
        assert_eq!(get(&service, "c?previous=true").0, 400);
        assert_eq!(get(&service, "c?tailLines=x").0, 400);
        assert_eq!(get(&service, "other").0, 404);

        let following = get(&service, "c?follow=true").1;
        let following = tokio::spawn(text(following));
        let lost = Happened::Runtime { exits: BTreeMap::new(), lost: true };
        observed.take(lost, tokio::time::Instant::now(), Timestamp::now());
        runs.update(&pod, &observed);
        assert_eq!(following.await.expect("no panic"), "hello\n");
    }
}
