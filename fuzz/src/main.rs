//! `shipway-fuzz [--inputs N] [--seconds N] [--seed N] [--milliseconds N] [TARGET...]`: runs targets without feedback.
//!
//! Prints one line a target. An input that fails is written to `artifacts/`, and given as a file it is run again.
//! `--corpus` writes the seeds to `corpus/`, where libFuzzer begins, and runs nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shipway_fuzz::corpus;
use shipway_fuzz::driver::{self, Limits, Meter, Report};
use shipway_fuzz::targets::{self, Run, TARGETS, Target};

/// How much memory one input may have at once.
const MEMORY: usize = 64 << 20;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static BEFORE: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
struct Counting;

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: every call goes to the system's allocator as it came; the counters are beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const METER: Meter = Meter {
    reset: || {
        let now = NOW.load(Ordering::Relaxed);
        BEFORE.store(now, Ordering::Relaxed);
        PEAK.store(now, Ordering::Relaxed);
    },
    peak: || PEAK.load(Ordering::Relaxed).saturating_sub(BEFORE.load(Ordering::Relaxed)),
};

/// What the command line asks for.
struct Asked {
    limits: Limits,
    seed: u64,
    targets: Vec<Target>,
    files: Vec<String>,
    corpus: bool,
}

fn main() -> ExitCode {
    let asked = match read(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(problem) => {
            eprintln!(
                "error: {problem}\nusage: shipway-fuzz [--inputs N] [--seconds N] [--seed N] [TARGET...] [FILE...]"
            );
            return ExitCode::from(2);
        }
    };
    if !asked.files.is_empty() {
        return again(&asked);
    }
    if asked.corpus {
        return write_seeds(&asked.targets);
    }
    let mut code = ExitCode::SUCCESS;
    for target in asked.targets {
        let report = driver::run(target, asked.seed, asked.limits, METER);
        print(target, &report);
        if report.failure.is_some() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn read(mut arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let limits =
        Limits { inputs: u64::MAX, run: Duration::from_secs(60), time: Duration::from_millis(50), memory: MEMORY };
    let mut asked = Asked { limits, seed: 1, targets: Vec::new(), files: Vec::new(), corpus: false };
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or_else(|| format!("{argument} needs a number"))?;
            value.parse::<u64>().map_err(|_| format!("{argument} needs a number, not {value:?}"))
        };
        match argument.as_str() {
            "--inputs" => (asked.limits.inputs, asked.limits.run) = (number()?, Duration::from_secs(1 << 30)),
            "--seconds" => asked.limits.run = Duration::from_secs(number()?),
            "--milliseconds" => asked.limits.time = Duration::from_millis(number()?),
            "--corpus" => asked.corpus = true,
            "--seed" => asked.seed = number()?,
            name => match targets::find(name) {
                Some(target) => asked.targets.push(target),
                None if Path::new(name).is_file() => asked.files.push(argument),
                None => return Err(format!("there is no target {name:?}")),
            },
        }
    }
    if asked.targets.is_empty() {
        asked.targets = TARGETS.to_vec();
    }
    Ok(asked)
}

/// Runs single inputs; a panic is not caught, so that its trace is seen.
fn again(asked: &Asked) -> ExitCode {
    for file in &asked.files {
        let Ok(input) = std::fs::read(file) else {
            eprintln!("error: cannot read {file}");
            return ExitCode::FAILURE;
        };
        for target in &asked.targets {
            targets::run(*target, &input);
        }
    }
    ExitCode::SUCCESS
}

fn write_seeds(targets: &[Target]) -> ExitCode {
    for target in targets {
        let seeds: Vec<Vec<u8>> = match target.run {
            Run::Json(_) => corpus::json(target.name).iter().map(|seed| seed.to_string().into_bytes()).collect(),
            Run::Bytes(_) => corpus::bytes(target.name),
        };
        let folder = format!("corpus/{}", target.name);
        let write = |(number, seed)| std::fs::write(format!("{folder}/seed-{number}"), seed);
        // libFuzzer writes to `artifacts/` only where there is such a folder.
        let made = std::fs::create_dir_all("artifacts").and_then(|()| std::fs::create_dir_all(&folder));
        if let Err(error) = made.and_then(|()| seeds.iter().enumerate().try_for_each(write)) {
            eprintln!("error: cannot write to {folder}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn print(target: Target, report: &Report) {
    let seconds = report.elapsed.as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "a rate to be read by people")]
    let rate = report.inputs as f64 / seconds;
    println!(
        "{:<16} {:>11} inputs {seconds:>8.1} s {rate:>9.0}/s, slowest {:>7.3} ms, most memory {:>6} KiB",
        target.name,
        report.inputs,
        report.slowest.as_secs_f64() * 1e3,
        report.peak >> 10,
    );
    if let Some((input, problem)) = &report.failure {
        let path = format!("artifacts/{}", target.name);
        let written = std::fs::create_dir_all("artifacts").and_then(|()| std::fs::write(&path, input));
        let place =
            written.map_or_else(|error| format!("and cannot be written: {error}"), |()| format!("is in {path}"));
        println!("{:<16} FAILED: {problem}; the input {place}", target.name);
    }
}
