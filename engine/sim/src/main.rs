//! `shipway-sim`: lives through many seeds, each in a process of its own, and says which of them broke what.
//!
//! `--seeds N` from 1 on (`--from S`), `--seed S` one and its whole story; `--nodes N --hours H --jobs J`. Seeds that once
//! found something stand in `seeds.txt` and come first.

mod report;

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::personality::{self, Persona};
use shipway_sim::chaos::{Life, Outcome};

use crate::report::{Done, Report};

const USAGE: &str = "usage: shipway-sim [--seeds N] [--from S] [--seed S] [--nodes N] [--hours H] [--jobs J]";
/// Seeds that found something: number, nodes, hours, and what it was.
const KNOWN: &str = include_str!("../seeds.txt");
/// Says that this process is one of the many.
const CHILD: &str = "SHIPWAY_SIM_CHILD";

/// What the command line says.
#[derive(Clone, Copy, Debug)]
struct Options {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    nodes: usize,
    hours: f64,
    jobs: usize,
}

impl Options {
    fn read(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self { seeds: 100, from: 1, seed: None, nodes: 5, hours: 1.0, jobs: 1 };
        let mut arguments = arguments;
        while let Some(name) = arguments.next() {
            let value = arguments.next()?;
            match name.as_str() {
                "--seeds" => options.seeds = value.parse().ok()?,
                "--from" => options.from = value.parse().ok()?,
                "--seed" => options.seed = Some(value.parse().ok()?),
                "--nodes" => options.nodes = value.parse().ok().filter(|nodes| (1..=64).contains(nodes))?,
                "--hours" => options.hours = value.parse().ok().filter(|hours| (0.0..=1000.0).contains(hours))?,
                "--jobs" => options.jobs = value.parse().ok().filter(|jobs| *jobs > 0)?,
                _ => return None,
            }
        }
        Some(options)
    }

    fn life(&self, seed: u64) -> Life {
        Life { seed, nodes: self.nodes, time: Duration::from_secs_f64(self.hours * 3600.0) }
    }
}

fn main() -> ExitCode {
    let Some(options) = Options::read(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match options.seed {
        Some(seed) => one(options.life(seed)),
        None => many(&options),
    }
}

/// Lives one life. Told by another process to, it answers with the outcome; else it prints the story.
fn one(life: Life) -> ExitCode {
    let child = std::env::var_os(CHILD).is_some();
    fix_addresses();
    let outcome = life.run(!child);
    if child {
        let text = serde_json::to_string(&outcome).expect("an outcome is JSON");
        return if std::io::stdout().write_all(text.as_bytes()).is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    println!("seed {} on {} nodes: {}", life.seed, life.nodes, report::summary(&outcome));
    outcome.violations.iter().for_each(|violation| println!("  {violation}"));
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Hash maps that mix addresses into their seeds order alike only when the addresses are the same: starts this program again
/// without randomized ones, once.
fn fix_addresses() {
    let Ok(persona) = personality::get() else { return };
    if persona.contains(Persona::ADDR_NO_RANDOMIZE) {
        return;
    }
    let fixed = personality::set(persona | Persona::ADDR_NO_RANDOMIZE);
    let Some(program) = std::env::current_exe().ok().filter(|_| fixed.is_ok()) else { return };
    let error = Command::new(program).args(std::env::args_os().skip(1)).exec();
    eprintln!("the replay may not be exact: {error}");
}

/// Lives through the known seeds, then through the asked ones, some at a time.
fn many(options: &Options) -> ExitCode {
    let known = KNOWN.lines().filter_map(known_life);
    let asked = (options.from..options.from + options.seeds).map(|seed| options.life(seed));
    let mut waiting: VecDeque<Life> = known.chain(asked).collect();
    let mut report = Report::new(waiting.len());
    let mut running: Vec<(Life, Child)> = Vec::new();
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < options.jobs
            && let Some(life) = waiting.pop_front()
        {
            match start(life) {
                Ok(child) => running.push((life, child)),
                Err(error) => {
                    eprintln!("cannot start seed {}: {error}", life.seed);
                    return ExitCode::FAILURE;
                }
            }
        }
        let (life, child) = running.remove(0);
        report.add(Done { life, outcome: finish(child) });
    }
    if report.end() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A line of `seeds.txt`: seed, nodes, hours; the rest is for people.
fn known_life(line: &str) -> Option<Life> {
    let mut words = line.split('#').next()?.split_whitespace();
    let (seed, nodes, hours): (u64, usize, f64) =
        (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Life { seed, nodes, time: Duration::from_secs_f64(hours * 3600.0) })
}

fn start(life: Life) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--seed").arg(life.seed.to_string()).arg("--nodes").arg(life.nodes.to_string());
    command.arg("--hours").arg((life.time.as_secs_f64() / 3600.0).to_string());
    command.env(CHILD, "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

fn finish(child: Child) -> Outcome {
    let failed = |what: String| Outcome { violations: vec![what], ..Outcome::default() };
    match child.wait_with_output() {
        Ok(output) => serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| failed(format!("the process ended with {} and no outcome", output.status))),
        Err(error) => failed(format!("the process was lost: {error}")),
    }
}
