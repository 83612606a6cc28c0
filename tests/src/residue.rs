//! What an instance would leave behind on the machine if it left anything.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Traces of an instance, by kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Residue {
    /// Command lines of processes that name the home or the instance.
    pub processes: Vec<String>,
    /// Mounts below the home or the runtime folder.
    pub mounts: Vec<String>,
    /// Network interfaces of the instance.
    pub interfaces: Vec<String>,
    /// Cgroups of the instance.
    pub cgroups: Vec<PathBuf>,
    /// The instance's folder of runtime files.
    pub runtime: Vec<PathBuf>,
    /// Tables of the instance in the kernel's packet filter.
    pub tables: Vec<String>,
}

impl Residue {
    /// Looks for traces of the instance with that home and id.
    pub fn of(home: &Path, id: &str) -> Result<Self> {
        let home = home.display().to_string();
        let run = PathBuf::from("/run/shipway").join(id);
        let ours = |text: &str| text.contains(&home) || text.contains(&format!("/shipway/{id}"));
        Ok(Self {
            processes: processes()?.into_iter().filter(|line| ours(line)).collect(),
            mounts: lines("/proc/self/mountinfo")?.into_iter().filter(|line| ours(line)).collect(),
            interfaces: names("/sys/class/net")?
                .into_iter()
                .filter(|name| name.starts_with(&format!("sw{id}")))
                .collect(),
            cgroups: cgroups(&format!("shipway-{id}")),
            runtime: run.exists().then_some(run).into_iter().collect(),
            tables: tables(&format!("shipway-{id}"))?,
        })
    }
}

fn lines(path: &str) -> Result<Vec<String>> {
    Ok(std::fs::read_to_string(path)?.lines().map(str::to_owned).collect())
}

fn names(folder: &str) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?.filter_map(Result::ok);
    Ok(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn processes() -> Result<Vec<String>> {
    let pids = names("/proc")?.into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let own = std::process::id().to_string();
    Ok(pids
        .filter(|pid| *pid != own)
        .filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect())
}

/// The cgroups whose names begin so, those of further nodes among them, in every hierarchy.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let below = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).collect()
    };
    let ours = |path: &PathBuf| path.file_name().is_some_and(|own| own.to_string_lossy().starts_with(name));
    let hierarchies = below(root).into_iter().chain([root.to_owned()]);
    hierarchies.flat_map(|hierarchy| below(&hierarchy)).filter(ours).collect()
}

/// The tables of that name. The kernel lists them over netlink only, so this asks the crate that speaks it.
fn tables(name: &str) -> Result<Vec<String>> {
    let remains = shipway_network::remains().context("cannot list the tables of the packet filter")?;
    Ok(remains.tables.into_iter().filter(|table| table.starts_with(name)).collect())
}
