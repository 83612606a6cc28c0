//! One request's events: begun before it is answered, ended when its reply has been sent or given up.
//!
//! Bodies are looked at while they pass by; nothing is read that the handler does not read.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::USER_AGENT;
use http::{Extensions, Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use shipway_schema::Registry;

use super::policy::{Asked, Level, Stage, Verdict};
use super::sink::Sink;
use crate::ApiServer;
use crate::body::{Body, BoxError};
use crate::call::BODY_LIMIT;
use crate::clock;
use crate::handle::verb;
use crate::identity::Identity;
use crate::path::{self, ResourcePath};
use crate::query::Query;
use crate::server::PeerAddress;
use crate::trace::AUDIT_ID;

/// A request that is being written down.
pub(crate) struct Record {
    sink: Arc<Sink>,
    registry: Arc<Registry>,
    verdict: Verdict,
    event: Value,
    long: bool,
    told: Told,
    request: Seen,
}

/// What the handler tells of while it works.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Facts>>);

#[derive(Default)]
struct Facts {
    /// Whom the caller acts for.
    impersonated: Option<Value>,
    allowed: Option<bool>,
    annotations: Map<String, Value>,
    /// How many bytes the annotations have.
    noted: usize,
}

/// The most bytes of one request's annotations.
const NOTES: usize = 256 * 1024;

/// Takes what a request's event is to say besides; where nothing is written down it goes nowhere.
#[derive(Clone, Default)]
pub(crate) struct Notes(Option<Told>);

impl Notes {
    pub(crate) fn of(extensions: &Extensions) -> Self {
        Self(extensions.get::<Told>().cloned())
    }

    /// Annotates the event. The first value of a key stays; what is too much is left out.
    pub(crate) fn annotate(&self, key: String, value: String) {
        let Some(told) = &self.0 else { return };
        let mut facts = lock(&told.0);
        let size = facts.noted + key.len() + value.len();
        if size <= NOTES && !facts.annotations.contains_key(&key) {
            facts.noted = size;
            facts.annotations.insert(key, value.into());
        }
    }
}

/// What has passed by of a body; none when it was too long to keep.
type Seen = Arc<Mutex<Option<BytesMut>>>;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says whom the caller acts for.
pub(crate) fn tell(extensions: &Extensions, impersonated: Option<&Identity>) {
    if let (Some(told), Some(identity)) = (extensions.get::<Told>(), impersonated) {
        lock(&told.0).impersonated = Some(identity.info());
    }
}

/// Says whether the request was allowed.
pub(crate) fn decided(extensions: &Extensions, allowed: bool) {
    if let Some(told) = extensions.get::<Told>() {
        lock(&told.0).allowed = Some(allowed);
    }
}

/// Begins to write a request down, if the policy says so.
pub(crate) fn begin(
    server: &ApiServer,
    identity: Option<&Identity>,
    mut request: Request<Body>,
) -> (Request<Body>, Option<Record>) {
    let Some(audit) = server.audit() else { return (request, None) };
    let target = path::parse(request.uri().path()).ok().flatten();
    let query = Query::parse(request.uri().query().unwrap_or_default()).unwrap_or_default();
    let method = request.method().as_str().to_ascii_lowercase();
    let verb = target.as_ref().and_then(|target| verb(request.method(), target, &query).ok()).unwrap_or(&method);
    let asked = Asked { identity, verb, path: request.uri().path(), target: target.as_ref() };
    let verdict = audit.policy.verdict(&asked);
    if verdict.level == Level::None {
        return (request, None);
    }
    let subresource = target.as_ref().and_then(|target| target.subresource.as_deref()).unwrap_or_default();
    let mut record = Record {
        sink: audit.sink.clone(),
        registry: server.registry(),
        long: crate::limit::is_long(verb, subresource),
        event: event(&asked, &request, &verdict),
        verdict,
        told: Told::default(),
        request: Seen::default(),
    };
    record.put(Stage::RequestReceived);
    request.extensions_mut().insert(record.told.clone());
    if record.verdict.level >= Level::Request {
        let seen = record.request.clone();
        *lock(&seen) = Some(BytesMut::new());
        request = request.map(|body| Tap { body, seen, end: None }.boxed_unsync());
    }
    (request, Some(record))
}

fn event(asked: &Asked<'_>, request: &Request<Body>, verdict: &Verdict) -> Value {
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    // Every request has a name by now.
    let id = text(AUDIT_ID.as_str()).unwrap_or_default();
    let mut event = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": verdict.level.name(),
        "auditID": id,
        "stage": "",
        "requestURI": request.uri().path_and_query().map(ToString::to_string),
        "verb": asked.verb,
        "user": asked.identity.map_or_else(|| json!({}), Identity::info),
        "requestReceivedTimestamp": now(),
    });
    if let Some(PeerAddress(address)) = request.extensions().get::<PeerAddress>() {
        event["sourceIPs"] = json!([address.ip().to_string()]);
    }
    if let Some(agent) = text(USER_AGENT.as_str()) {
        event["userAgent"] = agent.into();
    }
    if let Some(target) = asked.target {
        event["objectRef"] = object(target);
    }
    event
}

fn object(target: &ResourcePath) -> Value {
    let mut object = json!({"resource": target.plural, "apiVersion": target.version});
    let fields = [
        ("namespace", target.namespace.as_deref()),
        ("name", target.name.as_deref()),
        ("apiGroup", Some(&*target.group).filter(|group| !group.is_empty())),
        ("subresource", target.subresource.as_deref()),
    ];
    for (field, value) in fields {
        if let Some(value) = value {
            object[field] = value.into();
        }
    }
    object
}

/// Now, with microseconds.
fn now() -> String {
    clock::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

impl Record {
    fn put(&mut self, stage: Stage) {
        if self.verdict.omit.contains(&stage) {
            return;
        }
        self.event["stage"] = stage.name().into();
        self.event["stageTimestamp"] = now().into();
        self.sink.put(&self.event);
    }

    /// Goes on watching until the reply has been sent.
    pub(crate) fn end(mut self, response: Response<Body>) -> Response<Body> {
        let code = response.status().as_u16();
        let Facts { impersonated, allowed, mut annotations, .. } = std::mem::take(&mut *lock(&self.told.0));
        if let Some(user) = impersonated {
            self.event["impersonatedUser"] = user;
        }
        if let Some(allowed) = allowed {
            let word = if allowed { "allow" } else { "forbid" };
            annotations.insert("authorization.k8s.io/decision".into(), word.into());
        }
        if !annotations.is_empty() {
            self.event["annotations"] = annotations.into();
        }
        self.event["responseStatus"] = json!({"metadata": {}, "code": code});
        let request = lock(&self.request).take();
        if let Some(object) = request.and_then(|bytes| self.read(&bytes)) {
            self.event["requestObject"] = object;
        }
        if self.long {
            self.put(Stage::ResponseStarted);
        }
        let keeps = code >= 400 || (self.verdict.level == Level::RequestResponse && !self.long);
        let seen = Seen::new(Mutex::new(keeps.then(BytesMut::new)));
        response.map(|body| Tap { body, seen, end: Some(self) }.boxed_unsync())
    }

    /// A body as it is written down.
    fn read(&self, bytes: &[u8]) -> Option<Value> {
        let read = || shipway_schema::decode_protobuf(&self.registry, bytes).ok();
        let mut object: Value = serde_json::from_slice(bytes).ok().or_else(read)?;
        if self.verdict.omit_managed_fields
            && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.shift_remove("managedFields");
        }
        Some(object)
    }

    fn complete(mut self, seen: Option<&[u8]>) {
        if let Some(object) = seen.and_then(|bytes| self.read(bytes)) {
            if object["kind"] == "Status" && object["status"] == "Failure" {
                self.event["responseStatus"] = object.clone();
            }
            if self.verdict.level == Level::RequestResponse {
                self.event["responseObject"] = object;
            }
        }
        self.put(Stage::ResponseComplete);
    }
}

/// A body that is looked at while it passes; says when it is over.
struct Tap {
    body: Body,
    seen: Seen,
    end: Option<Record>,
}

impl http_body::Body for Tap {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let mut seen = lock(&self.seen);
            if seen.as_ref().is_some_and(|seen| seen.len() + data.len() > BODY_LIMIT) {
                *seen = None;
            }
            if let Some(seen) = seen.as_mut() {
                seen.extend_from_slice(data);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Some(record) = self.end.take() {
            let seen = lock(&self.seen).take();
            record.complete(seen.as_deref());
        }
    }
}
