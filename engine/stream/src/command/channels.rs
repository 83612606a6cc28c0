//! The protocols `v4.channel.k8s.io` and `v5.channel.k8s.io`: the first byte of every WebSocket message is its channel.
//! The fifth adds that a client can end its input, by a message of 255 and the channel.

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

use super::{RemoteCommand, SIZE_MAX, Size, Wanted};
use crate::channel::{Outgoing, Packet, Packets, inlet, queue};
use crate::converse::{Encode, Events, Writer, converse};
use crate::error::StreamError;
use crate::outcome::Outcome;
use crate::websocket::{self, Decoder, Event};

const STDIN: u8 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const STATUS: u32 = 3;
const RESIZE: u8 = 4;
const END: u8 = 255;

/// How channels are written.
pub(crate) struct Encoding;

impl Encode for Encoding {
    fn data(&self, stream: u32, length: usize, out: &mut Vec<u8>) {
        websocket::head(length + 1, out);
        out.push(u8::try_from(stream).expect("channels are bytes"));
    }

    fn end(&self, _: u32, _: &mut Vec<u8>) {}

    fn close(&self, out: &mut Vec<u8>) {
        websocket::close(out);
    }
}

pub(super) async fn serve<I, H, F>(io: I, wanted: Wanted, half_close: bool, handler: H) -> Result<(), StreamError>
where
    I: AsyncRead + AsyncWrite,
    H: FnOnce(RemoteCommand) -> F,
    F: Future<Output = Outcome>,
{
    let (from, to) = tokio::io::split(io);
    let (packets, waiting) = queue();
    let (typed, stdin) = inlet();
    let (told, size) = watch::channel(None);
    let output = |stream, wanted: bool| wanted.then(|| Outgoing::new(stream, &packets));
    let command = RemoteCommand {
        stdin: wanted.stdin.then_some(stdin),
        stdout: output(STDOUT, wanted.stdout),
        stderr: output(STDERR, wanted.stderr && !wanted.tty),
        size,
    };
    let typed = wanted.stdin.then_some(typed);
    let reader = Reader { channel: None, typed, told, message: Vec::new(), half_close, packets: packets.clone() };
    let working = async {
        let status = handler(command).await.status().to_string();
        let last = [Packet::Data { stream: STATUS, bytes: status.into() }, Packet::Close];
        for packet in last {
            // A writer that is gone ends the conversation by itself.
            drop(packets.send(packet).await);
        }
        Ok(())
    };
    converse(reader.read(from), working, Writer { io: to, encoding: Encoding, queue: waiting }).await
}

struct Reader {
    /// The channel of the message that is coming, once its first byte is there.
    channel: Option<u8>,
    typed: Option<mpsc::Sender<Bytes>>,
    told: watch::Sender<Option<Size>>,
    /// A message that is read whole: a size, or the end of a channel.
    message: Vec<u8>,
    half_close: bool,
    packets: Packets,
}

impl Reader {
    async fn read(mut self, from: impl AsyncRead + Unpin) -> Result<(), StreamError> {
        let mut events = Events::new(from, Decoder::default());
        while let Some(event) = events.next().await? {
            match event {
                Event::Data { first, bytes } => self.take(first, bytes).await?,
                Event::Ping(bytes) => drop(self.packets.send(Packet::Control(websocket::pong(&bytes))).await),
                Event::Close => return Ok(()),
            }
        }
        Ok(())
    }

    async fn take(&mut self, first: bool, mut bytes: Bytes) -> Result<(), StreamError> {
        if first {
            self.channel = None;
            self.message.clear();
        }
        if self.channel.is_none() && !bytes.is_empty() {
            self.channel = Some(bytes.get_u8());
        }
        match self.channel {
            Some(STDIN) => self.hand_on(bytes).await,
            Some(RESIZE) => self.resize(&bytes)?,
            Some(END) if self.half_close && bytes.first() == Some(&STDIN) => self.typed = None,
            _ => {}
        }
        Ok(())
    }

    async fn hand_on(&mut self, bytes: Bytes) {
        let Some(typed) = self.typed.as_ref().filter(|_| !bytes.is_empty()) else { return };
        if typed.send(bytes).await.is_err() {
            // Nobody reads any more; the rest is dropped.
            self.typed = None;
        }
    }

    fn resize(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.message.extend_from_slice(bytes);
        if self.message.len() > SIZE_MAX {
            return Err(StreamError::Protocol("a message about the terminal's size is too long"));
        }
        if let Some(size) = Size::parse(&self.message) {
            self.told.send_replace(Some(size));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CommandDialect;
    use crate::testing::{frame, masked};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const ALL: Wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
    const FIFTH: CommandDialect = CommandDialect::Channels { half_close: true };

    fn message(channel: u8, data: &[u8]) -> Vec<u8> {
        masked(0x82, &[&[channel], data].concat())
    }

    /// Sends input back as output, its length as an error, and exits with 3.
    async fn echo(mut command: RemoteCommand) -> Outcome {
        let mut all = Vec::new();
        command.stdin.take().expect("wanted").read_to_end(&mut all).await.expect("read");
        command.stdout.take().expect("wanted").write_all(&all).await.expect("written");
        let length = all.len().to_string();
        command.stderr.take().expect("wanted").write_all(length.as_bytes()).await.expect("written");
        Outcome::Exited(3)
    }

    #[tokio::test]
    async fn a_command_reads_writes_and_ends_with_its_code() {
        let (mut client, server) = tokio::io::duplex(1024);
        let serving = tokio::spawn(FIFTH.serve(server, ALL, echo));
        for bytes in [message(0, b"hello "), masked(0x89, b"?"), message(0, b"world"), message(255, &[0])] {
            client.write_all(&bytes).await.unwrap();
        }
        assert_eq!(frame(&mut client).await, (10, b"?".to_vec()));
        assert_eq!(frame(&mut client).await, (2, b"\x01hello world".to_vec()));
        assert_eq!(frame(&mut client).await, (2, b"\x0211".to_vec()));
        let (_, status) = frame(&mut client).await;
        assert_eq!(status[0], 3);
        let status: serde_json::Value = serde_json::from_slice(&status[1..]).unwrap();
        assert_eq!(status["details"]["causes"][0]["message"], "3");
        assert_eq!(frame(&mut client).await, (8, 1000_u16.to_be_bytes().to_vec()));
        drop(client);
        serving.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_away_ends_the_command() {
        let (client, server) = tokio::io::duplex(1024);
        let (alive, mut ended) = mpsc::channel::<()>(1);
        let serving = tokio::spawn(FIFTH.serve(server, ALL, |command| async move {
            let _held = (command, alive);
            std::future::pending().await
        }));
        drop(client);
        assert_eq!(ended.recv().await, None);
        serving.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_sent_before_it_went_away_is_taken_and_its_end_is_the_inputs() {
        let (mut client, server) = tokio::io::duplex(1024 * 1024);
        let (told, mut taken) = mpsc::channel(1);
        let serving = tokio::spawn(FIFTH.serve(server, ALL, |mut command| async move {
            let (mut stdin, mut stdout) =
                (command.stdin.take().expect("wanted"), command.stdout.take().expect("wanted"));
            let (mut all, mut chunk) = (0, vec![0; 1000]);
            // A slow one, which says what it does to a client that is no longer there.
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                match stdin.read(&mut chunk).await.expect("read") {
                    0 => break,
                    length => all += length,
                }
                stdout.write_all(b"more\n").await.expect("taken, if only to be thrown away");
            }
            told.send(all).await.expect("it is waited for");
            Outcome::Success
        }));
        for _ in 0..40 {
            client.write_all(&message(0, &[7; 5000])).await.unwrap();
        }
        drop(client);
        assert_eq!(taken.recv().await, Some(200_000));
        // The connection broke under what it wrote, or was seen to end before that.
        drop(serving.await.unwrap());
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_stops_the_command_from_writing() {
        let (mut client, server) = tokio::io::duplex(1024);
        let (told, mut written) = tokio::sync::watch::channel(0_usize);
        let serving = tokio::spawn(FIFTH.serve(server, ALL, |mut command| async move {
            let mut stdout = command.stdout.take().expect("wanted");
            for _ in 0..1000 {
                stdout.write_all(&[7; 1000]).await.expect("written");
                told.send_modify(|written| *written += 1000);
            }
            Outcome::Success
        }));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(*written.borrow_and_update() < 40_000, "unbounded");
        let mut got = 0;
        while got < 1_000_000 {
            got += frame(&mut client).await.1.len() - 1;
        }
        assert_eq!(frame(&mut client).await.1, [b"\x03", Outcome::Success.status().to_string().as_bytes()].concat());
        drop(client);
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn sizes_arrive_and_a_terminal_has_no_stream_of_errors() {
        let (mut client, server) = tokio::io::duplex(1024);
        let terminal = Wanted { tty: true, ..ALL };
        let serving = tokio::spawn(FIFTH.serve(server, terminal, |mut command| async move {
            assert!(command.stderr.is_none());
            let size = *command.size.wait_for(Option::is_some).await.expect("a size");
            assert_eq!(size, Some(Size { columns: 100, rows: 50 }));
            Outcome::Success
        }));
        client.write_all(&message(4, br#"{"Width":100,"Height":50}"#)).await.unwrap();
        assert_eq!(frame(&mut client).await.1[0], 3);
        drop(client);
        serving.await.unwrap().unwrap();
    }
}
