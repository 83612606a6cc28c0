//! Control groups: where the hierarchies are, and one group of ours across all of them.
//!
//! Version 1 (also beside an empty version 2, "hybrid") and pure version 2. Named hierarchies (systemd's) are left
//! alone. A process joins by writing `0` to `tasks` where there is one: the kernel then moves only the calling thread
//! and skips the lock that makes a write to `cgroup.procs` wait for a grace period, some 8 ms on an idle machine.

mod devices;
mod limits;
mod usage;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::disk::gone_is_fine;

pub(crate) use usage::Counters;
pub use usage::Usage;

/// Attempts, a millisecond apart, while the kernel still counts processes that are just ending.
const PATIENCE: u32 = 2000;

/// One mounted hierarchy that limits something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    mount: PathBuf,
    controllers: Vec<String>,
    unified: bool,
}

impl Hierarchy {
    pub(crate) fn is_unified(&self) -> bool {
        self.unified
    }

    /// The name under which a container sees it below /sys/fs/cgroup; empty when it is all there is.
    pub(crate) fn view_name(&self) -> String {
        if self.unified { String::new() } else { self.controllers.join(",") }
    }
}

/// All hierarchies of this machine.
pub(crate) fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(in_mounts(&table, |mount| fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()))
}

fn in_mounts(table: &str, controllers: impl Fn(&Path) -> String) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    let mut unified = None;
    for line in table.lines() {
        // proc_pid_mountinfo(5): fixed fields, optional ones, " - ", then type, source, options.
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
        let mut right = right.split(' ');
        match (right.next(), right.nth(1)) {
            (Some("cgroup"), Some(options)) => {
                let controllers: Vec<_> = options.split(',').filter(|one| limits::known(one)).map(Into::into).collect();
                if !controllers.is_empty() && !found.iter().any(|known| known.controllers == controllers) {
                    found.push(Hierarchy { mount, controllers, unified: false });
                }
            }
            (Some("cgroup2"), _) if unified.is_none() => unified = Some(mount),
            _ => {}
        }
    }
    if let (true, Some(mount)) = (found.is_empty(), unified) {
        let controllers = controllers(&mount).split_ascii_whitespace().map(Into::into).collect();
        found.push(Hierarchy { mount, controllers, unified: true });
    }
    found
}

/// One group: the same relative path in every hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    hierarchies: Vec<Hierarchy>,
    path: PathBuf,
}

impl Group {
    /// `path` without a leading slash.
    pub(crate) fn new(path: &str) -> io::Result<Self> {
        Ok(Self { hierarchies: hierarchies()?, path: path.into() })
    }

    pub(crate) fn folders(&self) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        self.hierarchies.iter().map(|one| (one, one.mount.join(&self.path)))
    }

    pub(crate) fn is_unified(&self) -> bool {
        self.hierarchies.iter().any(Hierarchy::is_unified)
    }

    /// The folder in the hierarchy that has the controller.
    fn with(&self, controller: &str) -> Option<(bool, PathBuf)> {
        let has = |one: &&Hierarchy| one.controllers.iter().any(|name| name == controller);
        self.hierarchies.iter().find(has).map(|one| (one.unified, one.mount.join(&self.path)))
    }

    /// Makes the group and its parents.
    pub(crate) fn create(&self) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            let mut folder = hierarchy.mount.clone();
            for part in &self.path {
                if hierarchy.unified {
                    delegate(&folder, &hierarchy.controllers);
                }
                folder.push(part);
                match fs::create_dir(&folder) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                if hierarchy.controllers.iter().any(|name| name == "cpuset") && !hierarchy.unified {
                    inherit_processors(&folder)?;
                }
            }
        }
        Ok(())
    }

    /// Moves the calling process, which must have one thread, into the group.
    pub(crate) fn join(&self) -> io::Result<()> {
        self.doors().and_then(|doors| doors.iter().try_for_each(|door| fs::write(door, "0")))
    }

    /// The files through which [`Group::join`] enters.
    pub(crate) fn doors(&self) -> io::Result<Vec<PathBuf>> {
        let door =
            |(one, folder): (&Hierarchy, PathBuf)| folder.join(if one.unified { "cgroup.procs" } else { "tasks" });
        let doors: Vec<_> = self.folders().map(door).collect();
        match doors.iter().find(|door| !door.exists()) {
            Some(missing) => Err(io::Error::new(io::ErrorKind::NotFound, format!("no {}", missing.display()))),
            None => Ok(doors),
        }
    }

    /// Processes the kernel killed in the group for want of memory.
    pub(crate) fn out_of_memory_kills(&self) -> u64 {
        let Some((unified, folder)) = self.with("memory") else { return 0 };
        let file = folder.join(if unified { "memory.events" } else { "memory.oom_control" });
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
    }

    /// Kills all processes of the group and of those below, and waits until none is left.
    pub(crate) fn kill(&self) -> io::Result<()> {
        for (hierarchy, folder) in self.folders().filter(|(_, folder)| folder.exists()) {
            if hierarchy.unified && fs::write(folder.join("cgroup.kill"), "1").is_ok() {
                continue;
            }
            kill_below(&folder, hierarchy)?;
        }
        for _ in 0..PATIENCE {
            if self.is_empty()? {
                return Ok(());
            }
            sleep(Duration::from_millis(1));
        }
        Err(io::Error::other(format!("processes of {} do not end", self.path.display())))
    }

    fn is_empty(&self) -> io::Result<bool> {
        for (_, folder) in self.folders() {
            for below in tree(&folder)? {
                if !processes(&below)?.is_empty() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Removes the group and those below, in all hierarchies, and kills whatever is still in them.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let mut busy = false;
        for (_, folder) in self.folders() {
            for below in tree(&folder)? {
                match gone_is_fine(fs::remove_dir(&below)) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => busy = true,
                    other => other?,
                }
            }
        }
        if !busy {
            return Ok(());
        }
        self.kill()?;
        for (_, folder) in self.folders() {
            for below in tree(&folder)? {
                remove_when_empty(&below)?;
            }
        }
        Ok(())
    }
}

/// Best effort: a controller that the parent does not have is reported where its limit cannot be written.
fn delegate(folder: &Path, controllers: &[String]) {
    for controller in controllers {
        if let Err(error) = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}")) {
            tracing::debug!(%error, controller, folder = %folder.display(), "controller not delegated");
        }
    }
}

/// A version 1 cpuset is born empty, and nothing can join it.
fn inherit_processors(folder: &Path) -> io::Result<()> {
    let parent = folder.parent().unwrap_or(folder);
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(folder.join(file))?.trim().is_empty() {
            fs::write(folder.join(file), fs::read_to_string(parent.join(file))?)?;
        }
    }
    Ok(())
}

fn kill_below(folder: &Path, hierarchy: &Hierarchy) -> io::Result<()> {
    for below in tree(folder)? {
        // No process may fork its way out of the sweep.
        if hierarchy.controllers.iter().any(|name| name == "pids") {
            gone_is_fine(fs::write(below.join("pids.max"), "0"))?;
        }
        for pid in processes(&below)? {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn processes(folder: &Path) -> io::Result<Vec<i32>> {
    match fs::read_to_string(folder.join("cgroup.procs")) {
        Ok(list) => Ok(list.lines().filter_map(|line| line.parse().ok()).collect()),
        // ENODEV: the group was removed while its file was open.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// The folder and all below, children before parents; empty when it is not there.
fn tree(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all.extend(tree(&entry.path())?);
        }
    }
    all.push(folder.to_owned());
    Ok(all)
}

fn remove_when_empty(folder: &Path) -> io::Result<()> {
    for _ in 0..PATIENCE {
        match gone_is_fine(fs::remove_dir(folder)) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => sleep(Duration::from_millis(1)),
            other => return other,
        }
    }
    Err(io::Error::other(format!("{} stays busy", folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct
31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 25 0:27 / /elsewhere rw - cgroup cgroup rw,memory";

    #[test]
    fn version_one_hierarchies_are_found_once_and_named_ones_left_alone() {
        let found = in_mounts(V1, |_| "hugetlb".to_owned());
        let mounts: Vec<_> = found.iter().map(|one| one.mount.to_str().unwrap()).collect();
        assert_eq!(mounts, ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory"]);
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
    }

    #[test]
    fn a_pure_version_two_machine_has_one_hierarchy() {
        let found =
            in_mounts("30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", |_| "cpu memory pids\n".to_owned());
        assert_eq!(found.len(), 1);
        assert!(found[0].unified);
        assert_eq!(found[0].controllers, ["cpu", "memory", "pids"]);
    }
}
