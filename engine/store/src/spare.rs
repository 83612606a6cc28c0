//! The next segment, made before it is needed.
//!
//! A thread of its own fills it with zeros while the current one is written, so that rolling over is a change of file
//! handle. When there is no room for it, the log finds out at the roll, tries once more, and refuses that write only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::segment::{self, Identity, Segment};
use crate::{Disk, StoreError};

type Made = Result<Segment, StoreError>;

/// Makes segments.
#[derive(Debug)]
struct Workshop {
    disk: Arc<dyn Disk>,
    log: u64,
    size: usize,
    stop: AtomicBool,
}

impl Workshop {
    fn make(&self, number: u32) -> Made {
        segment::make(&*self.disk, Identity { log: self.log, number }, self.size, &self.stop)
    }
}

/// The segments that are ready or in the making.
#[derive(Debug)]
pub(crate) struct Spares {
    /// Found at the start, or made on this thread.
    ready: VecDeque<Made>,
    workshop: Arc<Workshop>,
    worker: Option<Worker>,
    /// Whether the worker owes one.
    ordered: bool,
}

#[derive(Debug)]
struct Worker {
    orders: SyncSender<u32>,
    made: Receiver<Made>,
    thread: JoinHandle<()>,
}

impl Spares {
    /// Spares for the log `log`: those `found` on disk first. Without `background` they are made on the calling thread.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        log: u64,
        size: usize,
        found: VecDeque<Segment>,
        background: bool,
    ) -> Result<Self, StoreError> {
        let path = disk.path("");
        let workshop = Arc::new(Workshop { disk, log, size, stop: AtomicBool::new(false) });
        let worker = background.then(|| Worker::start(&workshop)).transpose();
        let worker = worker.map_err(|e| StoreError::io("start a thread for", &path, e))?;
        Ok(Self { ready: found.into_iter().map(Ok).collect(), workshop, worker, ordered: false })
    }

    /// Has segment `number` made, unless one is ready or in the making.
    pub(crate) fn order(&mut self, number: u32) {
        if self.ordered || !self.ready.is_empty() {
            return;
        }
        match &self.worker {
            // The channel holds one order and there is never a second one, so this does not wait.
            Some(worker) => self.ordered = worker.orders.send(number).is_ok(),
            None => self.ready.push_back(self.workshop.make(number)),
        }
    }

    /// Segment `number`, waiting for it or making it here if it has to be.
    pub(crate) fn take(&mut self, number: u32) -> Made {
        let made = self.next();
        debug_assert!(!matches!(&made, Some(Ok(segment)) if segment.identity.number != number));
        match made {
            // There may be room again by now, and an unfinished segment is nothing that was acknowledged.
            None | Some(Err(StoreError::Full { .. })) => self.workshop.make(number),
            Some(made) => made,
        }
    }

    fn next(&mut self) -> Option<Made> {
        if let Some(ready) = self.ready.pop_front() {
            return Some(ready);
        }
        if !std::mem::take(&mut self.ordered) {
            return None;
        }
        self.worker.as_ref()?.made.recv().ok()
    }
}

impl Worker {
    fn start(workshop: &Arc<Workshop>) -> std::io::Result<Self> {
        let (orders, inbox) = sync_channel::<u32>(1);
        let (outbox, made) = sync_channel(1);
        let workshop = Arc::clone(workshop);
        let thread = std::thread::Builder::new().name("store-spare".into()).spawn(move || {
            for number in inbox {
                if outbox.send(workshop.make(number)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { orders, made, thread })
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.workshop.stop.store(true, Ordering::Relaxed);
        if let Some(Worker { orders, made, thread }) = self.worker.take() {
            drop((orders, made));
            if thread.join().is_err() {
                tracing::error!("the thread that makes log segments panicked");
            }
        }
    }
}
