//! The node under load: how long pods take to run and to be gone, one at a time and many at once, and what watches over each.

use std::time::Instant;

use anyhow::{Context, Result};
use shipway_tests::Instance;

use super::{Row, mib, ms, pods, process};

/// Pods one after the other.
const SINGLE: usize = 100;

/// The pods' part.
pub(crate) fn pods() -> Result<Vec<Row>> {
    let instance = Instance::up()?;
    instance.ok(&["run", "/bin/sleep", "--name", "sleeper", "--detach", "--", "1000000"])?;
    instance.ok(&["rm", "sleeper"])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(pods::client(instance.home()))?;
    let pods = pods::Pods::new(&runtime, &client);
    // The first pods of an engine read what later ones find in memory.
    pods.lives(3)?;
    let (mut running, mut gone) = pods.lives(SINGLE)?;
    running.sort();
    gone.sort();
    let (middle, late) = (SINGLE / 2, SINGLE * 99 / 100);
    let mut rows = vec![
        ms("pod created -> running, p50", 60.0, running[middle]),
        ms("pod created -> running, p99", 200.0, running[late]),
        ms("pod deleted -> gone, p50", 100.0, gone[middle]),
        ms("pod deleted -> gone, p99", 300.0, gone[late]),
    ];
    for (count, started, ended, bars) in [
        (50, "50 pods at once -> running", "50 pods at once -> gone", (2000.0, 3000.0)),
        (100, "100 pods at once -> running", "100 pods at once -> gone", (4000.0, 6000.0)),
    ] {
        let start = Instant::now();
        let names = pods.start(count)?;
        rows.push(ms(started, bars.0, start.elapsed()));
        if count == 100 {
            rows.push(supervisor(&instance)?);
        }
        let start = Instant::now();
        pods.delete(&names)?;
        rows.push(ms(ended, bars.1, start.elapsed()));
    }
    Ok(rows)
}

/// What one supervisor takes of the memory, of many beside it.
fn supervisor(instance: &Instance) -> Result<Row> {
    std::thread::sleep(std::time::Duration::from_secs(2));
    let mut each = process::supervisors(instance.home())?
        .into_iter()
        .map(process::proportional_memory)
        .collect::<Result<Vec<u64>>>()?;
    each.sort_unstable();
    let middle = *each.get(each.len() / 2).context("no supervisor is there")?;
    Ok(Row {
        promise: "supervisor of a pod (PSS), p50 of 100",
        bar: 0.66,
        measured: mib(middle),
        unit: "MiB",
        at_least: false,
    })
}
