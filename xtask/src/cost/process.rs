//! What processes use, from /proc.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks a second of the times in /proc, on every Linux that Rust runs on.
const TICKS: u64 = 100;

/// The proportional set size in bytes.
pub(crate) fn proportional_memory(pid: u32) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).context("the kernel tells no Pss")?;
    let kib: u64 = line.split_whitespace().nth(1).context("Pss has a number")?.parse()?;
    Ok(kib * 1024)
}

/// Processor time used so far.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(") ").context("stat has a name")?.1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// The supervisors of the pods of that home.
pub(crate) fn supervisors(home: &Path) -> Result<Vec<u32>> {
    let home = home.canonicalize()?.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.filter_map(Result::ok) {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("@supervise") && line.contains(&home) {
            found.push(pid);
        }
    }
    Ok(found)
}
