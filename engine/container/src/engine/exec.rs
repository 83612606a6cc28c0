//! Commands in containers: starts the helper, feeds it the request, collects bounded output and the outcome.

use std::io::PipeReader;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::entry::EXEC;
use crate::error::{ContainerError, Failure};
use crate::handover;
use crate::layout::ContainerPaths;
use crate::process::Identity;
use crate::sealed;
use crate::state::ExecOutput;
use crate::wire::{ExecOutcome, ExecRequest};

/// More output is read and thrown away.
const OUTPUT_MAX: usize = 64 * 1024;
/// What a helper may take beyond the command's own time.
const GRACE: Duration = Duration::from_secs(10);

pub(super) async fn run(
    executable: &OwnedFd,
    container: &ContainerPaths,
    process: Identity,
    args: &[String],
    limit: Duration,
) -> Result<ExecOutput, ContainerError> {
    let request = ExecRequest {
        pid: process,
        args: args.to_vec(),
        timeout_ms: Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        terminal: false,
        folder: container.folder.clone(),
        cgroup: container.cgroup.clone(),
    };
    let (mut helper, mut socket, mut output) = spawn(executable).map_err(ContainerError::io("start a command"))?;
    let mut collected = Vec::new();
    let conversation = async {
        let mut outcome = Vec::new();
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        socket.write_all(&line).await?;
        tokio::select! {
            read = socket.read_to_end(&mut outcome) => drop(read?),
            // Never ends before the helper does: it holds the other end.
            error = collect(&mut output, &mut collected) => return Err(error),
        }
        helper.wait().await?;
        Ok(outcome)
    };
    let late = || ContainerError::Timeout { what: "a command's helper".to_owned(), limit: limit + GRACE };
    let outcome: std::io::Result<Vec<u8>> = timeout(limit + GRACE, conversation).await.map_err(|_| late())?;
    let outcome = outcome.map_err(ContainerError::io("speak with a command's helper"))?;
    rest(&output, &mut collected);
    self::outcome(&outcome, limit).map(|code| ExecOutput { code, output: collected })
}

fn spawn(executable: &OwnedFd) -> std::io::Result<(Child, UnixStream, pipe::Receiver)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (reader, writer): (PipeReader, _) = std::io::pipe()?;
    handover::send(&ours, None)?;
    let helper = helper(executable, theirs, writer.try_clone()?, writer).kill_on_drop(true).spawn()?;
    let output = pipe::Receiver::from_owned_fd(reader.as_fd().try_clone_to_owned()?)?;
    Ok((helper, UnixStream::from_std(ours)?, output))
}

/// The helper, which hears of its task on the socket.
pub(super) fn helper(
    executable: &OwnedFd,
    socket: std::os::unix::net::UnixStream,
    output: impl Into<Stdio>,
    errors: impl Into<Stdio>,
) -> Command {
    let mut command = Command::new(sealed::path_of(executable));
    command.arg0("shipway").arg(EXEC).env_clear();
    command.stdin(Stdio::from(OwnedFd::from(socket))).stdout(output).stderr(errors);
    command
}

/// What the helper said last.
pub(super) fn outcome(text: &[u8], limit: Duration) -> Result<i32, ContainerError> {
    match serde_json::from_slice(text) {
        Ok(ExecOutcome::Exited(code)) => Ok(code),
        Ok(ExecOutcome::TimedOut) => Err(ContainerError::ExecTimeout(limit)),
        Ok(ExecOutcome::Failed(failure)) => Err(failure.into()),
        Err(_) => Err(Failure::internal("a command's helper ended without an answer").into()),
    }
}

/// Reads for ever; returns only an error.
async fn collect(output: &mut pipe::Receiver, collected: &mut Vec<u8>) -> std::io::Error {
    let mut chunk = [0; 4096];
    loop {
        match output.read(&mut chunk).await {
            Ok(0) => std::future::pending().await,
            Ok(length) => keep(collected, &chunk[..length]),
            Err(error) => return error,
        }
    }
}

/// What lies in the pipe when the command has ended; what its children write later is not waited for.
fn rest(output: &pipe::Receiver, collected: &mut Vec<u8>) {
    let mut chunk = [0; 4096];
    while collected.len() < OUTPUT_MAX {
        match output.try_read(&mut chunk) {
            Ok(length) if length > 0 => keep(collected, &chunk[..length]),
            _ => return,
        }
    }
}

fn keep(collected: &mut Vec<u8>, chunk: &[u8]) {
    let room = OUTPUT_MAX.saturating_sub(collected.len());
    collected.extend_from_slice(&chunk[..chunk.len().min(room)]);
}
