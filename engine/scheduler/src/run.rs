//! The client of the API around the choice: takes pods from the line one by one, and lets what follows from each choice
//! happen beside the next ones.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use shipway_driver::{Recorder, Shared};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::act::Hand;
use crate::caches::{Caches, Hub};
use crate::state::{NAME, Outcome};
use crate::wanted::Wanted;

/// How many bindings and explanations may be under way; further choices wait until one is done.
const UNDER_WAY: usize = 64;
/// The same for pods that wait for their volumes, which may take long.
const WAITING_FOR_VOLUMES: usize = 1024;

/// Schedules the pods of a cache, which somebody else drives, until stopped.
pub fn run(client: Client, pods: Shared<Pod>, stop: CancellationToken) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work(client, pods, stop.clone()) => {}
        }
    })
}

async fn work(client: Client, pods: Shared<Pod>, stop: CancellationToken) {
    let hub = Arc::new(Hub::default());
    let told = hub.clone();
    pods.listen(move |change| told.with(|state| state.pod_changed(change, Instant::now())));
    let mut caches = Caches::new(client.clone(), stop, hub.clone());
    caches.know_cluster(&pods).await;
    let recorder = Recorder::new(client.clone(), NAME, "");
    let mut scheduler = Scheduler {
        hand: Hand { client, recorder, hub: hub.clone() },
        hub,
        caches,
        under_way: JoinSet::new(),
        waiting_for_volumes: JoinSet::new(),
    };
    loop {
        scheduler.step().await;
    }
}

struct Scheduler {
    hub: Arc<Hub>,
    caches: Caches,
    hand: Hand,
    under_way: JoinSet<()>,
    waiting_for_volumes: JoinSet<()>,
}

impl Scheduler {
    /// Tries the next pod, or waits until there may be one.
    async fn step(&mut self) {
        make_room(&mut self.waiting_for_volumes, WAITING_FOR_VOLUMES).await;
        make_room(&mut self.under_way, UNDER_WAY).await;
        while let Some((_, pod)) = self.hub.look(|state| state.gated.pop_first()) {
            let hand = self.hand.clone();
            self.under_way.spawn(async move { hand.tell_gated(&pod).await });
            make_room(&mut self.under_way, UNDER_WAY).await;
        }
        let (next, due) = self.hub.look(|state| (state.line.next(Instant::now()), state.line.next_due()));
        let Some(pod) = next else {
            // A change between looking and here is remembered.
            let changed = self.hub.changed.notified();
            return match due {
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => changed.await,
            };
        };
        self.caches.know_for(&pod).await;
        self.attempt(&pod);
        tokio::task::yield_now().await;
    }

    fn attempt(&mut self, pod: &Wanted) {
        let hand = self.hand.clone();
        let tried = self.hub.look(|state| {
            let pod = state.line.taken(pod)?;
            let outcome = state.attempt(&pod, Instant::now());
            Some((pod, outcome))
        });
        // Otherwise it was deleted or bound while something about it was found out.
        let Some((pod, outcome)) = tried else { return };
        let lasts = matches!(&outcome, Outcome::Chosen(choice) if !choice.steps.is_empty());
        let tasks = if lasts { &mut self.waiting_for_volumes } else { &mut self.under_way };
        tasks.spawn(async move {
            match outcome {
                Outcome::Chosen(choice) => hand.bind(&pod, &choice).await,
                Outcome::Unfit(unfit) => hand.explain(&pod, &unfit, None).await,
                Outcome::CouldPreempt(unfit) => hand.preempt(&pod, unfit).await,
            }
        });
    }
}

/// Forgets the tasks that ended, and waits for one if there are as many as may be.
async fn make_room(tasks: &mut JoinSet<()>, most: usize) {
    while tasks.try_join_next().is_some() {}
    if tasks.len() >= most {
        tasks.join_next().await;
    }
}
