//! An attachment to a running container, as the engine holds it: a connection of its own to the pod's supervisor.

use std::io;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::streams::{Streams, chunk};
use crate::attachment::{self, CONTENT_MAX, ERRORS, HEAD, INPUT, OUTPUT, RESIZE};
use crate::error::ContainerError;
use crate::wire::{Message, Operation, Outcome, Request};

/// An attachment. Dropping it leaves the container as it is.
#[derive(Debug)]
pub struct Attachment {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Attachment {
    pub(super) async fn open(uid: &str, socket: &Path, id: &str, stdin: bool) -> Result<Self, ContainerError> {
        let lost = |_| ContainerError::Lost { uid: uid.to_owned() };
        let (reader, mut writer) = UnixStream::connect(socket).await.map_err(lost)?.into_split();
        let request = Request { sequence: 0, operation: Operation::Attach { id: id.to_owned(), stdin } };
        let mut line = serde_json::to_vec(&request).expect("requests are plain data");
        line.push(b'\n');
        writer.write_all(&line).await.map_err(lost)?;
        let mut reader = BufReader::new(reader);
        loop {
            line.clear();
            reader.read_until(b'\n', &mut line).await.map_err(lost)?;
            match serde_json::from_slice(&line) {
                // News go to everybody until the answer.
                Ok(Message::Changed { .. }) => {}
                Ok(Message::Answer { outcome: Outcome::Failed(failure), .. }) => return Err(failure.into()),
                Ok(Message::Answer { .. }) => return Ok(Self { reader, writer }),
                Err(_) => {
                    let detail = "no answer to a request to attach".to_owned();
                    return Err(ContainerError::Protocol { uid: uid.to_owned(), detail });
                }
            }
        }
    }

    /// Carries the streams until the container ends.
    pub async fn run<I, O>(self, streams: Streams<I, O>) -> Result<(), ContainerError>
    where
        I: AsyncRead + Unpin,
        O: AsyncWrite + Unpin,
    {
        let Self { reader, writer } = self;
        let Streams { stdin, stdout, stderr, size } = streams;
        tokio::select! {
            done = take(reader, stdout, stderr) => done.map_err(ContainerError::io("carry an attachment's output")),
            () = async { give(writer, stdin, size).await; std::future::pending().await } => unreachable!("it is pending for ever"),
        }
    }
}

async fn take<O>(mut from: BufReader<OwnedReadHalf>, mut stdout: Option<O>, mut stderr: Option<O>) -> io::Result<()>
where
    O: AsyncWrite + Unpin,
{
    let mut content = Vec::new();
    loop {
        let mut head = [0; HEAD];
        match from.read_exact(&mut head).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            other => drop(other?),
        }
        let (kind, length) = attachment::head(head).ok_or(io::ErrorKind::InvalidData)?;
        content.resize(length, 0);
        from.read_exact(&mut content).await?;
        let to = match kind {
            OUTPUT => stdout.as_mut(),
            ERRORS => stderr.as_mut(),
            _ => None,
        };
        if let Some(to) = to {
            to.write_all(&content).await?;
        }
    }
    for mut to in [stdout, stderr].into_iter().flatten() {
        to.shutdown().await?;
    }
    Ok(())
}

/// Gives what there is to give; that the container takes no more is noticed where its output ends.
async fn give<I>(mut to: OwnedWriteHalf, mut stdin: Option<I>, mut size: watch::Receiver<Option<(u16, u16)>>)
where
    I: AsyncRead + Unpin,
{
    let mut sizes = true;
    size.mark_changed();
    while stdin.is_some() || sizes {
        let mut frame = Vec::new();
        let typed = async {
            match &mut stdin {
                Some(stdin) => chunk(stdin).await.unwrap_or_default(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            bytes = typed => {
                if bytes.is_empty() {
                    stdin = None;
                    attachment::push(INPUT, &[], &mut frame);
                }
                for part in bytes.chunks(CONTENT_MAX) {
                    attachment::push(INPUT, part, &mut frame);
                }
            }
            changed = size.changed(), if sizes => {
                sizes = changed.is_ok();
                if let Some((columns, rows)) = *size.borrow_and_update() {
                    let content = [columns.to_be_bytes(), rows.to_be_bytes()].concat();
                    attachment::push(RESIZE, &content, &mut frame);
                }
            }
        }
        if to.write_all(&frame).await.is_err() {
            break;
        }
    }
    // The connection stays open as long as there is output.
    std::future::pending::<()>().await;
}
