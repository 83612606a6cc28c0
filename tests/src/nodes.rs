//! What further nodes of an instance are seen to be from the outside: their processes, and what their namespaces hold.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Instance;

impl Instance {
    /// The first process of a further node's machine.
    pub fn machine(&self, node: &str) -> Result<u32> {
        let text = std::fs::read_to_string(self.home().join("nodes").join(node).join("machine.lock"))?;
        text.trim().parse().with_context(|| format!("node {node} has no machine"))
    }

    /// The process of a further node itself, as this machine numbers it.
    pub fn node_process(&self, node: &str) -> Result<u32> {
        let words = ["node", "run", node, "--home", &self.home().canonicalize()?.display().to_string()].join("\0");
        let found = pids()?.into_iter().find(|pid| command_line(*pid).contains(&words));
        found.with_context(|| format!("no process of node {node} runs"))
    }
}

/// All processes.
pub fn pids() -> Result<Vec<u32>> {
    let entries = std::fs::read_dir("/proc")?.filter_map(Result::ok);
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// A process's words, each ended by a zero; empty when it is gone.
pub fn command_line(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).into_owned()
}

/// What a network namespace holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Destinations of its routes over the link between the nodes, as `address/prefix`.
    pub peers: BTreeSet<String>,
    /// Destinations of its routes to pods of its own.
    pub pods: BTreeSet<String>,
}

impl Held {
    /// Looks into the namespace of a process, for what the instance with that id has there.
    pub fn of(process: u32, id: &str) -> Result<Self> {
        let namespace = std::fs::File::open(Path::new("/proc").join(process.to_string()).join("ns/net"))?;
        let looking = std::thread::spawn(move || -> Result<String> {
            // The thread ends with the look.
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))?;
            Ok(std::fs::read_to_string("/proc/thread-self/net/route")?)
        });
        let table = looking.join().map_err(|_| anyhow!("looking into a namespace panicked"))??;
        let (bridge, overlay) = (format!("sw{id}"), format!("sw{id}-vxlan"));
        let mut held = Self::default();
        for line in table.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(link), Some(to), Some(mask)) = (words.first(), words.get(1), words.get(7)) else { continue };
            // The kernel writes both as one number in its own byte order.
            let number = |text: &str| u32::from_str_radix(text, 16).map(u32::to_ne_bytes);
            let (to, mask) = (number(to)?, number(mask)?);
            let [a, b, c, d] = to;
            let destination = format!("{a}.{b}.{c}.{d}/{}", u32::from_be_bytes(mask).count_ones());
            if *link == overlay {
                held.peers.insert(destination);
            } else if link.strip_prefix(&bridge).is_some_and(|rest| rest.len() == 6 && !rest.starts_with('-')) {
                held.pods.insert(destination);
            }
        }
        Ok(held)
    }
}
