//! Runs a target over mutated seeds, without feedback: counts inputs, watches the time and memory of each.
//!
//! The same seed of the random numbers gives the same inputs. It does not know how memory is counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;

use super::targets::{Run, Target};
use super::{corpus, mutate};

/// How many mutated inputs are kept to be mutated again.
const POOL: usize = 256;
/// Inputs that weigh more are seldom kept: what breaks a target is mostly small, and small inputs are many more.
const USUAL_MAX: usize = 1 << 10;
/// Inputs that weigh more are never kept, so that they do not grow without end.
const KEPT_MAX: usize = 16 << 10;
/// One in so many of those that are kept may be a large one.
const LARGE: u32 = 32;
/// An input that took long gets so many further chances, of which the best counts: the machine may have been busy.
const CHANCES: u32 = 3;
/// What takes a part of the limit, one in so many, took long.
const LONG: u32 = 10;

/// How long a run is, and what one input may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No more inputs than that.
    pub inputs: u64,
    /// No longer than that.
    pub run: Duration,
    /// The time for one input.
    pub time: Duration,
    /// The bytes that one input may have allocated at once, where memory is counted.
    pub memory: usize,
}

/// How the memory of one input is counted: called before, and after with the most that was there since.
#[derive(Clone, Copy)]
pub struct Meter {
    /// Starts counting anew.
    pub reset: fn(),
    /// The most bytes that were allocated at once since.
    pub peak: fn() -> usize,
}

impl Meter {
    /// Counts nothing.
    pub const NONE: Self = Self { reset: || (), peak: || 0 };
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many inputs were run.
    pub inputs: u64,
    /// How long all of them took.
    pub elapsed: Duration,
    /// The longest that one took.
    pub slowest: Duration,
    /// The most memory that one had.
    pub peak: usize,
    /// The input that broke the target or a limit, and how.
    pub failure: Option<(Vec<u8>, &'static str)>,
}

/// The stack that a target has: as deep as that of the threads on which rules run, whose name saves making one each time.
const STACK: usize = 64 << 20;

/// Runs a target until a limit of the run is reached or an input fails.
pub fn run(target: Target, seed: u64, limits: Limits, meter: Meter) -> Report {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("rules".to_owned()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, || run_here(target, seed, limits, meter));
        thread.expect("a thread can be made").join().expect("panics of targets are caught")
    })
}

fn run_here(target: Target, seed: u64, limits: Limits, meter: Meter) -> Report {
    let mut rng = Rng::with_seed(seed);
    let mut report = Report::default();
    match target.run {
        Run::Json(run) => {
            let seeds = corpus::json(target.name);
            let mutate = |rng: &mut Rng, value: &mut Value, other: &Value| mutate::tree(rng, value, other);
            let mut pool = Pool { seeds, kept: Vec::new(), mutate, weigh: weight };
            let mut watch = Watch { limits, meter, report: &mut report };
            watch.all(&mut rng, &mut pool, run, |value| value.to_string().into_bytes());
        }
        Run::Bytes(run) => {
            let seeds = corpus::bytes(target.name);
            let protobuf = target.name == "decode_protobuf";
            let mutate = move |rng: &mut Rng, value: &mut Vec<u8>, other: &Vec<u8>| {
                if protobuf && rng.u32(0..3) == 0 {
                    let kinds = [("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "Event"), ("v1", "Secret")];
                    let (version, kind) = kinds[rng.usize(0..kinds.len())];
                    *value = mutate::envelope(version, kind, &mutate::message(rng, 5));
                } else {
                    mutate::bytes(rng, value, other);
                }
            };
            let mut pool = Pool { seeds, kept: Vec::new(), mutate, weigh: Vec::len };
            let mut watch = Watch { limits, meter, report: &mut report };
            watch.all(&mut rng, &mut pool, |value| run(value), Clone::clone);
        }
    }
    report
}

/// About as many bytes as the value has as JSON.
fn weight(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 2 + fields.iter().map(|(name, inner)| name.len() + 4 + weight(inner)).sum::<usize>(),
        Value::Array(items) => 2 + items.iter().map(|inner| 1 + weight(inner)).sum::<usize>(),
        Value::String(text) => 2 + text.len(),
        _ => 8,
    }
}

/// Seeds and what came of them.
struct Pool<T, M> {
    seeds: Vec<T>,
    kept: Vec<T>,
    mutate: M,
    weigh: fn(&T) -> usize,
}

impl<T: Clone, M: Fn(&mut Rng, &mut T, &T)> Pool<T, M> {
    fn any(&self, rng: &mut Rng) -> &T {
        let from = if self.kept.is_empty() || rng.bool() { &self.seeds } else { &self.kept };
        &from[rng.usize(0..from.len())]
    }

    fn next(&mut self, rng: &mut Rng) -> T {
        let mut input = self.any(rng).clone();
        let other = self.any(rng);
        (self.mutate)(rng, &mut input, other);
        let most = |rng: &mut Rng| if rng.u32(0..LARGE) == 0 { KEPT_MAX } else { USUAL_MAX };
        if rng.u32(0..64) == 0 && (self.weigh)(&input) < most(rng) {
            if self.kept.len() < POOL {
                self.kept.push(input.clone());
            } else {
                self.kept[rng.usize(0..POOL)] = input.clone();
            }
        }
        input
    }
}

/// Keeps the limits.
struct Watch<'a> {
    limits: Limits,
    meter: Meter,
    report: &'a mut Report,
}

impl Watch<'_> {
    fn all<T: Clone, M: Fn(&mut Rng, &mut T, &T)>(
        &mut self,
        rng: &mut Rng,
        pool: &mut Pool<T, M>,
        run: impl Fn(&T),
        write: impl Fn(&T) -> Vec<u8>,
    ) {
        // What is read once and kept is not to be counted as the first input's.
        pool.seeds.iter().for_each(&run);
        let started = Instant::now();
        while self.report.inputs < self.limits.inputs && started.elapsed() < self.limits.run {
            let input = pool.next(rng);
            self.report.inputs += 1;
            if let Err(problem) = self.one(&input, &run) {
                self.report.failure = Some((write(&input), problem));
                break;
            }
        }
        self.report.elapsed = started.elapsed();
    }

    fn one<T>(&mut self, input: &T, run: &impl Fn(&T)) -> Result<(), &'static str> {
        let mut taken = Duration::MAX;
        for chance in 0..=CHANCES {
            (self.meter.reset)();
            let started = Instant::now();
            let done = catch_unwind(AssertUnwindSafe(|| run(input)));
            taken = taken.min(started.elapsed());
            done.map_err(|_| "it panicked")?;
            let peak = (self.meter.peak)();
            self.report.peak = self.report.peak.max(peak);
            if peak > self.limits.memory {
                return Err("it took too much memory");
            }
            if taken <= self.limits.time / LONG || (chance == CHANCES && taken <= self.limits.time) {
                self.report.slowest = self.report.slowest.max(taken);
                return Ok(());
            }
        }
        Err("it took too long")
    }
}
