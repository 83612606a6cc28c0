//! What happened, line by line, with the time since the beginning.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// The lines; clones share them.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Mutex<State>>);

struct State {
    began: Option<Instant>,
    printed: bool,
    lines: Vec<String>,
}

impl Trace {
    /// Empty; with `printed` each line is written to standard error as it comes.
    pub(crate) fn new(printed: bool) -> Self {
        Self(Arc::new(Mutex::new(State { began: None, printed, lines: Vec::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time is counted from now on.
    pub(crate) fn begin(&self) {
        self.state().began = Some(Instant::now());
    }

    /// Adds a line.
    pub(crate) fn say(&self, what: impl AsRef<str>) {
        let mut state = self.state();
        let since = state.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
        let line = format!("{since:10.3} {}", what.as_ref());
        if state.printed {
            eprintln!("{line}");
        }
        state.lines.push(line);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.state().lines.clone()
    }

    /// The same for the same lines, in every process.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.state().lines.hash(&mut hasher);
        hasher.finish()
    }
}
