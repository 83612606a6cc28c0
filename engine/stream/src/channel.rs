//! One direction of one stream: [`Incoming`] is read, [`Outgoing`] is written, and the connection's own loops are at
//! the other end of both. A few chunks are held in between; then the faster side waits.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// The longest piece of data that is handed on at once, in bytes.
pub(crate) const CHUNK: usize = 32 * 1024;
/// Pieces that one stream holds before its reader is waited for.
const HELD: usize = 8;
/// Packets that wait for the connection to take them.
const QUEUE: usize = 16;

/// What is to be written to the connection.
#[derive(Debug)]
pub(crate) enum Packet {
    /// Data of a stream.
    Data { stream: u32, bytes: Bytes },
    /// The stream gets no more data.
    End { stream: u32 },
    /// Bytes of the protocol itself, as they are.
    Control(Bytes),
    /// Nothing follows: say goodbye.
    Close,
}

pub(crate) type Packets = mpsc::Sender<Packet>;

/// The queue of one connection.
pub(crate) fn queue() -> (Packets, mpsc::Receiver<Packet>) {
    mpsc::channel(QUEUE)
}

/// A stream from the client.
pub(crate) fn inlet() -> (mpsc::Sender<Bytes>, Incoming) {
    let (sender, chunks) = mpsc::channel(HELD);
    (sender, Incoming { chunks, rest: Bytes::new() })
}

/// What the client sends on one stream. Dropping it discards the rest.
#[derive(Debug)]
pub struct Incoming {
    chunks: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl AsyncRead for Incoming {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.chunks.poll_recv(cx)) {
                Some(chunk) => self.rest = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// What the client is sent on one stream. Shutting it down tells the client that no more will come.
#[derive(Debug)]
pub struct Outgoing {
    stream: u32,
    packets: PollSender<Packet>,
    ended: bool,
}

impl Outgoing {
    pub(crate) fn new(stream: u32, packets: &Packets) -> Self {
        Self { stream, packets: PollSender::new(packets.clone()), ended: false }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, packet: impl FnOnce() -> Packet) -> Poll<io::Result<()>> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.packets.poll_reserve(cx)).map_err(|_| gone())?;
        Poll::Ready(self.packets.send_item(packet()).map_err(|_| gone()))
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let (stream, length) = (self.stream, data.len().min(CHUNK));
        let packet = || Packet::Data { stream, bytes: Bytes::copy_from_slice(&data[..length]) };
        self.poll_send(cx, packet).map_ok(|()| length)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let stream = self.stream;
        ready!(self.poll_send(cx, || Packet::End { stream }))?;
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}
