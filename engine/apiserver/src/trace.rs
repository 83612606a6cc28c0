//! What one request is called, in its reply, in the audit log and in what is traced while it is worked on.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response};
use tracing::Span;
use tracing::field::Empty;

use crate::body::Body;
use crate::identity::Identity;

/// Where a request and its reply carry the name.
pub(crate) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// The longest name that is taken from a client.
const LONGEST: usize = 64;

/// One request.
pub(crate) struct Trace {
    id: HeaderValue,
    span: Span,
}

impl Trace {
    /// Takes the name that the client gave the request, or gives it one.
    pub(crate) fn begin(request: &mut Request<Body>, identity: Option<&Identity>) -> Self {
        let id = given(request.headers()).unwrap_or_else(made);
        request.headers_mut().insert(AUDIT_ID, id.clone());
        let span = tracing::debug_span!(
            "request",
            id = ?id,
            verb = %request.method(),
            path = request.uri().path(),
            user = identity.map(|identity| identity.user.as_str()),
            code = Empty,
            micros = Empty,
        );
        Self { id, span }
    }

    /// What happens meanwhile happens in here.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Names the reply and says how the request ended.
    pub(crate) fn end(self, response: &mut Response<Body>, taken: Duration) {
        if !self.span.is_disabled() {
            self.span.record("code", response.status().as_u16());
            self.span.record("micros", u64::try_from(taken.as_micros()).unwrap_or(u64::MAX));
            self.span.in_scope(|| tracing::debug!("answered"));
        }
        response.headers_mut().insert(AUDIT_ID, self.id);
    }
}

fn given(headers: &HeaderMap) -> Option<HeaderValue> {
    let given = headers.get(AUDIT_ID)?;
    let fits = (1..=LONGEST).contains(&given.len()) && given.to_str().is_ok();
    fits.then(|| given.clone())
}

/// A random UUID. Names need not be hard to guess, so that no system call is needed for one.
fn made() -> HeaderValue {
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer())).expect("it is plain text")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata};

    use super::*;
    use crate::body::full;

    /// Keeps every field that a span of this module says.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl Visit for Kept {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.0.lock().unwrap().push(format!("{field}={value:?}"));
        }
    }

    impl tracing::Subscriber for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == module_path!().trim_end_matches("::tests")
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            span.record(&mut self.clone());
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, values: &Record<'_>) {
            values.record(&mut self.clone());
        }
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            event.record(&mut self.clone());
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_request_is_traced_from_its_name_to_its_code() {
        let kept = Kept::default();
        tracing::subscriber::with_default(kept.clone(), || {
            let mut request = Request::get("/api/v1/pods?watch=1").body(full(bytes::Bytes::new())).unwrap();
            request.headers_mut().insert(AUDIT_ID, HeaderValue::from_static("mine"));
            let trace = Trace::begin(&mut request, Some(&Identity::new("jane", &[])));
            let mut response = Response::builder().status(403).body(full(bytes::Bytes::new())).unwrap();
            trace.end(&mut response, Duration::from_micros(7));
            assert_eq!(response.headers()[AUDIT_ID], "mine");
        });
        let kept = kept.0.lock().unwrap();
        for field in ["id=\"mine\"", "verb=GET", "path=\"/api/v1/pods\"", "user=\"jane\"", "code=403", "micros=7"] {
            assert!(kept.iter().any(|own| own == field), "{field}: {kept:?}");
        }
    }
}
