//! Forwarding ports: for every connection a pair of streams, one for data and one for what went wrong.

mod channels;
mod streams;
mod tunnel;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::channel::{Incoming, Outgoing};
use crate::error::StreamError;
use crate::negotiate::ForwardDialect;

/// Connections that wait to be taken.
const WAITING: usize = 8;
/// Connections that one client may have at once; further ones wait.
const CONNECTIONS_MAX: usize = 256;

/// One connection that a client wants forwarded.
#[derive(Debug)]
pub struct Forward {
    /// The port in the pod.
    pub port: u16,
    /// What the client sends.
    pub input: Incoming,
    /// What the client gets.
    pub output: Outgoing,
    /// Where to say what went wrong; to be shut down in any case, for clients wait for its end.
    pub error: Outgoing,
}

impl ForwardDialect {
    /// Speaks this dialect over an upgraded connection until the client is gone. `ports` are those of the request, for
    /// the dialect that names them there. All connections of the client are handled by the calling task.
    pub async fn serve<I, H, F>(self, io: I, ports: &[u16], handler: H) -> Result<(), StreamError>
    where
        I: AsyncRead + AsyncWrite + Send,
        H: Fn(Forward) -> F + Send + Sync,
        F: Future<Output = ()> + Send,
    {
        // Boxed, for all that a connection needs is in these futures.
        match self {
            Self::Channels => Box::pin(channels::serve(io, ports, handler)).await,
            Self::Spdy => Box::pin(streams::serve(io, handler)).await,
            Self::Tunnel => Box::pin(tunnel::serve(io, handler)).await,
        }
    }
}

/// Handles connections as they come; returns when there will be no more and the last one is done.
async fn handle<H, F>(mut wanted: mpsc::Receiver<Forward>, handler: H)
where
    H: Fn(Forward) -> F,
    F: Future<Output = ()>,
{
    let mut running = FuturesUnordered::new();
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            forward = wanted.recv(), if open && running.len() < CONNECTIONS_MAX => match forward {
                Some(forward) => running.push(handler(forward)),
                None => open = false,
            },
            Some(()) = running.next() => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::Forward;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers with the port and what it was sent; port 1 is closed.
    pub(crate) async fn answer(mut forward: Forward) {
        if forward.port == 1 {
            forward.error.write_all(b"connection refused").await.expect("written");
        } else {
            let mut sent = [0; 4];
            forward.input.read_exact(&mut sent).await.expect("read");
            forward.output.write_all(format!("{}:", forward.port).as_bytes()).await.expect("written");
            forward.output.write_all(&sent).await.expect("written");
        }
        forward.output.shutdown().await.expect("ended");
        forward.error.shutdown().await.expect("ended");
    }
}
