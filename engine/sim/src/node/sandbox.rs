//! One pod on a machine: its containers as a state machine over virtual time. Pure but for the wall clock, which marks when
//! something happened.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod, PodStatus};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::plan::Plan;

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Init,
    Sidecar,
    Main,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub(super) struct Exit {
    pub(super) code: i32,
    pub(super) began: Timestamp,
    pub(super) ended: Timestamp,
}

#[derive(Clone, Debug)]
pub(super) enum Now {
    /// Not started yet.
    Waiting,
    /// To be started again then.
    BackOff(Instant),
    Running {
        since: Instant,
        wall: Timestamp,
        ends: Option<(Instant, i32)>,
    },
    Ended(Exit),
}

#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) role: Role,
    pub(super) restarts: u32,
    pub(super) now: Now,
    pub(super) last: Option<Exit>,
    backoff: Backoff,
}

/// Why all containers are being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The object is being deleted, or is gone.
    Deleted,
    /// `activeDeadlineSeconds` has passed.
    Deadline,
}

#[derive(Clone, Debug)]
pub(super) struct Sandbox {
    pub(super) pod: Arc<Pod>,
    pub(super) address: Ipv4Addr,
    /// When the first container may start.
    starts: Instant,
    pub(super) started: Timestamp,
    began: Instant,
    pub(super) containers: Vec<Container>,
    /// How many pods of the same owner were started before.
    attempt: u32,
    pub(super) ending: Option<Why>,
    /// What the API was told last.
    pub(super) published: Option<PodStatus>,
}

impl Sandbox {
    /// A pod whose first container may start after `start`.
    pub(super) fn new(pod: Arc<Pod>, address: Ipv4Addr, attempt: u32, start: Duration) -> Self {
        let now = Instant::now();
        let spec = pod.spec.clone().unwrap_or_default();
        let main = spec.containers.iter().map(|it| Container::new(it, Role::Main));
        let containers = spec.init_containers.iter().flatten().map(|it| Container::new(it, init_role(it))).chain(main);
        let containers = containers.collect();
        let started = Timestamp::now();
        let (starts, began) = (now + start, now);
        Self { pod, address, starts, started, began, containers, attempt, ending: None, published: None }
    }

    fn restarts(&self, role: Role, code: i32) -> bool {
        let policy = self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
        match (role, policy) {
            _ if self.ending.is_some() => false,
            (Role::Sidecar, _) => !self.is_finished(),
            (Role::Init, "Always") | (_, "OnFailure") => code != 0,
            (Role::Main, "Always") => true,
            _ => false,
        }
    }

    /// Whether a container runs.
    pub(super) fn runs(&self) -> bool {
        self.containers.iter().any(|it| matches!(it.now, Now::Running { .. }))
    }

    /// Whether a container runs, also when nobody has looked since it ended.
    pub(super) fn runs_at(&self, now: Instant) -> bool {
        let runs = |it: &Container| matches!(it.now, Now::Running { ends, .. } if ends.is_none_or(|(at, _)| at > now));
        self.containers.iter().any(runs)
    }

    /// When the last container ends that runs, where that is certain.
    pub(super) fn ends(&self) -> Option<Instant> {
        let ends = self.containers.iter().filter_map(|it| match it.now {
            Now::Running { ends, .. } => Some(ends.map(|(at, _)| at)),
            _ => None,
        });
        ends.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    fn ended(container: &Container) -> Option<i32> {
        if let Now::Ended(exit) = &container.now { Some(exit.code) } else { None }
    }

    /// Whether an init container has failed for good.
    fn is_hopeless(&self) -> bool {
        self.containers.iter().any(|it| it.role == Role::Init && Self::ended(it).is_some_and(|code| code != 0))
    }

    /// Whether nothing will run any more, sidecars aside.
    pub(super) fn is_finished(&self) -> bool {
        if self.ending.is_some() {
            return !self.runs();
        }
        self.is_hopeless()
            || self.containers.iter().filter(|it| it.role == Role::Main).all(|it| Self::ended(it).is_some())
    }

    /// Does what is due. Returns when something is due next.
    pub(super) fn step(&mut self, now: Instant) -> Option<Instant> {
        self.expire(now);
        self.end_runs(now);
        if self.ending.is_none() && self.is_finished() {
            self.containers.iter_mut().filter(|it| it.role == Role::Sidecar).for_each(|it| it.end(0));
        }
        if self.ending.is_none() && !self.is_hopeless() {
            self.start_runs(now);
        }
        self.next(now)
    }

    /// Ends everything, each container in its own time but not later than after `grace`. Asked again, it may be sooner.
    pub(super) fn end_all(&mut self, why: Why, grace: Duration, now: Instant) {
        self.ending.get_or_insert(why);
        let pod = self.pod.clone();
        for container in &mut self.containers {
            let (takes, code) = Plan(&pod).end(&container.name);
            let (takes, code) = if takes > grace { (grace, 137) } else { (takes, code) };
            match &mut container.now {
                Now::Running { ends, .. } if ends.is_none_or(|(at, _)| at > now + takes) => {
                    *ends = Some((now + takes, code));
                }
                Now::BackOff(_) => container.now = container.last.clone().map_or(Now::Waiting, Now::Ended),
                _ => {}
            }
        }
        self.end_runs(now);
    }

    /// All containers die at this moment.
    pub(super) fn kill(&mut self) {
        self.containers.iter_mut().for_each(|it| it.end(137));
        self.end_runs(Instant::now());
    }

    fn expire(&mut self, now: Instant) {
        if self.ending.is_none() && self.deadline().is_some_and(|at| at <= now) && !self.is_finished() {
            let grace = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
            self.end_all(Why::Deadline, Duration::from_secs(grace.try_into().unwrap_or(0)), now);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        Some(self.began + Duration::from_secs(seconds.try_into().ok()?))
    }

    fn end_runs(&mut self, now: Instant) {
        for at in 0..self.containers.len() {
            let Now::Running { ends: Some((when, code)), .. } = self.containers[at].now else { continue };
            if when <= now {
                self.containers[at].end(code);
            }
            self.back_off(at, now);
        }
        // Also those that a power cut ended.
        (0..self.containers.len()).for_each(|at| self.back_off(at, now));
    }

    /// Has a container that ended wait for its next run, if there is to be one.
    fn back_off(&mut self, at: usize, now: Instant) {
        let Now::Ended(exit) = self.containers[at].now.clone() else { return };
        if !self.restarts(self.containers[at].role, exit.code) {
            return;
        }
        let ran = exit.ended.duration_since(exit.began).try_into().unwrap_or_default();
        let container = &mut self.containers[at];
        container.now = Now::BackOff(now + container.backoff.after(ran));
        container.last = Some(exit);
    }

    /// Starts what may run: init containers one after another, then all others.
    fn start_runs(&mut self, now: Instant) {
        let pod = self.pod.clone();
        let plan = Plan(&pod);
        if now < self.starts || plan.waiting().is_some() {
            return;
        }
        for container in &mut self.containers {
            let due = match container.now {
                Now::Waiting => true,
                Now::BackOff(at) => at <= now,
                _ => false,
            };
            if due {
                container.start(&plan, self.attempt, now);
            }
            if container.role == Role::Init && Self::ended(container).is_none() {
                return;
            }
        }
    }

    /// When the next thing is due.
    fn next(&self, now: Instant) -> Option<Instant> {
        let plan = Plan(&self.pod);
        let own = self.containers.iter().flat_map(|it| match it.now {
            Now::BackOff(at) => [Some(at), None],
            Now::Running { since, ends, .. } => {
                [ends.map(|(at, _)| at), plan.ready_after(&it.name).map(|after| since + after)]
            }
            _ => [None, None],
        });
        let deadline = self.deadline().filter(|_| self.ending.is_none() && !self.is_finished());
        let others = [Some(self.starts), deadline];
        own.chain(others).flatten().filter(|at| *at > now).min()
    }
}

fn init_role(container: &Spec) -> Role {
    if container.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init }
}

impl Container {
    fn new(spec: &Spec, role: Role) -> Self {
        Self {
            name: spec.name.clone(),
            image: spec.image.clone().unwrap_or_default(),
            role,
            restarts: 0,
            now: Now::Waiting,
            last: None,
            backoff: Backoff::default(),
        }
    }

    fn start(&mut self, plan: &Plan<'_>, attempt: u32, now: Instant) {
        if matches!(self.now, Now::BackOff(_)) {
            self.restarts += 1;
        }
        let run = match self.role {
            Role::Init => Some(plan.init_run(&self.name)),
            Role::Sidecar => None,
            Role::Main => plan.run(&self.name, attempt + self.restarts),
        };
        let ends = run.map(|(after, code)| (now + after, code));
        self.now = Now::Running { since: now, wall: Timestamp::now(), ends };
    }

    fn end(&mut self, code: i32) {
        if let Now::Running { wall, .. } = self.now {
            self.now = Now::Ended(Exit { code, began: wall, ended: Timestamp::now() });
        }
    }

    /// Whether it counts as ready.
    pub(super) fn is_ready(&self, plan: &Plan<'_>, now: Instant) -> bool {
        match self.now {
            Now::Running { since, .. } => plan.ready_after(&self.name).is_some_and(|after| since + after <= now),
            Now::Ended(Exit { code: 0, .. }) => self.role == Role::Init,
            _ => false,
        }
    }
}
