//! An instance of its own for every test: own home, own ports, and nothing left behind. Everything goes through the
//! released binary and the API; nothing here knows the inside.

mod http;
mod images;
mod known;
mod nodes;
mod residue;

use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Pid;
use serde_json::Value;
use tempfile::TempDir;

pub use http::{Loop, get};
pub use images::Image;
pub use known::Known;
pub use nodes::{Held, command_line, pids};
pub use residue::Residue;
pub use rustix::process::Signal;

/// How long a command that is given input may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// An instance that is taken down when it is dropped.
pub struct Instance {
    home: TempDir,
}

impl Instance {
    /// An empty home; nothing runs yet.
    pub fn new() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("shipway-test-").tempdir().context("cannot make a home")?;
        Ok(Self { home })
    }

    /// A home on which the engine runs.
    pub fn up() -> Result<Self> {
        let instance = Self::new()?;
        instance.ok(&["up", "--api-port", "0"])?;
        Ok(instance)
    }

    /// The folder of the instance.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The name under which the instance keeps its runtime files, interfaces, cgroups and tables.
    pub fn id(&self) -> Result<String> {
        let home = self.home().canonicalize()?.display().to_string();
        let folders = std::fs::read_dir("/run/shipway/homes")?.filter_map(Result::ok);
        let mut ids = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let is_ours =
            |id: &String| std::fs::read_to_string(format!("/run/shipway/homes/{id}")).is_ok_and(|it| it == home);
        ids.find(is_ours).context("nothing tells of this home")
    }

    /// A `shipway` command on this instance.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env("SHIPWAY_HOME", self.home()).current_dir(root()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, whatever that is.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().with_context(|| format!("cannot run shipway {arguments:?}"))
    }

    /// Runs a command that has to succeed; gives what it printed.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        succeeded(&format!("shipway {arguments:?}"), &self.output(arguments)?)
    }

    /// Runs a command that has to fail; gives its error lines.
    pub fn fails(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "shipway {arguments:?} succeeded\n{error}");
        Ok(error)
    }

    /// Runs kubectl on this instance; none where this machine has no kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Option<Result<String>> {
        self.kubectl_with_input(arguments, "")
    }

    /// Runs kubectl with something to read.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Option<Result<String>> {
        let mut command = self.kubectl_command()?;
        command.args(arguments);
        Some(with_input(&mut command, input).and_then(|output| succeeded(&format!("kubectl {arguments:?}"), &output)))
    }

    /// A kubectl command on this instance, with one of [`kubectls`].
    pub fn command_of(&self, kubectl: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(kubectl);
        command.arg("--cache-dir").arg(self.home().join("kubectl-cache")).args(arguments);
        command.env("KUBECONFIG", self.home().join("kubeconfig")).stdin(Stdio::null());
        command
    }

    /// A kubectl command on this instance, to be given its arguments; none where this machine has no kubectl.
    pub fn kubectl_command(&self) -> Option<Command> {
        let mut command = Command::new(kubectl()?);
        // First, since what follows `--` belongs to the program in the pod.
        command.arg("--cache-dir").arg(self.home().join("kubectl-cache")).env("KUBECONFIG", self.kubeconfig());
        Some(command)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home().join("kubeconfig")
    }

    /// One object of the API as JSON, by its path.
    pub fn raw(&self, path: &str) -> Result<Value> {
        let text = self.kubectl(&["get", "--raw", path]).context("this machine has no kubectl")??;
        Ok(serde_json::from_str(&text)?)
    }

    /// The process id of the engine.
    pub fn engine(&self) -> Result<u32> {
        let status: Value = serde_json::from_str(&self.ok(&["status", "--output", "json"])?)?;
        let pid = status["pid"].as_u64().context("the status names no engine")?;
        Ok(u32::try_from(pid)?)
    }

    /// Kills the engine at once and waits until its lock is free.
    pub fn kill_engine(&self) -> Result<()> {
        kill(self.engine()?, Signal::KILL)?;
        wait_for("the engine to be gone", Duration::from_secs(10), || Ok(self.ok(&["status"]).is_err()))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = self.ok(&["down"]) {
            eprintln!("not taken down: {error:#}");
        }
    }
}

/// The released binary: `$SHIPWAY_BIN`, else the one that `cargo build --release` made.
pub fn binary() -> PathBuf {
    if let Some(told) = std::env::var_os("SHIPWAY_BIN") {
        return told.into();
    }
    let binary = target().join("release/shipway");
    assert!(binary.exists(), "{} is missing; `cargo xtask test` builds it first", binary.display());
    binary
}

/// The folder for what is built.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The folder of the workspace.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// A port that nobody listens on, below those that the kernel gives to connections: none of these takes it meanwhile.
pub fn free_port() -> Result<u16> {
    let mut candidates = std::iter::repeat_with(|| fastrand::u16(10_000..30_000)).take(100);
    candidates.find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()).context("no port is free")
}

/// Sends a signal to a process that the test started.
pub fn kill(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no process has the id 0")?;
    rustix::process::kill_process(pid, signal).with_context(|| format!("process {pid:?} cannot be sent {signal:?}"))
}

/// Waits until something holds; fails with its name when it does not within that time.
pub fn wait_for(what: &str, patience: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    loop {
        let last = holds();
        if matches!(last, Ok(true)) {
            return Ok(());
        }
        if start.elapsed() > patience {
            return match last {
                Err(error) => Err(error.context(format!("waited {patience:?} for {what}"))),
                Ok(_) => bail!("waited {patience:?} for {what}"),
            };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Gives a command something to read and runs it to its end, which has to come within two minutes.
pub fn with_input(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (pid, (done, ending)) = (child.id(), channel::<()>());
    let guard = std::thread::spawn(move || {
        ending.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) && kill(pid, Signal::KILL).is_ok()
    });
    match child.stdin.take().context("the input is piped")?.write_all(input.as_bytes()) {
        // It may end without having read anything.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other?,
    }
    let output = child.wait_with_output()?;
    drop(done);
    let killed = guard.join().map_err(|_| anyhow::anyhow!("the guard of a command panicked"))?;
    ensure!(!killed, "{command:?} was killed after {PATIENCE:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

fn succeeded(what: &str, output: &Output) -> Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("{what} ended with {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// Every kubectl of this machine that speaks to a server of this kind: those that lie beside a dispatcher, from 1.30 on,
/// else the only one. They differ in how they open streams.
pub fn kubectls() -> Vec<PathBuf> {
    let Some(found) = kubectl() else { return Vec::new() };
    let real = found.canonicalize().unwrap_or_else(|_| found.clone());
    let beside = real.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let minor = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("kubectl.1.")?.parse::<u32>().ok();
    let known = beside.map(|entry| entry.path()).filter(|path| minor(path).is_some_and(|minor| minor >= 30));
    let mut known: Vec<PathBuf> = known.collect();
    known.sort();
    if known.is_empty() { vec![found] } else { known }
}

/// A real kubectl; a dispatcher that picks a version by the server's would do as well.
fn kubectl() -> Option<PathBuf> {
    let told = std::env::var_os("KUBECTL").map(PathBuf::from);
    let path = std::env::var_os("PATH")?;
    let known = std::env::split_paths(&path).map(|folder| folder.join("kubectl"));
    told.into_iter().chain(known).find(|candidate| candidate.exists())
}
