//! A command that runs in a container with streams of its own, as the engine holds it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::sync::watch;

use super::exec::{helper, outcome};
use super::streams::{Streams, carry, feed};
use crate::error::{ContainerError, Failure};
use crate::layout::ContainerPaths;
use crate::process::Identity;
use crate::wire::{ExecOutcome, ExecRequest};
use crate::{handover, terminal};

/// A command to be run.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Whether it gets input; else its input is empty.
    pub stdin: bool,
    /// Whether its streams are a terminal.
    pub terminal: bool,
}

/// A command that was started. Dropping it kills the command: on a terminal, after it was told of the hang-up.
#[derive(Debug)]
pub struct Process {
    helper: Child,
    socket: UnixStream,
    input: Option<pipe::Sender>,
    output: pipe::Receiver,
    errors: Option<pipe::Receiver>,
    terminal: Option<OwnedFd>,
}

impl Process {
    pub(super) async fn start(
        executable: &OwnedFd,
        container: &ContainerPaths,
        process: Identity,
        command: &Command,
    ) -> Result<Self, ContainerError> {
        let request = ExecRequest {
            pid: process,
            args: command.args.clone(),
            timeout_ms: None,
            terminal: command.terminal,
            folder: container.folder.clone(),
            cgroup: container.cgroup.clone(),
        };
        let mut process = Self::spawn(executable, command).map_err(ContainerError::io("start a command"))?;
        let mut line = serde_json::to_vec(&request).expect("requests are plain data");
        line.push(b'\n');
        let speak = ContainerError::io("speak with a command's helper");
        process.socket.write_all(&line).await.map_err(speak)?;
        if command.terminal {
            process.take_terminal().await?;
        }
        Ok(process)
    }

    fn spawn(executable: &OwnedFd, command: &Command) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let ((output, output_end), (errors, errors_end)) = (io::pipe()?, io::pipe()?);
        let input = (command.stdin && !command.terminal).then(io::pipe).transpose()?;
        handover::send(&ours, input.as_ref().map(|(reader, _)| reader.as_fd()))?;
        // Not killed on drop: it has to kill the command before it ends by itself.
        let helper = helper(executable, theirs, output_end, errors_end).spawn()?;
        Ok(Self {
            helper,
            socket: UnixStream::from_std(ours)?,
            input: input.map(|(_, writer)| pipe::Sender::from_owned_fd(writer.into())).transpose()?,
            output: pipe::Receiver::from_owned_fd(output.into())?,
            errors: Some(pipe::Receiver::from_owned_fd(errors.into())?),
            terminal: None,
        })
    }

    /// The terminal takes the place of all pipes.
    async fn take_terminal(&mut self) -> Result<(), ContainerError> {
        let receive = || handover::receive(&self.socket);
        let received = self.socket.async_io(Interest::READABLE, receive).await;
        let Ok(Some(ours)) = received else {
            // Whatever it said was no terminal: it says why there is none.
            return Err(self.refused().await);
        };
        let tried = ContainerError::io("take a command's terminal");
        self.plug_in(ours).map_err(tried)
    }

    fn plug_in(&mut self, ours: OwnedFd) -> io::Result<()> {
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        self.input = Some(pipe::Sender::from_owned_fd_unchecked(ours.try_clone()?)?);
        self.output = pipe::Receiver::from_owned_fd_unchecked(ours.try_clone()?)?;
        self.errors = None;
        self.terminal = Some(ours);
        Ok(())
    }

    async fn refused(&mut self) -> ContainerError {
        let mut text = b"{".to_vec();
        let read = self.socket.read_to_end(&mut text).await;
        match (read, serde_json::from_slice(&text)) {
            (Ok(_), Ok(ExecOutcome::Failed(failure))) => failure.into(),
            _ => Failure::internal("a command's helper ended without an answer").into(),
        }
    }

    /// Carries the streams until the command ends; gives its exit code.
    pub async fn run<I, O>(self, streams: Streams<I, O>) -> Result<i32, ContainerError>
    where
        I: AsyncRead + Unpin,
        O: AsyncWrite + Unpin,
    {
        let Self { mut helper, mut socket, input, output, errors, terminal } = self;
        let Streams { stdin, stdout, stderr, size } = streams;
        let (end, over) = watch::channel(false);
        let ending = async {
            let mut text = Vec::new();
            socket.read_to_end(&mut text).await?;
            helper.wait().await?;
            end.send_replace(true);
            Ok(text)
        };
        let errors = async {
            match errors {
                Some(errors) => carry(errors, stderr, over.clone()).await,
                None => Ok(()),
            }
        };
        let work = async { tokio::try_join!(ending, carry(output, stdout, over.clone()), errors) };
        let beside = async {
            let feeding = async {
                if let Some(input) = input {
                    feed(stdin, input, terminal.is_some()).await;
                }
            };
            tokio::join!(feeding, resize(terminal.as_ref(), size));
        };
        tokio::select! {
            done = work => {
                let (text, (), ()) = done.map_err(ContainerError::io("carry a command's streams"))?;
                outcome(&text, std::time::Duration::ZERO)
            }
            () = async { beside.await; std::future::pending().await } => unreachable!("it is pending for ever"),
        }
    }
}

/// Tells the terminal its size, now and as it changes.
async fn resize(terminal: Option<&OwnedFd>, mut size: watch::Receiver<Option<(u16, u16)>>) {
    let Some(terminal) = terminal else { return };
    loop {
        let newest = *size.borrow_and_update();
        if let Some(newest) = newest
            && let Err(error) = terminal::resize(terminal, newest)
        {
            tracing::debug!(%error, "a terminal was not resized");
        }
        if size.changed().await.is_err() {
            return;
        }
    }
}
