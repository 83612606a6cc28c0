//! What a group has used, as the kernel counts it: read when somebody asks, never watched.

use std::fs;
use std::path::{Path, PathBuf};

use super::Hierarchy;

/// What a group and all below it use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the group was made, in nanoseconds.
    pub cpu: u64,
    /// Memory in bytes, the page cache included.
    pub memory: u64,
    /// Bytes of the page cache that the kernel would give up first.
    pub inactive_file: u64,
    /// Bytes that are no file's.
    pub resident: u64,
    /// Page faults, and those of them that waited for a disk.
    pub faults: (u64, u64),
    /// The most memory that it may have, in bytes.
    pub limit: Option<u64>,
}

impl Usage {
    /// The memory that could not be taken away without harm, as Kubernetes counts it.
    pub fn working_set(&self) -> u64 {
        self.memory.saturating_sub(self.inactive_file)
    }
}

/// Where the kernel counts processor time and memory.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    cpu: Option<Place>,
    memory: Option<Place>,
}

#[derive(Clone, Debug)]
struct Place {
    mount: PathBuf,
    unified: bool,
}

/// Version 1 says "no limit" with the largest number of whole pages.
const UNLIMITED: u64 = 1 << 62;

impl Counters {
    pub(crate) fn in_hierarchies(all: &[Hierarchy]) -> Self {
        let place = |controller: &str| {
            // Version 2 counts processor time whether or not the controller is delegated.
            let counts = |one: &&Hierarchy| one.unified || one.controllers.iter().any(|name| name == controller);
            all.iter().find(counts).map(|one| Place { mount: one.mount.clone(), unified: one.unified })
        };
        Self { cpu: place("cpuacct"), memory: place("memory") }
    }

    /// What the group at this path uses; none when it is not there.
    pub(crate) fn read(&self, path: &str) -> Option<Usage> {
        let cpu = self.cpu.as_ref()?;
        let mut usage = Usage { cpu: cpu.time(&cpu.mount.join(path))?, ..Usage::default() };
        // A machine without the memory controller still says how much processor time was used.
        if let Some(place) = &self.memory {
            place.memory(&place.mount.join(path), &mut usage);
        }
        Some(usage)
    }
}

impl Place {
    fn time(&self, folder: &Path) -> Option<u64> {
        if !self.unified {
            return number(&folder.join("cpuacct.usage"));
        }
        let text = fs::read_to_string(folder.join("cpu.stat")).ok()?;
        field(&text, "usage_usec").map(|microseconds| microseconds.saturating_mul(1000))
    }

    fn memory(&self, folder: &Path, usage: &mut Usage) {
        let (current, limit) = if self.unified {
            ("memory.current", "memory.max")
        } else {
            ("memory.usage_in_bytes", "memory.limit_in_bytes")
        };
        usage.memory = number(&folder.join(current)).unwrap_or_default();
        usage.limit = number(&folder.join(limit)).filter(|limit| *limit < UNLIMITED);
        let text = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let [inactive, resident, faults, major] = if self.unified {
            ["inactive_file", "anon", "pgfault", "pgmajfault"]
        } else {
            ["total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault"]
        };
        let counted = |name| field(&text, name).unwrap_or_default();
        usage.inactive_file = counted(inactive);
        usage.resident = counted(resident);
        usage.faults = (counted(faults), counted(major));
    }
}

/// A file that holds one number; `max` is none.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// One line `<name> <number>` of several.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pod")).unwrap();
        for (name, text) in files {
            fs::write(folder.path().join("pod").join(name), text).unwrap();
        }
        folder
    }

    fn hierarchy(mount: &Path, controllers: &[&str], unified: bool) -> Hierarchy {
        let controllers = controllers.iter().map(|&name| name.to_owned()).collect();
        Hierarchy { mount: mount.to_owned(), controllers, unified }
    }

    #[test]
    fn version_one_counts_in_two_hierarchies() {
        let cpu = folder(&[("cpuacct.usage", "1234567890\n")]);
        let memory = folder(&[
            ("memory.usage_in_bytes", "10485760\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            (
                "memory.stat",
                "inactive_file 1\ntotal_rss 4096\ntotal_pgfault 7\ntotal_pgmajfault 2\ntotal_inactive_file 485760\n",
            ),
        ]);
        let all = [hierarchy(cpu.path(), &["cpu", "cpuacct"], false), hierarchy(memory.path(), &["memory"], false)];
        let usage = Counters::in_hierarchies(&all).read("pod").unwrap();
        assert_eq!((usage.cpu, usage.memory, usage.working_set()), (1_234_567_890, 10_485_760, 10_000_000));
        assert_eq!((usage.resident, usage.faults, usage.limit), (4096, (7, 2), None));
        assert_eq!(Counters::in_hierarchies(&all).read("gone"), None);
    }

    #[test]
    fn version_two_counts_in_one() {
        let both = folder(&[
            ("cpu.stat", "usage_usec 2500\nuser_usec 2000\nsystem_usec 500\n"),
            ("memory.current", "8192\n"),
            ("memory.max", "65536\n"),
            ("memory.stat", "anon 4096\nfile 4096\ninactive_file 12288\npgfault 3\npgmajfault 0\n"),
        ]);
        let usage = Counters::in_hierarchies(&[hierarchy(both.path(), &["memory"], true)]).read("pod").unwrap();
        assert_eq!((usage.cpu, usage.memory, usage.limit), (2_500_000, 8192, Some(65536)));
        assert_eq!(usage.working_set(), 0, "the counts are not of one instant");
    }
}
