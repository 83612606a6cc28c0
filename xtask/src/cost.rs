//! Measures the promises of SPECIFICATION.md on this machine and prints promise, measured, ratio. What misses its bar is
//! printed as missed.

mod api;
mod node;
mod pods;
mod process;
mod scheduler;
mod services;
mod wake;
mod wire;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use shipway_tests::{Instance, binary};

use crate::run;

/// How many instances are started to time a start.
const STARTS: usize = 5;
/// How many pods are there when the memory of one is measured.
const MANY: usize = 30;

/// One promise and what was measured.
#[derive(Clone)]
struct Row {
    promise: &'static str,
    bar: f64,
    measured: f64,
    unit: &'static str,
    /// Whether more is better.
    at_least: bool,
}

/// What to measure: everything but the API under load, or that (`api`), the node under load (`node`), or the scheduler's choices
/// alone (`scheduler`).
pub(crate) fn cost(what: &str) -> Result<()> {
    if what == "scheduler" {
        print(&scheduler::measure()?);
        return Ok(());
    }
    run("cargo", &["build", "--release", "--package", "shipway"])?;
    drop(rustls::crypto::ring::default_provider().install_default());
    match what {
        "" => print(&engine()?),
        // A client that is not optimized would take the processor that the server is measured with.
        "api" if cfg!(debug_assertions) => {
            run("cargo", &["run", "--quiet", "--release", "--package", "xtask", "--", "cost", "api"])?;
        }
        "api" => print(&api::measure()?),
        "node" => print(&[node::pods()?, wake::wake()?].concat()),
        other => bail!(
            "cost measures nothing called {other:?}; try `cargo xtask cost`, or it with `api`, `node` or `scheduler`"
        ),
    }
    Ok(())
}

fn engine() -> Result<Vec<Row>> {
    let mut rows = vec![binary_size()?, start()?];
    let instance = Instance::up()?;
    rows.extend(idle(&instance)?);
    instance.ok(&["run", "/bin/sleep", "--name", "sleeper", "--detach", "--", "1000000"])?;
    instance.ok(&["rm", "sleeper"])?;
    rows.push(second_pack(&instance)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(pods::client(instance.home()))?;
    let pods = pods::Pods::new(&runtime, &client);
    rows.push(ms("pod created -> running, p50", 60.0, pods.one_at_a_time(20)?.running));
    rows.push(ms("pod deleted -> gone, p50", 100.0, pods.one_at_a_time(20)?.gone));
    rows.push(ms("50 pods at once -> running", 2000.0, pods.at_once(50)?));
    rows.push(memory_per_pod(&instance, &pods)?);
    rows.push(ms("change -> its controller has acted, p50", 5.0, runtime.block_on(services::hop(&client))?));
    let port = format!("{}:8080", shipway_tests::free_port()?);
    instance.ok(&["run", "examples/hello/hello.py", "--name", "hello", "--detach", "--port", &port])?;
    let taken = runtime.block_on(services::new_service(&client, "hello"))?;
    rows.push(ms("new service answers, 1,000 beside it, p50", 20.0, taken));
    Ok(rows)
}

fn print(rows: &[Row]) {
    println!("{:<52} {:>10} {:>10} {:<5} {:>6}", "promise", "bar", "measured", "", "ratio");
    for row in rows {
        let ratio = if row.at_least { row.bar / row.measured } else { row.measured / row.bar };
        let verdict = if ratio > 1.0 { "  missed" } else { "" };
        println!("{:<52} {:>10.1} {:>10.2} {:<5} {ratio:>6.2}{verdict}", row.promise, row.bar, row.measured, row.unit);
    }
}

fn ms(promise: &'static str, bar: f64, measured: Duration) -> Row {
    Row { promise, bar, measured: measured.as_secs_f64() * 1000.0, unit: "ms", at_least: false }
}

fn binary_size() -> Result<Row> {
    let size = std::fs::metadata(binary())?.len();
    Ok(Row { promise: "binary, stripped", bar: 40.0, measured: to_f64(size) / 1e6, unit: "MB", at_least: false })
}

/// `shipway up` on an empty folder until it returns, which is when the node is ready.
fn start() -> Result<Row> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let instance = Instance::new()?;
        let start = Instant::now();
        instance.ok(&["up", "--api-port", "0"])?;
        times.push(start.elapsed());
    }
    Ok(ms("shipway up on an empty folder -> node ready, p50", 1000.0, median(&mut times)))
}

fn idle(instance: &Instance) -> Result<[Row; 2]> {
    let engine = instance.engine()?;
    std::thread::sleep(Duration::from_secs(3));
    let before = process::cpu_time(engine)?;
    let window = Duration::from_secs(20);
    std::thread::sleep(window);
    let used = process::cpu_time(engine)?.saturating_sub(before);
    let share = used.as_secs_f64() / window.as_secs_f64() * 100.0;
    let memory = process::proportional_memory(engine)?;
    Ok([
        Row { promise: "idle stack, memory (PSS)", bar: 64.0, measured: mib(memory), unit: "MiB", at_least: false },
        Row { promise: "idle stack, processor", bar: 0.5, measured: share, unit: "%", at_least: false },
    ])
}

/// The second run of an unchanged program, until it says what it packed.
fn second_pack(instance: &Instance) -> Result<Row> {
    let hello = ["run", "examples/hello/hello.py", "--name", "again", "--detach", "--port", "0"];
    let mut times = Vec::new();
    for _ in 0..4 {
        let port = format!("{}:8080", shipway_tests::free_port()?);
        let arguments = [&hello[..hello.len() - 1], &[port.as_str()]].concat();
        let start = Instant::now();
        let mut running = instance.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(running.stderr.take().context("piped")?).lines();
        let packed = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("packed"));
        packed.context("it never said that it packed")?;
        times.push(start.elapsed());
        lines.for_each(drop);
        running.wait()?;
    }
    instance.ok(&["rm", "again"])?;
    times.remove(0);
    Ok(ms("second run of an unchanged program -> packed, p50", 300.0, median(&mut times)))
}

/// What one more sleeping pod costs in all our processes together.
fn memory_per_pod(instance: &Instance, pods: &pods::Pods) -> Result<Row> {
    let engine = instance.engine()?;
    let ours = || -> Result<u64> {
        let supervisors = process::supervisors(instance.home())?;
        let each = supervisors.into_iter().map(process::proportional_memory).sum::<Result<u64>>()?;
        Ok(each + process::proportional_memory(engine)?)
    };
    let before = ours()?;
    let names = pods.start(MANY)?;
    std::thread::sleep(Duration::from_secs(2));
    let after = ours()?;
    pods.delete(&names)?;
    let each = mib(after.saturating_sub(before)) / to_f64(MANY as u64);
    Ok(Row { promise: "memory per further pod, ours (PSS)", bar: 0.8, measured: each, unit: "MiB", at_least: false })
}

fn mib(bytes: u64) -> f64 {
    to_f64(bytes) / f64::from(1 << 20)
}

/// Exact for everything that is measured here.
fn to_f64(count: u64) -> f64 {
    u32::try_from(count / 1024).map_or(f64::MAX, f64::from).mul_add(1024.0, f64::from((count % 1024) as u32))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
