//! The task of one pod: it feeds what happens into the pod's life, carries out what that says, and keeps the status in the
//! API up to date. Everything it starts it owns; its own end ends all of it, but no container.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodStatus, Secret};
use kube::Api;
use kube::runtime::watcher::watch_object;
use shipway_container::PodState;
use shipway_driver::EventKind;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::jobs::{Shared, Start};
use crate::lifecycle::{Action, grace};
use crate::machine::{Machine, Sandbox};
use crate::observed::{Happened, Observed, Phase, Stage, StartFailure, Verdict};
use crate::ports::Discovery;
use crate::probe::{Prober, Report};
use crate::publish::{self, Written};
use crate::references::{self, Reference};
use crate::{pod, ports, runtime, signal, status};

/// How long a deleted pod waits for the network to lead its clients away.
const RELEASE: Duration = Duration::from_secs(1);
/// How long requests under way get before the stop signal.
const DRAIN: Duration = Duration::from_millis(20);
/// How many probe results may wait; probers pause when they do.
const REPORTS: usize = 64;

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
    refreshing: bool,
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
            refreshing: false,
        }
    }

    /// Lives with the pod; returns when its object is gone and nothing of it is left, or when the engine stops.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        if self.observed.stage == Stage::Ready {
            self.observe_runtime();
            self.watch_references(references::of_volumes(&self.pod));
            self.refresh_volumes();
        }
        while self.advance() {
            let (now, wall) = clock();
            let wake = self.observed.wake_at(&self.pod, now, wall);
            tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = self.tasks.join_next() => self.take_done(done),
                () = changed(Some(&mut self.desired)) => self.take_desired(),
                Some(news) = self.news.1.recv() => self.take_news(news),
                () = changed(self.runtime.as_mut()) => self.observe_runtime(),
                () = until(wake) => {}
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
        if self.observed.stage == Stage::Finished {
            return false;
        }
        self.publish();
        true
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

    fn begin(&mut self, action: Action) {
        tracing::debug!(pod = pod::name(&self.pod), ?action);
        match action {
            Action::Prepare => self.prepare(),
            Action::Fetch(name) => {
                self.spawn(|shared, pod| async move { Done::Happened(shared.fetch(&pod, &name).await) });
            }
            Action::Start(name) => self.start(&name),
            Action::Probe(name) => self.probe(&name),
            Action::Drain => self.drain(),
            Action::Hook(name) => self.pre_stop(name),
            Action::Terminate(name) => self.terminate(name),
            Action::Kill(name) => self.signal(name, signal::KILL),
            Action::Dismantle => self.dismantle(),
            Action::Remove => self.remove_due = true,
        }
    }

    fn spawn<F, Fut>(&mut self, job: F)
    where
        F: FnOnce(Arc<Shared<M>>, Arc<Pod>) -> Fut,
        Fut: Future<Output = Done<M::Sandbox>> + Send + 'static,
    {
        self.tasks.spawn(job(self.shared.clone(), self.pod.clone()));
    }

    fn prepare(&mut self) {
        self.watch_references(references::of_volumes(&self.pod));
        self.spawn(|shared, pod| async move { Done::Prepared(shared.prepare(&pod).await) });
    }

    fn start(&mut self, name: &str) {
        let known = self.observed.container(name).and_then(|container| Some((container.attempt(), container.image.clone()?)));
        let (Some((attempt, image)), Some(spec), Some(sandbox)) =
            (known, pod::container(&self.pod, name).cloned(), self.sandbox.clone())
        else {
            let failure = StartFailure::Create("the sandbox or the image was not at hand".to_owned());
            return self.happened(Happened::Started { container: name.to_owned(), result: Err(failure) });
        };
        let start = Start {
            pod: self.pod.clone(),
            container: spec,
            attempt,
            image,
            sandbox,
            address: self.observed.address,
            grace: grace(&self.pod),
        };
        self.spawn(|shared, _| async move { Done::Happened(shared.start(start).await) });
    }

    fn probe(&mut self, name: &str) {
        self.unprobe(name);
        let (Some(spec), Some(container), Some(sandbox)) =
            (pod::container(&self.pod, name).cloned(), self.observed.container(name).cloned(), self.sandbox.clone())
        else {
            return;
        };
        let Phase::Running { since, .. } = container.phase else { return };
        let attempt = container.attempt();
        if ports::wanted(&self.pod) && spec.readiness_probe.is_none() && container.awaits_readiness && !container.ready {
            self.discover(name, attempt, &sandbox);
        }
        if !Prober::<M::Sandbox>::is_needed(&spec) {
            return;
        }
        let host = self.observed.address.is_none().then_some(self.shared.host);
        let mut target = self.shared.target(&sandbox, self.observed.address, container.run_id());
        target.address = host.unwrap_or(target.address);
        let prober = Prober {
            target,
            started: container.started && container.awaits_startup,
            ready: container.ready && container.awaits_readiness,
            container: spec,
            since,
            grace: grace(&self.pod),
        };
        let (news, container) = (self.news.0.clone(), name.to_owned());
        let helper = self.helpers.spawn(async move {
            let (reports, mut reported) = mpsc::channel(1);
            let probing = prober.run(reports);
            let telling = async {
                while let Some(report) = reported.recv().await {
                    let container = container.clone();
                    let item = match report {
                        Report::Verdict(verdict) => News::Happened(Happened::Probed { container, attempt, verdict }),
                        Report::Failed(message) => News::Unhealthy { container, message },
                    };
                    if news.send(item).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(probing, telling);
        });
        self.probers.insert(name.to_owned(), helper);
    }

    fn discover(&mut self, name: &str, attempt: u32, sandbox: &M::Sandbox) {
        let (news, container, supervisor) = (self.news.0.clone(), name.to_owned(), sandbox.supervisor());
        let (shared, pod) = (self.shared.clone(), self.pod.clone());
        self.helpers.spawn(async move {
            let mut discovery = Discovery::begin(|| ports::listening(supervisor));
            loop {
                let found = discovery.next().await;
                let over = found.is_none();
                if let Some(found) = found {
                    // The ports are known before the pod is ready, so whoever waits for that finds them.
                    let ports = ports::format(&found);
                    if let Err(error) = publish::annotate(&shared.client, &pod, ports::FOUND, &ports).await {
                        tracing::warn!(%error, "the ports found could not be published");
                    }
                }
                let container = container.clone();
                let ready = Happened::Probed { container, attempt, verdict: Verdict::Ready(true) };
                if news.send(News::Happened(ready)).await.is_err() || over {
                    return;
                }
            }
        });
    }

    fn unprobe(&mut self, name: &str) {
        if let Some(prober) = self.probers.remove(name) {
            prober.abort();
        }
    }

    fn drain(&mut self) {
        let Some(address) = self.observed.address else { return self.happened(Happened::Drained) };
        self.spawn(|shared, pod| async move {
            if tokio::time::timeout(RELEASE, shared.machine.released(address)).await.is_err() {
                tracing::warn!(pod = pod::name(&pod), "services still lead to the pod after {RELEASE:?}");
            }
            tokio::time::sleep(DRAIN).await;
            Done::Happened(Happened::Drained)
        });
    }

    fn pre_stop(&mut self, name: String) {
        let known = self.observed.container(&name).and_then(|container| Some((container.run_id(), container.stop?)));
        let (Some((run, stop)), Some(spec), Some(sandbox)) =
            (known, pod::container(&self.pod, &name).cloned(), self.sandbox.clone())
        else {
            return self.happened(Happened::HookDone { container: name });
        };
        let target = self.shared.target(&sandbox, self.observed.address, run);
        let left = stop.deadline.saturating_duration_since(Instant::now());
        self.spawn(|shared, pod| async move {
            shared.pre_stop(&pod, &spec, &target, left).await;
            Done::Happened(Happened::HookDone { container: name })
        });
    }

    fn terminate(&mut self, name: String) {
        let message = format!("Stopping container {name}");
        self.shared.tell(&self.pod, Some(&name), EventKind::Normal, "Killing", &message);
        let lifecycle = pod::container(&self.pod, &name).and_then(|spec| spec.lifecycle.as_ref());
        let own = lifecycle.and_then(|lifecycle| lifecycle.stop_signal.clone());
        let image = self.observed.container(&name).and_then(|container| container.image.as_ref());
        let word = own.or_else(|| image.and_then(|image| image.stop_signal.clone()));
        self.signal(name, word.as_deref().and_then(signal::number).unwrap_or(signal::TERM));
    }

    fn signal(&mut self, name: String, number: i32) {
        self.unprobe(&name);
        let run = self.observed.container(&name).map(crate::observed::Container::run_id);
        let (Some(run), Some(sandbox)) = (run, self.sandbox.clone()) else { return };
        self.spawn(|_, pod| async move {
            match sandbox.kill(&run, number).await {
                Ok(()) => Done::Quiet,
                Err(error) => {
                    tracing::warn!(pod = pod::name(&pod), %run, number, %error, "a signal could not be sent");
                    if number == signal::KILL {
                        Done::Happened(Happened::NotKilled { container: name })
                    } else {
                        Done::Quiet
                    }
                }
            }
        });
    }

    fn dismantle(&mut self) {
        self.probers.clear();
        self.helpers.abort_all();
        self.watched.clear();
        self.runtime = None;
        let sandbox = self.sandbox.take();
        self.spawn(|shared, pod| async move {
            shared.clear(&pod, sandbox.as_ref()).await;
            shared.detach(&pod).await;
            Done::Happened(Happened::Dismantled)
        });
    }

    /// Writes the status when it changed; one write at a time, the newest state wins.
    fn publish(&mut self) {
        if self.publishing || self.observed.vanished {
            return;
        }
        let status = status::status(&self.pod, &self.observed, self.published.as_deref(), self.shared.host, clock());
        let changed = self.published.as_deref().is_none_or(|before| !status::same(before, &status));
        if self.remove_due {
            self.remove_due = false;
            return self.remove(changed.then_some(status));
        }
        if !changed {
            return;
        }
        self.publishing = true;
        self.spawn(|shared, pod| async move {
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

    /// Watches the objects that the pod refers to, so that a change of one reaches the pod at once.
    fn watch_references(&mut self, references: BTreeSet<Reference>) {
        for reference in references {
            if !self.watched.insert(reference.clone()) {
                continue;
            }
            let (client, news) = (self.shared.client.clone(), self.news.0.clone());
            let namespace = pod::namespace(&self.pod).to_owned();
            self.helpers.spawn(async move {
                match reference {
                    Reference::ConfigMap(name) => follow::<ConfigMap>(client, &namespace, &name, news).await,
                    Reference::Secret(name) => follow::<Secret>(client, &namespace, &name, news).await,
                }
            });
        }
    }

    fn refresh_volumes(&mut self) {
        if self.refreshing || self.observed.stage != Stage::Ready {
            return;
        }
        self.refreshing = true;
        self.spawn(|shared, pod| async move { Done::Refreshed(shared.refresh_volumes(&pod).await) });
    }

    fn happened(&mut self, happened: Happened) {
        let (now, wall) = clock();
        if let Happened::Started { container, result: Err(StartFailure::Config(_)) } = &happened {
            tracing::debug!(container, "waits for what it refers to");
            self.watch_references(references::of_pod(&self.pod));
        }
        let started = matches!(happened, Happened::Started { .. });
        self.observed.take(happened, now, wall);
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
                self.sandbox = Some(sandbox);
                self.happened(Happened::Prepared(Ok(address)));
            }
            Ok(Done::Prepared(Err(message))) => self.happened(Happened::Prepared(Err(message))),
            Ok(Done::Published { status, ok }) => {
                self.publishing = false;
                self.published = if ok { Some(status) } else { None };
            }
            Ok(Done::Refreshed(result)) => {
                self.refreshing = false;
                if let Err(message) = result {
                    self.shared.tell(&self.pod, None, EventKind::Warning, "FailedMount", &message);
                }
            }
            Ok(Done::Quiet) => {}
            Err(error) => tracing::error!(pod = pod::name(&self.pod), %error, "a task of the pod ended badly"),
        }
    }

    fn take_desired(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        match desired {
            Desired::Present(pod) => {
                let shown = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
                let changed = shown(&pod) != shown(&self.pod);
                self.pod = pod;
                if changed {
                    self.refresh_volumes();
                }
            }
            Desired::Gone => self.happened(Happened::Vanished),
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

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Tells of every change of one object, beginning with its present state.
async fn follow<K>(client: kube::Client, namespace: &str, name: &str, news: mpsc::Sender<News>)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let changes = kube::runtime::WatchStreamExt::default_backoff(watch_object(Api::<K>::namespaced(client, namespace), name));
    futures::pin_mut!(changes);
    while let Some(change) = changes.next().await {
        match change {
            Ok(_) if news.send(News::ReferenceChanged).await.is_err() => return,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, name, "a watch broke, retrying"),
        }
    }
}

#[cfg(test)]
mod tests;
