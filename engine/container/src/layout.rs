//! Where everything of an instance, a pod and a container lies; the only place that makes such paths.

use std::path::{Path, PathBuf};

use crate::error::ContainerError;

/// The kernel's `sun_path` holds 108 bytes with the closing zero (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
const NAME_MAX: usize = 64;

/// The folders and names of one instance.
#[derive(Clone, Debug)]
pub struct Layout {
    /// One folder a pod; survives restarts. Its filesystem must be usable as the upper layer of an overlay.
    pub state: PathBuf,
    /// Sockets; gone after a reboot.
    pub run: PathBuf,
    /// Parent cgroup, in every hierarchy; without slashes.
    pub cgroup: String,
    /// The executable whose `main` calls [`crate::entry`] first.
    pub executable: PathBuf,
}

impl Layout {
    pub(crate) fn pod(&self, uid: &str) -> Result<PodPaths, ContainerError> {
        check_name("pod", uid)?;
        let paths = PodPaths {
            uid: uid.to_owned(),
            folder: self.state.join(uid),
            socket: self.run.join(format!("{uid}.sock")),
            cgroup: format!("{}/{uid}", self.cgroup),
        };
        if paths.socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(ContainerError::SocketPath { path: paths.socket });
        }
        Ok(paths)
    }
}

/// The paths of one pod.
#[derive(Clone, Debug)]
pub(crate) struct PodPaths {
    pub(crate) uid: String,
    pub(crate) folder: PathBuf,
    pub(crate) socket: PathBuf,
    /// Relative to each hierarchy's mount point.
    pub(crate) cgroup: String,
}

impl PodPaths {
    /// Marks the folder as a pod's, and says how it was asked for.
    pub(crate) fn sandbox(&self) -> PathBuf {
        self.folder.join("sandbox.json")
    }

    /// The supervisor's process.
    pub(crate) fn supervisor(&self) -> PathBuf {
        self.folder.join("supervisor.json")
    }

    /// What the supervisor had to say about faults of its own.
    pub(crate) fn supervisor_log(&self) -> PathBuf {
        self.folder.join("supervisor.log")
    }

    /// Shared memory of the pod's containers; mounted in the pod's mount namespace only.
    pub(crate) fn shared_memory(&self) -> PathBuf {
        self.folder.join("shm")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.folder.join("containers")
    }

    pub(crate) fn container(&self, id: &str) -> ContainerPaths {
        ContainerPaths { folder: self.containers().join(id), cgroup: format!("{}/{id}", self.cgroup) }
    }
}

/// The paths of one container.
#[derive(Clone, Debug)]
pub(crate) struct ContainerPaths {
    pub(crate) folder: PathBuf,
    pub(crate) cgroup: String,
}

impl ContainerPaths {
    pub(crate) fn spec(&self) -> PathBuf {
        self.folder.join("spec.json")
    }

    /// Process and state, for an engine that finds the supervisor gone.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state.json")
    }

    /// The creator's answer.
    pub(crate) fn outcome(&self) -> PathBuf {
        self.folder.join("outcome.json")
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.folder.join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// The OCI bundle and libcontainer's own state.
    pub(crate) fn bundle(&self) -> &Path {
        &self.folder
    }
}

/// Ids become path components and cgroup names: nothing that could climb out or hide.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), ContainerError> {
    let fits = !name.is_empty() && name.len() <= NAME_MAX && !name.starts_with('.');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if fits && name.bytes().all(plain) { Ok(()) } else { Err(ContainerError::Name { what, name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(run: &str) -> Layout {
        Layout { state: "/s".into(), run: run.into(), cgroup: "shipway-t".into(), executable: "/proc/self/exe".into() }
    }

    #[test]
    fn names_that_climb_out_are_refused() {
        for name in ["", ".", "..", "../x", "a/b", ".hidden", "a b", "a\0b", &"x".repeat(65)] {
            assert!(layout("/run").pod(name).is_err(), "{name:?} was taken");
        }
        assert!(layout("/run").pod("0b1f6a8e-7a52-4ed5-9c1c-2f8e5c0a7f10").is_ok());
    }

    #[test]
    fn a_socket_path_beyond_the_kernels_limit_is_refused() {
        let deep = format!("/{}", "d".repeat(104));
        assert!(matches!(layout(&deep).pod("pod"), Err(ContainerError::SocketPath { .. })));
    }
}
