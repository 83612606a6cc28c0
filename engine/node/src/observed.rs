//! What the node knows of one pod on this machine: plain data, changed only by `take` (something happened) and by
//! `lifecycle::step` (something is begun). No task, socket or process handle lives here.

mod happened;
mod restart;
mod take;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self, Pod, PodStatus, ResourceRequirements};
use tokio::time::Instant;

use crate::admit::Sentence;
use crate::backoff::Backoff;
use crate::image::Image;
use crate::pod;
use crate::resize::Pending;

pub(crate) use happened::{Exit, Happened, StartFailure, Verdict};
pub(crate) use restart::{ExitRule, Restart};
pub(crate) use take::unknown_end;

/// Where the pod as a whole stands. `lifecycle` documents the ways between the stages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stage {
    /// Nothing of it is on this machine; it is set up when `retry` has passed.
    Absent {
        /// Set after a failed try.
        retry: Option<Instant>,
    },
    /// Its sandbox, network and volumes are being made.
    Preparing,
    /// Containers may run.
    Ready,
    /// Its supervisor died with every container; what is left must be cleared before it is set up again.
    Lost,
    /// Sandbox and network are being taken away; `again` says that it will be set up afresh.
    Dismantling {
        /// Whether `Absent` follows instead of `Gone`.
        again: bool,
    },
    /// Nothing is left and nothing will be started; only the object remains.
    Gone,
    /// The object is gone too (or never was ours to remove): the pod's task ends.
    Finished,
}

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to completion before the next one starts.
    Init,
    /// An init container that keeps running (restartPolicy Always).
    Sidecar,
    /// One of the pod's containers proper.
    Main,
    /// Added to the pod while it runs, to look at the others; runs once, and the pod's state does not depend on it.
    Ephemeral,
}

/// A run that is over.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ended {
    pub(crate) attempt: u32,
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
}

impl Ended {
    pub(crate) fn succeeded(&self) -> bool {
        self.code == 0
    }

    fn ran(&self) -> Duration {
        match (self.started_at, self.finished_at) {
            (Some(from), Some(to)) => Duration::try_from(to.duration_since(from)).unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}

/// Why a container does not run although it should.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Obstacle {
    /// The status' word: `ErrImagePull`, `CreateContainerConfigError` ...
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) since: Instant,
    /// The next try.
    pub(crate) until: Instant,
}

/// Where one container stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    /// Its turn has not come, or an obstacle holds it.
    Waiting(Option<Obstacle>),
    /// Its image is looked up or pulled.
    Fetching,
    /// Its image is at hand.
    Fetched,
    /// It is being made.
    Starting,
    /// It runs.
    Running {
        /// Its first process, as this machine numbers it.
        pid: i32,
        /// Since when.
        since: Timestamp,
    },
    /// It ended; it is started again at `restart`, or never.
    Ended {
        /// The run.
        run: Ended,
        /// When the next run is due.
        restart: Option<Instant>,
        /// How long the wait was, for the message; zero when none.
        wait: Duration,
    },
}

/// How far the ending of a running container has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopStage {
    /// Its preStop hook comes first.
    Hook,
    /// The hook runs.
    HookRunning,
    /// The stop signal is due.
    Signal,
    /// The stop signal was sent.
    Signalled,
    /// KILL was sent.
    Killed,
}

/// A running container that is to end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stop {
    pub(crate) stage: StopStage,
    /// When KILL is due; a change of the pod's grace moves it.
    pub(crate) deadline: Instant,
    /// Before this no KILL is sent whatever the deadline says.
    pub(crate) earliest: Option<Instant>,
}

impl Stop {
    /// An ending that begins with the hook.
    pub(crate) fn by(deadline: Instant) -> Self {
        Self { stage: StopStage::Hook, deadline, earliest: None }
    }

    /// When KILL is sent.
    pub(crate) fn kill_at(&self) -> Instant {
        self.earliest.map_or(self.deadline, |earliest| self.deadline.max(earliest))
    }
}

/// How far a change of what a running container is given has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Resizing {
    #[default]
    No,
    /// The kernel is told.
    Running,
    /// It is ended, and begun anew with what it is to have.
    Restarting,
    /// The kernel refused; it is told again later.
    Failed { message: String, until: Instant },
}

/// One container of the pod.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) restart: Restart,
    pub(crate) rules: Vec<ExitRule>,
    pub(crate) phase: Phase,
    /// How many runs were begun, over the whole life of the pod.
    pub(crate) runs: u32,
    /// The run before the present one.
    pub(crate) last: Option<Ended>,
    pub(crate) image: Option<Arc<Image>>,
    pub(crate) backoff: Backoff,
    pub(crate) obstacles: Backoff,
    pub(crate) stop: Option<Stop>,
    /// Whether its probes were begun for the present run.
    pub(crate) probed: bool,
    /// Its startup probe has passed (or there is none).
    pub(crate) started: bool,
    /// Its readiness probe passes (or there is none).
    pub(crate) ready: bool,
    /// Whether a startup probe has to pass first.
    pub(crate) awaits_startup: bool,
    /// Whether a readiness probe, or the discovery of its ports, has to pass first.
    pub(crate) awaits_readiness: bool,
    /// A sidecar that has let the containers after it start.
    pub(crate) passed: bool,
    /// What it is to have of the node.
    pub(crate) allotted: Option<ResourceRequirements>,
    /// What its present run was given.
    pub(crate) given: Option<ResourceRequirements>,
    pub(crate) resizing: Resizing,
}

impl Container {
    fn new(spec: &v1::Container, role: Role, pod_policy: Restart, discovers: bool) -> Self {
        let own = spec.restart_policy.as_deref().map_or(pod_policy, |word| Restart::parse(Some(word)));
        let restart = match role {
            Role::Sidecar => Restart::Always,
            Role::Init if own == Restart::Always => Restart::OnFailure,
            Role::Ephemeral => Restart::Never,
            Role::Init | Role::Main => own,
        };
        Self {
            name: spec.name.clone(),
            role,
            restart,
            rules: ExitRule::all_of(spec),
            phase: Phase::Waiting(None),
            runs: 0,
            last: None,
            image: None,
            backoff: Backoff::default(),
            obstacles: Backoff::eager(),
            stop: None,
            probed: false,
            started: false,
            ready: false,
            awaits_startup: spec.startup_probe.is_some(),
            awaits_readiness: spec.readiness_probe.is_some() || (discovers && role == Role::Main),
            passed: false,
            allotted: spec.resources.clone(),
            given: None,
            resizing: Resizing::No,
        }
    }

    /// The number of the newest run that was begun; what `restartCount` says.
    pub(crate) fn attempt(&self) -> u32 {
        self.runs.saturating_sub(1)
    }

    /// The runtime's name of the newest run.
    pub(crate) fn run_id(&self) -> String {
        run_id(&self.name, self.attempt())
    }

    pub(crate) fn running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// Whether a process of it is there or about to be.
    pub(crate) fn alive(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Starting)
    }

    /// Whether it serves: running, started and passing its readiness probe.
    pub(crate) fn is_ready(&self) -> bool {
        self.running() && self.started && self.ready
    }

    /// Whether it ended and will not be started again.
    pub(crate) fn finished(&self) -> Option<&Ended> {
        match &self.phase {
            Phase::Ended { run, restart: None, .. } => Some(run),
            _ => None,
        }
    }

    /// Records the end of the present run and decides whether and when the next one is due.
    pub(crate) fn end(&mut self, run: Ended, now: Instant) {
        self.stop = None;
        self.started = false;
        self.ready = false;
        self.probed = false;
        let resized = std::mem::take(&mut self.resizing) == Resizing::Restarting;
        let wanted = self.rules.iter().any(|rule| rule.matches(run.code)) || self.restart.wants(run.code);
        let (restart, wait) = if resized {
            (Some(now), Duration::ZERO)
        } else if wanted && !(self.role == Role::Init && run.succeeded()) {
            let wait = self.backoff.wait_after_run(run.ran());
            (Some(now + wait), wait)
        } else {
            (None, Duration::ZERO)
        };
        self.phase = Phase::Ended { run, restart, wait };
    }

    /// Records that it cannot be begun for now.
    pub(crate) fn hinder(&mut self, reason: &str, message: String, now: Instant) {
        let until = now + self.obstacles.wait();
        self.phase = Phase::Waiting(Some(Obstacle { reason: reason.to_owned(), message, since: now, until }));
    }
}

/// The runtime's name of one run of a container.
pub(crate) fn run_id(name: &str, attempt: u32) -> String {
    format!("{name}-{attempt}")
}

/// Why the pod is being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its object carries a deletion timestamp.
    Deleted,
    /// Its object is gone: a forced deletion.
    Vanished,
    /// Its containers did what they were to do (or an init container failed for good).
    Complete,
    /// It was active for longer than it may be.
    Deadline,
    /// The node does not run it, or no longer.
    Condemned,
}

/// How far a deleted pod's clients have been sent elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// Not asked yet.
    Due,
    /// The network is being waited for.
    Waiting,
    /// No new connection will come.
    Done,
}

/// The ending of the whole pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shutdown {
    pub(crate) why: Why,
    pub(crate) drain: Drain,
    /// Counted from the end of the drain.
    pub(crate) since: Instant,
}

/// One pod on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) stage: Stage,
    /// Init containers and sidecars in their order, then the containers proper, then those that were added.
    pub(crate) containers: Vec<Container>,
    pub(crate) shutdown: Option<Shutdown>,
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) start_time: Timestamp,
    pub(crate) setup: Backoff,
    /// Why the last try to prepare the sandbox failed.
    pub(crate) trouble: Option<String>,
    /// The object is gone from the API.
    pub(crate) vanished: bool,
    /// The final status was written and the object's removal asked for.
    pub(crate) removing: bool,
    /// Why it is not given yet what it asks for.
    pub(crate) pending: Option<Pending>,
    /// Why the node does not run it, or no longer.
    pub(crate) condemned: Option<Sentence>,
    /// The status of a pod that was over when the engine started; nothing more happens to it.
    pub(crate) settled: Option<Box<PodStatus>>,
}

impl Observed {
    /// A pod of which nothing is on this machine yet.
    pub(crate) fn fresh(pod: &Pod, now: Timestamp) -> Self {
        let spec = pod.spec.as_ref();
        let policy = Restart::parse(spec.and_then(|spec| spec.restart_policy.as_deref()));
        let discovers = crate::ports::wanted(pod);
        let mut containers = Vec::new();
        for spec in spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten() {
            let sidecar = spec.restart_policy.as_deref() == Some("Always");
            containers.push(Container::new(spec, if sidecar { Role::Sidecar } else { Role::Init }, policy, false));
        }
        for spec in spec.map(|spec| spec.containers.as_slice()).unwrap_or_default() {
            containers.push(Container::new(spec, Role::Main, policy, discovers));
        }
        let since = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let mut fresh = Self {
            stage: Stage::Absent { retry: None },
            containers,
            shutdown: None,
            address: None,
            start_time: since.unwrap_or(now),
            setup: Backoff::short(),
            trouble: None,
            vanished: false,
            removing: false,
            pending: None,
            condemned: None,
            settled: None,
        };
        fresh.add_ephemeral(pod);
        fresh
    }

    /// Takes note of containers that were added to the pod.
    pub(crate) fn add_ephemeral(&mut self, pod: &Pod) {
        for added in pod::ephemerals(pod) {
            let known = self.container(&added.name).is_some();
            if let Some(spec) = pod::any_container(pod, &added.name).filter(|_| !known) {
                self.containers.push(Container::new(&spec, Role::Ephemeral, Restart::Never, false));
            }
        }
    }

    pub(crate) fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    pub(crate) fn container_mut(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|container| container.name == name)
    }

    pub(crate) fn of_role(&self, role: Role) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(move |container| container.role == role)
    }

    /// Whether every init container has done its part, so that the containers proper may start.
    pub(crate) fn initialized(&self) -> bool {
        self.containers.iter().all(Self::lets_pass)
    }

    /// Whether the containers after this one may start as far as this one is concerned.
    pub(crate) fn lets_pass(container: &Container) -> bool {
        match container.role {
            Role::Init => container.finished().is_some_and(Ended::succeeded),
            Role::Sidecar => container.passed || (container.running() && container.started),
            Role::Main | Role::Ephemeral => true,
        }
    }
}
