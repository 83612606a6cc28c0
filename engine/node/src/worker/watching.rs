//! What runs beside a pod's tasks for as long as it is of use: probes, the search for ports, word of the objects that the
//! pod refers to. They tell their news through one bounded queue.

use std::collections::BTreeSet;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Done, News, Refresh, Worker};
use crate::lifecycle::grace;
use crate::machine::{Machine, Sandbox};
use crate::observed::{Happened, Phase, Stage, Verdict};
use crate::ports::{self, Discovery};
use crate::probe::{Prober, Report};
use crate::references::Reference;
use crate::{pod, publish};

impl<M: Machine> Worker<M> {
    pub(super) fn probe(&mut self, name: &str) {
        self.unprobe(name);
        let (Some(spec), Some(container), Some(sandbox)) =
            (pod::container(&self.pod, name).cloned(), self.observed.container(name).cloned(), self.sandbox.clone())
        else {
            return;
        };
        let Phase::Running { since, .. } = container.phase else { return };
        let attempt = container.attempt();
        if ports::wanted(&self.pod) && spec.readiness_probe.is_none() && container.awaits_readiness && !container.ready
        {
            self.discover(name, attempt, &sandbox);
        }
        if !Prober::<M::Sandbox>::is_needed(&spec) {
            return;
        }
        let target = self.shared.target(&sandbox, self.observed.address, container.run_id());
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

    pub(super) fn unprobe(&mut self, name: &str) {
        if let Some(prober) = self.probers.remove(name) {
            prober.abort();
        }
    }

    /// Watches the objects that the pod refers to, so that a change of one reaches the pod at once.
    pub(super) fn watch_references(&mut self, references: BTreeSet<Reference>) {
        for reference in references {
            if !self.watched.insert(reference.clone()) {
                continue;
            }
            let mut follower = self.shared.followed.follow(pod::namespace(&self.pod), reference);
            let news = self.news.0.clone();
            self.helpers.spawn(async move {
                loop {
                    follower.changed().await;
                    if news.send(News::ReferenceChanged).await.is_err() {
                        return;
                    }
                }
            });
        }
    }

    /// Brings the volumes up to date. Who is told to go keeps what it has: what it refers to may go before it.
    pub(super) fn refresh_volumes(&mut self) {
        if !self.may_refresh() {
            return;
        }
        if self.refresh != Refresh::Idle {
            self.refresh = Refresh::Again;
            return;
        }
        let Some(sandbox) = self.sandbox.clone() else { return };
        self.refresh = Refresh::Running;
        let tokens = self.tokens.clone();
        self.spawn(
            move |shared, pod| async move { Done::Refreshed(shared.refresh_volumes(&pod, &tokens, &sandbox).await) },
        );
    }

    /// When a token is to be renewed.
    pub(super) fn renewal(&self) -> Option<Instant> {
        let may = self.refresh == Refresh::Idle && self.may_refresh();
        may.then(|| self.tokens.due()).flatten()
    }

    fn may_refresh(&self) -> bool {
        self.observed.stage == Stage::Ready && self.pod.metadata.deletion_timestamp.is_none()
    }
}
