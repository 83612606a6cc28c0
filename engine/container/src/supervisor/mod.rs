//! One small process per pod: holds its namespaces, is the parent of its containers, keeps their logs and exit codes.
//!
//! It outlives the engine and can be spoken to by any number of them. It has one thread, one loop around poll(2), and
//! allocates little: its private memory is paid once per pod. It never enters a container's control groups.

mod attached;
mod children;
mod clients;
mod container;
mod lines;
mod log;
mod sandbox;
mod serve;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::setsid;
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::error::{Context, Failure};
use crate::layout::PodPaths;
use crate::process::Identity;
use crate::spec::SandboxSpec;
use crate::state::ContainerState;
use crate::wire::Greeting;

use serve::Supervisor;

/// Who supervises the pod, for those who find it later.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) process: Identity,
    /// First process of the namespace that the pod's containers share.
    pub(crate) processes: Option<Identity>,
}

/// What an engine finds when the supervisor is gone.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) process: Option<Identity>,
    pub(crate) state: ContainerState,
}

/// Runs a supervisor until it is told to shut down.
pub(crate) fn run(paths: PodPaths) -> i32 {
    let ready = close_all_but_standard().and_then(|()| Ok(setsid().map(drop)?));
    let prepared = ready.or_internal(|| "leave the engine's session".into()).and_then(|()| prepare(paths));
    let greeting = match &prepared {
        Ok(_) => Greeting::Ready,
        Err(failure) => Greeting::Failed(failure.clone()),
    };
    // An engine that does not live to hear that the pod exists will not ask for it.
    let heard = greet(&greeting);
    match (prepared, heard) {
        (Ok(supervisor), Ok(())) => supervisor.serve(),
        (Ok(supervisor), Err(_)) => supervisor.abandon(),
        (Err(_), _) => 1,
    }
}

fn greet(greeting: &Greeting) -> io::Result<()> {
    let mut line = serde_json::to_vec(greeting)?;
    line.push(b'\n');
    let mut out = io::stdout();
    out.write_all(&line)?;
    out.flush()?;
    let null = fs::OpenOptions::new().write(true).open("/dev/null")?;
    Ok(nix::unistd::dup2_stdout(null)?)
}

fn prepare(paths: PodPaths) -> Result<Supervisor, Failure> {
    let spec: SandboxSpec = disk::read(&paths.sandbox()).or_internal(|| "read the pod's specification".into())?;
    let signals = signals().or_internal(|| "prepare for signals".into())?;
    prctl::set_child_subreaper(true).or_internal(|| "become the parent of orphans".into())?;
    // Children are given scores of their own; where lowering is not permitted, the supervisor is as killable as others.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-999") {
        tracing::debug!(%error, "oom_score_adj stays");
    }
    std::env::set_current_dir("/").or_internal(|| "enter /".into())?;
    sandbox::enter(&spec, &paths)?;
    let processes = sandbox::shared_processes(&spec)?;
    let listener = listen(&paths).or_internal(|| format!("listen at {}", paths.socket.display()))?;
    let own = i32::try_from(std::process::id()).expect("process ids are positive integers");
    let process = Identity::of(own).ok_or_else(|| Failure::internal("this process is not in /proc"))?;
    disk::write(&paths.supervisor(), &Record { process, processes }).or_internal(|| "write the record".into())?;
    Ok(Supervisor::new(paths, spec, listener, signals))
}

/// SIGCHLD is read from a descriptor; what a terminal or a service manager sends is left pending for ever.
fn signals() -> nix::Result<SignalFd> {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let mut blocked = children;
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT] {
        blocked.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None)?;
    SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

fn listen(paths: &PodPaths) -> io::Result<UnixListener> {
    disk::remove_file(&paths.socket)?;
    let listener = UnixListener::bind(&paths.socket)?;
    fs::set_permissions(&paths.socket, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[expect(unsafe_code, reason = "close_range(2) can close what others own")]
/// Whatever the engine had open and forgot to mark.
fn close_all_but_standard() -> io::Result<()> {
    // SAFETY: this process has just begun and owns no descriptor above 2.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
