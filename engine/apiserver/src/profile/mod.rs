//! `/debug/profile?seconds=N`: what the process does in that time, as text: its threads, its memory, and which requests of
//! whom take how much of the processor and how long.
//!
//! Requests are timed only while somebody profiles; otherwise this costs one look at a number. A released binary has no
//! symbols, so no stack is taken: work is told by who asked for what, which is how most of it comes about.

mod process;

use std::collections::HashMap;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Response, StatusCode};

use crate::ApiServer;
use crate::body::Body;
use crate::error::ApiError;
use crate::metrics::Asked;
use crate::query::Query;
use crate::reply;
use process::Process;

const TEXT: &str = "text/plain; charset=utf-8";
/// How long a profile takes when nothing is said, and at most, in seconds.
const SECONDS: u64 = 5;
const MOST_SECONDS: u64 = 60;
/// So many sorts of requests are told from each other; further ones are counted together.
const SORTS: usize = 1000;
/// So many are shown.
const SHOWN: usize = 40;

/// Who asked for what.
type Sort = (Box<str>, String);

/// What requests of one sort took.
#[derive(Clone, Copy, Default)]
struct Spent {
    count: u64,
    /// Time in which they were worked on.
    busy: Duration,
    /// Time until their replies began.
    whole: Duration,
}

/// Times requests while somebody wants to know.
#[derive(Default)]
pub(crate) struct Profiler {
    active: AtomicBool,
    spent: Mutex<HashMap<Sort, Spent>>,
}

/// One profile at a time, until dropped.
struct Turn<'a>(&'a Profiler);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.active.store(false, Ordering::Relaxed);
        self.0.take();
    }
}

impl Profiler {
    /// Whether requests are timed.
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Counts a request that was answered.
    pub(crate) fn answered(&self, user: &str, asked: &Asked, (busy, whole): (Duration, Duration)) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sort: Sort = (user.into(), asked.words());
        if spent.len() >= SORTS && !spent.contains_key(&sort) {
            sort = ("others".into(), String::new());
        }
        let own = spent.entry(sort).or_default();
        own.count += 1;
        own.busy += busy;
        own.whole += whole;
    }

    fn begin(&self) -> Option<Turn<'_>> {
        (!self.active.swap(true, Ordering::Relaxed)).then(|| Turn(self))
    }

    fn take(&self) -> HashMap<Sort, Spent> {
        std::mem::take(&mut *self.spent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs a future to its end, and says how long it was worked on if that is wanted. Pinned by the caller, so that a large one
/// is held once.
pub(crate) async fn timed<F: Future>(wanted: bool, mut future: Pin<&mut F>) -> (F::Output, Duration) {
    let mut busy = Duration::ZERO;
    if !wanted {
        return (future.await, busy);
    }
    let output = std::future::poll_fn(|context| {
        let begin = Instant::now();
        let polled = future.as_mut().poll(context);
        busy += begin.elapsed();
        polled
    })
    .await;
    (output, busy)
}

/// Profiles for as long as the query says.
pub(crate) async fn answer(server: &ApiServer, query: &Query) -> Result<Response<Body>, ApiError> {
    let seconds = query.number("seconds")?.unwrap_or(SECONDS);
    if !(1..=MOST_SECONDS).contains(&seconds) {
        return Err(ApiError::BadRequest(format!(
            "seconds: Invalid value: {seconds}: must be between 1 and {MOST_SECONDS}"
        )));
    }
    let profiler = server.profiler();
    let turn = profiler.begin().ok_or_else(|| ApiError::Unavailable("somebody else profiles already".into()))?;
    let (begin, before) = (Instant::now(), Process::read());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (time, after) = (begin.elapsed(), Process::read());
    let requests = profiler.take();
    drop(turn);
    let text = after.since(&before, time) + &listed(requests);
    Ok(reply::bytes(StatusCode::OK, TEXT, text))
}

fn listed(requests: HashMap<Sort, Spent>) -> String {
    let mut all: Vec<(Sort, Spent)> = requests.into_iter().collect();
    all.sort_by(|(one, first), (other, second)| second.busy.cmp(&first.busy).then_with(|| one.cmp(other)));
    let (count, busy) =
        all.iter().fold((0, Duration::ZERO), |(count, busy), (_, own)| (count + own.count, busy + own.busy));
    let mut text = format!("\nrequests: {count}, worked on for {:.3} s\n", busy.as_secs_f64());
    let mut line = |cells: [&str; 5]| {
        let [busy, whole, count, who, what] = cells;
        writeln!(text, "{busy:>10} {whole:>10} {count:>8}  {who:<56} {what}").expect("a String takes any text");
    };
    line(["busy s", "whole s", "count", "who", "what"]);
    for ((who, what), own) in all.iter().take(SHOWN) {
        let seconds = |time: Duration| format!("{:.4}", time.as_secs_f64());
        line([&seconds(own.busy), &seconds(own.whole), &own.count.to_string(), who, what]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_is_not_work() {
        let work = async {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(5) {}
            tokio::time::sleep(Duration::from_millis(50)).await;
            7
        };
        let (output, busy) = timed(true, std::pin::pin!(work)).await;
        assert_eq!(output, 7);
        assert!((Duration::from_millis(5)..Duration::from_millis(45)).contains(&busy), "{busy:?}");
    }

    #[test]
    fn one_profiles_at_a_time_and_nothing_is_kept_of_it() {
        let profiler = Profiler::default();
        let turn = profiler.begin().unwrap();
        assert!(profiler.begin().is_none() && profiler.is_active());
        for number in 0..2 * SORTS {
            profiler.answered(&format!("user-{number}"), &Asked::default(), (Duration::ZERO, Duration::ZERO));
        }
        assert_eq!(profiler.spent.lock().unwrap().len(), SORTS + 1);
        drop(turn);
        assert!(!profiler.is_active() && profiler.take().is_empty());
    }
}
