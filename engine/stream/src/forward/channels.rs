//! Forwarding over WebSocket channels (`v4.channel.k8s.io`, `v5.channel.k8s.io`): one connection for each port of the
//! request, at once. Port number i has the channels 2i for data and 2i+1 for errors; the first message on each is the
//! port's number in two bytes, little end first.

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::{Forward, WAITING, handle};
use crate::channel::{Outgoing, Packet, Packets, inlet, queue};
use crate::command::ChannelEncoding;
use crate::converse::{Events, Writer, converse};
use crate::error::StreamError;
use crate::websocket::{self, Decoder, Event};

const END: u8 = 255;

pub(super) async fn serve<I, H, F>(io: I, ports: &[u16], handler: H) -> Result<(), StreamError>
where
    I: AsyncRead + AsyncWrite,
    H: Fn(Forward) -> F,
    F: Future<Output = ()>,
{
    // Channels are bytes, and 255 is not a port's.
    if ports.is_empty() || ports.len() > usize::from(END / 2) {
        return Err(StreamError::Protocol("between 1 and 127 ports can be forwarded"));
    }
    let (from, to) = tokio::io::split(io);
    let (packets, waiting) = queue();
    let (forwards, wanted) = mpsc::channel(WAITING);
    let (inlets, inputs): (Vec<_>, Vec<_>) = ports.iter().map(|_| inlet()).unzip();
    let reader = Reader { inlets: inlets.into_iter().map(Some).collect(), channel: None, packets: packets.clone() };
    let begin = async {
        for ((number, port), input) in (0_u32..).zip(ports).zip(inputs) {
            let (data, error) = (2 * number, 2 * number + 1);
            for stream in [data, error] {
                let bytes = Bytes::copy_from_slice(&port.to_le_bytes());
                drop(packets.send(Packet::Data { stream, bytes }).await);
            }
            let (output, error) = (Outgoing::new(data, &packets), Outgoing::new(error, &packets));
            drop(forwards.send(Forward { port: *port, input, output, error }).await);
        }
        drop(forwards);
    };
    let working = async {
        tokio::join!(begin, handle(wanted, handler));
        drop(packets.send(Packet::Close).await);
        Ok(())
    };
    converse(reader.read(from), working, Writer { io: to, encoding: ChannelEncoding, queue: waiting }).await
}

struct Reader {
    /// Where the data of each port goes, until it has ended.
    inlets: Vec<Option<mpsc::Sender<Bytes>>>,
    channel: Option<u8>,
    packets: Packets,
}

impl Reader {
    async fn read(mut self, from: impl AsyncRead + Unpin) -> Result<(), StreamError> {
        let mut events = Events::new(from, Decoder::default());
        while let Some(event) = events.next().await? {
            match event {
                Event::Data { first, bytes } => self.take(first, bytes).await,
                Event::Ping(bytes) => drop(self.packets.send(Packet::Control(websocket::pong(&bytes))).await),
                Event::Close => return Ok(()),
            }
        }
        Ok(())
    }

    async fn take(&mut self, first: bool, mut bytes: Bytes) {
        if first {
            self.channel = None;
        }
        if self.channel.is_none() && !bytes.is_empty() {
            self.channel = Some(bytes.get_u8());
        }
        match (self.channel, bytes.first()) {
            (Some(END), Some(ended)) => self.end(*ended),
            (Some(channel), Some(_)) if channel != END && channel.is_multiple_of(2) => {
                self.hand_on(channel, bytes).await;
            }
            _ => {}
        }
    }

    async fn hand_on(&mut self, channel: u8, bytes: Bytes) {
        let Some(place) = self.inlets.get_mut(usize::from(channel / 2)) else { return };
        let Some(inlet) = place else { return };
        if inlet.send(bytes).await.is_err() {
            // The connection is over; the rest is dropped.
            *place = None;
        }
    }

    fn end(&mut self, channel: u8) {
        if channel.is_multiple_of(2)
            && let Some(place) = self.inlets.get_mut(usize::from(channel / 2))
        {
            *place = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ForwardDialect;
    use crate::forward::testing::answer;
    use crate::testing::{frame, masked};
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn every_port_has_two_channels_that_begin_with_its_number() {
        let (mut client, server) = tokio::io::duplex(4096);
        let serving = tokio::spawn(async move { ForwardDialect::Channels.serve(server, &[80, 1], answer).await });
        let mut got: Vec<Vec<u8>> = Vec::new();
        client.write_all(&masked(0x82, b"\0abcd")).await.unwrap();
        loop {
            match frame(&mut client).await {
                (2, payload) => got.push(payload),
                (8, code) => break assert_eq!(code, 1000_u16.to_be_bytes()),
                other => panic!("{other:?}"),
            }
        }
        let of = |channel: u8| -> Vec<&[u8]> {
            got.iter().filter(|message| message[0] == channel).map(|message| &message[1..]).collect()
        };
        assert_eq!(of(0).concat(), b"\x50\080:abcd");
        assert_eq!((of(0)[0], of(1)), (&[80, 0][..], vec![&[80, 0][..]]));
        assert_eq!(of(2), [&[1, 0][..]]);
        assert_eq!(of(3), [&[1, 0][..], b"connection refused"]);
        drop(client);
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn no_ports_or_too_many_are_refused() {
        for ports in [vec![], vec![80; 128]] {
            let (_client, server) = tokio::io::duplex(64);
            assert!(ForwardDialect::Channels.serve(server, &ports, answer).await.is_err());
        }
    }
}
