//! Carrying out what a pod's life says is to be begun: each action becomes a task of the pod's worker.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use shipway_driver::EventKind;
use tokio::time::Instant;

use super::{Done, Worker};
use crate::jobs::{Shared, Start};
use crate::lifecycle::{Action, grace};
use crate::machine::{Machine, Sandbox};
use crate::observed::{Container, Happened, Stage, StartFailure};
use crate::{amount, pod, references, signal, specification};

/// How long a deleted pod waits for the network to lead its clients away.
const RELEASE: Duration = Duration::from_secs(5);
/// How long requests under way get before the stop signal.
const DRAIN: Duration = Duration::from_millis(20);

impl<M: Machine> Worker<M> {
    pub(super) fn begin(&mut self, action: Action) {
        tracing::debug!(pod = pod::name(&self.pod), ?action);
        match action {
            Action::Prepare => self.prepare(),
            Action::Fetch(name) => {
                self.spawn(|shared, pod| async move { Done::Happened(shared.fetch(&pod, &name).await) });
            }
            Action::Start(name) => self.start(&name),
            Action::Probe(name) => self.probe(&name),
            Action::Resize(name) => self.resize(name),
            Action::Drain => self.drain(),
            Action::Hook(name) => self.pre_stop(name),
            Action::Terminate(name) => self.terminate(name),
            Action::Kill(name) => self.signal(name, signal::KILL),
            Action::Dismantle => self.dismantle(),
            Action::Remove => self.remove_due = true,
        }
    }

    pub(super) fn spawn<F, Fut>(&mut self, job: F)
    where
        F: FnOnce(Arc<Shared<M>>, Arc<Pod>) -> Fut,
        Fut: Future<Output = Done<M::Sandbox>> + Send + 'static,
    {
        self.tasks.spawn(job(self.shared.clone(), self.pod.clone()));
    }

    fn prepare(&mut self) {
        self.watch_references(references::of_volumes(&self.pod));
        let tokens = self.tokens.clone();
        self.spawn(move |shared, pod| async move { Done::Prepared(shared.prepare(&pod, &tokens).await) });
    }

    fn start(&mut self, name: &str) {
        let known =
            self.observed.container(name).and_then(|container| Some((container.attempt(), container.image.clone()?)));
        let (Some((attempt, image)), Some(spec), Some(sandbox)) =
            (known, pod::any_container(&self.pod, name), self.sandbox.clone())
        else {
            let failure = StartFailure::Create("the sandbox or the image was not at hand".to_owned());
            return self.happened(Happened::Started { container: name.to_owned(), result: Err(failure) });
        };
        let mut spec = spec.into_owned();
        if let Some(known) = self.observed.container(name) {
            spec.resources.clone_from(&known.given);
        }
        let start = Start {
            pod: self.pod.clone(),
            container: spec,
            attempt,
            image,
            sandbox,
            address: self.observed.address,
            grace: grace(&self.pod),
            processes_of: self.processes_of(name),
        };
        self.spawn(|shared, _| async move { Done::Happened(shared.start(start).await) });
    }

    fn resize(&mut self, container: String) {
        let known = self.observed.container(&container).map(|it| (it.attempt(), it.run_id(), it.allotted.clone()));
        let spec = pod::container(&self.pod, &container).cloned();
        let (Some((attempt, run, wanted)), Some(mut spec), Some(sandbox)) = (known, spec, self.sandbox.clone()) else {
            return;
        };
        spec.resources.clone_from(&wanted);
        self.spawn(|shared, pod| async move {
            shared.tell_of_resize(&pod, &container, "ResizeStarted", "is given other resources");
            let resources = amount::resources(&spec, specification::PIDS_LIMIT);
            let result = sandbox.resize(&run, resources).await.map(|()| wanted).map_err(|error| error.to_string());
            match &result {
                Ok(_) => shared.tell_of_resize(&pod, &container, "ResizeCompleted", "has other resources"),
                Err(error) => shared.tell_of_resize(&pod, &container, "ResizeError", error),
            }
            Done::Happened(Happened::Resized { container, attempt, result })
        });
    }

    /// The run that an ephemeral container looks into.
    fn processes_of(&self, name: &str) -> Option<String> {
        let target = pod::ephemeral(&self.pod, name)?.target_container_name.as_deref()?;
        self.observed.container(target).map(Container::run_id)
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
        let left = stop.kill_at().saturating_duration_since(Instant::now());
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
        let run = self.observed.container(&name).map(Container::run_id);
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
        let again = self.observed.stage == Stage::Dismantling { again: true };
        self.spawn(move |shared, pod| async move {
            shared.take_down(&pod, sandbox.as_ref()).await;
            if !again {
                shared.remove_volumes(&pod).await;
            }
            shared.detach(&pod).await;
            Done::Happened(Happened::Dismantled)
        });
    }
}
