//! What is asked for: a pod's sandbox and its containers, in this crate's own words.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The namespaces that all containers of a pod share.
#[expect(clippy::struct_excessive_bools, reason = "each is one switch of a pod's specification")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Names the pod in paths and cgroups: letters, digits, `.`, `_`, `-`; at most 64 bytes.
    pub uid: String,
    /// Host name inside the pod; ignored with `host_network`, where the host's stays.
    pub hostname: String,
    /// Use the host's network and host name instead of new namespaces.
    pub host_network: bool,
    /// Let the containers see the host's processes.
    pub host_pid: bool,
    /// Use the host's System V IPC, message queues and shared memory.
    pub host_ipc: bool,
    /// One process namespace for all containers of the pod; ignored with `host_pid`.
    pub share_processes: bool,
    /// What all containers of the pod may use together; of these only the limits of processor and memory count.
    #[serde(default)]
    pub resources: Resources,
    /// Kernel parameters of the pod's own namespaces, by their names with dots, and their values.
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
    /// Where it is written until when the pod may run, see [`crate::lengthen`]; without, it runs until it is told to end.
    #[serde(default)]
    pub leash: Option<PathBuf>,
}

/// One container.
#[expect(clippy::struct_excessive_bools, reason = "each is one switch of a container's specification")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// `<container name>-<attempt>`; names it in paths and cgroups like a pod's uid.
    pub id: String,
    /// Unpacked image layers, lowest first; at least one, at most 500.
    pub lowers: Vec<PathBuf>,
    /// Whether the container may not write to its root filesystem.
    pub read_only_root: bool,
    /// The program and its arguments; a program without a slash is looked up in the environment's PATH.
    pub args: Vec<String>,
    /// The environment; of duplicates the last one counts.
    pub env: Vec<(String, String)>,
    /// Working directory, made if missing; empty is `/`.
    pub cwd: String,
    /// Whom the program runs as.
    pub user: User,
    /// Besides what every container has (/proc, /dev, /dev/shm, /sys).
    pub mounts: Vec<Mount>,
    /// Limits and shares.
    pub resources: Resources,
    /// All devices, no masked paths, writable /sys; `capabilities` count all the same.
    pub privileged: bool,
    /// The final set (`CAP_CHOWN`; the prefix may be left out).
    pub capabilities: Vec<String>,
    /// Set-user-id programs and file capabilities give nothing.
    pub no_new_privileges: bool,
    /// Which system calls are refused.
    pub seccomp: Seccomp,
    /// Where the output goes, in the CRI's line format.
    pub log: PathBuf,
    /// Bytes after which the log is rotated; 0 means never.
    pub log_limit: u64,
    /// Whether its standard input stays open for those who attach; else it is empty.
    #[serde(default)]
    pub stdin: bool,
    /// Whether its input ends with the first attachment that had it.
    #[serde(default)]
    pub stdin_once: bool,
    /// Whether its standard streams are a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// The running container of the pod whose processes it shares, by id.
    #[serde(default)]
    pub processes_of: Option<String>,
    /// -1000 to 1000; `None` is 0. Clamped, with a warning, where the host forbids lowering it.
    pub oom_score_adj: Option<i32>,
}

/// Numeric user and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub additional: Vec<u32>,
}

/// One mount inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container; `..` and symbolic links never leave its root.
    pub destination: PathBuf,
    /// What appears there.
    pub source: MountSource,
    /// Whether the container may only read it.
    pub read_only: bool,
    /// Whether what the host mounts below it later appears there, too.
    #[serde(default)]
    pub follows_host: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or folder of the host, with what is mounted below it.
    Bind(PathBuf),
    /// Memory.
    Tmpfs {
        /// Bytes; `None` is the kernel's default of half the memory.
        size: Option<u64>,
        /// Permission bits of the top folder.
        mode: u32,
    },
}

/// Limits and shares; `None` sets nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a processor that this container gets when all want more; `None` is the smallest share.
    pub cpu_request_milli: Option<u64>,
    /// Thousandths of a processor at most.
    pub cpu_limit_milli: Option<u64>,
    /// Bytes, swap included.
    pub memory_limit: Option<u64>,
    /// Processes and threads; negative is no limit.
    pub pids_limit: Option<i64>,
}

/// The system call filter. It is enforced or the container does not start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// No filter.
    #[default]
    Unconfined,
    /// This crate's own profile: what ordinary programs need, more with the capabilities that stand for it.
    RuntimeDefault,
    /// A profile of the node, in the form of the OCI runtime specification.
    Localhost(PathBuf),
}
