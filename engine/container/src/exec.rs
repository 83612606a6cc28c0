//! Runs one command inside a running container, in a helper process of its own, with the container's own rights.
//!
//! The helper has one thread. It opens the control groups' doors, enters the namespaces and forks; the child joins
//! the groups, confines itself like the container's first process and becomes the command. The helper waits with a
//! time limit, if there is one, and kills the command when it expires or when the engine goes away. Its standard input is
//! a socket to the engine; its output is the command's, unless the command gets a terminal.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2, setsid};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::capability::Capabilities;
use crate::cgroup::Group;
use crate::confine::Confinement;
use crate::creator::{become_program, own_streams};
use crate::disk;
use crate::error::{Context, Failure, FailureKind};
use crate::handover;
use crate::process::Identity;
use crate::program;
use crate::spec::ContainerSpec;
use crate::terminal;
use crate::wire::{ExecOutcome, ExecRequest};

/// How long a command whose terminal hung up gets before it is killed, in milliseconds.
const HANG_UP: u16 = 1000;

/// Runs the helper.
pub(crate) fn helper() -> i32 {
    let Ok((mut socket, input, request)) = asked() else { return 2 };
    let outcome = run(&socket, input, &request).unwrap_or_else(ExecOutcome::Failed);
    let sent = serde_json::to_writer(&mut socket, &outcome).map_err(io::Error::from).and_then(|()| socket.flush());
    i32::from(sent.is_err())
}

fn asked() -> io::Result<(UnixStream, Option<OwnedFd>, ExecRequest)> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let input = handover::receive(&socket)?;
    let mut line = String::new();
    BufReader::new(&socket).read_line(&mut line)?;
    Ok((socket, input, serde_json::from_str(&line)?))
}

/// Everything that must be opened while the host is still in sight.
struct Target {
    process: OwnedFd,
    doors: Vec<File>,
    spec: ContainerSpec,
    confinement: Confinement,
}

/// Where the command reads from, and with a terminal also where it writes to.
enum Input {
    Nothing,
    Pipe(OwnedFd),
    Terminal(OwnedFd),
}

#[expect(unsafe_code, reason = "fork(2)")]
fn run(socket: &UnixStream, input: Option<OwnedFd>, request: &ExecRequest) -> Result<ExecOutcome, Failure> {
    // The container must not look into this process while it is inside with all rights.
    prctl::set_dumpable(false).or_internal(|| "protect the helper".into())?;
    let target = open(request)?;
    enter(&target.process)?;
    let input = match input {
        _ if request.terminal => Input::Terminal(terminal(socket, &target.spec)?),
        Some(pipe) => Input::Pipe(pipe),
        None => Input::Nothing,
    };
    let (mut reports, report) = pipe2(OFlag::O_CLOEXEC)
        .map(|(read, write)| (File::from(read), File::from(write)))
        .or_internal(|| "make a pipe".into())?;
    // SAFETY: this process has one thread; the child may go on in Rust.
    let forked = unsafe { fork() }.or_internal(|| "fork".into())?;
    let ForkResult::Parent { child } = forked else { become_command(&target, input, request, report) };
    drop((report, input));
    let outcome = supervise(socket, child, request)?;
    let mut text = Vec::new();
    reports.read_to_end(&mut text).or_internal(|| "read the command's report".into())?;
    match serde_json::from_slice(&text) {
        Ok(failure) => Err(failure),
        Err(_) => Ok(outcome),
    }
}

/// Makes a terminal and gives the engine our end of it, so that only the engine's end can keep it from hanging up.
fn terminal(socket: &UnixStream, spec: &ContainerSpec) -> Result<OwnedFd, Failure> {
    let (ours, theirs) = terminal::make(&spec.user)?;
    handover::send(socket, Some(ours.as_fd())).or_internal(|| "hand over the terminal".into())?;
    Ok(theirs)
}

fn open(request: &ExecRequest) -> Result<Target, Failure> {
    let gone = || Failure::new(FailureKind::NotFound, "the container does not run");
    let pid = rustix::process::Pid::from_raw(request.pid.pid).ok_or_else(gone)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    // After opening: the descriptor means the process that is there now, so it must be the right one.
    if Identity::of(request.pid.pid) != Some(request.pid) {
        return Err(gone());
    }
    let spec: ContainerSpec =
        disk::read(&request.folder.join("spec.json")).or_internal(|| "read the container's specification".into())?;
    let doors = Group::new(&request.cgroup).and_then(|group| {
        group.doors()?.iter().map(|door| OpenOptions::new().write(true).open(door)).collect::<io::Result<Vec<_>>>()
    });
    let doors = doors.or_internal(|| "open the container's control groups".into())?;
    let available = Capabilities::permitted().or_internal(|| "read this process's capabilities".into())?;
    let (confinement, _) = Confinement::new(&spec, available)?;
    Ok(Target { process, doors, spec, confinement })
}

fn enter(process: &OwnedFd) -> Result<(), Failure> {
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    setns(process, all).or_internal(|| "enter the container's namespaces".into())
}

fn become_command(target: &Target, input: Input, request: &ExecRequest, mut report: File) -> ! {
    let Err(failure) = try_become(target, input, request);
    let text = serde_json::to_vec(&failure).expect("a failure is two strings");
    std::process::exit(if report.write_all(&text).is_ok() { 127 } else { 126 })
}

fn try_become(target: &Target, input: Input, request: &ExecRequest) -> Result<Infallible, Failure> {
    for mut door in &target.doors {
        door.write_all(b"0").or_internal(|| "join the container's control groups".into())?;
    }
    setsid().or_internal(|| "make a session".into())?;
    plug(input)?;
    own_streams(&target.spec)?;
    program::enter(&target.spec.cwd, false)?;
    let path = program::find(request.args.first().map_or("", String::as_str), &target.spec.env)?;
    let args = program::arguments(&request.args)?;
    let env = program::environment(&target.spec.env, target.spec.user.uid, request.terminal)?;
    target.confinement.enter()?;
    become_program(&path, &args, &env)
}

fn plug(input: Input) -> Result<(), Failure> {
    let source = match input {
        Input::Terminal(theirs) => return terminal::take(&theirs),
        Input::Pipe(pipe) => pipe,
        Input::Nothing => {
            let null = OpenOptions::new().read(true).open("/dev/null").or_internal(|| "open /dev/null".into())?;
            null.into()
        }
    };
    nix::unistd::dup2_stdin(source).or_internal(|| "plug in the standard input".into())
}

/// Waits for the command, the end of its time, or the end of the engine.
fn supervise(socket: &UnixStream, child: Pid, request: &ExecRequest) -> Result<ExecOutcome, Failure> {
    let raw = rustix::process::Pid::from_raw(child.as_raw()).ok_or_else(|| Failure::internal("no child"))?;
    let command = pidfd_open(raw, PidfdFlags::empty()).or_internal(|| "watch the command".into())?;
    let deadline = request.timeout_ms.and_then(|limit| Instant::now().checked_add(Duration::from_millis(limit)));
    let in_time = loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            break false;
        }
        let patience = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [PollFd::new(command.as_fd(), PollFlags::POLLIN), PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, patience) {
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).or_internal(|| "wait for the command".into()),
            Ok(_) => {}
        }
        if fds[0].any() == Some(true) {
            break true;
        }
        // The engine sends nothing more: this is its end.
        if fds[1].any() == Some(true) {
            break false;
        }
    };
    if !in_time {
        if request.terminal {
            hang_up(child, &command);
        }
        end(child).or_internal(|| "kill the command".into())?;
    }
    let status = waitpid(child, None).or_internal(|| "wait for the command".into())?;
    Ok(match status {
        _ if !in_time => ExecOutcome::TimedOut,
        WaitStatus::Exited(_, code) => ExecOutcome::Exited(code),
        WaitStatus::Signaled(_, signal, _) => ExecOutcome::Exited(128 + signal as i32),
        other => return Err(Failure::internal(format!("the command ended strangely: {other:?}"))),
    })
}

/// The engine's end of the terminal is closed: whoever heeds that may end by itself, for a moment.
fn hang_up(child: Pid, command: &OwnedFd) {
    let told = killpg(child, Signal::SIGHUP).and_then(|()| killpg(child, Signal::SIGCONT));
    if told.is_ok() {
        let mut fds = [PollFd::new(command.as_fd(), PollFlags::POLLIN)];
        // Whether it ended, or not in time: it is killed next.
        poll(&mut fds, HANG_UP).unwrap_or_default();
    }
}

/// The command and what it started in its session's group; before it has one, only itself.
fn end(child: Pid) -> nix::Result<()> {
    let killed = [killpg(child, Signal::SIGKILL), nix::sys::signal::kill(child, Signal::SIGKILL)];
    killed.into_iter().find(|result| !matches!(result, Ok(()) | Err(Errno::ESRCH))).unwrap_or(Ok(()))
}
