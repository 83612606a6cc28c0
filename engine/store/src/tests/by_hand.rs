//! Polls a future step by step, to see when it waits and what wakes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};

/// A future that one polls by hand.
pub(super) struct Task<F> {
    future: std::pin::Pin<Box<F>>,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes(AtomicBool);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls `future` only when told to.
pub(super) fn by_hand<F: Future>(future: F) -> Task<F> {
    Task { future: Box::pin(future), wakes: Arc::default() }
}

impl<F: Future> Task<F> {
    fn step(&mut self) -> Poll<F::Output> {
        self.wakes.0.store(false, Ordering::SeqCst);
        let waker = Arc::clone(&self.wakes).into();
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Polls once; whether it is ready.
    pub(super) fn poll(&mut self) -> bool {
        self.step().is_ready()
    }

    /// Whether it was woken since the last poll.
    pub(super) fn woken(&self) -> bool {
        self.wakes.0.load(Ordering::SeqCst)
    }

    /// What it is ready with.
    pub(super) fn result(mut self) -> F::Output {
        match self.step() {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("not ready"),
        }
    }

    /// What it comes to without anybody else doing something, if it comes to anything.
    pub(super) fn settle(mut self) -> Option<F::Output> {
        loop {
            match self.step() {
                Poll::Ready(output) => return Some(output),
                Poll::Pending if self.woken() => {}
                Poll::Pending => return None,
            }
        }
    }
}
