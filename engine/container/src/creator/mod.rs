//! Makes and starts one container, in a process of its own that ends when the program runs.
//!
//! It has one thread: libcontainer forks and goes on in Rust, which is only safe so. It works in a copy of the pod's
//! mount namespace, so that every mount it makes lives exactly as long as the container. Its answer is a file; the
//! container's first process, orphaned, becomes the supervisor's child.

mod config;
mod executor;
mod hints;
mod rootfs;

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, fchown, pipe2};
use rustix::fs::FileType;

use crate::capability::Capabilities;
use crate::cgroup::Group;
use crate::clock;
use crate::confine::Confinement;
use crate::disk;
use crate::error::{Context, Failure, FailureKind, chain};
use crate::layout::{ContainerPaths, PodPaths};
use crate::sealed;
use crate::spec::{ContainerSpec, SandboxSpec};
use crate::state::Started;
use crate::supervisor::Record;
use crate::wire::Outcome;

use executor::Program;
pub(crate) use executor::become_program;
use hints::Hints;

/// Where the hierarchies lie by custom, and the only place where libcontainer looks.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Runs the creator; the exit code only says whether there is an answer.
pub(crate) fn run(pod: &PodPaths, id: &str) -> i32 {
    let paths = pod.container(id);
    let outcome = match create(pod, &paths, id) {
        Ok(started) => Outcome::Started(started),
        Err(failure) => Outcome::Failed(failure),
    };
    match disk::write(&paths.outcome(), &outcome) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

fn create(pod: &PodPaths, paths: &ContainerPaths, id: &str) -> Result<Started, Failure> {
    let sandbox: SandboxSpec = disk::read(&pod.sandbox()).or_internal(|| "read the pod's specification".into())?;
    let record: Record = disk::read(&pod.supervisor()).or_internal(|| "read the supervisor's record".into())?;
    let mut spec: ContainerSpec = disk::read(&paths.spec()).or_internal(|| "read the specification".into())?;
    unshare(CloneFlags::CLONE_NEWNS).or_internal(|| "make a mount namespace".into())?;
    let group = Group::new(&paths.cgroup).or_internal(|| "look for control groups".into())?;
    let mut warnings = limit(&group, &mut spec)?;
    warnings.extend(adjust_oom_score(spec.oom_score_adj.unwrap_or(0))?);
    let available = Capabilities::permitted().or_internal(|| "read this process's capabilities".into())?;
    let (confinement, missing) = Confinement::new(&spec, available)?;
    warnings.extend(missing.iter().map(|name| format!("capability {name} is not available on this machine")));
    let root = rootfs::mount(&spec, paths)?;
    let config = config::write(&spec, &sandbox, &record, pod, paths, &root)?;
    config.or_internal(|| "write the OCI configuration".into())?;
    own_streams(&spec)?;
    let views = cgroup_views(&group)?;
    group.join().or_internal(|| "join the container's control groups".into())?;
    hide_cgroups(&group).or_internal(|| "hide the host's control groups".into())?;
    let (mut reports, report) = pipe2(OFlag::O_CLOEXEC)
        .map(|(read, write)| (fs::File::from(read), write))
        .or_internal(|| "make a pipe".into())?;
    let program = Program::new(spec, confinement, report, views);
    let mut hints = Hints::listen().or_internal(|| "listen to libcontainer".into())?;
    let pid = start(paths, id, program)
        .map_err(|failure| reported(&mut reports).unwrap_or_else(|| explained(failure, &mut hints)))?;
    // The other end closes when the program takes over, or when it could not and has said why.
    match reported(&mut reports) {
        Some(failure) => Err(failure),
        None => Ok(Started { pid, started_at: clock::now(), warnings }),
    }
}

fn explained(failure: Failure, hints: &mut Hints) -> Failure {
    match hints.first() {
        Some(hint) => Failure::new(failure.kind, format!("{failure} ({hint})")),
        None => failure,
    }
}

/// Makes the groups and writes the limits.
fn limit(group: &Group, spec: &mut ContainerSpec) -> Result<Vec<String>, Failure> {
    group.create().or_internal(|| "make the container's control groups".into())?;
    let mut warnings = group.limit(&spec.resources);
    if spec.privileged || group.restrict_devices().or_internal(|| "restrict devices".into())? {
        return Ok(warnings);
    }
    let before = spec.capabilities.len();
    spec.capabilities.retain(|name| name.trim_start_matches("CAP_") != "MKNOD");
    if before != spec.capabilities.len() {
        warnings.push("capability MKNOD is withheld: this machine has no devices control group".to_owned());
    }
    Ok(warnings)
}

/// Lowering it needs `SYS_RESOURCE`, which the host may not have.
fn adjust_oom_score(wanted: i32) -> Result<Option<String>, Failure> {
    const FILE: &str = "/proc/self/oom_score_adj";
    match fs::write(FILE, wanted.to_string()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
            let current = fs::read_to_string(FILE).unwrap_or_default();
            Ok(Some(format!("oom_score_adj {wanted} is not permitted on this machine; it stays {}", current.trim())))
        }
        other => {
            other.or_fail(FailureKind::CreateContainer, || format!("set oom_score_adj to {wanted}")).map(|()| None)
        }
    }
}

/// Lets the container's user open `/dev/stdin`, `/dev/stdout` and `/dev/stderr` again, where they are pipes.
pub(crate) fn own_streams(spec: &ContainerSpec) -> Result<(), Failure> {
    let (uid, gid) = (Some(Uid::from_raw(spec.user.uid)), Some(Gid::from_raw(spec.user.gid)));
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let all = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let give = all.into_iter().filter(|pipe| is_pipe(*pipe)).try_for_each(|pipe| fchown(pipe, uid, gid));
    give.or_internal(|| "give the pipes to the container's user".into())
}

fn is_pipe(descriptor: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(descriptor).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo)
}

/// Read-only views of the container's own groups, to be put into its /sys/fs/cgroup: name and detached mount. The empty
/// name is the whole of it.
fn cgroup_views(group: &Group) -> Result<Vec<(String, OwnedFd)>, Failure> {
    let mut views = Vec::new();
    for (hierarchy, folder) in group.folders() {
        let view = sealed::read_only(&folder).or_internal(|| format!("clone {}", folder.display()))?;
        views.push((hierarchy.view_name(), view));
    }
    Ok(views)
}

/// libcontainer would move the container into its groups once more, through the slow door; on version 1 it looks for
/// the hierarchies among the mounts, so there are none in this namespace any more.
fn hide_cgroups(group: &Group) -> nix::Result<()> {
    if group.is_unified() {
        return Ok(());
    }
    umount2(CGROUPS, MntFlags::MNT_DETACH)?;
    mount(Some("none"), CGROUPS, Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>)
}

fn start(paths: &ContainerPaths, id: &str, program: Program) -> Result<i32, Failure> {
    let fail =
        |error: &dyn std::error::Error| Failure::create(format!("cannot create the container: {}", chain(error)));
    let mut container = build(paths.bundle(), id, program).map_err(|error| fail(&error))?;
    let pid = container.pid().ok_or_else(|| Failure::internal("libcontainer names no process"))?;
    container.start().map_err(|error| Failure::start(format!("cannot start the container: {}", chain(&error))))?;
    Ok(pid.as_raw())
}

fn build(bundle: &Path, id: &str, program: Program) -> Result<Container, libcontainer::error::LibcontainerError> {
    ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_executor(program)
        .with_root_path(bundle.join("oci"))?
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
}

fn reported(reports: &mut impl Read) -> Option<Failure> {
    let mut text = Vec::new();
    match reports.read_to_end(&mut text) {
        Ok(0) => None,
        Ok(_) => serde_json::from_slice(&text).ok(),
        Err(error) => Some(Failure::internal(format!("cannot read the container's report: {error}"))),
    }
}

/// What many of the creator's parts share without copying it over a fork.
type Shared<T> = Rc<T>;
