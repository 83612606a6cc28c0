//! One reading: the counters of the machine and of each pod at one moment, and the rate between two of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use shipway_container::{Runtime, Usage};
use tokio::time::Instant;

use crate::logs::{Present, Runs};
use crate::observed::run_id;

/// The counters at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) taken: Instant,
    pub(crate) node: NodeReading,
    /// By uid.
    pub(crate) pods: BTreeMap<String, PodReading>,
}

/// A counter, and when it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Timestamp,
    pub(crate) usage: Usage,
}

/// A share of the processors, in billionths of one, and the nanoseconds that it was worked out over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) nanocores: u64,
    pub(crate) window: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct NodeReading {
    pub(crate) sample: Sample,
    pub(crate) since: Timestamp,
    /// Bytes in all, of memory.
    pub(crate) memory: u64,
    pub(crate) network: Option<Device>,
    pub(crate) disk: Option<Disk>,
}

#[derive(Clone, Debug)]
pub(crate) struct PodReading {
    pub(crate) pod: Present,
    pub(crate) sample: Sample,
    /// By name.
    pub(crate) containers: BTreeMap<String, ContainerReading>,
    pub(crate) network: Option<Device>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ContainerReading {
    pub(crate) run: u32,
    pub(crate) since: Timestamp,
    pub(crate) sample: Sample,
}

/// What went through a network device: bytes and errors, in and out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) received: (u64, u64),
    pub(crate) sent: (u64, u64),
}

/// The filesystem of the instance's folder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk {
    /// Bytes in all, and what of them is used.
    pub(crate) bytes: (u64, u64),
    /// Bytes that programs may still have; some are kept back for the system.
    pub(crate) available: u64,
    /// Inodes in all and free.
    pub(crate) inodes: (u64, u64),
}

impl Sample {
    /// The rate since an earlier sample of the same counter, or since it began to count.
    pub(crate) fn rate(&self, earlier: Option<&Sample>, since: Timestamp) -> Option<Rate> {
        let (from, before) = match earlier.filter(|earlier| earlier.usage.cpu <= self.usage.cpu) {
            Some(earlier) => (earlier.at, earlier.usage.cpu),
            None => (since, 0),
        };
        let window = u64::try_from(self.at.as_nanosecond() - from.as_nanosecond()).ok().filter(|window| *window > 0)?;
        let nanocores = u128::from(self.usage.cpu - before) * 1_000_000_000 / u128::from(window);
        Some(Rate { nanocores: u64::try_from(nanocores).unwrap_or(u64::MAX), window })
    }
}

impl Reading {
    /// The rate of the node since an earlier reading.
    pub(crate) fn node_rate(&self, earlier: &Self) -> Option<Rate> {
        self.node.sample.rate(Some(&earlier.node.sample), self.node.since)
    }
}

impl PodReading {
    /// The rate of the whole pod.
    pub(crate) fn rate(&self, earlier: &Reading) -> Option<Rate> {
        let before = earlier.pods.get(&self.pod.uid).map(|pod| &pod.sample);
        self.sample.rate(before, self.pod.start_time)
    }

    /// The rate of one of its containers; each run counts for itself.
    pub(crate) fn container_rate(&self, name: &str, earlier: &Reading) -> Option<Rate> {
        let own = self.containers.get(name)?;
        let before = earlier.pods.get(&self.pod.uid).and_then(|pod| pod.containers.get(name));
        own.sample.rate(before.filter(|before| before.run == own.run).map(|before| &before.sample), own.since)
    }
}

/// The machine that is read.
pub(crate) struct Machine {
    pub(crate) runtime: Runtime,
    pub(crate) runs: Runs,
    pub(crate) home: PathBuf,
}

impl Machine {
    /// Reads everything once. Blocks on small files of the kernel's.
    pub(crate) fn read(&self) -> Reading {
        let taken = Instant::now();
        let mut pods = BTreeMap::new();
        match self.runtime.meter() {
            Ok(meter) => {
                for pod in self.runs.present() {
                    let Some(usage) = meter.pod(&pod.uid) else { continue };
                    let sample = Sample { at: Timestamp::now(), usage };
                    let containers = pod.containers.iter().filter_map(|(name, run, since)| {
                        let usage = meter.container(&pod.uid, &run_id(name, *run))?;
                        let sample = Sample { at: Timestamp::now(), usage };
                        Some((name.clone(), ContainerReading { run: *run, since: *since, sample }))
                    });
                    let containers = containers.collect();
                    let network = self.network_of(&pod.uid);
                    pods.insert(pod.uid.clone(), PodReading { pod, sample, containers, network });
                }
            }
            Err(error) => tracing::warn!(%error, "what pods use cannot be read"),
        }
        Reading { taken, node: node(&self.home), pods }
    }

    /// The pod's own network device; none when it uses the machine's.
    fn network_of(&self, uid: &str) -> Option<Device> {
        let namespace = self.runtime.network_namespace(uid).ok()?;
        if std::fs::read_link(&namespace).ok()? == std::fs::read_link("/proc/self/ns/net").ok()? {
            return None;
        }
        let process = namespace.parent()?.parent()?;
        device(&std::fs::read_to_string(process.join("net/dev")).ok()?, "eth0")
    }
}

fn node(home: &Path) -> NodeReading {
    let stat = read("/proc/stat");
    let memory = read("/proc/meminfo");
    let bytes = |field: &str| crate::capacity::meminfo(&memory, field).unwrap_or_default();
    let usage = Usage {
        cpu: processor_time(&stat, rustix::param::clock_ticks_per_second()).unwrap_or_default(),
        memory: bytes("MemTotal").saturating_sub(bytes("MemFree")),
        inactive_file: bytes("Inactive(file)"),
        resident: bytes("AnonPages"),
        ..Usage::default()
    };
    let since = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or_default();
    let route = default_device(&read("/proc/net/route"));
    NodeReading {
        sample: Sample { at: Timestamp::now(), usage },
        since: Timestamp::from_second(since).unwrap_or_default(),
        memory: bytes("MemTotal"),
        network: route.and_then(|name| device(&read("/proc/net/dev"), &name)),
        disk: disk(home),
    }
}

fn disk(home: &Path) -> Option<Disk> {
    let disk = rustix::fs::statvfs(home).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    let used = bytes(disk.f_blocks.saturating_sub(disk.f_bfree));
    let inodes = (disk.f_files, disk.f_ffree);
    Some(Disk { bytes: (bytes(disk.f_blocks), used), available: bytes(disk.f_bavail), inodes })
}

/// The nanoseconds that all processors were busy since the machine started: proc_stat(5), without idle and waiting times;
/// the times of guests are contained in the first two.
fn processor_time(stat: &str, ticks: u64) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<u64> = line.split_ascii_whitespace().map_while(|time| time.parse().ok()).collect();
    let busy =
        times.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, time)| time).sum::<u64>();
    Some(busy.saturating_mul(1_000_000_000 / ticks.max(1)))
}

/// The device of the default route.
fn default_device(routes: &str) -> Option<String> {
    let mut rows = routes.lines().skip(1).map(|row| row.split_ascii_whitespace());
    let named = |mut row: std::str::SplitAsciiWhitespace<'_>| Some((row.next()?.to_owned(), row.next()? == "00000000"));
    rows.find_map(|row| named(row).filter(|(_, default)| *default).map(|(name, _)| name))
}

/// One line of `/proc/net/dev`: eight numbers of what was received, then eight of what was sent.
fn device(table: &str, name: &str) -> Option<Device> {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    let numbers: Vec<u64> = line.split_ascii_whitespace().map_while(|number| number.parse().ok()).collect();
    let both = |at: usize| Some((*numbers.get(at)?, *numbers.get(at + 2)?));
    Some(Device { name: name.to_owned(), received: both(0)?, sent: both(8)? })
}

/// A small file of the kernel's, or nothing where there is none.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_understood() {
        let stat = "cpu  100 10 50 4000 30 5 5 0 7 0\ncpu0 1 2 3 4\nbtime 1700000000\n";
        assert_eq!(processor_time(stat, 100), Some(170 * 10_000_000));
        let table = "Inter-| Receive | Transmit\n face |bytes packets errs\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0: 100 2 3 4 5 6 7 8 200 10 11 12 13 14 15 16\n";
        let expected = Device { name: "eth0".to_owned(), received: (100, 3), sent: (200, 11) };
        assert_eq!(device(table, "eth0"), Some(expected));
        assert_eq!(device(table, "eth"), None);
        let routes = "Iface Destination Gateway\neth0 0012A8C0 00000000\nens3 00000000 0112A8C0\n";
        assert_eq!(default_device(routes).as_deref(), Some("ens3"));
    }

    #[test]
    fn this_machine_can_be_read() {
        let node = node(Path::new("/"));
        assert!(node.sample.usage.cpu > 0 && node.since > Timestamp::UNIX_EPOCH);
        assert!(node.memory > node.sample.usage.working_set() && node.sample.usage.memory > 0);
        assert!(node.disk.is_some_and(|disk| disk.bytes.0 > disk.bytes.1));
    }

    #[test]
    fn a_counter_that_began_anew_is_rated_since_then() {
        let at = |second: i64, cpu: u64| Sample {
            at: Timestamp::from_second(second).expect("a time"),
            usage: Usage { cpu, ..Usage::default() },
        };
        let since = Timestamp::from_second(90).expect("a time");
        let rate = |earlier: Option<&Sample>, newest: Sample| {
            newest.rate(earlier, since).map(|rate| (rate.nanocores, rate.window))
        };
        let (second, half) = (1_000_000_000, 500_000_000);
        assert_eq!(rate(Some(&at(95, second)), at(100, second + 5 * half)), Some((half, 5 * second)));
        assert_eq!(rate(None, at(100, 20 * second)), Some((2 * second, 10 * second)));
        assert_eq!(rate(Some(&at(95, 50 * second)), at(100, 5 * second)), Some((half, 10 * second)), "another counter");
        assert_eq!(rate(Some(&at(100, 0)), at(100, second)), None, "no time has passed");
    }
}
