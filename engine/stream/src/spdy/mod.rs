//! SPDY/3.1 (draft 3.1), server side, as far as Kubernetes clients use it: they open streams, both sides send data, and
//! nobody heeds window updates, so the connection itself is the only brake.

mod dictionary;
mod frame;
mod headers;

use std::collections::HashMap;

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use crate::channel::{Incoming, Outgoing, Packet, Packets, inlet};
use crate::converse::{Encode, Events};
use crate::error::StreamError;

#[cfg(test)]
pub(crate) use dictionary::dictionary;
use frame::{Decoder, Event, Replies};
pub(crate) use headers::Headers;

/// Streams that a client may have open at once on one connection.
const STREAMS_MAX: usize = 512;

/// A stream that the client opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) number: u32,
    pub(crate) headers: Headers,
    pub(crate) input: Incoming,
    pub(crate) output: Outgoing,
}

/// How SPDY writes packets.
pub(crate) struct Encoding;

impl Encode for Encoding {
    fn data(&self, stream: u32, length: usize, out: &mut Vec<u8>) {
        frame::data_head(stream, false, length, out);
    }

    fn end(&self, stream: u32, out: &mut Vec<u8>) {
        frame::data_head(stream, true, 0, out);
    }

    fn close(&self, _: &mut Vec<u8>) {}
}

/// Reads until the client goes away; its streams go to `opened`, and so does the end.
pub(crate) async fn read<R>(io: R, packets: Packets, opened: mpsc::Sender<Opened>) -> Result<(), StreamError>
where
    R: AsyncRead + Unpin,
{
    let mut events = Events::new(io, Decoder::default());
    let mut reader = Reader { streams: HashMap::new(), replies: Replies::default(), packets, opened };
    while let Some(event) = events.next().await? {
        reader.take(event).await?;
    }
    Ok(())
}

struct Reader {
    /// Streams that the client may still send data on.
    streams: HashMap<u32, mpsc::Sender<Bytes>>,
    replies: Replies,
    packets: Packets,
    opened: mpsc::Sender<Opened>,
}

impl Reader {
    async fn take(&mut self, event: Event) -> Result<(), StreamError> {
        match event {
            Event::Open { stream, headers, last } => self.open(stream, headers, last).await?,
            Event::Data { stream, bytes, last } => self.data(stream, bytes, last).await,
            Event::Reset(stream) => drop(self.streams.remove(&stream)),
            Event::Ping(frame) => self.send(frame).await,
            Event::Nothing => {}
        }
        Ok(())
    }

    async fn open(&mut self, number: u32, headers: Headers, last: bool) -> Result<(), StreamError> {
        if number.is_multiple_of(2) || self.streams.contains_key(&number) {
            return Err(StreamError::Protocol("a stream has a number that it may not have"));
        }
        if self.streams.len() >= STREAMS_MAX {
            self.send(frame::refusal(number)).await;
            return Ok(());
        }
        let reply = self.replies.to(number);
        self.send(reply).await;
        let (sender, input) = inlet();
        if !last {
            self.streams.insert(number, sender);
        }
        let output = Outgoing::new(number, &self.packets);
        // Where nobody takes it, nobody wants further streams: its end is the answer.
        drop(self.opened.send(Opened { number, headers, input, output }).await);
        Ok(())
    }

    /// Data for a stream that is over is dropped, as the other side cannot know yet.
    async fn data(&mut self, number: u32, bytes: Bytes, last: bool) {
        let Some(stream) = self.streams.get(&number) else { return };
        let heard = bytes.is_empty() || stream.send(bytes).await.is_ok();
        if last || !heard {
            self.streams.remove(&number);
        }
    }

    /// When the writer is gone, the connection ends from that side.
    async fn send(&self, frame: Bytes) {
        drop(self.packets.send(Packet::Control(frame)).await);
    }
}
