//! What the kernel says of this process and its threads.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::time::Duration;

/// The kernel counts processor time in hundredths of a second for whoever reads it as text (proc_pid_stat(5)).
const TICK: Duration = Duration::from_millis(10);

/// The process at one moment.
pub(super) struct Process {
    all: Times,
    /// By name; threads of one name are counted together.
    threads: BTreeMap<String, Times>,
    status: String,
}

/// Processor time in the program and in the kernel, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    user: u64,
    system: u64,
}

impl Times {
    fn since(self, before: Self) -> Self {
        Self { user: self.user.saturating_sub(before.user), system: self.system.saturating_sub(before.system) }
    }

    fn whole(self) -> u64 {
        self.user + self.system
    }
}

fn seconds(ticks: u64) -> f64 {
    TICK.as_secs_f64() * f64::from(u32::try_from(ticks).unwrap_or(u32::MAX))
}

impl Process {
    pub(super) fn read() -> Self {
        let mut threads: BTreeMap<String, Times> = BTreeMap::new();
        for entry in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            // A thread may end at any moment.
            let Ok(text) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((name, times)) = times(&text) else { continue };
            let own = threads.entry(name).or_default();
            *own = Times { user: own.user + times.user, system: own.system + times.system };
        }
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let all = times(&read("/proc/self/stat")).map(|(_, times)| times).unwrap_or_default();
        Self { all, threads, status: read("/proc/self/status") }
    }

    /// What happened since an earlier moment, in words.
    pub(super) fn since(&self, before: &Self, time: Duration) -> String {
        let all = self.all.since(before.all);
        let share = seconds(all.whole()) / time.as_secs_f64() * 100.0;
        let mut text = format!(
            "{:.1} s: {:.2} s of processor time ({:.2} in the program, {:.2} in the kernel), {share:.1} % of one\n",
            time.as_secs_f64(),
            seconds(all.whole()),
            seconds(all.user),
            seconds(all.system),
        );
        let memory =
            [("VmRSS", "resident"), ("RssAnon", "its own"), ("RssFile", "of files"), ("VmHWM", "at most so far")];
        let memory = memory.map(|(field, words)| format!("{:.1} MiB {words}", self.mebibytes(field)));
        writeln!(text, "memory: {}\n\nthreads:", memory.join(", ")).expect("a String takes any text");
        let mut busy: Vec<(&String, Times)> = self
            .threads
            .iter()
            .map(|(name, times)| (name, times.since(before.threads.get(name).copied().unwrap_or_default())))
            .collect();
        busy.sort_by_key(|(_, times)| std::cmp::Reverse(times.whole()));
        for (name, times) in busy {
            writeln!(text, "{:>10.2}  {name}", seconds(times.whole())).expect("a String takes any text");
        }
        text
    }

    fn mebibytes(&self, field: &str) -> f64 {
        let line = self.status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u32>().ok());
        f64::from(kib.unwrap_or(0)) / 1024.0
    }
}

/// Name and times from `/proc/<pid>/stat`; the name stands in parentheses and may hold any.
fn times(stat: &str) -> Option<(String, Times)> {
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((name.to_owned(), Times { user, system }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_is_understood_whatever_the_thread_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 12 34 0 0 20 0 1 0 5 0 0";
        assert_eq!(times(stat), Some(("a) b (c".to_owned(), Times { user: 12, system: 34 })));
    }

    #[test]
    fn this_process_can_be_read() {
        let before = Process::read();
        let text = Process::read().since(&before, Duration::from_secs(1));
        assert!(text.starts_with("1.0 s: ") && text.contains("MiB resident") && text.contains("threads:\n"), "{text}");
        assert!(before.mebibytes("VmRSS") > 1.0 && !before.threads.is_empty());
    }
}
