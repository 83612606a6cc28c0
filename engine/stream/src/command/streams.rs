//! Commands over SPDY, fourth protocol: the client opens a stream a purpose, told apart by their `streamtype`.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::{RemoteCommand, SIZE_MAX, Size, Wanted};
use crate::channel::{Incoming, Outgoing, Packet, queue};
use crate::converse::{Writer, converse};
use crate::error::StreamError;
use crate::outcome::Outcome;
use crate::spdy::{self, Encoding, Opened};

/// How long a client may take to open its streams.
const OPENING: Duration = Duration::from_secs(30);

pub(super) async fn serve<I, H, F>(io: I, wanted: Wanted, handler: H) -> Result<(), StreamError>
where
    I: AsyncRead + AsyncWrite,
    H: FnOnce(RemoteCommand) -> F,
    F: Future<Output = Outcome>,
{
    let (from, to) = tokio::io::split(io);
    let (packets, waiting) = queue();
    let (opened, opening) = mpsc::channel(8);
    let reading = spdy::read(from, packets.clone(), opened);
    let working = async {
        let (told, size) = watch::channel(None);
        let streams = timeout(OPENING, Streams::gather(opening, wanted)).await.map_err(|_| StreamError::Late)??;
        let Streams { error, stdin, stdout, stderr, resize } = streams;
        let command = RemoteCommand { stdin: stdin.map(|stream| stream.input), stdout, stderr, size };
        let outcome = tokio::select! {
            outcome = handler(command) => outcome,
            never = tell_sizes(resize, told) => match never {},
        };
        if let Some(mut error) = error {
            error.write_all(outcome.status().to_string().as_bytes()).await?;
            error.shutdown().await?;
        }
        // A writer that is gone ends the conversation by itself.
        drop(packets.send(Packet::Close).await);
        Ok(())
    };
    converse(reading, working, Writer { io: to, encoding: Encoding, queue: waiting }).await
}

#[derive(Default)]
struct Streams {
    error: Option<Outgoing>,
    stdin: Option<Opened>,
    stdout: Option<Outgoing>,
    stderr: Option<Outgoing>,
    resize: Option<Incoming>,
}

impl Streams {
    /// Waits for all that the client wants; others are dropped. For a client that went away before, nothing is run.
    async fn gather(mut opening: mpsc::Receiver<Opened>, wanted: Wanted) -> Result<Self, StreamError> {
        let mut all = Self::default();
        while !all.complete(wanted) {
            let opened = opening.recv().await.ok_or(StreamError::Late)?;
            match opened.headers.get("streamtype") {
                Some("error") => all.error = Some(opened.output),
                Some("stdin") if wanted.stdin => all.stdin = Some(opened),
                Some("stdout") if wanted.stdout => all.stdout = Some(opened.output),
                Some("stderr") if wanted.stderr && !wanted.tty => all.stderr = Some(opened.output),
                Some("resize") if wanted.tty => all.resize = Some(opened.input),
                _ => {}
            }
        }
        Ok(all)
    }

    fn complete(&self, wanted: Wanted) -> bool {
        self.error.is_some()
            && self.stdin.is_some() == wanted.stdin
            && self.stdout.is_some() == wanted.stdout
            && self.stderr.is_some() == (wanted.stderr && !wanted.tty)
            && self.resize.is_some() == wanted.tty
    }
}

/// Reads sizes, JSON documents one after the other, as long as there are any.
async fn tell_sizes(resize: Option<Incoming>, told: watch::Sender<Option<Size>>) -> std::convert::Infallible {
    if let Some(mut resize) = resize {
        let mut message = Vec::new();
        while let Ok(byte) = resize.read_u8().await {
            message.push(byte);
            if byte == b'}' {
                if let Some(size) = Size::parse(&message) {
                    told.send_replace(Some(size));
                }
                message.clear();
            }
            if message.len() > SIZE_MAX {
                break;
            }
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CommandDialect;
    use crate::testing::{Headers, spdy_data, spdy_rest};
    use bytes::BytesMut;

    #[tokio::test]
    async fn a_command_gets_its_streams_and_its_status_comes_last() {
        let wanted = Wanted { stdin: true, stdout: true, stderr: false, tty: true };
        let (mut client, server) = tokio::io::duplex(4096);
        let serving = tokio::spawn(CommandDialect::Spdy.serve(server, wanted, |mut command| async move {
            let size = *command.size.wait_for(Option::is_some).await.expect("told");
            let size = size.expect("a size");
            let mut typed = Vec::new();
            command.stdin.take().expect("wanted").read_to_end(&mut typed).await.expect("read");
            typed.extend(format!(" {}x{}", size.columns, size.rows).bytes());
            let mut stdout = command.stdout.take().expect("wanted");
            stdout.write_all(&typed).await.expect("written");
            stdout.shutdown().await.expect("ended");
            Outcome::Exited(7)
        }));
        let mut headers = Headers::new();
        for (number, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")] {
            client.write_all(&headers.open(number, &[("streamtype", kind)])).await.unwrap();
        }
        client.write_all(&spdy_data(7, false, b"{\"Width\":80,\"Height\":24}\n")).await.unwrap();
        client.write_all(&spdy_data(3, false, b"ls")).await.unwrap();
        client.write_all(&spdy_data(3, true, b"")).await.unwrap();
        let mut buffer = BytesMut::new();
        assert_eq!(spdy_rest(&mut client, &mut buffer, 5).await, b"ls 80x24");
        let status = spdy_rest(&mut client, &mut buffer, 1).await;
        assert!(String::from_utf8(status).unwrap().contains("NonZeroExitCode"));
        drop(client);
        serving.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_sent_before_it_went_away_is_taken() {
        let wanted = Wanted { stdin: true, stdout: true, ..Wanted::default() };
        let (mut client, server) = tokio::io::duplex(4096);
        let (told, mut taken) = mpsc::channel(1);
        let serving = tokio::spawn(CommandDialect::Spdy.serve(server, wanted, |mut command| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut typed = String::new();
            command.stdin.take().expect("wanted").read_to_string(&mut typed).await.expect("read");
            told.send(typed).await.expect("it is waited for");
            Outcome::Success
        }));
        let mut headers = Headers::new();
        for (number, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
            client.write_all(&headers.open(number, &[("streamtype", kind)])).await.unwrap();
        }
        client.write_all(&spdy_data(3, false, b"last words")).await.unwrap();
        drop(client);
        assert_eq!(taken.recv().await.as_deref(), Some("last words"));
        drop(serving.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_run_for_a_client_that_went_away_before_it_had_its_streams() {
        let wanted = Wanted { stdin: true, stdout: true, ..Wanted::default() };
        let (mut client, server) = tokio::io::duplex(4096);
        client.write_all(&Headers::new().open(1, &[("streamtype", "error")])).await.unwrap();
        drop(client);
        let never = |_| async { unreachable!("the client is gone") };
        drop(CommandDialect::Spdy.serve(server, wanted, never).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_opens_no_streams_is_not_waited_for_long() {
        let (_client, server) = tokio::io::duplex(64);
        let wanted = Wanted { stdout: true, ..Wanted::default() };
        let result = CommandDialect::Spdy.serve(server, wanted, |_| async { Outcome::Success }).await;
        assert!(matches!(result, Err(StreamError::Late)));
    }
}
