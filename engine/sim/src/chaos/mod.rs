//! A random life of a cluster, from a seed: workloads come, change and go while parts crash, calls are lost and nodes fail;
//! an observer checks every commit, and in the end everything has to be as it was asked for.

mod faults;
mod observer;
mod recipes;
mod trace;
mod traffic;
mod verdict;
mod view;
mod workload;

use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::chaos::observer::Observer;
use crate::chaos::trace::Trace;
use crate::chaos::workload::Workload;
use crate::weather::Weather;
use crate::{Cluster, NodeOptions};

/// What is to be lived through.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// What all follows from.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: usize,
    /// How long workloads change and parts fail; peace comes after it.
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// What was broken; empty when all is well.
    pub violations: Vec<String>,
    /// How much virtual time passed, in seconds.
    pub seconds: f64,
    /// How long it took, in seconds.
    pub real: f64,
    /// How often workloads were changed.
    pub changes: u64,
    /// How many faults there were.
    pub faults: u64,
    /// The revision of the store in the end.
    pub revision: u64,
    /// A hash of all that happened, to tell whether a replay is exact.
    pub fingerprint: u64,
    /// What happened, line by line.
    #[serde(skip)]
    pub trace: Vec<String>,
}

impl Life {
    /// Lives it. Deterministic in a process of its own.
    pub fn run(self, printed: bool) -> Outcome {
        let real = std::time::Instant::now();
        let trace = Trace::new(printed);
        let kept = trace.clone();
        let builder = Cluster::builder().nodes(self.nodes).seed(self.seed).node(NodeOptions::by_itself());
        let lived = builder.watched(async move |cluster| self.live(&cluster, &trace).await);
        let mut outcome = match lived {
            Ok((mut outcome, complaints)) => {
                outcome.violations.extend(complaints.into_iter().map(|line| format!("a part complained: {line}")));
                outcome
            }
            Err(panic) => Outcome { violations: vec![format!("a panic: {panic}")], ..Outcome::default() },
        };
        outcome.real = real.elapsed().as_secs_f64();
        outcome.fingerprint = kept.fingerprint();
        outcome.trace = kept.lines();
        outcome
    }

    async fn live(self, cluster: &Cluster, trace: &Trace) -> Outcome {
        let mut seeds = Rng::with_seed(self.seed);
        let began = Instant::now();
        trace.begin();
        cluster.gate().set_weather(Weather::new(seeds.u64(..)));
        let observer = Observer::start(cluster, trace);
        let writes = traffic::start(cluster, seeds.u64(..));
        let mut workload = Workload::new(seeds.u64(..), self.nodes);
        let mut faults = faults::Faults::new(seeds.u64(..), self.nodes);
        let end = began + self.time;
        tokio::join!(workload.run(cluster, &observer, trace, end), faults.run(cluster, &observer, trace, end));
        trace.say("peace");
        let mut violations = observer.violations();
        if violations.is_empty() {
            violations = verdict::wait(cluster, &workload, trace).await;
            violations.extend(writes.check(cluster).await);
            violations.extend(observer.violations());
        }
        let revision = cluster.store().map_or(0, |store| store.revision());
        let (changes, faults) = (workload.changes, faults.count);
        Outcome { violations, seconds: began.elapsed().as_secs_f64(), changes, faults, revision, ..Outcome::default() }
    }
}
