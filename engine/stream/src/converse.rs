//! The three parts of every connection, run together: reading what the client sends, the work it asked for, and
//! writing what comes of it.
//!
//! When the client goes away its input ends, and the work may go on for a moment: it takes what the client sent before it
//! went, and whatever ends with its input ends by itself. Then it is dropped. When the work is done its last words are
//! written, and what the client still sends is read for a moment, because closing a connection with unread bytes would
//! tear the last words away.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use futures::TryFutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::channel::{CHUNK, Packet};
use crate::error::StreamError;

/// How long a client may take to close its end after ours.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long work may go on without its client.
const LINGER: Duration = Duration::from_secs(3);
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

/// The writing side of a connection.
pub(crate) struct Writer<W, E> {
    pub(crate) io: W,
    pub(crate) encoding: E,
    pub(crate) queue: mpsc::Receiver<Packet>,
}

impl<W: AsyncWrite + Unpin, E: Encode> Writer<W, E> {
    /// Writes until told to close, or until nobody is left to send any packets. When the connection fails it says so and
    /// throws away what follows, so that work which still has input to take is not stopped by what it has to say.
    async fn run(mut self, broken: oneshot::Sender<StreamError>) {
        let Err(error) = self.write().await else { return };
        drop(broken.send(error.into()));
        while !matches!(self.queue.recv().await, None | Some(Packet::Close)) {}
    }

    async fn write(&mut self) -> io::Result<()> {
        let Self { io, encoding, queue } = self;
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
        io.shutdown().await
    }
}

/// Runs a connection to its end.
pub(crate) async fn converse<W: AsyncWrite + Unpin, E: Encode>(
    reading: impl Future<Output = Result<(), StreamError>>,
    working: impl Future<Output = Result<(), StreamError>>,
    writer: Writer<W, E>,
) -> Result<(), StreamError> {
    let (broken, breaking) = oneshot::channel();
    let writing = async {
        writer.run(broken).await;
        Ok(())
    };
    let work = async { tokio::try_join!(working, writing).map(drop) };
    tokio::pin!(reading, work);
    let (gone, read) = tokio::select! {
        done = &mut work => {
            done?;
            // Whatever it still says, or that it says nothing, changes nothing any more.
            drop(timeout(FAREWELL, reading.or_else(|_| async { Ok::<(), StreamError>(()) })).await);
            return Ok(());
        }
        gone = &mut reading => (gone, true),
        Ok(error) = breaking => (Err(error), false),
    };
    if matches!(gone, Err(StreamError::Protocol(_))) {
        return gone;
    }
    let rest = async {
        // Of a connection that takes no more there may still be something to read.
        if !read {
            drop(reading.await);
        }
        std::future::pending().await
    };
    tokio::select! {
        _ = timeout(LINGER, work) => gone,
        never = rest => never,
    }
}
