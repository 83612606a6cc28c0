//! The life of a pod on this machine, as stages and one step. Pure: it reads the pod and what was observed, and says what
//! is to be begun now; whoever carries that out reports back through `Observed::take`.
//!
//! ```text
//!            Prepare                 made
//!  Absent ------------> Preparing ----------> Ready ------------.
//!    ^  ^------- failed, retry ----'            |  containers   | all ended, or the object vanished
//!    |                                    supervisor died       |
//!    |                                          v               v
//!    '---- Dismantling{again} <--------------- Lost        Dismantling ----> Gone ---------> Finished
//!                                                                            Remove (deleted), or the object is gone
//! ```
//!
//! In `Ready` each container goes its own way: Waiting -> Fetching -> Fetched -> Starting -> Running -> Ended, and from
//! Ended back to Fetching when its restart is due. Ending one is Hook -> HookRunning -> Signal -> Signalled -> Killed.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use crate::observed::{
    Container, Drain, Ended, Observed, Phase, Resizing, Role, Shutdown, Stage, Stop, StopStage, Why,
};
use crate::resize;

/// The least time between the stop signal and KILL, also after a long preStop hook.
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// What a kubelet gives to pods whose use of the node is beyond bounds.
const EVICTION_GRACE: Duration = Duration::from_secs(1);
/// How long a refused image is shown as refused before it is shown as waiting for the next try.
const SHOWN_AS_ERROR: Duration = Duration::from_secs(2);

/// Something to begin now; the observed state already says that it is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make sandbox, network and volumes.
    Prepare,
    /// Find or pull the image of this container.
    Fetch(String),
    /// Start this container as its newest run.
    Start(String),
    /// Begin the probes of this container's newest run.
    Probe(String),
    /// Give this running container what it is to have.
    Resize(String),
    /// Wait until no new connection comes.
    Drain,
    /// Run the preStop hook.
    Hook(String),
    /// Send the container its stop signal.
    Terminate(String),
    /// Send the container KILL.
    Kill(String),
    /// Take sandbox and network away.
    Dismantle,
    /// Write the final status and remove the object.
    Remove,
}

impl Observed {
    /// What is to be begun now. Calling it again at once returns nothing.
    pub(crate) fn step(&mut self, pod: &Pod, now: Instant, wall: Timestamp) -> Vec<Action> {
        self.decide_shutdown(pod, now, wall);
        let mut actions = Vec::new();
        match self.stage {
            Stage::Absent { .. } if self.shutdown.is_some() => self.stage = Stage::Gone,
            Stage::Absent { retry } if retry.is_none_or(|at| at <= now) => {
                self.stage = Stage::Preparing;
                actions.push(Action::Prepare);
                self.fetch_due(now, &mut actions);
            }
            Stage::Preparing => self.fetch_due(now, &mut actions),
            Stage::Ready => self.step_ready(pod, now, &mut actions),
            Stage::Lost => {
                self.stage = Stage::Dismantling { again: self.shutdown.is_none() };
                actions.push(Action::Dismantle);
            }
            Stage::Absent { .. } | Stage::Dismantling { .. } | Stage::Gone | Stage::Finished => {}
        }
        if self.stage == Stage::Gone {
            self.step_gone(pod, &mut actions);
        }
        actions
    }

    fn step_gone(&mut self, pod: &Pod, actions: &mut Vec<Action>) {
        if self.vanished {
            self.stage = Stage::Finished;
        } else if pod.metadata.deletion_timestamp.is_some() && !self.removing {
            self.removing = true;
            actions.push(Action::Remove);
        }
    }

    fn decide_shutdown(&mut self, pod: &Pod, now: Instant, wall: Timestamp) {
        let why = if self.vanished {
            Why::Vanished
        } else if pod.metadata.deletion_timestamp.is_some() {
            Why::Deleted
        } else if self.condemned.is_some() {
            Why::Condemned
        } else if overdue(pod, self.start_time, wall) {
            Why::Deadline
        } else if self.complete() {
            Why::Complete
        } else {
            return;
        };
        match &mut self.shutdown {
            // A stronger reason may follow a weaker one: completed, then deleted, then gone.
            Some(shutdown) if shutdown.why != why => {
                if why == Why::Vanished || why == Why::Deleted {
                    shutdown.why = why;
                }
            }
            Some(_) => {}
            None => {
                let drain = if why == Why::Deleted && self.serves(pod) { Drain::Due } else { Drain::Done };
                self.shutdown = Some(Shutdown { why, drain, since: now });
            }
        }
    }

    /// Whether other pods may hold connections to it that the network has to lead away first.
    fn serves(&self, pod: &Pod) -> bool {
        let host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        !host && self.address.is_some() && self.containers.iter().any(Container::running)
    }

    /// Whether the pod's containers have come to their end.
    pub(crate) fn complete(&self) -> bool {
        let failed_init =
            self.of_role(Role::Init).any(|container| container.finished().is_some_and(|run| !run.succeeded()));
        let mut main = self.of_role(Role::Main).peekable();
        failed_init || (main.peek().is_some() && main.all(|container| container.finished().is_some()))
    }

    fn step_ready(&mut self, pod: &Pod, now: Instant, actions: &mut Vec<Action>) {
        if let Some(shutdown) = self.shutdown {
            self.step_shutdown(pod, shutdown, now, actions);
        } else {
            self.fetch_due(now, actions);
            self.start_due(actions);
            self.probe_due(actions);
            self.resize_due(pod, now, actions);
        }
        for container in &mut self.containers {
            if let Some(action) = container.step_stop(pod, now) {
                actions.push(action);
            }
        }
    }

    /// The containers whose turn it is: init containers one after the other, then all the others together; those that were
    /// added wait for nobody.
    fn due(&mut self) -> impl Iterator<Item = &mut Container> {
        for container in &mut self.containers {
            container.passed |= container.role == Role::Sidecar && container.running() && container.started;
        }
        let blocker = self.containers.iter().position(|container| !Self::lets_pass(container));
        let turn = blocker.map_or(self.containers.len(), |at| at + 1);
        let in_turn = move |(at, container): &(usize, &mut Container)| *at < turn || container.role == Role::Ephemeral;
        self.containers.iter_mut().enumerate().filter(in_turn).map(|(_, container)| container)
    }

    fn fetch_due(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for container in self.due() {
            let due = match &container.phase {
                Phase::Waiting(None) => true,
                Phase::Waiting(Some(obstacle)) => obstacle.until <= now,
                Phase::Ended { restart: Some(at), .. } => *at <= now,
                _ => false,
            };
            if due {
                if let Phase::Ended { run, .. } = std::mem::replace(&mut container.phase, Phase::Fetching) {
                    container.last = Some(run);
                }
                actions.push(Action::Fetch(container.name.clone()));
            }
        }
    }

    fn start_due(&mut self, actions: &mut Vec<Action>) {
        for container in self.due().filter(|container| container.phase == Phase::Fetched) {
            container.phase = Phase::Starting;
            container.given.clone_from(&container.allotted);
            container.runs += 1;
            actions.push(Action::Start(container.name.clone()));
        }
    }

    fn probe_due(&mut self, actions: &mut Vec<Action>) {
        for container in self.containers.iter_mut().filter(|container| container.running() && !container.probed) {
            container.probed = true;
            actions.push(Action::Probe(container.name.clone()));
        }
    }

    fn resize_due(&mut self, pod: &Pod, now: Instant, actions: &mut Vec<Action>) {
        for container in self.containers.iter_mut().filter(|container| container.may_resize(now)) {
            let spec = crate::pod::container(pod, &container.name);
            let anew =
                spec.is_some_and(|spec| resize::restarts(spec, container.given.as_ref(), container.allotted.as_ref()));
            if anew {
                container.resizing = Resizing::Restarting;
                container.stop = Some(Stop::by(now + grace(pod)));
            } else {
                container.resizing = Resizing::Running;
                actions.push(Action::Resize(container.name.clone()));
            }
        }
    }

    fn step_shutdown(&mut self, pod: &Pod, shutdown: Shutdown, now: Instant, actions: &mut Vec<Action>) {
        let alive = self.containers.iter().any(Container::alive);
        // A start that hangs, in its postStart hook say, cannot be signalled; past the deadline the sandbox ends it.
        let deadline = shutdown.since + shutdown_grace(pod, shutdown.why);
        let overdue =
            deadline <= now && self.containers.iter().any(|container| container.alive() && !container.running());
        if shutdown.why == Why::Vanished || !alive || overdue {
            self.stage = Stage::Dismantling { again: false };
            actions.push(Action::Dismantle);
            return;
        }
        if shutdown.drain == Drain::Due {
            self.shutdown = Some(Shutdown { drain: Drain::Waiting, ..shutdown });
            actions.push(Action::Drain);
        }
        if shutdown.drain == Drain::Done {
            self.stop_containers(deadline, now);
        }
    }

    /// Containers proper end first, then the sidecars, the last one first; past the deadline all at once.
    fn stop_containers(&mut self, deadline: Instant, now: Instant) {
        let main_alive = self.containers.iter().any(|container| container.role != Role::Sidecar && container.alive());
        let last_sidecar =
            self.containers.iter().rposition(|container| container.role == Role::Sidecar && container.alive());
        for (at, container) in self.containers.iter_mut().enumerate().filter(|(_, container)| container.running()) {
            let turn = match container.role {
                Role::Sidecar => !main_alive && last_sidecar == Some(at),
                Role::Init | Role::Main | Role::Ephemeral => true,
            };
            if turn || deadline <= now {
                let stop = container.stop.get_or_insert(Stop::by(deadline));
                stop.deadline = stop.deadline.min(deadline);
            }
        }
    }

    /// When `step` may have something new to say without anything having happened.
    pub(crate) fn wake_at(&self, pod: &Pod, now: Instant, wall: Timestamp) -> Option<Instant> {
        let mut at: Vec<Instant> = Vec::new();
        if let Stage::Absent { retry: Some(retry) } = self.stage {
            at.push(retry);
        }
        if matches!(self.stage, Stage::Absent { .. } | Stage::Preparing | Stage::Ready) {
            at.extend(self.containers.iter().flat_map(|container| container.wake_at(now)));
            at.extend(time_left(pod, self.start_time, wall).map(|left| now + left));
            let draining = self.shutdown.filter(|shutdown| shutdown.drain == Drain::Done);
            at.extend(draining.map(|shutdown| shutdown.since + shutdown_grace(pod, shutdown.why)));
        }
        at.into_iter().filter(|at| *at > now).min()
    }
}

impl Container {
    /// Whether it runs with something else than it is to have, and nothing is done about that yet.
    fn may_resize(&self, now: Instant) -> bool {
        let idle = match &self.resizing {
            Resizing::No => true,
            Resizing::Failed { until, .. } => *until <= now,
            Resizing::Running | Resizing::Restarting => false,
        };
        idle && self.running() && self.stop.is_none() && self.is_misfit()
    }

    /// Whether it runs with something else than it is to have.
    pub(crate) fn is_misfit(&self) -> bool {
        self.running() && !resize::same(self.given.as_ref(), self.allotted.as_ref())
    }

    fn step_stop(&mut self, pod: &Pod, now: Instant) -> Option<Action> {
        if !self.running() {
            return None;
        }
        let name = self.name.clone();
        let stop = self.stop.as_mut()?;
        let force = stop.kill_at() <= now;
        match stop.stage {
            StopStage::Killed => None,
            _ if force => {
                stop.stage = StopStage::Killed;
                Some(Action::Kill(name))
            }
            StopStage::Hook if has_hook(pod, &name) => {
                stop.stage = StopStage::HookRunning;
                Some(Action::Hook(name))
            }
            StopStage::Signal => {
                stop.earliest = Some(now + LEAST_GRACE);
                stop.stage = StopStage::Signalled;
                Some(Action::Terminate(name))
            }
            StopStage::Hook => {
                stop.stage = StopStage::Signalled;
                Some(Action::Terminate(name))
            }
            StopStage::HookRunning | StopStage::Signalled => None,
        }
    }

    fn wake_at(&self, now: Instant) -> impl Iterator<Item = Instant> {
        let due = match &self.phase {
            Phase::Waiting(Some(obstacle)) if now < obstacle.since + SHOWN_AS_ERROR => {
                Some(obstacle.since + SHOWN_AS_ERROR)
            }
            Phase::Waiting(Some(obstacle)) => Some(obstacle.until),
            Phase::Ended { restart, .. } => *restart,
            _ => None,
        };
        let again = match &self.resizing {
            Resizing::Failed { until, .. } => Some(*until),
            _ => None,
        };
        due.into_iter()
            .chain(again)
            .chain(self.stop.filter(|stop| stop.stage != StopStage::Killed).map(|stop| stop.kill_at()))
    }

    /// The reason to show for what holds this container: an image error becomes a back-off after a moment.
    pub(crate) fn shown_obstacle(&self, now: Instant) -> Option<(&str, &str)> {
        let Phase::Waiting(Some(obstacle)) = &self.phase else { return None };
        let reason = match obstacle.reason.as_str() {
            "ErrImagePull" if now >= obstacle.since + SHOWN_AS_ERROR => "ImagePullBackOff",
            other => other,
        };
        Some((reason, &obstacle.message))
    }

    /// The run whose end keeps this container waiting for its next one.
    pub(crate) fn crash(&self, now: Instant) -> Option<(&Ended, Duration)> {
        match &self.phase {
            Phase::Ended { run, restart: Some(at), wait } if *at > now => Some((run, *wait)),
            _ => None,
        }
    }
}

/// The time that the pod's containers get to end.
pub(crate) fn grace(pod: &Pod) -> Duration {
    let asked = pod
        .metadata
        .deletion_grace_period_seconds
        .or_else(|| pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds));
    asked.map_or(Duration::from_secs(30), seconds)
}

/// The time for the reason of the pod's end: one that the node wants gone gets little.
fn shutdown_grace(pod: &Pod, why: Why) -> Duration {
    if why == Why::Condemned { EVICTION_GRACE } else { grace(pod) }
}

/// A time that an object asks for. Bounded, so that adding it to the time now cannot overflow.
pub(crate) fn seconds(asked: i64) -> Duration {
    Duration::from_secs(asked.clamp(0, i64::from(u32::MAX)).unsigned_abs())
}

fn has_hook(pod: &Pod, name: &str) -> bool {
    crate::pod::container(pod, name)
        .and_then(|spec| spec.lifecycle.as_ref())
        .is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
}

fn time_left(pod: &Pod, start: Timestamp, wall: Timestamp) -> Option<Duration> {
    let allowed = pod.spec.as_ref()?.active_deadline_seconds?;
    let passed = wall.duration_since(start).as_millis();
    let left = i128::from(allowed) * 1000 - passed;
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

fn overdue(pod: &Pod, start: Timestamp, wall: Timestamp) -> bool {
    time_left(pod, start, wall).is_some_and(|left| left.is_zero())
}

#[cfg(test)]
mod tests;
