//! Starts the engine as a process of its own and waits until it says that its node is ready.

use std::fs::File;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::cli::UpArgs;
use crate::home::{Home, private_folder};
use crate::listings;
use crate::output::write_out;

/// What the engine prints once it is ready.
pub(crate) const READY: &str = "ready";

/// `shipway up`.
pub(crate) async fn up(home: &Home, args: &UpArgs) -> Result<()> {
    let started = ensure(home, args).await?;
    let instance = crate::instance::Instance::load(home)?;
    let verb = if started { "ready" } else { "runs already" };
    write_out(&format!(
        "engine {verb}: https://127.0.0.1:{}, node {}\nkubectl: export KUBECONFIG={}\n",
        instance.api_port,
        listings::node_name(),
        home.path("kubeconfig").display()
    ))
}

/// Starts the engine if none runs; true where it did.
pub(crate) async fn ensure(home: &Home, args: &UpArgs) -> Result<bool> {
    if home.engine()?.is_some() {
        if let Some(port) = args.api_port.filter(|port| *port != 0) {
            let running = crate::instance::Instance::load(home)?.api_port;
            if running != port {
                bail!("an engine already runs on {} with port {running}; `shipway down` first", home.root().display());
            }
        }
        return Ok(false);
    }
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
        return Ok(true);
    }
    engine.wait().await?;
    match line {
        // Another command started one in the same moment.
        _ if home.engine()?.is_some() => Ok(false),
        Some(reason) => bail!("{reason}"),
        None => bail!("the engine ended before it was ready; see {}", log_path.display()),
    }
}
