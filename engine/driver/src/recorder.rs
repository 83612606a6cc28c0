//! Events as `kubectl describe` shows them: core/v1, one object per distinct happening with a count for repeats.
//!
//! Recording never blocks or fails the caller: events wait in a bounded queue; when it is full they are dropped and
//! the drop is logged.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;

/// How many events may wait to be written.
const WAITING: usize = 1024;
/// How many distinct happenings are remembered for counting; past that the memory starts over.
const REMEMBERED: usize = 512;

/// Whether all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Somebody may have to look.
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Happening {
    namespace: String,
    uid: String,
    name: String,
    kind: EventKind,
    reason: String,
    message: String,
}

/// Writes events on behalf of one component; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<(ObjectReference, Happening)>,
}

impl Recorder {
    /// A recorder whose writer task ends when the last clone is dropped.
    pub fn new(client: kube::Client, component: &str, host: &str) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        let source = EventSource { component: Some(component.to_owned()), host: Some(host.to_owned()) };
        tokio::spawn(Writer { client, source, seen: HashMap::new() }.run(waiting));
        Self { queue }
    }

    /// Records that `reason` happened to `about`.
    pub fn event(&self, about: &ObjectReference, kind: EventKind, reason: &str, message: &str) {
        let happening = Happening {
            namespace: about.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            uid: about.uid.clone().unwrap_or_default(),
            name: about.name.clone().unwrap_or_default(),
            kind,
            reason: reason.to_owned(),
            message: message.chars().take(1024).collect(),
        };
        if self.queue.try_send((about.clone(), happening)).is_err() {
            tracing::warn!(reason, "event dropped: {WAITING} others wait to be written");
        }
    }
}

struct Writer {
    client: kube::Client,
    source: EventSource,
    /// The name of the event object and how often it happened.
    seen: HashMap<Happening, (String, i32)>,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<(ObjectReference, Happening)>) {
        while let Some((about, happening)) = waiting.recv().await {
            if let Err(error) = self.write(about, happening).await {
                tracing::debug!(%error, "event not written");
            }
        }
    }

    async fn write(&mut self, about: ObjectReference, happening: Happening) -> Result<(), kube::Error> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &happening.namespace);
        if self.seen.len() >= REMEMBERED {
            self.seen.clear();
        }
        if let Some((name, count)) = self.seen.get_mut(&happening) {
            *count += 1;
            let patch = serde_json::json!({ "count": *count, "lastTimestamp": Time(Timestamp::now()) });
            match events.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Err(error) if is_not_found(&error) => self.seen.remove(&happening),
                other => return other.map(|_| ()),
            };
        }
        let event = self.first(about, &happening);
        let name = event.metadata.name.clone().unwrap_or_default();
        events.create(&PostParams::default(), &event).await?;
        self.seen.insert(happening, (name, 1));
        Ok(())
    }

    fn first(&self, about: ObjectReference, happening: &Happening) -> Event {
        let now = Time(Timestamp::now());
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:016x}", happening.name, fastrand::u64(..))),
                namespace: Some(happening.namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: Some(format!("{:?}", happening.kind)),
            reason: Some(happening.reason.clone()),
            message: Some(happening.message.clone()),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            source: Some(self.source.clone()),
            involved_object: about,
            ..Event::default()
        }
    }
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
