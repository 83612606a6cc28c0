//! `SPDY/3.1+portforward.k8s.io`: the SPDY connection as a stream of bytes inside of binary WebSocket messages, whose
//! borders mean nothing.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{Forward, streams};
use crate::channel::{CHUNK, Packet, Packets, queue};
use crate::converse::{Encode, Events, Writer, converse};
use crate::error::StreamError;
use crate::websocket::{self, Decoder, Event};

/// Bytes between the two protocols, each way.
const HELD: usize = 2 * CHUNK;

struct Encoding;

impl Encode for Encoding {
    fn data(&self, _: u32, length: usize, out: &mut Vec<u8>) {
        websocket::head(length, out);
    }

    fn end(&self, _: u32, _: &mut Vec<u8>) {}

    fn close(&self, out: &mut Vec<u8>) {
        websocket::close(out);
    }
}

pub(super) async fn serve<I, H, F>(io: I, handler: H) -> Result<(), StreamError>
where
    I: AsyncRead + AsyncWrite,
    H: Fn(Forward) -> F,
    F: Future<Output = ()>,
{
    let (outer, inner) = tokio::io::duplex(HELD);
    let (from_inner, to_inner) = tokio::io::split(outer);
    let (from, to) = tokio::io::split(io);
    let (packets, waiting) = queue();
    let reading = unwrap(from, to_inner, packets.clone());
    let working = async {
        let (served, ()) = tokio::join!(streams::serve(inner, handler), wrap(from_inner, packets));
        served
    };
    converse(reading, working, Writer { io: to, encoding: Encoding, queue: waiting }).await
}

async fn unwrap<O, I>(from: O, mut to: WriteHalf<I>, packets: Packets) -> Result<(), StreamError>
where
    O: AsyncRead + Unpin,
    I: AsyncWrite,
{
    let mut events = Events::new(from, Decoder::default());
    while let Some(event) = events.next().await? {
        match event {
            Event::Data { bytes, .. } => to.write_all(&bytes).await?,
            Event::Ping(bytes) => drop(packets.send(Packet::Control(websocket::pong(&bytes))).await),
            Event::Close => break,
        }
    }
    // Half of it is held elsewhere, so that dropping this one would tell the inner connection nothing.
    Ok(to.shutdown().await?)
}

async fn wrap(mut from: ReadHalf<impl AsyncRead>, packets: Packets) {
    let mut buffer = bytes::BytesMut::new();
    loop {
        buffer.reserve(CHUNK / 2);
        let read = from.read_buf(&mut buffer).await;
        let packet = match read {
            Ok(1..) => Packet::Data { stream: 0, bytes: buffer.split().freeze() },
            _ => Packet::Close,
        };
        let over = matches!(packet, Packet::Close);
        if packets.send(packet).await.is_err() || over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ForwardDialect;
    use crate::forward::testing::answer;
    use crate::testing::{Headers, frame, masked, spdy_data, spdy_next};

    #[tokio::test]
    async fn spdy_frames_are_carried_over_any_borders() {
        let (mut client, server) = tokio::io::duplex(4096);
        let serving = tokio::spawn(async move { ForwardDialect::Tunnel.serve(server, &[], answer).await });
        let mut headers = Headers::new();
        let mut sent = headers.open(1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")]);
        sent.extend(headers.open(3, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")]));
        sent.extend(spdy_data(3, false, b"abcd"));
        for part in sent.chunks(7) {
            client.write_all(&masked(0x82, part)).await.unwrap();
        }
        let (mut buffer, mut got) = (bytes::BytesMut::new(), Vec::new());
        while !got.ends_with(b"80:abcd") {
            let (kind, payload) = frame(&mut client).await;
            assert_eq!(kind, 2);
            buffer.extend_from_slice(&payload);
            while let Some((3, _, data)) = spdy_next(&mut buffer) {
                got.extend(data);
            }
        }
        client.write_all(&masked(0x88, &[])).await.unwrap();
        serving.await.unwrap().unwrap();
    }
}
