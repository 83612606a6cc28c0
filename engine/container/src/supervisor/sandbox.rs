//! The namespaces that a pod's containers share, entered by the supervisor and inherited by all it starts.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, sethostname};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error::{Context, Failure, FailureKind};
use crate::layout::PodPaths;
use crate::process::Identity;
use crate::spec::SandboxSpec;

/// What container runtimes give by custom.
const SHARED_MEMORY: &str = "mode=1777,size=65536k";

pub(super) fn enter(spec: &SandboxSpec, paths: &PodPaths) -> Result<(), Failure> {
    let mut flags = CloneFlags::CLONE_NEWNS;
    if !spec.host_network {
        flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
    }
    if !spec.host_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    unshare(flags).or_internal(|| "make the pod's namespaces".into())?;
    // New mounts of the host arrive here, for volumes that come later; ours never leave.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .or_internal(|| "keep the pod's mounts to itself".into())?;
    if !spec.host_network {
        sethostname(&spec.hostname).or_internal(|| format!("set the host name \"{}\"", spec.hostname))?;
        raise_loopback().or_internal(|| "bring up the loopback interface".into())?;
        // As container engines do: a program that is not root may listen on port 80 of its own pod.
        set("net.ipv4.ip_unprivileged_port_start", "0")?;
    }
    spec.sysctls.iter().try_for_each(|(name, value)| set(name, value))?;
    if !spec.host_ipc {
        share_memory(paths).or_internal(|| "mount the pod's shared memory".into())?;
    }
    Ok(())
}

/// The file shows the namespaces of who looks.
fn set(name: &str, value: &str) -> Result<(), Failure> {
    let parts: Vec<&str> = name.split('.').collect();
    if parts.iter().any(|part| matches!(*part, "" | "." | "..") || part.contains("..")) {
        return Err(Failure::create(format!("\"{name}\" is no kernel parameter")));
    }
    // A slash stands for a dot within a part.
    let parts: Vec<String> = parts.iter().map(|part| part.replace('/', ".")).collect();
    let file = std::path::Path::new("/proc/sys").join(parts.join("/"));
    fs::write(&file, value).or_fail(FailureKind::CreateContainer, || format!("set {name} to \"{value}\""))
}

fn share_memory(paths: &PodPaths) -> io::Result<()> {
    let place = paths.shared_memory();
    fs::create_dir_all(&place)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("shm"), &place, Some("tmpfs"), flags, Some(SHARED_MEMORY))?)
}

/// netdevice(7).
#[expect(unsafe_code, reason = "ioctl(2)")]
fn raise_loopback() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let up = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("interface flags fit");
    let flags = libc::__c_anonymous_ifr_ifru { ifru_flags: up };
    let mut request = libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: flags };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = byte.cast_signed();
    }
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "fork(2)")]
/// Where the containers share a process namespace, something must be its first process and reap.
pub(super) fn shared_processes(spec: &SandboxSpec) -> Result<Option<Identity>, Failure> {
    if !spec.share_processes || spec.host_pid {
        return Ok(None);
    }
    let own = fs::File::open("/proc/self/ns/pid").or_internal(|| "open the process namespace".into())?;
    unshare(CloneFlags::CLONE_NEWPID).or_internal(|| "make a process namespace".into())?;
    // SAFETY: this process has one thread; the child may go on in Rust.
    let forked = unsafe { fork() }.or_internal(|| "start the first process of the pod".into())?;
    let ForkResult::Parent { child } = forked else { reap_for_ever() };
    setns(own, CloneFlags::CLONE_NEWPID).or_internal(|| "return to the process namespace".into())?;
    let identity = Identity::of(child.as_raw());
    identity.map(Some).ok_or_else(|| Failure::internal("the pod's first process ended at once"))
}

/// The kernel gives it the orphans of the namespace, and ends the namespace with it.
fn reap_for_ever() -> ! {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let prepared = prctl::set_pdeathsig(Signal::SIGKILL).and_then(|()| prctl::set_name(c"pause"));
    while prepared.is_ok() && children.wait().is_ok() {
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
    }
    std::process::exit(1)
}
