//! Events are kept for an hour after they were last written.
//!
//! Nobody remembers a time for each of them: now and then the newest revision is noted, and what is no newer than a revision
//! that was noted an hour ago has not been written since. Without events nothing is noted and nothing wakes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use jiff::Timestamp;
use serde_json::{Value, json};
use shipway_store::Revision;
use tokio::time::{Instant, sleep_until};
use tower::Service;

use crate::ApiServer;
use crate::body::full;
use crate::cache::Table;
use crate::identity::Identity;
use crate::object::Object;

/// The documented lifetime of events (`--event-ttl`).
const LIFETIME: Duration = Duration::from_hours(1);
/// How much later than that an event may go.
const STEP: Duration = Duration::from_mins(1);

/// Removes old events; ends with the server.
pub(crate) fn follow(server: &ApiServer) {
    let (weak, table) = (server.downgrade(), server.cache().table_of("core", "events"));
    server.expiry().start(async move {
        let mut changes = table.changes();
        let mut marks = Marks::default();
        if let Some(server) = weak.upgrade() {
            // An engine that is restarted often has no marks that are old.
            let old = objects(&server, &table).filter(|event| is_old(event, Timestamp::now()));
            remove(&server, old.collect()).await;
            if objects(&server, &table).next().is_some() {
                marks.changed(Instant::now());
            }
        }
        loop {
            tokio::select! {
                told = changes.changed() => match told {
                    Ok(()) => marks.changed(Instant::now()),
                    Err(_) => return,
                },
                () = until(marks.wake()) => {
                    let Some(server) = weak.upgrade() else { return };
                    if let Some(revision) = marks.step(Instant::now(), server.cache().revision()) {
                        let old = objects(&server, &table).filter(|event| event.revision <= revision);
                        remove(&server, old.collect()).await;
                    }
                }
            }
        }
    });
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Revisions and when they were the newest.
#[derive(Debug, Default)]
struct Marks {
    taken: VecDeque<(Instant, Revision)>,
    /// When the next one is taken: there is something that none covers yet.
    next: Option<Instant>,
}

impl Marks {
    fn changed(&mut self, now: Instant) {
        self.next.get_or_insert(now + STEP);
    }

    fn wake(&self) -> Option<Instant> {
        self.taken.front().map(|(at, _)| *at + LIFETIME).into_iter().chain(self.next).min()
    }

    /// Takes a mark if it is time; the newest revision that is older than the lifetime.
    fn step(&mut self, now: Instant, newest: Revision) -> Option<Revision> {
        if self.next.take_if(|next| *next <= now).is_some() {
            self.taken.push_back((now, newest));
        }
        let mut old = None;
        while let Some((_, revision)) = self.taken.pop_front_if(|(at, _)| *at + LIFETIME <= now) {
            old = Some(revision);
        }
        old
    }
}

fn objects(server: &ApiServer, table: &Table) -> impl Iterator<Item = Arc<Object>> {
    server.cache().snapshot(table, None, None).objects.into_iter()
}

/// By what the event itself says; an event of which it cannot be told is not old.
fn is_old(event: &Object, now: Timestamp) -> bool {
    let event = event.value();
    let times = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    let written = times.into_iter().filter_map(|time| time.as_str()?.parse::<Timestamp>().ok()).max();
    written.is_some_and(|written| now.duration_since(written).unsigned_abs() > LIFETIME && written < now)
}

/// Through the same door as everybody: what counts events hears of it.
async fn remove(server: &ApiServer, events: Vec<Arc<Object>>) {
    for event in events {
        let path = format!("/api/v1/namespaces/{}/events/{}", event.namespace().unwrap_or_default(), event.name());
        let value = event.value();
        let options: Value = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions":
            {"uid": value["metadata"]["uid"], "resourceVersion": event.revision.to_string()}});
        let request = Request::builder().method(Method::DELETE).uri(&path).body(full(options.to_string().into_bytes()));
        let Ok(request) = request else { continue };
        // It is always ready to be called, and gives a future of which it is known that it can be sent.
        let asked = server.in_process(Identity::admin()).call(request);
        let Ok(reply) = asked.await;
        // Gone by now, or written again.
        if !reply.status().is_success() && !matches!(reply.status().as_u16(), 404 | 409) {
            tracing::debug!(path, status = %reply.status(), "an old event was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_for_the_lifetime_is_old() {
        let (mut marks, start) = (Marks::default(), Instant::now());
        assert_eq!(marks.wake(), None, "without events nothing wakes");
        marks.changed(start);
        marks.changed(start + STEP / 2);
        assert_eq!(marks.wake(), Some(start + STEP));
        assert_eq!(marks.step(start + STEP, 7), None);
        assert_eq!(marks.wake(), Some(start + STEP + LIFETIME));
        marks.changed(start + 2 * STEP);
        assert_eq!(marks.step(start + 3 * STEP, 9), None);
        assert_eq!(marks.step(start + STEP + LIFETIME, 20), Some(7));
        assert_eq!(marks.step(start + 2 * LIFETIME, 30), Some(9));
        assert_eq!(marks.wake(), None, "all is quiet again");
    }

    #[test]
    fn an_event_is_as_old_as_its_last_repeat() {
        let now: Timestamp = "2026-01-01T10:00:00Z".parse().unwrap();
        let old = |event: Value| {
            let mut event = event;
            event["kind"] = "Event".into();
            event["apiVersion"] = "v1".into();
            event["metadata"] = json!({"name": "e", "namespace": "n", "creationTimestamp": "2026-01-01T08:00:00Z"});
            is_old(&Object::stored("n/e", crate::object::canonical(&event), 1).unwrap(), now)
        };
        assert!(old(json!({})));
        assert!(old(json!({"lastTimestamp": "2026-01-01T08:59:00Z"})));
        assert!(!old(json!({"lastTimestamp": "2026-01-01T09:01:00Z"})));
        assert!(!old(json!({"series": {"lastObservedTime": "2026-01-01T09:30:00.000000Z"}})));
        assert!(!old(json!({"eventTime": "2026-01-01T12:00:00Z"})), "a clock that was set back");
    }
}
