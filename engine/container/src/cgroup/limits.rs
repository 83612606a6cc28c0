//! What a container is allowed, written into its groups. What the machine refuses is left out and said.

use std::fs;
use std::io;
use std::path::Path;

use super::Group;
use crate::spec::Resources;

/// Microseconds over which a processor limit is counted; the kernel's default.
const PERIOD: u64 = 100_000;
/// The kernel takes no smaller quota.
const SMALLEST_QUOTA: u64 = 1000;
const SMALLEST_SHARES: u64 = 2;
const LARGEST_SHARES: u64 = 262_144;

/// Controllers of version 1 in which containers get groups.
pub(super) fn known(name: &str) -> bool {
    const NAMES: [&str; 12] = [
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "freezer",
        "hugetlb",
        "memory",
        "net_cls",
        "net_prio",
        "perf_event",
        "pids",
    ];
    NAMES.contains(&name)
}

impl Group {
    /// Writes all limits; returns one line for each that could not be set.
    pub(crate) fn limit(&self, resources: &Resources) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut note = |what: &str, result: io::Result<()>| {
            if let Err(error) = result {
                warnings.push(format!("{what} is not enforced: {error}"));
            }
        };
        note("the processor share", self.share(resources.cpu_request_milli.unwrap_or(0)));
        if let Some(milli) = resources.cpu_limit_milli {
            note(&format!("the limit of {milli}m processor"), self.limit_processor(milli));
        }
        if let Some(bytes) = resources.memory_limit {
            note(&format!("the limit of {bytes} bytes of memory"), self.limit_memory(bytes));
        }
        if let Some(count) = resources.pids_limit {
            let value = if count < 0 { "max".to_owned() } else { count.to_string() };
            note(&format!("the limit of {count} processes"), self.write("pids", "pids.max", "pids.max", &value));
        }
        warnings
    }

    /// Limits processor and memory of a group whose members have groups of their own.
    pub(crate) fn bound(&self, resources: &Resources) -> io::Result<()> {
        resources.cpu_limit_milli.map_or(Ok(()), |milli| self.limit_processor(milli))?;
        resources.memory_limit.map_or(Ok(()), |bytes| self.limit_memory(bytes))
    }

    /// Writes the limits of a group in which processes run; what is not limited any more is freed.
    pub(crate) fn change(&self, resources: &Resources) -> io::Result<()> {
        self.share(resources.cpu_request_milli.unwrap_or(0))?;
        match resources.cpu_limit_milli {
            Some(milli) => self.limit_processor(milli)?,
            None => {
                self.write("cpu", "cpu.cfs_quota_us", "cpu.max", &if_unified(self, "cpu", "max".to_owned(), "-1"))?;
            }
        }
        let Some((unified, folder)) = self.with("memory") else {
            return resources.memory_limit.map_or(Ok(()), |bytes| self.limit_memory(bytes));
        };
        if unified {
            return match resources.memory_limit {
                Some(bytes) => spare(&folder, bytes).and_then(|()| self.limit_memory(bytes)),
                None => fs::write(folder.join("memory.max"), "max"),
            };
        }
        let bytes = resources.memory_limit.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
        // Memory with swap is never less than without: which of the two comes first depends on the direction.
        let both = folder.join("memory.memsw.limit_in_bytes");
        let first = optional(&both, &bytes);
        fs::write(folder.join("memory.limit_in_bytes"), &bytes)?;
        first.or_else(|_| optional(&both, &bytes))
    }

    fn write(&self, controller: &str, v1: &str, v2: &str, value: &str) -> io::Result<()> {
        let Some((unified, folder)) = self.with(controller) else {
            return Err(io::Error::other(format!("this machine has no {controller} controller")));
        };
        fs::write(folder.join(if unified { v2 } else { v1 }), value)
    }

    fn share(&self, milli: u64) -> io::Result<()> {
        let Some((unified, folder)) = self.with("cpu") else {
            return if milli == 0 { Ok(()) } else { Err(io::Error::other("this machine has no cpu controller")) };
        };
        let (file, value): (_, fn(u64) -> u64) = if unified { ("cpu.weight", weight) } else { ("cpu.shares", shares) };
        fs::write(folder.join(file), value(milli).to_string())?;
        folder.parent().map_or(Ok(()), |pod| share_of_pod(pod, file))
    }

    fn limit_processor(&self, milli: u64) -> io::Result<()> {
        let quota = quota(milli);
        self.write(
            "cpu",
            "cpu.cfs_period_us",
            "cpu.max",
            &if_unified(self, "cpu", format!("{quota} {PERIOD}"), &PERIOD.to_string()),
        )?;
        if self.with("cpu").is_some_and(|(unified, _)| unified) {
            return Ok(());
        }
        self.write("cpu", "cpu.cfs_quota_us", "cpu.max", &quota.to_string())
    }

    fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        let bytes = bytes.to_string();
        self.write("memory", "memory.limit_in_bytes", "memory.max", &bytes)?;
        let Some((unified, folder)) = self.with("memory") else { return Ok(()) };
        if unified {
            optional(&folder.join("memory.swap.max"), "0")?;
            // One process killed and the others left would be a container half dead.
            return optional(&folder.join("memory.oom.group"), "1");
        }
        optional(&folder.join("memory.memsw.limit_in_bytes"), &bytes)
    }
}

fn if_unified(group: &Group, controller: &str, unified: String, otherwise: &str) -> String {
    if group.with(controller).is_some_and(|(unified, _)| unified) { unified } else { otherwise.to_owned() }
}

/// Version 2 would kill for a limit below what is used; version 1 refuses it.
fn spare(folder: &Path, bytes: u64) -> io::Result<()> {
    let used: u64 = fs::read_to_string(folder.join("memory.current"))?.trim().parse().unwrap_or(0);
    if used <= bytes { Ok(()) } else { Err(io::Error::other(format!("{used} bytes of memory are in use"))) }
}

/// Machines without swap accounting have no such file.
fn optional(file: &Path, value: &str) -> io::Result<()> {
    if file.exists() { fs::write(file, value) } else { Ok(()) }
}

/// A pod weighs as much as its containers together.
fn share_of_pod(pod: &Path, file: &str) -> io::Result<()> {
    let mut sum = 0;
    for entry in fs::read_dir(pod)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        // A neighbour may be removed at this moment.
        let value = fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        sum += value.trim().parse::<u64>().unwrap_or(0);
    }
    let most = if file == "cpu.weight" { 10_000 } else { LARGEST_SHARES };
    fs::write(pod.join(file), sum.clamp(1, most).to_string())
}

/// 1024 shares a processor, as Kubernetes counts.
fn shares(milli: u64) -> u64 {
    (milli.saturating_mul(1024) / 1000).clamp(SMALLEST_SHARES, LARGEST_SHARES)
}

/// Shares 2..=262144 spread over weights 1..=10000, as runtimes convert them.
fn weight(milli: u64) -> u64 {
    1 + (shares(milli) - SMALLEST_SHARES) * 9999 / (LARGEST_SHARES - SMALLEST_SHARES)
}

fn quota(milli: u64) -> u64 {
    (milli.saturating_mul(PERIOD) / 1000).max(SMALLEST_QUOTA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_amounts_stay_within_what_the_kernel_takes() {
        assert_eq!([0, 1, 500, 1000, u64::MAX].map(shares), [2, 2, 512, 1024, 262_144]);
        assert_eq!([0, 1000, u64::MAX].map(weight), [1, 39, 10_000]);
        assert_eq!([0, 1, 250, 2000].map(quota), [1000, 1000, 25_000, 200_000]);
    }
}
