//! Forwarding over SPDY (`portforward.k8s.io`): the client opens two streams a connection, told apart by `streamtype` and
//! held together by `requestid`; `port` says where to.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::{Forward, WAITING, handle};
use crate::channel::{Packet, queue};
use crate::converse::{Writer, converse};
use crate::error::StreamError;
use crate::spdy::{self, Encoding, Opened};

/// Streams that wait for their other half; the oldest is given up first.
const HALVES_MAX: usize = 64;

pub(super) async fn serve<I, H, F>(io: I, handler: H) -> Result<(), StreamError>
where
    I: AsyncRead + AsyncWrite,
    H: Fn(Forward) -> F,
    F: Future<Output = ()>,
{
    let (from, to) = tokio::io::split(io);
    let (packets, waiting) = queue();
    let (opened, opening) = mpsc::channel(WAITING);
    let (forwards, wanted) = mpsc::channel(WAITING);
    let reading = spdy::read(from, packets.clone(), opened);
    let working = async {
        tokio::join!(pair(opening, forwards), handle(wanted, handler));
        // A writer that is gone ends the conversation by itself.
        drop(packets.send(Packet::Close).await);
        Ok(())
    };
    converse(reading, working, Writer { io: to, encoding: Encoding, queue: waiting }).await
}

/// Half of a connection.
struct Half {
    request: String,
    port: u16,
    is_error: bool,
    stream: Opened,
}

impl Half {
    fn of(stream: Opened) -> Option<Self> {
        let port = stream.headers.get("port")?.parse().ok().filter(|port| *port > 0)?;
        let is_error = match stream.headers.get("streamtype")? {
            "error" => true,
            "data" => false,
            _ => return None,
        };
        let request = stream.headers.get("requestid").map(str::to_owned);
        // Clients that give no id open the stream of errors right before the one of data.
        let guess = || stream.number.saturating_sub(if is_error { 0 } else { 2 }).to_string();
        Some(Self { request: request.unwrap_or_else(guess), port, is_error, stream })
    }
}

async fn pair(mut opening: mpsc::Receiver<Opened>, forwards: mpsc::Sender<Forward>) {
    let mut halves = VecDeque::<Half>::new();
    while let Some(opened) = opening.recv().await {
        let Some(half) = Half::of(opened) else { continue };
        let fits = |other: &Half| other.request == half.request && other.is_error != half.is_error;
        let Some(place) = halves.iter().position(fits) else {
            if halves.len() == HALVES_MAX {
                halves.pop_front();
            }
            halves.push_back(half);
            continue;
        };
        let other = halves.remove(place).expect("it was found there");
        let (data, error) = if half.is_error { (other, half) } else { (half, other) };
        let Opened { input, output, .. } = data.stream;
        let forward = Forward { port: data.port, input, output, error: error.stream.output };
        if forwards.send(forward).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ForwardDialect;
    use crate::forward::testing::answer;
    use crate::testing::{Headers, spdy_data, spdy_rest};
    use bytes::BytesMut;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn connections_are_paired_answered_and_closed_each_by_itself() {
        let (mut client, server) = tokio::io::duplex(4096);
        let serving = tokio::spawn(async move { ForwardDialect::Spdy.serve(server, &[], answer).await });
        let (mut headers, mut buffer) = (Headers::new(), BytesMut::new());
        for (number, port, id) in [(1, "80", "0"), (5, "8080", "1")] {
            for (number, kind) in [(number, "error"), (number + 2, "data")] {
                let all = [("streamtype", kind), ("port", port), ("requestid", id)];
                client.write_all(&headers.open(number, &all)).await.unwrap();
            }
        }
        client.write_all(&spdy_data(7, false, b"wxyz")).await.unwrap();
        assert_eq!(spdy_rest(&mut client, &mut buffer, 7).await, b"8080:wxyz");
        assert_eq!(spdy_rest(&mut client, &mut buffer, 5).await, b"");
        client.write_all(&spdy_data(3, false, b"abcd")).await.unwrap();
        assert_eq!(spdy_rest(&mut client, &mut buffer, 3).await, b"80:abcd");
        // Without an id, and to a closed port.
        client.write_all(&headers.open(9, &[("streamtype", "error"), ("port", "1")])).await.unwrap();
        client.write_all(&headers.open(11, &[("streamtype", "data"), ("port", "1")])).await.unwrap();
        assert_eq!(spdy_rest(&mut client, &mut buffer, 9).await, b"connection refused");
        drop(client);
        serving.await.unwrap().unwrap();
    }
}
