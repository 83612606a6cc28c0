//! Stops an instance: first the engine, then what runs on it, then the network. Works as well when the engine is gone.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shipway_container::{ContainerState, Layout, Pod, Runtime};
use shipway_network::Network;
use tokio::time::timeout;

use crate::home::Home;
use crate::instance::Instance;
use crate::nodes;
use crate::nodes::join::Joined;
use crate::output::{tell, write_out};

/// How long the engine may take to end.
const ENGINE_PATIENCE: Duration = Duration::from_secs(10);
/// How long programs may take to heed TERM.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(5);

/// `shipway down`.
pub(crate) async fn down(home: &Home) -> Result<()> {
    if let Some(pid) = home.engine()? {
        stop_engine(pid).await.context("cannot stop the engine")?;
    }
    // Taken so that no other command starts an engine meanwhile.
    let _lock = home.lock()?;
    let joined = Joined::load(home)?;
    if joined.is_none() && !home.path("instance.json").exists() {
        return write_out(&format!("nothing runs on {}\n", home.root().display()));
    }
    let network = match &joined {
        Some(joined) => joined.network(home),
        None => Instance::load(home)?.network(home),
    };
    let runtime = Runtime::new(layout(home)).context("cannot look at the pods")?;
    let mut pods = runtime.adopt().await.context("cannot look at the pods")?;
    for layout in nodes::layouts(home)? {
        pods.extend(Runtime::new(layout)?.adopt().await.context("cannot look at the pods of further nodes")?);
    }
    let mut stopping: FuturesUnordered<_> = pods.iter().map(terminate).collect();
    if timeout(PROGRAM_PATIENCE, async { while stopping.next().await.is_some() {} }).await.is_err() {
        tell("some programs did not heed TERM and are killed");
    }
    runtime.teardown().await.context("cannot stop the pods")?;
    nodes::stop_all(home, &network).await.context("cannot stop the further nodes")?;
    Network::teardown(&network).await.context("cannot take the network down")?;
    match std::fs::remove_dir_all(home.run()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", home.run().display()));
        }
        _ => {}
    }
    write_out("stopped\n")
}

/// Where the runtime of this instance keeps its things.
pub(crate) fn layout(home: &Home) -> Layout {
    Layout { state: home.path("pods"), run: home.run(), cgroup: home.cgroup(), executable: "/proc/self/exe".into() }
}

async fn stop_engine(pid: i32) -> Result<()> {
    tokio::task::spawn_blocking(move || {
        let pid = Pid::from_raw(pid).context("the lock holds no process id")?;
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        for signal in [Signal::TERM, Signal::KILL] {
            pidfd_send_signal(&process, signal)?;
            if has_ended(&process)? {
                return Ok(());
            }
        }
        bail!("process {} does not end", pid.as_raw_nonzero())
    })
    .await?
}

/// Waits for the end of a process; false where it takes too long.
fn has_ended(process: &OwnedFd) -> Result<bool> {
    let patience = Timespec::try_from(ENGINE_PATIENCE)?;
    Ok(poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&patience))? > 0)
}

async fn terminate(pod: &Pod) {
    let mut state = pod.state();
    let running = |state: &shipway_container::PodState| {
        let alive = |container: &ContainerState| matches!(container, ContainerState::Running { .. });
        state.containers.iter().filter(|(_, container)| alive(container)).map(|(id, _)| id.clone()).collect::<Vec<_>>()
    };
    let ids = running(&state.borrow());
    for id in ids {
        if let Err(error) = pod.kill(&id, 15).await {
            tracing::debug!(%error, id, "not terminated; it is killed instead");
        }
    }
    if let Err(error) = state.wait_for(|state| state.lost || running(state).is_empty()).await {
        tracing::debug!(%error, "the pod's state ended");
    }
}
