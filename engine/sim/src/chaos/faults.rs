//! What goes wrong: parts crash, nodes stop, lose power or their way to the API server, calls are lost, clocks jump. Each
//! fault ends again by itself; several may overlap.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};

use crate::chaos::observer::Observer;
use crate::chaos::trace::Trace;
use crate::weather::Storm;
use crate::{Cluster, Part};

/// The parts that are down at the moment.
type Down = Rc<RefCell<Vec<Part>>>;

/// When faults come, and which.
pub(crate) struct Faults {
    rng: Rng,
    nodes: usize,
    down: Down,
    pub(crate) count: u64,
}

impl Faults {
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        Self { rng: Rng::with_seed(seed), nodes, down: Down::default(), count: 0 }
    }

    /// Lets things go wrong until `end`, or until something broke; when it returns all is mended.
    pub(crate) async fn run(&mut self, cluster: &Cluster, observer: &Observer, trace: &Trace, end: Instant) {
        let mut lasting: FuturesUnordered<LocalBoxFuture<'static, ()>> = FuturesUnordered::new();
        loop {
            let next = Instant::now() + Duration::from_millis(self.rng.u64(1_000..60_000));
            if next >= end || observer.has_violations() {
                break;
            }
            loop {
                tokio::select! {
                    biased;
                    () = sleep_until(next) => break,
                    Some(()) = lasting.next() => {}
                }
            }
            self.count += 1;
            lasting.push(self.strike(cluster, observer, trace));
        }
        while lasting.next().await.is_some() {}
    }

    fn time(&mut self, most: Duration) -> Duration {
        // Short ones are as likely as long ones.
        most.mul_f64(self.rng.f64() * self.rng.f64())
    }

    fn strike(&mut self, cluster: &Cluster, observer: &Observer, trace: &Trace) -> LocalBoxFuture<'static, ()> {
        let (cluster, observer, trace) = (cluster.clone(), observer.clone(), trace.clone());
        let node = format!("node-{}", self.rng.usize(..self.nodes));
        match self.rng.u32(..12) {
            at @ 0..5 => {
                let part = [Part::Controllers, Part::Controllers, Part::ApiServer, Part::ApiServer, Part::Scheduler];
                let time = self.time(Duration::from_secs(40));
                let (part, down) = (part[at as usize], self.down.clone());
                Box::pin(crash(cluster, trace, part, time, down))
            }
            5 => {
                let time = self.time(Duration::from_mins(2));
                Box::pin(without_node(cluster, observer, trace, node, time))
            }
            6 => {
                let time = self.time(Duration::from_mins(8));
                Box::pin(without_power(cluster, observer, trace, node, time))
            }
            7 => {
                let time = self.time(Duration::from_mins(8));
                Box::pin(without_link(cluster, observer, trace, node, time))
            }
            8 => {
                let seconds = self.rng.i64(-600..600);
                observer.excuse(Duration::ZERO);
                Box::pin(async move {
                    trace.say(format!("the wall clock jumps by {seconds} s"));
                    cluster.jump(seconds);
                })
            }
            9 => {
                let broken = self.rng.u64(..);
                Box::pin(async move { break_watches(&cluster, &trace, broken) })
            }
            _ => {
                let time = self.time(Duration::from_mins(2));
                let storm = self.storm();
                Box::pin(bad_weather(cluster, observer, trace, storm, time))
            }
        }
    }

    fn storm(&mut self) -> Storm {
        let chance = |rng: &mut Rng| if rng.bool() { rng.u32(..30) } else { 0 };
        let (lost, forgotten, slow) = (chance(&mut self.rng), chance(&mut self.rng), chance(&mut self.rng));
        let (delay, lag) = (self.time(Duration::from_secs(4)), self.time(Duration::from_secs(5)));
        Storm { lost, forgotten, slow, delay, lag: if self.rng.bool() { lag } else { Duration::ZERO } }
    }
}

async fn crash(cluster: Cluster, trace: Trace, part: Part, time: Duration, down: Down) {
    if down.borrow().contains(&part) {
        return;
    }
    down.borrow_mut().push(part);
    trace.say(format!("{part:?} crashes for {time:?}"));
    cluster.stop_part(part).await;
    sleep(time).await;
    cluster.start_part(part).await;
    down.borrow_mut().retain(|other| *other != part);
    trace.say(format!("{part:?} is up again"));
}

async fn without_node(cluster: Cluster, observer: Observer, trace: Trace, node: String, time: Duration) {
    trace.say(format!("the process of {node} stops for {time:?}"));
    observer.excuse(time);
    cluster.stop_node(&node);
    sleep(time).await;
    cluster.start_node(&node);
}

async fn without_power(cluster: Cluster, observer: Observer, trace: Trace, node: String, time: Duration) {
    trace.say(format!("{node} is without power for {time:?}"));
    observer.excuse(time);
    cluster.kill_node(&node);
    sleep(time).await;
    cluster.start_node(&node);
}

async fn without_link(cluster: Cluster, observer: Observer, trace: Trace, node: String, time: Duration) {
    trace.say(format!("{node} is cut off for {time:?}"));
    observer.excuse(time);
    cluster.cut_off(&node);
    sleep(time).await;
    cluster.reconnect(&node);
}

/// About half of all users lose their connections, and make new ones at once.
fn break_watches(cluster: &Cluster, trace: &Trace, which: u64) {
    trace.say("watches break");
    for (at, user) in cluster.gate().users().into_iter().enumerate() {
        if which >> (at % 64) & 1 == 1 && !cluster.gate().is_cut_off(&user) {
            cluster.gate().cut_off(&user);
            cluster.gate().reconnect(&user);
        }
    }
}

async fn bad_weather(cluster: Cluster, observer: Observer, trace: Trace, storm: Storm, time: Duration) {
    trace.say(format!("a storm for {time:?}: {storm:?}"));
    observer.excuse(time);
    cluster.gate().storm(storm);
    sleep(time).await;
    cluster.gate().storm(Storm::default());
    trace.say("the storm is over");
}
