//! A pod is attended to for its whole life, by one worker after another: should one panic, the next takes the pod up from
//! what is on this machine, as after a restart of the engine, and later with each time.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use shipway_driver::EventKind;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Desired, Worker};
use crate::admit;
use crate::backoff::Backoff;
use crate::jobs::Shared;
use crate::machine::{Machine, Sandbox};
use crate::observed::{Observed, Stage};
use crate::recover::{Run, recover};
use crate::{pod, runtime};

/// Returns when the pod's object is gone and nothing of it is left, or when the engine stops.
pub(crate) async fn attend<M: Machine>(
    shared: Arc<Shared<M>>,
    mut pod: Arc<Pod>,
    mut desired: watch::Receiver<Desired>,
    mut sandbox: Option<M::Sandbox>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::short();
    loop {
        let begun = Instant::now();
        let (taken, told) = (sandbox.take(), desired.clone());
        let life = async {
            let observed = take_up(&*shared, &pod, taken.as_ref()).await;
            Worker::new(shared.clone(), pod.clone(), told, observed, taken).run(stop.clone()).await;
        };
        let Err(panic) = AssertUnwindSafe(life).catch_unwind().await else { return };
        let wait = backoff.wait_after_run(begun.elapsed());
        let message = format!("the pod's task failed ({}) and is begun anew in {wait:?}", words(&*panic));
        tracing::error!(pod = pod::name(&pod), message);
        shared.tell(&pod, None, EventKind::Warning, "FailedSync", &message);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        if let Desired::Present(newest) = &*desired.borrow() {
            pod = newest.clone();
        }
        // The next worker hears what is wanted now, also that the object is gone.
        desired.mark_changed();
        sandbox = find(&shared, &pod, &mut backoff).await;
    }
}

/// What of the pod is on this machine; asks until it knows.
async fn find<M: Machine>(shared: &Shared<M>, pod: &Pod, backoff: &mut Backoff) -> Option<M::Sandbox> {
    loop {
        match shared.machine.find(pod::uid(pod)).await {
            Ok(found) => return found,
            Err(error) => tracing::warn!(pod = pod::name(pod), %error, "the pod was not found again, trying again"),
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}

/// Finds out where a pod stands that may have been on this machine before.
async fn take_up<M: Machine>(shared: &Shared<M>, pod: &Pod, sandbox: Option<&M::Sandbox>) -> Observed {
    let found = sandbox.map(|sandbox| runtime::found(&sandbox.state().borrow()));
    let mut observed = recover(pod, found.as_ref(), Instant::now(), Timestamp::now());
    if observed.settled.is_none() {
        observed.condemned = admit::refusal(pod, admit::has_app_armor());
        if let Some(sentence) = &observed.condemned {
            shared.tell(pod, None, EventKind::Warning, sentence.reason, &sentence.message);
        }
    }
    let Some(sandbox) = sandbox else { return observed };
    // What was half made when the engine went down may yet come to life; it must not run beside its successor.
    for (run, _) in found.iter().flat_map(|found| &found.runs).filter(|(_, state)| **state == Run::HalfMade) {
        if let Err(error) = sandbox.forget(run).await {
            tracing::warn!(%run, %error, "a half-made container could not be taken away");
        }
    }
    if observed.stage == Stage::Ready && !pod::host_network(pod) {
        match shared.machine.attach(pod::uid(pod), &sandbox.network_namespace()).await {
            Ok(address) => observed.address = Some(address),
            Err(error) => tracing::warn!(pod = pod::name(pod), %error, "the network of a running pod was not taken up"),
        }
    }
    observed
}
