//! Where one instance keeps its things, and the lock that lets one engine at a time use them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

/// Where the runtime files of all instances are.
pub(crate) const RUN: &str = "/run/shipway";

/// The folder of one instance and the names derived from it.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    root: PathBuf,
    id: String,
}

impl Home {
    /// Takes the folder, making it where it is missing.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        require_root()?;
        private_folder(root)?;
        let root = root.canonicalize().with_context(|| format!("cannot use {} as home", root.display()))?;
        let id = format!("{:06x}", fnv(root.as_os_str().as_encoded_bytes()) & 0x00ff_ffff);
        Ok(Self { root, id })
    }

    /// Six hexadecimal digits that go into the names of interfaces, tables and cgroups.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Sockets and other files that do not outlive the machine's uptime.
    pub(crate) fn run(&self) -> PathBuf {
        Path::new(RUN).join(&self.id)
    }

    /// The parent cgroup of everything of this instance.
    pub(crate) fn cgroup(&self) -> String {
        format!("shipway-{}", self.id)
    }

    /// Where the further nodes of this machine are remembered.
    pub(crate) fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }

    /// Takes the engine's lock, writing our process id into it; an error names the engine that has it.
    pub(crate) fn lock(&self) -> Result<File> {
        let mut file = self.lock_file()?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("an engine (process {}) already runs on {}", read_pid(&mut file), self.root.display());
        }
        file.set_len(0)?;
        file.write_all(std::process::id().to_string().as_bytes())?;
        Ok(file)
    }

    /// The process id of the engine that runs on this home.
    pub(crate) fn engine(&self) -> Result<Option<i32>> {
        if !self.path("engine.lock").exists() {
            return Ok(None);
        }
        let mut file = self.lock_file()?;
        if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return Ok(None);
        }
        Ok(read_pid(&mut file).parse().ok())
    }

    fn lock_file(&self) -> Result<File> {
        lock_file(&self.path("engine.lock"))
    }
}

/// A file that is there to be locked and to hold the process id of who has it.
pub(crate) fn lock_file(path: &Path) -> Result<File> {
    let options = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    options.with_context(|| format!("cannot open {}", path.display()))
}

/// Makes a folder that only root may look into.
pub(crate) fn private_folder(path: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make the folder {}", path.display()))
}

/// Holds the lock under which instances choose their subnets.
pub(crate) fn lock_machine() -> Result<File> {
    private_folder(Path::new(RUN))?;
    let path = Path::new(RUN).join("lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("shipway makes namespaces, mounts and network devices and must run as root; try again with sudo");
    }
    Ok(())
}

pub(crate) fn read_pid(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(16).read_to_string(&mut text) {
        Ok(_) => text.trim().to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}

/// FNV-1a: stable over versions and machines, which the standard library's hasher does not promise.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_behind_ids_is_fnv_1a_as_published() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
