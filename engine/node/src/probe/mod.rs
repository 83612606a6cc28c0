//! Probes of a running container: startup first, then liveness and readiness side by side, each on its own clock.
//!
//! A prober tells only what changed (`Verdict`) and every failure in words; thresholds are counted in `tally`.

mod check;
mod grpc;
mod http;
mod tally;
mod tls;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::mpsc;
use tokio::time::Instant;

use check::{Check, Outcome};
pub(crate) use check::{Target, hook};
use tally::{Limits, Tally};

use crate::machine::Sandbox;
use crate::observed::Verdict;

/// Until it is ready for the first time, readiness is asked for at these growing pauses, but never less often than the
/// probe's period says.
const EAGER_PAUSE: Duration = Duration::from_millis(25);

/// What a prober tells, beside its verdicts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Report {
    Verdict(Verdict),
    /// An event's message.
    Failed(String),
}

/// The probes of one run of a container.
pub(crate) struct Prober<S> {
    pub(crate) target: Target<S>,
    pub(crate) container: Container,
    /// When the run began.
    pub(crate) since: Timestamp,
    /// What was known already, when the engine took over a container that runs.
    pub(crate) started: bool,
    pub(crate) ready: bool,
    /// How long the container may take to end, where the probe says nothing.
    pub(crate) grace: Duration,
}

impl<S: Sandbox> Prober<S> {
    /// Probes until the container is given up; dropped when it ends by itself.
    pub(crate) async fn run(self, report: mpsc::Sender<Report>) {
        if let Some(probe) = self.container.startup_probe.as_ref().filter(|_| !self.started)
            && !self.pass_startup(probe, &report).await
        {
            return;
        }
        let readiness = async {
            match &self.container.readiness_probe {
                Some(probe) => self.readiness(probe, &report).await,
                None => std::future::pending().await,
            }
        };
        let liveness = async {
            match &self.container.liveness_probe {
                Some(probe) => self.liveness(probe, &report).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = liveness => {}
            () = readiness => {}
        }
    }

    /// Whether any probe is set at all.
    pub(crate) fn is_needed(container: &Container) -> bool {
        container.startup_probe.is_some() || container.readiness_probe.is_some() || container.liveness_probe.is_some()
    }

    async fn pass_startup(&self, probe: &Probe, report: &mpsc::Sender<Report>) -> bool {
        let check = Check::of(probe, &self.container);
        let mut tally = Tally::new(Limits::of(probe), false);
        let mut clock = self.clock(probe).await;
        loop {
            clock.tick().await;
            let outcome = self.ask(&check, probe).await;
            tell(report, "Startup", &outcome).await;
            if tally.count(outcome.is_ok()) == Some(true) {
                say(report, Report::Verdict(Verdict::Started)).await;
                return true;
            }
            if tally.failed() {
                say(report, Report::Verdict(Verdict::Unhealthy { grace: self.grace_of(probe) })).await;
                return false;
            }
        }
    }

    async fn liveness(&self, probe: &Probe, report: &mpsc::Sender<Report>) {
        let check = Check::of(probe, &self.container);
        let mut tally = Tally::new(Limits::of(probe), true);
        let mut clock = self.clock(probe).await;
        loop {
            clock.tick().await;
            let outcome = self.ask(&check, probe).await;
            tell(report, "Liveness", &outcome).await;
            if tally.count(outcome.is_ok()) == Some(false) {
                return say(report, Report::Verdict(Verdict::Unhealthy { grace: self.grace_of(probe) })).await;
            }
        }
    }

    async fn readiness(&self, probe: &Probe, report: &mpsc::Sender<Report>) {
        let check = Check::of(probe, &self.container);
        let mut tally = Tally::new(Limits::of(probe), self.ready);
        let mut clock = self.clock(probe).await;
        let mut eager = (!self.ready).then_some(EAGER_PAUSE);
        let mut told = None;
        loop {
            match eager {
                Some(pause) if pause < clock.period() => tokio::time::sleep(pause).await,
                _ => drop(clock.tick().await),
            }
            let outcome = self.ask(&check, probe).await;
            if told.is_none_or(|at: Instant| at.elapsed() >= clock.period()) && outcome.is_err() {
                tell(report, "Readiness", &outcome).await;
                told = Some(Instant::now());
            }
            if let Some(ready) = tally.count(outcome.is_ok()) {
                say(report, Report::Verdict(Verdict::Ready(ready))).await;
            }
            let passed = outcome.is_ok();
            eager = eager.filter(|_| !passed).map(|pause| pause * 2);
            if passed {
                clock.reset();
            }
        }
    }

    async fn ask(&self, check: &Result<Check, String>, probe: &Probe) -> Outcome {
        let check = check.as_ref().map_err(Clone::clone)?;
        self.target.ask(check, seconds(probe.timeout_seconds, 1)).await
    }

    /// Ticks at once when the initial delay has passed, then with every period.
    async fn clock(&self, probe: &Probe) -> tokio::time::Interval {
        let delay = Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0));
        let ran = Duration::try_from(Timestamp::now().duration_since(self.since)).unwrap_or_default();
        tokio::time::sleep(delay.saturating_sub(ran)).await;
        let mut clock = tokio::time::interval(seconds(probe.period_seconds, 10));
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        clock
    }

    fn grace_of(&self, probe: &Probe) -> Duration {
        probe.termination_grace_period_seconds.map_or(self.grace, crate::lifecycle::seconds)
    }
}

async fn tell(report: &mpsc::Sender<Report>, kind: &str, outcome: &Outcome) {
    if let Err(message) = outcome {
        say(report, Report::Failed(format!("{kind} probe failed: {message}"))).await;
    }
}

async fn say(report: &mpsc::Sender<Report>, what: Report) {
    if report.send(what).await.is_err() {
        tracing::debug!("nobody listens to a probe any more");
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    let seconds = value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
    Duration::from_secs(seconds.unwrap_or(default))
}

#[cfg(test)]
mod tests;
