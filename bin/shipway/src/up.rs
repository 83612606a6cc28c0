//! Starts the engine as a process of its own and waits until it says that its node is ready.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::Instant;

use crate::cli::UpArgs;
use crate::client::connect;
use crate::home::{Home, private_folder};
use crate::instance::Instance;
use crate::listings;
use crate::nodes;
use crate::nodes::join::{self, Joined};
use crate::output::write_out;

/// How long the node of an engine that runs already may take to become ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon an engine that does not answer yet is asked again.
const AGAIN: Duration = Duration::from_millis(20);

/// What the engine prints once it is ready.
pub(crate) const READY: &str = "ready";

/// `shipway up`.
pub(crate) async fn up(home: &Home, args: &UpArgs) -> Result<()> {
    if let Some(joined) = Joined::load(home)? {
        return join::start(home, &joined).await;
    }
    let started = ensure(home, args).await?;
    let further = nodes::fill(home, args.nodes.unwrap_or(1))?;
    if !further.is_empty() {
        nodes::settle(home, &further).await?;
    }
    let instance = Instance::load(home)?;
    let verb = if started { "ready" } else { "runs already" };
    write_out(&format!(
        "engine {verb}: https://127.0.0.1:{}, {} {}\nkubectl: export KUBECONFIG={}\n",
        instance.api_port,
        if further.is_empty() { "node" } else { "nodes" },
        std::iter::once(listings::node_name()).chain(further).collect::<Vec<_>>().join(", "),
        home.path("kubeconfig").display()
    ))
}

/// Starts the engine if none runs, and waits until its node is ready; true where it was started here.
pub(crate) async fn ensure(home: &Home, args: &UpArgs) -> Result<bool> {
    loop {
        if let Some(pid) = home.engine()? {
            check_port(home, args)?;
            check_listen(home, args)?;
            if is_ready_or_ends(home, pid).await? {
                return Ok(false);
            }
            continue;
        }
        match start(home, args).await? {
            None => return Ok(true),
            // Another command started one in the same moment.
            Some(_) if home.engine()?.is_some() => {}
            Some(reason) => bail!("{reason}"),
        }
    }
}

fn check_port(home: &Home, args: &UpArgs) -> Result<()> {
    let Some(port) = args.api_port.filter(|port| *port != 0) else { return Ok(()) };
    let running = Instance::load(home)?.api_port;
    if running != port {
        bail!("an engine already runs on {} with port {running}; `shipway down` first", home.root().display());
    }
    Ok(())
}

fn check_listen(home: &Home, args: &UpArgs) -> Result<()> {
    let wanted = args.listen.map(|address| Some(address).filter(|address| !address.is_loopback()));
    if wanted.is_some_and(|wanted| Instance::load(home).is_ok_and(|running| running.listen != wanted)) {
        bail!("an engine already runs on {} and listens elsewhere; `shipway down` first", home.root().display());
    }
    Ok(())
}

/// Waits until an engine that was found has a ready node; false when it ends instead: one that was killed holds its lock
/// for as long as the kernel takes to bury it.
async fn is_ready_or_ends(home: &Home, pid: i32) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if home.engine()? != Some(pid) {
            return Ok(false);
        }
        if node_is_ready(home).await.unwrap_or(false) {
            return Ok(true);
        }
        tokio::time::sleep(AGAIN).await;
    }
    bail!("the engine (process {pid}) runs, but its node is not ready after {PATIENCE:?}; see engine.log")
}

async fn node_is_ready(home: &Home) -> Result<bool> {
    let node = kube::Api::<Node>::all(connect(home).await?).get_opt(&listings::node_name()).await?;
    Ok(node.as_ref().is_some_and(listings::is_ready))
}

/// Starts an engine; gives the reason where it does not become ready.
async fn start(home: &Home, args: &UpArgs) -> Result<Option<String>> {
    let logs = home.path("logs");
    private_folder(&logs)?;
    let log_path = logs.join("engine.log");
    let log = File::options().create(true).append(true).open(&log_path);
    let log = log.with_context(|| format!("cannot write {}", log_path.display()))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("engine").arg("--home").arg(home.root());
    if let Some(port) = args.api_port {
        command.args(["--api-port", &port.to_string()]);
    }
    if let Some(address) = args.listen {
        command.args(["--listen", &address.to_string()]);
    }
    if let Some(audit) = args.audit() {
        // The engine works elsewhere: it is told whole paths.
        command.arg("--audit-policy-file").arg(std::path::absolute(audit.policy)?);
        command.arg("--audit-log-path").arg(std::path::absolute(audit.path)?);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut engine = tokio::process::Command::from(command).spawn().context("cannot start the engine")?;
    let stdout = engine.stdout.take().expect("the engine's output is piped");
    let line = BufReader::new(stdout).lines().next_line().await?;
    if line.as_deref() == Some(READY) {
        return Ok(None);
    }
    engine.wait().await?;
    Ok(Some(line.unwrap_or_else(|| format!("the engine ended before it was ready; see {}", log_path.display()))))
}
