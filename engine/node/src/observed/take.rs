//! Taking note of what happened: how each happening changes what is known of the pod. Pure; begins nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;
use tokio::time::Instant;

use super::{
    Container, Drain, Ended, Exit, Happened, Observed, Phase, Resizing, Role, Stage, StartFailure, Stop, StopStage,
    Verdict,
};
use crate::backoff::Backoff;
use crate::image::Image;
use crate::resize::{Allotment, Pending};

/// Before the kernel is asked again for what it refused.
const RESIZE_PAUSE: Duration = Duration::from_secs(5);

impl Observed {
    /// Takes note of something that happened.
    pub(crate) fn take(&mut self, happened: Happened, now: Instant, wall: Timestamp) {
        match happened {
            Happened::Prepared(result) => self.take_prepared(result, now),
            Happened::Fetched { container, result } => self.take_fetched(&container, result, now),
            Happened::Started { container, result } => self.take_started(&container, result, now, wall),
            Happened::Runtime { exits, lost } => self.take_runtime(exits, lost, now, wall),
            Happened::Probed { container, attempt, verdict } => self.take_verdict(&container, attempt, &verdict, now),
            Happened::Drained => {
                if let Some(shutdown) = &mut self.shutdown {
                    shutdown.drain = Drain::Done;
                    shutdown.since = now;
                }
            }
            Happened::HookDone { container } => self.take_hook_done(&container),
            Happened::NotKilled { container } => {
                if let Some(stop) = self.container_mut(&container).and_then(|container| container.stop.as_mut()) {
                    stop.stage = StopStage::Signalled;
                    stop.earliest = Some(now + Duration::from_secs(1));
                }
            }
            Happened::Dismantled => self.take_dismantled(),
            Happened::ReferenceChanged => self.forget_waits(now),
            Happened::Removed { gone: true } => self.stage = Stage::Finished,
            Happened::Removed { gone: false } => self.removing = false,
            Happened::Allotted(answer) => self.take_allotted(answer),
            Happened::Resized { container, attempt, result } => self.take_resized(&container, attempt, result, now),
            Happened::Condemned(sentence) => drop(self.condemned.get_or_insert(sentence)),
            Happened::Vanished => self.vanished = true,
        }
    }

    fn take_prepared(&mut self, result: Result<Option<Ipv4Addr>, String>, now: Instant) {
        match result {
            Ok(address) => {
                self.stage = Stage::Ready;
                self.address = address;
                self.trouble = None;
                self.setup = Backoff::short();
            }
            Err(message) => {
                self.stage = Stage::Absent { retry: Some(now + self.setup.wait()) };
                self.trouble = Some(message);
            }
        }
    }

    fn take_fetched(&mut self, name: &str, result: Result<Arc<Image>, (String, String)>, now: Instant) {
        let Some(container) = self.container_mut(name).filter(|container| container.phase == Phase::Fetching) else {
            return;
        };
        match result {
            Ok(image) => {
                container.image = Some(image);
                container.phase = Phase::Fetched;
            }
            Err((reason, message)) => container.hinder(&reason, message, now),
        }
    }

    fn take_started(
        &mut self,
        name: &str,
        result: Result<(i32, Timestamp), StartFailure>,
        now: Instant,
        wall: Timestamp,
    ) {
        let Some(container) = self.container_mut(name).filter(|container| container.phase == Phase::Starting) else {
            return;
        };
        match result {
            Ok((pid, since)) => {
                container.obstacles = Backoff::eager();
                container.phase = Phase::Running { pid, since };
                container.started = !container.awaits_startup;
                container.ready = !container.awaits_readiness;
            }
            Err(StartFailure::Config(message)) => {
                container.runs -= 1;
                container.hinder("CreateContainerConfigError", message, now);
            }
            Err(StartFailure::Create(message)) => {
                container.runs -= 1;
                container.hinder("CreateContainerError", message, now);
            }
            Err(StartFailure::Run(message)) => {
                let run = Ended {
                    attempt: container.attempt(),
                    code: 128,
                    signal: None,
                    reason: "StartError".to_owned(),
                    message: Some(message),
                    started_at: Some(wall),
                    finished_at: Some(wall),
                };
                container.end(run, now);
            }
            Err(StartFailure::Hook { pid, since, grace }) => {
                container.phase = Phase::Running { pid, since };
                container.stop = Some(Stop { stage: StopStage::Signal, ..Stop::by(now + grace) });
            }
        }
    }

    fn take_allotted(&mut self, answer: Result<Allotment, Pending>) {
        match answer {
            Ok(allotment) => {
                self.pending = None;
                for (name, resources) in allotment {
                    if let Some(container) = self.container_mut(&name) {
                        container.allotted = resources;
                    }
                }
            }
            Err(pending) => self.pending = Some(pending),
        }
    }

    fn take_resized(
        &mut self,
        name: &str,
        attempt: u32,
        result: Result<Option<ResourceRequirements>, String>,
        now: Instant,
    ) {
        let Some(container) = self.container_mut(name).filter(|it| it.attempt() == attempt && it.running()) else {
            return;
        };
        container.resizing = match result {
            Ok(given) => {
                container.given = given;
                Resizing::No
            }
            Err(message) => Resizing::Failed { message, until: now + RESIZE_PAUSE },
        };
    }

    fn take_runtime(&mut self, mut exits: BTreeMap<String, Exit>, lost: bool, now: Instant, wall: Timestamp) {
        for container in self.containers.iter_mut().filter(|container| container.running()) {
            if let Some(exit) = exits.remove(&container.run_id()) {
                let run = exit.into_ended(container.attempt());
                container.end(run, now);
            } else if lost {
                let run = unknown_end(container, wall);
                container.end(run, now);
            }
        }
        if lost && self.stage == Stage::Ready {
            self.stage = Stage::Lost;
        }
    }

    fn take_verdict(&mut self, name: &str, attempt: u32, verdict: &Verdict, now: Instant) {
        let Some(container) = self
            .container_mut(name)
            .filter(|container| container.running() && container.attempt() == attempt && container.stop.is_none())
        else {
            return;
        };
        match verdict {
            Verdict::Started => container.started = true,
            Verdict::Ready(ready) => container.ready = *ready,
            Verdict::Unhealthy { grace } => {
                container.stop = Some(Stop::by(now + *grace));
            }
        }
    }

    fn take_hook_done(&mut self, name: &str) {
        if let Some(stop) = self.container_mut(name).and_then(|container| container.stop.as_mut())
            && stop.stage == StopStage::HookRunning
        {
            stop.stage = StopStage::Signal;
        }
    }

    fn take_dismantled(&mut self) {
        self.stage = match self.stage {
            Stage::Dismantling { again: true } => {
                self.address = None;
                self.start_over();
                Stage::Absent { retry: None }
            }
            _ => Stage::Gone,
        };
    }

    /// In a new sandbox, init containers run again, also those that had finished.
    pub(crate) fn start_over(&mut self) {
        let first = |container: &&mut Container| matches!(container.role, Role::Init | Role::Sidecar);
        for container in self.containers.iter_mut().filter(first) {
            container.passed = false;
            if let Phase::Ended { run, .. } = std::mem::replace(&mut container.phase, Phase::Waiting(None)) {
                container.last = Some(run);
            }
        }
    }

    fn forget_waits(&mut self, now: Instant) {
        if let Stage::Absent { retry: Some(retry) } = &mut self.stage {
            *retry = now;
        }
        for container in &mut self.containers {
            if let Phase::Waiting(Some(obstacle)) = &mut container.phase
                && obstacle.reason == "CreateContainerConfigError"
            {
                obstacle.until = now;
            }
        }
    }
}

/// The end of a run of which only its disappearance is known.
pub(crate) fn unknown_end(container: &Container, wall: Timestamp) -> Ended {
    let since = match container.phase {
        Phase::Running { since, .. } => Some(since),
        _ => None,
    };
    Ended {
        attempt: container.attempt(),
        code: 137,
        signal: None,
        reason: "ContainerStatusUnknown".to_owned(),
        message: Some("the container could not be located after its supervisor had ended".to_owned()),
        started_at: since,
        finished_at: Some(wall),
    }
}
