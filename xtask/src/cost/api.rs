//! `cargo xtask cost api`: the API server over TLS under load, while client and server share this machine.
//!
//! Objects are config maps and pods that no scheduler takes, so that nothing but the API server works for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::future::try_join_all;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shipway_tests::Instance;
use tokio::sync::Barrier;

use super::wire::{Ask, Target};
use super::{Row, median, mib, process, to_f64};

/// How long each kind of request is sent.
const PERIOD: Duration = Duration::from_secs(4);
/// Writes between the first round and the second.
const HISTORY: usize = 50_000;
/// How many pods a list has, and what they weigh together: 14 MB.
const LISTED: usize = 5_000;
const PADDING: usize = 340;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// How fast one kind of request went.
struct Rate {
    what: &'static str,
    clients: usize,
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

/// Measures everything and prints it; gives the rows that have a bar.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let instance = Instance::up()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let target = Arc::new(Target::of(instance.home())?);
    let engine = instance.engine()?;
    let (mut rows, rates) = runtime.block_on(run(&target, engine))?;
    println!("{:<32} {:>8} {:>12} {:>10} {:>10}", "request", "clients", "per second", "p50 ms", "p99 ms");
    for rate in &rates {
        let (p50, p99) = (rate.p50.as_secs_f64() * 1e3, rate.p99.as_secs_f64() * 1e3);
        println!("{:<32} {:>8} {:>12.0} {p50:>10.3} {p99:>10.3}", rate.what, rate.clients, rate.per_second);
    }
    println!();
    rows.extend(barred(&rates));
    Ok(rows)
}

async fn run(target: &Arc<Target>, engine: u32) -> Result<(Vec<Row>, Vec<Rate>)> {
    let mut rates = Vec::new();
    round(target, false, &mut rates).await?;
    let mut rows = pods(target, engine).await?;
    rows.extend(fan_out(target).await?);
    spread(target, 16, HISTORY, |number| touch(number % 100)).await?;
    round(target, true, &mut rates).await?;
    Ok((rows, rates))
}

fn touch(number: usize) -> Ask {
    Ask::patch(format!("{CONFIG_MAPS}/create-1-0-{number}"), &json!({"data": {"stamp": fastrand::u64(..).to_string()}}))
}

/// Creates, gets and patches at each number of clients; again, or for the first time.
async fn round(target: &Arc<Target>, again: bool, rates: &mut Vec<Rate>) -> Result<()> {
    for clients in [1, 16, 64] {
        let prefix = if again { "again" } else { "create" };
        let name = move |client: usize, number: usize| format!("{prefix}-{clients}-{client}-{number}");
        let create = move |client, number| Ask::post(CONFIG_MAPS, &config_map(&name(client, number)));
        rates.push(load(target, if again { "create, later" } else { "create" }, clients, create).await?);
        let get = move |client, number: usize| Ask::get(format!("{CONFIG_MAPS}/{}", name(client, number % 50)));
        rates.push(load(target, if again { "get, later" } else { "get" }, clients, get).await?);
        let patch = move |client, number: usize| {
            let value = json!({"data": {"number": number.to_string()}});
            Ask::patch(format!("{CONFIG_MAPS}/{}", name(client, number % 50)), &value)
        };
        rates.push(load(target, if again { "patch, later" } else { "patch" }, clients, patch).await?);
    }
    Ok(())
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "load"}},
        "data": {"key": "value", "text": "x".repeat(200)}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "load"}, "annotations": {"note": "x".repeat(PADDING)}},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "none"}]}})
}

/// Lets so many clients, each on a connection of its own, ask for a while.
async fn load(
    target: &Arc<Target>,
    what: &'static str,
    clients: usize,
    ask: impl Fn(usize, usize) -> Ask + Copy + Send + Sync + 'static,
) -> Result<Rate> {
    let ready = Arc::new(Barrier::new(clients));
    let tasks = (0..clients).map(|client| {
        let (target, ready) = (target.clone(), ready.clone());
        tokio::spawn(async move {
            let mut connection = target.connect().await?;
            ready.wait().await;
            let begin = Instant::now();
            let mut taken = Vec::new();
            while begin.elapsed() < PERIOD {
                let asked = ask(client, taken.len());
                let sent = Instant::now();
                connection.send(&asked).await?;
                taken.push(sent.elapsed());
            }
            anyhow::Ok(taken)
        })
    });
    let mut taken = Vec::new();
    for task in try_join_all(tasks).await? {
        taken.extend(task?);
    }
    let per_second = to_f64(taken.len() as u64) / PERIOD.as_secs_f64();
    taken.sort();
    let p99 = *taken.get(taken.len() * 99 / 100).context("nothing was answered")?;
    Ok(Rate { what, clients, per_second, p50: median(&mut taken), p99 })
}

/// Sends a number of requests over a number of clients.
async fn spread(
    target: &Arc<Target>,
    clients: usize,
    count: usize,
    ask: impl Fn(usize) -> Ask + Copy + Send + Sync + 'static,
) -> Result<()> {
    let tasks = (0..clients).map(|client| {
        let target = target.clone();
        tokio::spawn(async move {
            let mut connection = target.connect().await?;
            for number in (client..count).step_by(clients) {
                connection.send(&ask(number)).await?;
            }
            anyhow::Ok(())
        })
    });
    try_join_all(tasks).await?.into_iter().collect()
}

/// The list of 5,000 pods, and what 10,000 of them take in memory.
async fn pods(target: &Arc<Target>, engine: u32) -> Result<Vec<Row>> {
    let before = process::proportional_memory(engine)?;
    spread(target, 16, LISTED, |number| Ask::post(PODS, &pod(&format!("first-{number}")))).await?;
    let mut connection = target.connect().await?;
    let mut taken = Vec::new();
    let mut length = 0;
    for _ in 0..21 {
        let start = Instant::now();
        length = connection.send(&Ask::get(PODS)).await?;
        taken.push(start.elapsed());
    }
    println!("a list of {LISTED} pods has {:.1} MB", to_f64(length as u64) / 1e6);
    spread(target, 16, LISTED, |number| Ask::post(PODS, &pod(&format!("second-{number}")))).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = process::proportional_memory(engine)?.saturating_sub(before);
    let mut ask = Ask::get(PODS);
    ask.method = http::Method::DELETE;
    connection.send(&ask).await?;
    let list = median(&mut taken).as_secs_f64() * 1e3;
    Ok(vec![
        Row { promise: "list of 5,000 pods, p50", bar: 25.0, measured: list, unit: "ms", at_least: false },
        Row {
            promise: "10,000 pods in memory (PSS)",
            bar: 100.0,
            measured: mib(grown) * 1.048_576,
            unit: "MB",
            at_least: false,
        },
    ])
}

/// Deliveries to watchers while config maps are created.
async fn fan_out(target: &Arc<Target>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (watchers, changes) in [(1, 8_000), (100, 8_000), (1_000, 1_000)] {
        let list = target.connect().await?.json(&Ask::get(format!("{CONFIG_MAPS}?limit=1"))).await?;
        let revision = list["metadata"]["resourceVersion"].as_str().context("a list has a revision")?.to_owned();
        let watching = try_join_all((0..watchers).map(|_| open_watch(target, &revision))).await?;
        let start = Instant::now();
        let reading: Vec<_> = watching.into_iter().map(|body| tokio::spawn(count_lines(body, changes))).collect();
        let create = move |number| Ask::post(CONFIG_MAPS, &config_map(&format!("fan-{watchers}-{number}")));
        spread(target, 16, changes, create).await?;
        for reader in try_join_all(reading).await? {
            reader?;
        }
        let rate = to_f64((watchers * changes) as u64) / start.elapsed().as_secs_f64();
        println!("fan-out to {watchers} watchers: {rate:.0} deliveries a second");
        if watchers == 100 {
            rows.push(at_least("deliveries to 100 watchers", 200_000.0, rate));
        }
    }
    Ok(rows)
}

async fn open_watch(target: &Target, revision: &str) -> Result<hyper::body::Incoming> {
    let ask = Ask::get(format!("{CONFIG_MAPS}?watch=true&resourceVersion={revision}"));
    Ok(target.connect().await?.open(&ask).await?.into_body())
}

async fn count_lines(mut body: hyper::body::Incoming, wanted: usize) -> Result<()> {
    let mut seen = 0;
    while seen < wanted {
        let frame = tokio::time::timeout(Duration::from_mins(2), body.frame()).await.context("no event came")?;
        let frame = frame.context("the watch ended")??;
        seen += frame.data_ref().map_or(0, |data: &Bytes| data.split(|byte| *byte == b'\n').count() - 1);
    }
    Ok(())
}

/// The rates that a bar is set for.
fn barred(rates: &[Rate]) -> Vec<Row> {
    let find = |what: &str, clients: usize| rates.iter().find(|rate| rate.what == what && rate.clients == clients);
    let rate = |what, clients| find(what, clients).map_or(0.0, |rate| rate.per_second);
    let single = find("get", 1).map_or(f64::MAX, |rate| rate.p50.as_secs_f64() * 1e3);
    vec![
        at_least("durable creates at 16 clients", 5_000.0, rate("create", 16)),
        at_least("the same after 50,000 writes", 5_000.0, rate("create, later", 16)),
        at_least("gets at 16 clients", 15_000.0, rate("get", 16)),
        at_least("the same after 50,000 writes", 15_000.0, rate("get, later", 16)),
        Row { promise: "get at 1 client, p50", bar: 0.3, measured: single, unit: "ms", at_least: false },
    ]
}

fn at_least(promise: &'static str, bar: f64, measured: f64) -> Row {
    Row { promise, bar, measured, unit: "/s", at_least: true }
}
