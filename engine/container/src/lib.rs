//! Pods and their containers on this machine: namespaces, cgroups v1 and v2, root filesystems, seccomp, logs, exit
//! codes.
//!
//! The engine talks to one small supervisor process per pod, which owns the pod's namespaces and its containers' lives
//! and outlives the engine. Everything privileged and everything that forks runs in fresh, single-threaded processes of
//! the same executable (see [`entry`]); the engine's own process only sends messages.
//! This crate knows no Kubernetes object: no images, no volumes, no probes, no addresses.

mod attachment;
mod capability;
mod cgroup;
mod clock;
mod confine;
mod creator;
mod disk;
mod engine;
mod entry;
mod error;
mod exec;
mod handover;
mod kernel;
mod layout;
mod leash;
mod process;
mod program;
mod sealed;
mod seccomp;
mod spec;
mod state;
mod supervisor;
mod terminal;
mod wire;

pub use cgroup::Usage;
pub use engine::{Attachment, Command, Meter, Pod, Process, Runtime, Streams};
pub use entry::entry;
pub use error::{ContainerError, Failure, FailureKind};
pub use layout::Layout;
pub use leash::{Moment, lengthen};
pub use spec::{ContainerSpec, Mount, MountSource, Resources, SandboxSpec, Seccomp, User};
pub use state::{ContainerState, ExecOutput, PodState, Started};
