//! The task of one pod: it feeds what happens into the pod's life, carries out what that says, and keeps the status in the
//! API up to date. Everything it starts it owns; its own end ends all of it, but no container.

mod attend;
mod begin;
mod watching;

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use shipway_container::PodState;
use shipway_driver::EventKind;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::evict::Order;
use crate::jobs::Shared;
use crate::leash;
use crate::machine::{Machine, Sandbox};
use crate::observed::{Happened, Observed, Stage, StartFailure, Verdict};
use crate::publish::{self, Written};
use crate::references::{self, Reference};
use crate::resize::{self, Amounts, Pending};
use crate::tokens::Tokens;
use crate::{evict, pod, runtime, status};

pub(crate) use attend::attend;

/// How many probe results may wait; probers pause when they do.
const REPORTS: usize = 64;
/// News of a resize waits that long: whoever asked for it often reads the pod at once and asks for more.
const SETTLE: Duration = Duration::from_millis(50);

/// The object as it should be on this machine.
#[derive(Clone, Debug)]
pub(crate) enum Desired {
    Present(Arc<Pod>),
    Gone,
}

/// What a task of the worker came to.
enum Done<S> {
    Happened(Happened),
    Prepared(Result<(S, Option<Ipv4Addr>), String>),
    Published { status: Box<PodStatus>, ok: bool },
    Refreshed(Result<(), String>),
    Quiet,
}

/// What the longer-lived helpers tell while they run.
enum News {
    Happened(Happened),
    Unhealthy { container: String, message: String },
    ReferenceChanged,
}

/// One pod's task.
pub(crate) struct Worker<M: Machine> {
    shared: Arc<Shared<M>>,
    pod: Arc<Pod>,
    desired: watch::Receiver<Desired>,
    observed: Observed,
    sandbox: Option<M::Sandbox>,
    runtime: Option<watch::Receiver<PodState>>,
    tasks: JoinSet<Done<M::Sandbox>>,
    /// Probers and watches, which end with what they are for.
    helpers: JoinSet<()>,
    probers: HashMap<String, AbortHandle>,
    watched: BTreeSet<Reference>,
    news: (mpsc::Sender<News>, mpsc::Receiver<News>),
    published: Option<Box<PodStatus>>,
    publishing: bool,
    remove_due: bool,
    refresh: Refresh,
    tokens: Arc<Tokens>,
    /// Told when other pods are allotted something else.
    room: watch::Receiver<HashMap<String, Amounts>>,
    orders: watch::Receiver<Order>,
    /// Since when it is on the node's leash.
    leashed: Option<Timestamp>,
}

/// Whether volumes are being brought up to date.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refresh {
    Idle,
    Running,
    /// Something changed meanwhile.
    Again,
}

impl<M: Machine> Worker<M> {
    /// A worker for a pod whose state is `observed`, in `sandbox` if it has one already.
    pub(crate) fn new(
        shared: Arc<Shared<M>>,
        pod: Arc<Pod>,
        desired: watch::Receiver<Desired>,
        observed: Observed,
        sandbox: Option<M::Sandbox>,
    ) -> Self {
        let runtime = sandbox.as_ref().map(Sandbox::state);
        let published = pod.status.clone().map(Box::new);
        let room = shared.room.changes();
        let orders = shared.orders.subscribe();
        // What an earlier engine has promised of a sandbox that is still there.
        let leashed = sandbox.as_ref().filter(|_| leash::is_told(&pod)).map(|_| observed.start_time);
        Self {
            shared,
            pod,
            desired,
            observed,
            sandbox,
            runtime,
            tasks: JoinSet::new(),
            helpers: JoinSet::new(),
            probers: HashMap::new(),
            watched: BTreeSet::new(),
            news: mpsc::channel(REPORTS),
            published,
            publishing: false,
            remove_due: false,
            refresh: Refresh::Idle,
            tokens: Arc::default(),
            leashed,
            orders,
            room,
        }
    }

    /// Lives with the pod; returns when its object is gone and nothing of it is left, or when the engine stops.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        if self.observed.stage == Stage::Ready {
            self.observe_runtime();
            self.watch_references(references::of_volumes(&self.pod));
            self.refresh_volumes();
        }
        self.allot();
        while self.advance() {
            let deferred = matches!(self.observed.pending, Some(Pending::Deferred(_)));
            let (now, wall) = clock();
            let wake = self.observed.wake_at(&self.pod, now, wall);
            let renewal = self.renewal();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = self.tasks.join_next() => self.take_done(done),
                Some(ended) = self.helpers.join_next() => ended.unwrap_or_else(give_up),
                () = changed(Some(&mut self.desired)) => self.take_desired(),
                Some(news) = self.news.1.recv() => self.take_news(news),
                () = changed(self.runtime.as_mut()) => self.observe_runtime(),
                () = changed(deferred.then_some(&mut self.room)) => self.allot(),
                () = changed(Some(&mut self.orders)) => self.take_order(),
                () = until(wake) => {}
                () = until(renewal) => self.refresh_volumes(),
            }
        }
        self.finish().await;
    }

    /// Does all that can be begun now; `false` when the pod's life is over.
    fn advance(&mut self) -> bool {
        let (now, wall) = clock();
        for action in self.observed.step(&self.pod, now, wall) {
            self.begin(action);
        }
        self.shared.runs.update(&self.pod, &self.observed);
        if matches!(self.observed.stage, Stage::Gone | Stage::Finished) {
            self.shared.room.release(pod::uid(&self.pod));
        }
        if self.observed.stage == Stage::Finished {
            return false;
        }
        self.publish();
        true
    }

    /// Sees whether the containers can be given what the pod asks for by now.
    fn allot(&mut self) {
        if matches!(self.observed.stage, Stage::Gone | Stage::Finished) || self.observed.shutdown.is_some() {
            return;
        }
        self.room.mark_unchanged();
        let Some(answer) = resize::consider(&self.pod, &self.observed, &self.shared.room) else { return };
        if let Err(pending) = &answer
            && self.observed.pending.as_ref() != Some(pending)
        {
            let (reason, message) = pending.words();
            self.shared.tell(&self.pod, None, EventKind::Warning, &format!("Resize{reason}"), message);
        }
        self.happened(Happened::Allotted(answer));
    }

    async fn finish(mut self) {
        self.shared.forget(&self.pod).await;
        // The network takes its time to give the address back; nobody waits for that but this.
        while let Some(done) = self.tasks.join_next().await {
            if let Err(error) = done {
                tracing::debug!(%error, "a task of a pod that is gone ended badly");
            }
        }
    }

    /// Writes the status when it changed; one write at a time, the newest state wins.
    fn publish(&mut self) {
        if self.publishing || self.observed.vanished {
            return;
        }
        let mut status =
            status::status(&self.pod, &self.observed, self.published.as_deref(), self.shared.host, clock());
        let told = self.leashed.map(leash::condition);
        status.conditions.get_or_insert_default().extend(told);
        let changed = self.published.as_deref().is_none_or(|before| !status::same(before, &status));
        if self.remove_due {
            self.remove_due = false;
            return self.remove(changed.then_some(status));
        }
        if !changed {
            return;
        }
        let settles = self.published.as_deref().is_some_and(|before| status::same_but_resized(before, &status));
        self.publishing = true;
        self.spawn(move |shared, pod| async move {
            if settles {
                tokio::time::sleep(SETTLE).await;
            }
            let written = publish::write_status(&shared.client, &pod, &status).await;
            if let Err(error) = &written {
                tracing::warn!(pod = pod::name(&pod), %error, "the status was not written, trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Done::Published { status: Box::new(status), ok: written.is_ok() }
        });
    }

    fn remove(&mut self, last: Option<PodStatus>) {
        self.spawn(|shared, pod| async move {
            if let Some(status) = last
                && let Err(error) = publish::write_status(&shared.client, &pod, &status).await
            {
                tracing::warn!(pod = pod::name(&pod), %error, "the final status was not written");
            }
            let gone = match publish::remove(&shared.client, &pod).await {
                Ok(Written::Done | Written::Gone) => true,
                Err(error) => {
                    tracing::warn!(pod = pod::name(&pod), %error, "the pod was not removed, trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    false
                }
            };
            Done::Happened(Happened::Removed { gone })
        });
    }

    fn happened(&mut self, happened: Happened) {
        let (now, wall) = clock();
        if let Happened::Started { container, result: Err(StartFailure::Config(_)) } = &happened {
            tracing::debug!(container, "waits for what it refers to");
            self.watch_references(references::of_pod(&self.pod));
        }
        let started = matches!(happened, Happened::Started { .. });
        let failed = self.tell_obstacle(&happened);
        self.observed.take(happened, now, wall);
        self.tell_backoffs(failed.as_slice(), now);
        if started {
            // It may have ended while it was being started.
            self.observe_runtime();
        }
    }

    fn take_done(&mut self, done: Result<Done<M::Sandbox>, tokio::task::JoinError>) {
        match done {
            Ok(Done::Happened(happened)) => self.happened(happened),
            Ok(Done::Prepared(Ok((sandbox, address)))) => {
                self.runtime = Some(sandbox.state());
                self.leashed = self.shared.leash_of(&self.pod).map(|_| Timestamp::now());
                self.sandbox = Some(sandbox);
                self.happened(Happened::Prepared(Ok(address)));
            }
            Ok(Done::Prepared(Err(message))) => self.happened(Happened::Prepared(Err(message))),
            Ok(Done::Published { status, ok }) => {
                self.publishing = false;
                self.published = if ok { Some(status) } else { None };
            }
            Ok(Done::Refreshed(result)) => {
                let again = std::mem::replace(&mut self.refresh, Refresh::Idle) == Refresh::Again;
                if let Err(message) = result {
                    self.shared.tell(&self.pod, None, EventKind::Warning, "FailedMount", &message);
                }
                if again {
                    self.refresh_volumes();
                }
            }
            Ok(Done::Quiet) => {}
            Err(error) => give_up(error),
        }
    }

    fn take_desired(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        match desired {
            Desired::Present(pod) => {
                let shown = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
                let changed = shown(&pod) != shown(&self.pod);
                if status::is_disowned(&pod) {
                    // Somebody took us for lost; we are not.
                    self.published = None;
                }
                self.pod = pod;
                self.observed.add_ephemeral(&self.pod);
                self.allot();
                if changed {
                    self.refresh_volumes();
                }
            }
            Desired::Gone => self.happened(Happened::Vanished),
        }
    }

    fn take_order(&mut self) {
        if let Some(sentence) = evict::heard(&mut self.orders, pod::uid(&self.pod)) {
            self.happened(Happened::Condemned(sentence));
        }
    }

    fn take_news(&mut self, news: News) {
        match news {
            News::Happened(happened) => {
                if let Happened::Probed { container, verdict: Verdict::Unhealthy { .. }, .. } = &happened {
                    let message = format!("Container {container} failed its probe, will be restarted");
                    self.shared.tell(&self.pod, Some(container), EventKind::Normal, "Killing", &message);
                }
                self.happened(happened);
            }
            News::Unhealthy { container, message } => {
                self.shared.tell(&self.pod, Some(&container), EventKind::Warning, "Unhealthy", &message);
            }
            News::ReferenceChanged => {
                self.happened(Happened::ReferenceChanged);
                self.refresh_volumes();
            }
        }
    }

    /// Takes note of what the supervisor tells of its containers.
    fn observe_runtime(&mut self) {
        let Some(runtime) = &mut self.runtime else { return };
        let state = runtime.borrow_and_update().clone();
        let mut exits = runtime::exits(&state, &self.observed);
        if exits.is_empty() && !state.lost {
            return;
        }
        let folder = self.shared.pod_folder(&self.pod);
        let mut ended = Vec::new();
        for container in self.observed.containers.iter().filter(|container| container.running()) {
            if let Some(exit) = exits.get_mut(&container.run_id()) {
                let run = (container.name.as_str(), container.attempt());
                exit.message = runtime::last_words(&self.shared.home, &folder, &self.pod, run, exit.code);
                ended.push(container.name.clone());
            }
        }
        for name in &ended {
            self.unprobe(name);
        }
        let (now, wall) = clock();
        self.observed.take(Happened::Runtime { exits, lost: state.lost }, now, wall);
        self.tell_backoffs(&ended, now);
        if state.lost {
            self.runtime = None;
            self.tell_lost();
        }
    }

    fn tell_lost(&self) {
        let message = "Pod sandbox changed, it will be killed and re-created.";
        self.shared.tell(&self.pod, None, EventKind::Normal, "SandboxChanged", message);
    }

    /// Tells of a wait that begins with this; returns the container whose run failed at its start.
    fn tell_obstacle(&self, happened: &Happened) -> Option<String> {
        match happened {
            Happened::Started { container, result: Err(StartFailure::Run(_)) } => Some(container.clone()),
            Happened::Fetched { container, result: Err((reason, _)) } if reason == "ErrImagePull" => {
                let spec = pod::any_container(&self.pod, container);
                let image = spec.as_ref().and_then(|spec| spec.image.as_deref());
                let message = format!("Back-off pulling image \"{}\"", image.unwrap_or_default());
                self.shared.tell(&self.pod, Some(container), EventKind::Normal, "BackOff", &message);
                None
            }
            _ => None,
        }
    }

    fn tell_backoffs(&self, ended: &[String], now: Instant) {
        for name in ended {
            let crash = self.observed.container(name).and_then(|container| container.crash(now));
            if crash.is_some_and(|(_, wait)| !wait.is_zero()) {
                let (pod, uid) = (pod::name(&self.pod), pod::uid(&self.pod));
                let namespace = pod::namespace(&self.pod);
                let message = format!("Back-off restarting failed container {name} in pod {pod}_{namespace}({uid})");
                self.shared.tell(&self.pod, Some(name), EventKind::Warning, "BackOff", &message);
            }
        }
    }
}

fn clock() -> (Instant, Timestamp) {
    (Instant::now(), Timestamp::now())
}

async fn changed<T>(told: Option<&mut watch::Receiver<T>>) {
    let news = match told {
        Some(told) => told.changed().await.is_ok(),
        None => false,
    };
    // When whoever told is gone there will be no more news; that by itself means nothing for the pod.
    if !news {
        std::future::pending::<()>().await;
    }
}

/// What a task that panicked was to come to will not come: whoever attends to the pod begins anew. Others were ended.
fn give_up(error: tokio::task::JoinError) {
    if let Ok(panic) = error.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
