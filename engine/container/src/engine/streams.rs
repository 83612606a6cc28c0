//! The far ends of a command's or an attachment's streams, and carrying bytes between them and pipes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::terminal;

/// Bytes carried at once.
const CHUNK: usize = 16 * 1024;

/// Where input comes from and output goes to. What is left out is not fed, or thrown away.
#[derive(Debug)]
pub struct Streams<I, O> {
    /// What the program reads; its end is the end of the program's input.
    pub stdin: Option<I>,
    /// What it writes.
    pub stdout: Option<O>,
    /// What it writes as errors; nothing on a terminal.
    pub stderr: Option<O>,
    /// Columns and rows of the terminal, once they are known.
    pub size: watch::Receiver<Option<(u16, u16)>>,
}

/// Reads some bytes; none at the end.
pub(super) async fn chunk(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK);
    from.read_buf(&mut chunk).await?;
    Ok(chunk)
}

/// Feeds a pipe until the input ends or nobody reads any more; the pipe is closed then.
pub(super) async fn feed<I: AsyncRead + Unpin>(stdin: Option<I>, mut to: pipe::Sender, keep: bool) {
    if let Some(mut stdin) = stdin {
        while let Ok(bytes) = chunk(&mut stdin).await {
            if bytes.is_empty() || to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    }
    if keep {
        std::future::pending::<()>().await;
    }
}

/// Carries what a program writes, until nobody has the other end open. Once the program is `over`, only what it has
/// written by then: others that inherited the pipe may keep it open for as long as they like.
pub(super) async fn carry<O>(from: pipe::Receiver, mut to: Option<O>, over: watch::Receiver<bool>) -> io::Result<()>
where
    O: AsyncWrite + Unpin,
{
    let mut chunk = vec![0; CHUNK];
    while let Some(length) = next(&from, &mut chunk, over.clone()).await? {
        if let Some(to) = &mut to {
            to.write_all(&chunk[..length]).await?;
        }
    }
    match &mut to {
        Some(to) => to.shutdown().await,
        None => Ok(()),
    }
}

async fn next(from: &pipe::Receiver, chunk: &mut [u8], mut over: watch::Receiver<bool>) -> io::Result<Option<usize>> {
    loop {
        let last = tokio::select! {
            biased;
            ready = from.readable() => { ready?; false }
            _ = over.wait_for(|over| *over) => true,
        };
        match from.try_read(chunk) {
            Ok(0) => return Ok(None),
            Ok(length) => return Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && last => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if terminal::is_hung_up(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}
