//! What can happen to a call on its way: nothing, a delay, its loss before or after it took effect; and to a watch: frames
//! that come late.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

/// How bad it is, in calls of a hundred, and in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storm {
    /// Calls that never reach the server.
    pub lost: u32,
    /// Calls that take effect, and whose answer is lost.
    pub forgotten: u32,
    /// Calls that take longer.
    pub slow: u32,
    /// How much longer at most.
    pub delay: Duration,
    /// How late a frame of a watch may come.
    pub lag: Duration,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) before: Duration,
    pub(crate) after: Duration,
    pub(crate) lost: bool,
    pub(crate) forgotten: bool,
}

/// How long a call takes in any weather: else a loop of calls that never ends would stop the clock.
const LATENCY: Duration = Duration::from_millis(1);

/// The weather of a cluster, as its seed has it.
#[derive(Debug)]
pub(crate) struct Weather {
    rng: Rng,
    storm: Storm,
    /// When creations of pods took effect without an answer: whoever asked may ask again.
    forgotten: Vec<Instant>,
}

impl Weather {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), storm: Storm::default(), forgotten: Vec::new() }
    }

    pub(crate) fn set(&mut self, storm: Storm) {
        self.storm = storm;
    }

    /// What becomes of the next call.
    pub(crate) fn fate(&mut self, creates_pod: bool) -> Fate {
        if self.storm == Storm::default() {
            return Fate { before: LATENCY, ..Fate::default() };
        }
        let Storm { lost, forgotten, slow, .. } = self.storm;
        let drawn = self.rng.u32(..100);
        let mut fate = Fate { lost: drawn < lost, before: LATENCY, ..Fate::default() };
        fate.forgotten = !fate.lost && drawn < lost + forgotten;
        if self.rng.u32(..100) < slow {
            let whole = self.storm.delay.mul_f64(self.rng.f64());
            fate.before = whole.mul_f64(self.rng.f64()).max(LATENCY);
            fate.after = whole.saturating_sub(fate.before);
        }
        if fate.forgotten && creates_pod {
            self.forgotten.push(Instant::now());
        }
        fate
    }

    /// How late the next frame of a watch comes.
    pub(crate) fn lag(&mut self) -> Duration {
        if self.storm.lag.is_zero() { Duration::ZERO } else { self.storm.lag.mul_f64(self.rng.f64()) }
    }

    /// How many creations of pods went without an answer since a moment.
    pub(crate) fn forgotten_since(&self, moment: Instant) -> usize {
        self.forgotten.iter().rev().take_while(|at| **at >= moment).count()
    }
}
