//! Measures durable puts of 1 KiB at 1, 16 and 128 writers beside what the disk can do, in the same run.
//!
//! `cargo run --release -p shipway-store --example durable_puts [directory]`. For each number of writers it prints the puts
//! a second, their latency, and the ratio to raw fdatasyncs of a zero-filled file that write as many puts at once: no log
//! that syncs before it answers can have more. Raw and store take turns; each figure is the median of three rounds.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shipway_store::{Log, Options, Store, Txn};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const VALUE: usize = 1024;
/// A put with its frame, about.
const RECORD: usize = VALUE + 96;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(2);
const FILE: usize = 8 << 20;

fn main() -> Outcome<()> {
    let place = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let directory = place.join(format!("durable-puts-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let measured = measure(&directory);
    std::fs::remove_dir_all(&directory)?;
    measured
}

fn measure(directory: &Path) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let log = Log::open(&directory.join("store"), Options::default())?;
    println!("writers  raw puts/s  store puts/s  ratio  p50 us  p99 us");
    for writers in [1, 16, 128] {
        let (mut raw, mut puts, mut latencies) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            raw.push(raw_syncs(&directory.join("raw"), writers * RECORD)? * u32::try_from(writers).map(f64::from)?);
            let (rate, mut round) = runtime.block_on(store_puts(&log, writers))?;
            puts.push(rate);
            latencies.append(&mut round);
        }
        latencies.sort_unstable();
        let (raw, puts) = (median(raw), median(puts));
        let quantile = |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1000].as_micros();
        println!(
            "{writers:>7}  {raw:>10.0}  {puts:>12.0}  {:>5.2}  {:>6}  {:>6}",
            puts / raw,
            quantile(500),
            quantile(990)
        );
    }
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Writes of `size` bytes a second, each followed by fdatasync, over a file that is zero-filled beforehand.
fn raw_syncs(path: &Path, size: usize) -> Outcome<f64> {
    let file: File = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    file.write_all_at(&vec![0; FILE], 0)?;
    file.sync_all()?;
    let bytes = vec![7; size];
    let (began, mut syncs, mut offset) = (Instant::now(), 0u32, 0);
    while began.elapsed() < ROUND {
        if offset + size > FILE {
            offset = 0;
        }
        file.write_all_at(&bytes, offset as u64)?;
        file.sync_data()?;
        offset += size;
        syncs += 1;
    }
    Ok(f64::from(syncs) / began.elapsed().as_secs_f64())
}

/// Puts a second of so many writers that each wait for their own, and how long each took.
async fn store_puts(log: &Arc<Log>, writers: usize) -> Outcome<(f64, Vec<Duration>)> {
    let began = Instant::now();
    let tasks: Vec<_> = (0..writers).map(|writer| tokio::spawn(put_for_a_round(log.clone(), writer))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.append(&mut task.await??);
    }
    let puts = u32::try_from(latencies.len()).map(f64::from)?;
    Ok((puts / began.elapsed().as_secs_f64(), latencies))
}

async fn put_for_a_round(log: Arc<Log>, writer: usize) -> Outcome<Vec<Duration>> {
    let (began, mut latencies, mut number) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < ROUND {
        let sent = Instant::now();
        log.txn(Txn::new().put(format!("/bench/{writer}/{}", number % 1000), vec![7; VALUE])).await?;
        latencies.push(sent.elapsed());
        number += 1;
    }
    Ok(latencies)
}
