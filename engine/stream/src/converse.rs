//! The three parts of every connection, run together: reading what the client sends, the work it asked for, and
//! writing what comes of it.
//!
//! When the client goes away the work is dropped. When the work is done its last words are written, and what the client
//! still sends is read for a moment, because closing a connection with unread bytes would tear the last words away.

use std::time::Duration;

use bytes::BytesMut;
use futures::TryFutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::channel::{CHUNK, Packet};
use crate::error::StreamError;

/// How long a client may take to close its end after ours.
const FAREWELL: Duration = Duration::from_secs(2);
/// What is read from the connection at once.
const READ: usize = 16 * 1024;

/// Takes a protocol's events out of bytes as they come. It must consume whatever it can: what it leaves is kept.
pub(crate) trait Decode {
    /// What the client says.
    type Event;

    /// The next event; none when more bytes are needed.
    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Self::Event>, StreamError>;
}

/// Events of a connection.
pub(crate) struct Events<R, D> {
    io: R,
    buffer: BytesMut,
    decoder: D,
}

impl<R: AsyncRead + Unpin, D: Decode> Events<R, D> {
    pub(crate) fn new(io: R, decoder: D) -> Self {
        Self { io, buffer: BytesMut::new(), decoder }
    }

    /// The next event; none at the end of the connection.
    pub(crate) async fn next(&mut self) -> Result<Option<D::Event>, StreamError> {
        loop {
            if let Some(event) = self.decoder.decode(&mut self.buffer)? {
                return Ok(Some(event));
            }
            self.buffer.reserve(READ);
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// How a protocol writes packets.
pub(crate) trait Encode {
    /// What stands before `length` bytes of data.
    fn data(&self, stream: u32, length: usize, out: &mut Vec<u8>);

    /// The end of a stream; nothing where the protocol has no word for it.
    fn end(&self, stream: u32, out: &mut Vec<u8>);

    /// The end of everything.
    fn close(&self, out: &mut Vec<u8>);
}

/// Writes packets until told to close, or until nobody is left to send any.
pub(crate) async fn write<W, E>(mut io: W, encoding: E, mut queue: mpsc::Receiver<Packet>) -> Result<(), StreamError>
where
    W: AsyncWrite + Unpin,
    E: Encode,
{
    let mut out = Vec::new();
    while let Some(packet) = queue.recv().await {
        out.clear();
        match packet {
            Packet::Data { stream, bytes } => {
                encoding.data(stream, bytes.len(), &mut out);
                out.extend_from_slice(&bytes);
            }
            Packet::End { stream } => encoding.end(stream, &mut out),
            Packet::Control(bytes) => out.extend_from_slice(&bytes),
            Packet::Close => break,
        }
        io.write_all(&out).await?;
        if queue.is_empty() {
            io.flush().await?;
        }
        if out.capacity() > CHUNK / 4 && queue.is_empty() {
            out = Vec::new();
        }
    }
    out.clear();
    encoding.close(&mut out);
    io.write_all(&out).await?;
    io.flush().await?;
    Ok(io.shutdown().await?)
}

/// Runs a connection to its end.
pub(crate) async fn converse(
    reading: impl Future<Output = Result<(), StreamError>>,
    working: impl Future<Output = Result<(), StreamError>>,
    writing: impl Future<Output = Result<(), StreamError>>,
) -> Result<(), StreamError> {
    tokio::pin!(reading);
    let work = async { tokio::try_join!(working, writing).map(drop) };
    tokio::select! {
        done = work => done?,
        gone = &mut reading => return gone,
    }
    // Whatever it still says, or that it says nothing, changes nothing any more.
    drop(timeout(FAREWELL, reading.or_else(|_| async { Ok::<(), StreamError>(()) })).await);
    Ok(())
}
