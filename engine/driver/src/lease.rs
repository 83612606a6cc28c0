//! Leadership by a lease, with the record and the times that client-go's leader election has: of several that could do the same
//! work, one does it.
//!
//! Nobody compares wall clocks: the leader stops so long after it *sent* its last renewal, the others wait longer than that
//! after they have *seen* it, each by its own monotonic clock. Times in the record are for people. What is not promised: a
//! machine that sleeps with its clock may finish the step that it was in when it wakes.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::cache::{Change, cached};

/// How often a release is tried that somebody else's write gets in the way of.
const RELEASES: usize = 3;

/// The times of an election.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long after a renewal was seen the others wait; rounded up to seconds.
    pub lease: Duration,
    /// How long after its last renewal the leader works on; shorter than `lease`.
    pub renew: Duration,
    /// How often the leader renews, and how long anybody waits after a call that failed.
    pub retry: Duration,
}

impl Default for Terms {
    /// As client-go's users have them: 15 s, 10 s and 2 s.
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// One contender for a lease.
#[derive(Clone)]
pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    terms: Terms,
    seen: Arc<Mutex<Option<Seen>>>,
    changed: Arc<Notify>,
}

/// Somebody's lease as it was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    version: Option<String>,
    holder: String,
    /// Until when it is to be heeded.
    until: Instant,
}

/// The lease, held.
struct Term {
    lease: Lease,
    /// When the call was begun that took or renewed it last.
    since: Instant,
}

impl Election {
    /// A contender for the lease `kube-system/<name>`. No two contenders may have the same identity.
    pub fn new(client: Client, name: &str, identity: &str, terms: Terms) -> Self {
        debug_assert!(terms.retry < terms.renew && terms.renew < terms.lease, "each time leaves room for the next");
        let (name, identity) = (name.to_owned(), identity.to_owned());
        let leases = Api::namespaced(client, "kube-system");
        Self { leases, name, identity, terms, seen: Arc::default(), changed: Arc::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` whenever it leads: each time anew, dropped where it stands when the lease is lost. Ends when work ends by
    /// itself, which it is asked to by its token when `stop` is; the lease is given back then.
    pub async fn lead<F, Fut>(&self, stop: &CancellationToken, work: F)
    where
        F: Fn(CancellationToken) -> Fut,
        Fut: Future<Output = ()>,
    {
        while let Some(mut term) = self.acquire(stop).await {
            tracing::info!(lease = self.name, identity = self.identity, "leads");
            let own = stop.child_token();
            let is_lost = tokio::select! {
                biased;
                () = self.keep(&mut term) => true,
                () = work(own.clone()) => false,
            };
            own.cancel();
            if !is_lost {
                return self.release().await;
            }
            tracing::warn!(lease = self.name, identity = self.identity, "leads no more: the lease was not renewed");
        }
    }

    /// Waits until the lease is held; none when stopped before.
    async fn acquire(&self, stop: &CancellationToken) -> Option<Term> {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let watched = self.clone();
        let (_, watching) = cached(self.leases.clone(), config, stop.clone(), move |change| {
            // A lease that vanished is heeded as long as it would have held.
            if let Change::Applied(lease) = change {
                watched.note(lease);
                watched.changed.notify_one();
            }
        });
        tokio::select! {
            () = stop.cancelled() => None,
            term = self.contend() => Some(term),
            () = watching.then(|()| pending()) => None,
        }
    }

    async fn contend(&self) -> Term {
        loop {
            let heeded = self.seen().as_ref().and_then(|seen| seen.heeded(&self.identity, Instant::now()));
            if let Some(until) = heeded {
                tokio::select! {
                    () = sleep_until(until) => {}
                    () = self.changed.notified() => {}
                }
                continue;
            }
            let since = Instant::now();
            match timeout(self.terms.renew / 2, self.take()).await {
                Ok(Ok(Some(lease))) => return Term { lease, since },
                Ok(Ok(None)) => {}
                Ok(Err(error)) => self.pause(&error).await,
                Err(late) => self.pause(&late).await,
            }
        }
    }

    /// Renews until it cannot any more.
    async fn keep(&self, term: &mut Term) {
        loop {
            let end = term.since + self.terms.renew;
            sleep_until((Instant::now() + self.terms.retry).min(end)).await;
            let since = Instant::now();
            let answer_by = (since + self.terms.renew / 2).min(end);
            match timeout_at(answer_by, self.renew(&mut term.lease)).await {
                Ok(Ok(true)) => term.since = since,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::debug!(%error, lease = self.name, "not renewed, retrying"),
                Err(late) => tracing::debug!(error = %late, lease = self.name, "not renewed, retrying"),
            }
            if Instant::now() >= term.since + self.terms.renew {
                return;
            }
        }
    }

    async fn pause(&self, error: &impl std::fmt::Display) {
        tracing::debug!(%error, lease = self.name, "no answer about the lease, retrying");
        // Contenders that failed together do not come back together.
        sleep(self.terms.retry.mul_f64(1.0 + fastrand::f64() / 5.0)).await;
    }

    /// Writes the next record over the one that is known; false where somebody else has the lease.
    async fn renew(&self, lease: &mut Lease) -> Result<bool, kube::Error> {
        let next = self.next(Some(lease));
        match self.leases.replace(&self.name, &PostParams::default(), &next).await {
            Ok(written) => *lease = written,
            // Perhaps our own write, whose answer was lost.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => match self.take().await? {
                Some(taken) => *lease = taken,
                None => return Ok(false),
            },
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Takes the lease if nobody else has it.
    async fn take(&self) -> Result<Option<Lease>, kube::Error> {
        let found = self.leases.get_opt(&self.name).await?;
        if let Some(found) = &found {
            self.note(found);
        }
        if self.seen().as_ref().is_some_and(|seen| seen.heeded(&self.identity, Instant::now()).is_some()) {
            return Ok(None);
        }
        let next = self.next(found.as_ref());
        match found {
            Some(_) => self.leases.replace(&self.name, &PostParams::default(), &next).await.map(Some),
            None => self.leases.create(&PostParams::default(), &next).await.map(Some),
        }
    }

    /// Remembers a record that was not seen before, and heeds it from now on.
    fn note(&self, lease: &Lease) {
        let mut seen = self.seen();
        if seen.as_ref().is_some_and(|seen| seen.version.is_some() && seen.version == lease.metadata.resource_version) {
            return;
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let promised = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = promised.map_or(self.terms.lease, Duration::from_secs);
        *seen = Some(Seen {
            version: lease.metadata.resource_version.clone(),
            holder: spec.holder_identity.unwrap_or_default(),
            until: Instant::now() + lasts,
        });
    }

    /// The record that makes us the holder.
    fn next(&self, found: Option<&Lease>) -> Lease {
        let mut lease = found.cloned().unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        lease.metadata.managed_fields = None;
        let spec = lease.spec.get_or_insert_default();
        let now = MicroTime(Timestamp::now());
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            spec.holder_identity = Some(self.identity.clone());
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(found.map_or(0, |_| spec.lease_transitions.unwrap_or(0).saturating_add(1)));
        }
        // Never shorter than what the leader goes by.
        let seconds = self.terms.lease.as_millis().div_ceil(1000);
        spec.lease_duration_seconds = Some(i32::try_from(seconds).unwrap_or(i32::MAX));
        spec.renew_time = Some(now);
        lease
    }

    /// Gives the lease back, so that nobody has to wait for its end.
    async fn release(&self) {
        let released = async {
            for _ in 0..RELEASES {
                let Some(mut lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
                let Some(spec) = lease.spec.take().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))
                else {
                    return Ok(());
                };
                lease.metadata.managed_fields = None;
                lease.spec = Some(vacant(spec));
                match self.leases.replace(&lease.name_any(), &PostParams::default(), &lease).await {
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    other => return other.map(drop),
                }
            }
            Ok::<_, kube::Error>(())
        };
        if let Ok(Err(error)) = timeout(self.terms.renew / 2, released).await {
            tracing::debug!(%error, lease = self.name, "not given back");
        }
    }
}

impl Seen {
    /// Until when a contender has to leave the lease to its holder.
    fn heeded(&self, identity: &str, now: Instant) -> Option<Instant> {
        let is_others = !self.holder.is_empty() && self.holder != identity;
        (is_others && now < self.until).then_some(self.until)
    }
}

/// A record that nobody holds.
fn vacant(spec: LeaseSpec) -> LeaseSpec {
    let now = Some(MicroTime(Timestamp::now()));
    LeaseSpec {
        holder_identity: None,
        lease_duration_seconds: Some(1),
        renew_time: now.clone(),
        acquire_time: now,
        ..spec
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use tower::service_fn;

    use super::*;

    /// A contender of whom nothing is asked over the wire.
    fn contender(identity: &str) -> Election {
        let nobody = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        Election::new(Client::new(nobody, "default"), "lead", identity, Terms::default())
    }

    fn lease(version: u32, holder: Option<&str>, seconds: i32) -> Lease {
        let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 3});
        let metadata = json!({"name": "lead", "resourceVersion": version.to_string()});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_heeded_from_when_a_renewal_was_seen() {
        let own = contender("own");
        let heeded = || own.seen().as_ref().and_then(|seen| seen.heeded("own", Instant::now()));
        own.note(&lease(1, Some("other"), 7));
        tokio::time::advance(Duration::from_secs(5)).await;
        own.note(&lease(1, Some("other"), 7));
        assert_eq!(heeded(), Some(Instant::now() + Duration::from_secs(2)), "seen before, so it renews nothing");
        own.note(&lease(2, Some("other"), 7));
        assert_eq!(heeded(), Some(Instant::now() + Duration::from_secs(7)));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(heeded(), None);
        own.note(&lease(3, Some("other"), 7));
        assert!(heeded().is_some());
        for holder in [None, Some(""), Some("own")] {
            own.note(&lease(4, Some("other"), 7));
            own.note(&lease(5, holder, 7));
            assert_eq!(heeded(), None, "{holder:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn transitions_count_holders_and_not_renewals() {
        let own = contender("own");
        let spec = |found: Option<&Lease>| own.next(found).spec.unwrap();
        let first = spec(None);
        assert_eq!((first.lease_transitions, first.lease_duration_seconds), (Some(0), Some(15)));
        assert!(first.acquire_time == first.renew_time && first.renew_time.is_some());
        let kept = spec(Some(&lease(1, Some("own"), 15)));
        assert_eq!((kept.lease_transitions, kept.acquire_time), (Some(3), None));
        assert!(kept.renew_time.is_some());
        for holder in [None, Some("other")] {
            let taken = spec(Some(&lease(1, holder, 15)));
            assert_eq!((taken.lease_transitions, taken.holder_identity.as_deref()), (Some(4), Some("own")));
        }
        let left = vacant(lease(1, Some("own"), 15).spec.unwrap());
        assert_eq!(
            (left.holder_identity, left.lease_duration_seconds, left.lease_transitions),
            (None, Some(1), Some(3))
        );
    }
}
