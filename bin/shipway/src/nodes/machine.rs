//! A further node as a machine inside this machine: namespaces of its own for processes, network, mounts and host name. Its
//! first process is the machine's power: when it is killed, the kernel kills all others at once. It starts the node's
//! process, starts it again whenever it ends, and outlives the engine.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shipway_apiserver::Identity;
use shipway_apiserver::pki::Authority;
use shipway_container::Runtime;
use shipway_network::NetworkConfig;
use tokio::net::unix::pipe::Receiver;

use super::record::Further;
use crate::home::{Home, lock_file, private_folder, read_pid};

/// A node's process that lived for longer is started again at once.
const STEADY: Duration = Duration::from_secs(10);
/// How soon a node's process that ended early is started again, at first and at last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long the end of a machine may take.
const LAST_BREATH: Duration = Duration::from_secs(10);

/// The process id of the machine's first process, if it runs.
pub(crate) fn pid(node: &Further) -> Result<Option<i32>> {
    let path = node.path("machine.lock");
    if !path.exists() {
        return Ok(None);
    }
    let mut file = lock_file(&path)?;
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return Ok(None);
    }
    Ok(read_pid(&mut file).parse().ok())
}

/// What becomes readable when the machine ends; none where it does not run. Nothing is ever read: of the runtime's types a pipe is
/// the one that only waits.
pub(crate) fn handle(node: &Further) -> Option<Receiver> {
    let pid = pid(node).ok().flatten().and_then(Pid::from_raw)?;
    Receiver::from_owned_fd_unchecked(pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?).ok()
}

/// Makes the machine run and its link be as it is wanted.
pub(crate) async fn start(home: &Home, network: &NetworkConfig, node: &Further) -> Result<()> {
    if pid(node)?.is_none() {
        issue(home, node)?;
        let booted = tokio::process::Command::from(boot_command(home, node)?).status().await;
        if !booted.context("cannot start a process")?.success() {
            bail!("the machine of node {} did not start; see {}", node.name, log_path(node).display());
        }
        let pid = pid(node)?.with_context(|| format!("the machine of node {} ended at once", node.name))?;
        let namespace = format!("/proc/{pid}/ns/net");
        if let Err(error) = shipway_network::plug(network, node.record.index, Path::new(&namespace)).await {
            // Without its cable it would never be a node; the next start begins anew.
            kill(network, node).await?;
            return Err(error.into());
        }
    }
    shipway_network::cut(network, node.record.index, node.record.cut).await?;
    Ok(())
}

/// Ends all processes of the machine at once, as if its power were gone.
pub(crate) async fn kill(network: &NetworkConfig, node: &Further) -> Result<()> {
    if let Some(pid) = pid(node)?.and_then(Pid::from_raw) {
        let ended = tokio::task::spawn_blocking(move || end(pid)).await?;
        ended.with_context(|| format!("cannot end the machine of node {}", node.name))?;
    }
    shipway_network::unplug(network, node.record.index).await?;
    Ok(())
}

fn end(pid: Pid) -> Result<()> {
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    pidfd_send_signal(&process, Signal::KILL)?;
    let patience = Timespec::try_from(LAST_BREATH)?;
    if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience))? == 0 {
        bail!("process {} does not end", pid.as_raw_nonzero());
    }
    Ok(())
}

/// Takes away what a machine that has ended leaves beside its folder.
pub(crate) async fn sweep(home: &Home, node: &Further) -> Result<()> {
    let layout = node.layout(home);
    let run = layout.run.clone();
    Runtime::new(layout)?.teardown().await?;
    match std::fs::remove_dir_all(&run) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", run.display()))
        }
        _ => Ok(()),
    }
}

/// Gives the node what it is known by to the API.
fn issue(home: &Home, node: &Further) -> Result<()> {
    let authority = Authority::open(&home.path("pki")).context("cannot open the certificate authority")?;
    let pair = authority.issue_client(&Identity::node(&node.name))?;
    private_folder(&node.path("pki"))?;
    super::identity::write(&node.path("pki"), authority.ca_pem(), &pair)
}

fn log_path(node: &Further) -> PathBuf {
    node.path("logs").join("node.log")
}

fn log(node: &Further) -> Result<File> {
    private_folder(&node.path("logs"))?;
    let path = log_path(node);
    let file = File::options().create(true).append(true).mode(0o600).open(&path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

fn boot_command(home: &Home, node: &Further) -> Result<Command> {
    let mut command = part("/proc/self/exe".as_ref(), home, "boot", &node.name);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log(node)?).current_dir("/");
    Ok(command)
}

/// One of the hidden commands of which a machine consists.
fn part(program: &Path, home: &Home, verb: &str, name: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["node", verb, name, "--home"]).arg(home.root());
    command
}

/// `shipway node boot`: makes the namespaces and starts the first process in them. Must have one thread.
pub(crate) fn boot(home: &Home, node: &Further) -> Result<()> {
    let mut lock = lock_file(&node.path("machine.lock"))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let flags = [CloneFlags::CLONE_NEWPID, CloneFlags::CLONE_NEWNET, CloneFlags::CLONE_NEWNS, CloneFlags::CLONE_NEWUTS];
    let flags = flags.into_iter().fold(CloneFlags::CLONE_NEWIPC, |all, flag| all | flag);
    unshare(flags).context("cannot make the node's namespaces")?;
    let quiet = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, quiet, None::<&str>).context("cannot keep the node's mounts to itself")?;
    nix::unistd::sethostname(&node.name).context("cannot set the node's host name")?;
    rustix::process::setsid().context("cannot leave the session")?;
    // The lock lives as long as the first process, which holds it as its input.
    let mut first = part(&own_path()?, home, "init", &node.name);
    first.stdin(Stdio::from(lock.try_clone()?)).stdout(Stdio::null()).stderr(log(node)?);
    let first = first.spawn().context("cannot start the machine's first process")?;
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(first.id().to_string().as_bytes())?;
    Ok(())
}

/// Where this program lies. By its path it is found on a mount of the namespace that we are in now; only so can helpers be
/// started from a mount of their own. One that was replaced meanwhile is taken as it is now.
fn own_path() -> Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe").context("cannot find this program")?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), PathBuf::from))
}

/// `shipway node init`: the machine's first process.
pub(crate) fn init(home: &Home, node: &Further) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).context("cannot mount the machine's processes")?;
    let mut pause = PAUSES.0;
    loop {
        let started = Instant::now();
        let mut command = part("/proc/self/exe".as_ref(), home, "run", &node.name);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log(node)?).spawn();
        let child = child.context("cannot start the node's process")?;
        reap_until(i32::try_from(child.id())?)?;
        if started.elapsed() > STEADY {
            pause = PAUSES.0;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Buries the machine's orphans until that process ends.
fn reap_until(last: i32) -> Result<()> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) if pid.as_raw() == last => return Ok(()),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for processes"),
        }
    }
}
