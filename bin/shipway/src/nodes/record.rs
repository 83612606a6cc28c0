//! What is remembered of the further nodes of this machine: a folder each, with what somebody wants of the node. The engine
//! makes it so, now and whenever it starts.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use shipway_container::Layout;

use crate::home::{Home, lock_file, private_folder};

/// The index of the first further node; the engine's own has 1.
const FIRST: u8 = 2;
/// No machine has more nodes: their addresses end there.
const LAST: u8 = 63;
/// A longer name would not fit into the paths of sockets.
const LONGEST_NAME: usize = 32;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Says which address the node has.
    pub(crate) index: u8,
    /// It has lost its power.
    #[serde(default)]
    pub(crate) killed: bool,
    /// Its link is down.
    #[serde(default)]
    pub(crate) cut: bool,
}

/// A further node.
#[derive(Clone, Debug)]
pub(crate) struct Further {
    pub(crate) name: String,
    /// What a home is to the engine.
    pub(crate) folder: PathBuf,
    pub(crate) record: Record,
}

impl Further {
    /// Whether somebody wants it to be ready.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.record.killed && !self.record.cut
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the runtime keeps the node's things.
    pub(crate) fn layout(&self, home: &Home) -> Layout {
        Layout {
            state: self.path("pods"),
            run: home.run().join(format!("node-{}", self.name)),
            cgroup: format!("{}-{}", home.cgroup(), self.name),
            executable: "/proc/self/exe".into(),
        }
    }

    pub(crate) fn save(&self) -> Result<()> {
        private_folder(&self.folder)?;
        let (path, fresh) = (self.path("node.json"), self.path("node.json.new"));
        std::fs::write(&fresh, serde_json::to_vec_pretty(&self.record)?)?;
        std::fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The further nodes, in the order in which they came.
pub(crate) fn all(home: &Home) -> Result<Vec<Further>> {
    let entries = match std::fs::read_dir(home.nodes()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", home.nodes().display()))?,
    };
    let mut nodes = Vec::new();
    for entry in entries {
        let (folder, name) = { entry.map(|entry| (entry.path(), entry.file_name()))? };
        let path = folder.join("node.json");
        let Ok(text) = std::fs::read(&path) else { continue };
        let record = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
        nodes.push(Further { name: name.to_string_lossy().into_owned(), folder, record });
    }
    nodes.sort_by_key(|node| node.record.index);
    Ok(nodes)
}

pub(crate) fn find(home: &Home, name: &str) -> Result<Further> {
    let found = all(home)?.into_iter().find(|node| node.name == name);
    found.with_context(|| format!("this machine has no further node {name:?}; `shipway node ls` shows those it has"))
}

/// Remembers a new node.
pub(crate) fn add(home: &Home, name: &str) -> Result<Further> {
    check_name(name)?;
    let nodes = all(home)?;
    if nodes.iter().any(|node| node.name == name) {
        bail!("there is a node {name:?} already");
    }
    let index = (FIRST..=LAST).find(|index| nodes.iter().all(|node| node.record.index != *index));
    let index = index.with_context(|| format!("this machine has {} further nodes already", nodes.len()))?;
    let record = Record { index, killed: false, cut: false };
    let node = Further { name: name.to_owned(), folder: home.nodes().join(name), record };
    node.save()?;
    Ok(node)
}

fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(plain);
    if !fits || name.starts_with('-') || name.ends_with('-') {
        bail!("{name:?} cannot be a node's name: up to {LONGEST_NAME} lower-case letters, digits and `-` inside");
    }
    if name == crate::listings::node_name() {
        bail!("{name:?} is the name of the engine's own node");
    }
    Ok(())
}

/// Held by whoever changes the nodes of this machine.
pub(crate) fn lock(home: &Home) -> Result<File> {
    private_folder(&home.nodes())?;
    let file = lock_file(&home.nodes().join("lock"))?;
    flock(&file, FlockOperation::LockExclusive).context("cannot lock the nodes")?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_name_is_a_label() {
        for name in ["", "-a", "a-", "A", "a.b", "a/b", "..", &"x".repeat(33)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name("node-2").is_ok());
    }
}
