//! The OCI configuration of a container: namespaces, mounts, hidden paths. Identity, rights and limits are not in it;
//! they are ours (see `confine` and `cgroup`).

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    Mount as OciMount, MountBuilder, Process, RootBuilder, Spec,
};

use crate::disk;
use crate::error::{Context, Failure, FailureKind};
use crate::layout::{ContainerPaths, PodPaths};
use crate::process::Identity;
use crate::spec::{ContainerSpec, Mount, MountSource, SandboxSpec};
use crate::supervisor::{Kept, Record};

/// What of the kernel an unprivileged container shall not see.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What it may see and not change.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Folders that the runtime fills by path; other mounts go below them.
const OURS: [&str; 4] = ["/", "/dev", "/proc", "/sys"];

/// Writes `config.json` into the bundle.
pub(super) fn write(
    spec: &ContainerSpec,
    sandbox: &SandboxSpec,
    record: &Record,
    pod: &PodPaths,
    paths: &ContainerPaths,
    root: &Path,
) -> Result<Result<(), OciSpecError>, Failure> {
    let mut mounts = usual_mounts(spec, sandbox, pod).or_internal(|| "describe the usual mounts".into())?;
    mounts.extend(own_mounts(&spec.mounts)?);
    let shared = shared_processes(spec, sandbox, record, pod)?;
    let namespaces = namespaces(sandbox, shared)?;
    Ok(describe(spec, paths, root, mounts, namespaces)
        .and_then(|config| config.save(paths.bundle().join("config.json"))))
}

fn describe(
    spec: &ContainerSpec,
    paths: &ContainerPaths,
    root: &Path,
    mounts: Vec<OciMount>,
    namespaces: Vec<LinuxNamespace>,
) -> Result<Spec, OciSpecError> {
    let mut process = Process::default();
    process
        .set_args(Some(spec.args.clone()))
        .set_env(None)
        .set_cwd("/".into())
        .set_capabilities(None)
        .set_rlimits(None)
        .set_no_new_privileges(Some(false));
    let mut linux = Linux::default();
    let hidden = |paths: &[&str]| (!spec.privileged).then(|| paths.iter().map(|path| (*path).to_owned()).collect());
    linux
        .set_resources(None)
        .set_cgroups_path(Some(Path::new("/").join(&paths.cgroup)))
        .set_namespaces(Some(namespaces))
        .set_devices(if spec.privileged { host_devices().ok() } else { None })
        .set_masked_paths(hidden(&MASKED))
        .set_readonly_paths(hidden(&READ_ONLY));
    let mut config = Spec::default();
    config
        .set_hostname(None)
        .set_root(Some(RootBuilder::default().path(root).readonly(spec.read_only_root).build()?))
        .set_mounts(Some(mounts))
        .set_process(Some(process))
        .set_linux(Some(linux));
    Ok(config)
}

/// The process whose namespace the container enters: of the pod's own, or of the container that it is to look into.
fn shared_processes(
    spec: &ContainerSpec,
    sandbox: &SandboxSpec,
    record: &Record,
    pod: &PodPaths,
) -> Result<Option<Identity>, Failure> {
    match &spec.processes_of {
        Some(id) if !sandbox.host_pid && record.processes.is_none() => {
            let gone = || Failure::create(format!("container {id}, whose processes are to be shared, does not run"));
            let kept: Kept = disk::read(&pod.container(id).state()).map_err(|_| gone())?;
            kept.process.map(Some).ok_or_else(gone)
        }
        _ => Ok(record.processes),
    }
}

/// Network, host name and IPC are the supervisor's already, and so the creator's.
fn namespaces(sandbox: &SandboxSpec, shared: Option<Identity>) -> Result<Vec<LinuxNamespace>, Failure> {
    let new = |typ| LinuxNamespaceBuilder::default().typ(typ);
    let mut all = vec![new(LinuxNamespaceType::Mount)];
    if Path::new("/proc/self/ns/cgroup").exists() {
        all.push(new(LinuxNamespaceType::Cgroup));
    }
    match shared {
        _ if sandbox.host_pid => {}
        Some(first) if first.open().is_none() => {
            return Err(Failure::create("the process namespace to be shared is gone: its first process has ended"));
        }
        Some(first) => all.push(new(LinuxNamespaceType::Pid).path(format!("/proc/{}/ns/pid", first.pid))),
        None => all.push(new(LinuxNamespaceType::Pid)),
    }
    let built: Result<Vec<_>, _> = all.into_iter().map(LinuxNamespaceBuilder::build).collect();
    built.or_internal(|| "describe the namespaces".into())
}

fn usual_mounts(spec: &ContainerSpec, sandbox: &SandboxSpec, pod: &PodPaths) -> Result<Vec<OciMount>, OciSpecError> {
    let shared_memory = if sandbox.host_ipc { PathBuf::from("/dev/shm") } else { pod.shared_memory() };
    let sys: &[&str] =
        if spec.privileged { &["nosuid", "noexec", "nodev"] } else { &["nosuid", "noexec", "nodev", "ro"] };
    let mut all = vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"])?,
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"])?,
        mount("bind", &shared_memory.to_string_lossy(), "/dev/shm", &["rbind", "nosuid", "noexec", "nodev"])?,
        mount("sysfs", "sysfs", "/sys", sys)?,
    ];
    let hierarchies = crate::cgroup::hierarchies().map_err(|error| OciSpecError::Other(error.to_string()))?;
    if !hierarchies.iter().any(crate::cgroup::Hierarchy::is_unified) {
        all.push(mount("tmpfs", "tmpfs", super::CGROUPS, &["nosuid", "noexec", "nodev", "mode=755", "size=64k"])?);
    }
    Ok(all)
}

/// Parents before children, whatever the order they were given in.
fn own_mounts(mounts: &[Mount]) -> Result<Vec<OciMount>, Failure> {
    let mut all: Vec<(PathBuf, &Mount)> =
        mounts.iter().map(|mount| Ok((inside(&mount.destination)?, mount))).collect::<Result<_, Failure>>()?;
    all.sort_by_key(|(destination, _)| destination.components().count());
    all.into_iter().map(|(destination, mount)| own_mount(&destination, mount)).collect()
}

fn own_mount(destination: &Path, asked: &Mount) -> Result<OciMount, Failure> {
    let shown = destination.to_string_lossy();
    let built = match &asked.source {
        MountSource::Bind(source) => {
            fs::metadata(source)
                .or_fail(FailureKind::CreateContainer, || format!("mount {} at {shown}", source.display()))?;
            let mut options = if asked.read_only { vec!["rbind", "rro"] } else { vec!["rbind", "rw"] };
            options.extend(asked.follows_host.then_some("rslave"));
            mount("bind", &source.to_string_lossy(), &shown, &options)
        }
        MountSource::Tmpfs { size, mode } => {
            let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), format!("mode={mode:o}")];
            options.extend(size.map(|size| format!("size={size}")));
            options.extend(asked.read_only.then(|| "ro".to_owned()));
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            mount("tmpfs", "tmpfs", &shown, &options)
        }
    };
    built.or_internal(|| format!("describe the mount at {shown}"))
}

/// The destination without `.` and `..`, which never climb above the root.
fn inside(destination: &Path) -> Result<PathBuf, Failure> {
    if !destination.is_absolute() {
        return Err(Failure::create(format!(
            "mount destination \"{}\" is not an absolute path",
            destination.display()
        )));
    }
    let mut path = PathBuf::from("/");
    for component in destination.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => drop(path.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if OURS.iter().any(|ours| path == Path::new(ours)) {
        return Err(Failure::create(format!("cannot mount at {}: mount below it instead", path.display())));
    }
    Ok(path)
}

fn mount(typ: &str, source: &str, destination: &str, options: &[&str]) -> Result<OciMount, OciSpecError> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    MountBuilder::default().typ(typ).source(source).destination(destination).options(options).build()
}

/// Every node of the host's /dev, for privileged containers.
fn host_devices() -> io::Result<Vec<LinuxDevice>> {
    let mut all = Vec::new();
    let mut folders = vec![PathBuf::from("/dev")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let found = fs::symlink_metadata(&path)?;
            if found.is_dir() && !["/dev/pts", "/dev/shm", "/dev/mqueue"].iter().any(|skip| path == Path::new(skip)) {
                folders.push(path);
            } else if let Some(device) = device(&path, &found) {
                all.push(device);
            }
        }
    }
    Ok(all)
}

fn device(path: &Path, found: &fs::Metadata) -> Option<LinuxDevice> {
    let typ = match found.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => return None,
    };
    // The container gets its own of these.
    if ["/dev/ptmx", "/dev/console"].iter().any(|own| path == Path::new(own)) {
        return None;
    }
    LinuxDeviceBuilder::default()
        .path(path)
        .typ(typ)
        .major(i64::from(libc::major(found.rdev())))
        .minor(i64::from(libc::minor(found.rdev())))
        .file_mode(found.mode() & 0o777)
        .uid(found.uid())
        .gid(found.gid())
        .build()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_never_climb_above_the_root() {
        for (given, meant) in [("/a/../../../etc/x", "/etc/x"), ("/./a//b/", "/a/b"), ("/../../tmp", "/tmp")] {
            assert_eq!(inside(Path::new(given)).unwrap(), Path::new(meant));
        }
    }

    #[test]
    fn destinations_that_are_the_runtimes_own_are_refused() {
        for given in ["/", "/..", "/dev", "/proc/", "/x/../sys", "relative"] {
            assert!(inside(Path::new(given)).is_err(), "{given} was taken");
        }
    }

    #[test]
    fn parents_are_mounted_before_children() {
        let tmpfs = |path: &str| Mount {
            destination: path.into(),
            source: MountSource::Tmpfs { size: None, mode: 0o755 },
            read_only: false,
            follows_host: false,
        };
        let all = own_mounts(&[tmpfs("/a/b/c"), tmpfs("/a"), tmpfs("/a/b")]).unwrap();
        let order: Vec<_> = all.iter().map(|one| one.destination().to_str().unwrap()).collect();
        assert_eq!(order, ["/a", "/a/b", "/a/b/c"]);
    }
}
