//! Running a command, or attaching to one: up to three streams, the terminal's size, and the outcome.

mod channels;
mod streams;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::channel::{Incoming, Outgoing};
use crate::error::StreamError;
use crate::negotiate::CommandDialect;
use crate::outcome::Outcome;

pub(crate) use channels::Encoding as ChannelEncoding;

/// The longest message that tells a size, in bytes.
const SIZE_MAX: usize = 256;

/// Which streams a client wants.
#[expect(clippy::struct_excessive_bools, reason = "each is one parameter of the request")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// It sends input.
    pub stdin: bool,
    /// It takes output.
    pub stdout: bool,
    /// It takes errors; on a terminal they are output.
    pub stderr: bool,
    /// The streams are a terminal's.
    pub tty: bool,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

impl Size {
    /// Reads `{"Width":80,"Height":24}`.
    fn parse(message: &[u8]) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_slice(message).ok()?;
        let side = |name: &str| u16::try_from(value.get(name)?.as_u64()?).ok();
        Some(Self { columns: side("Width")?, rows: side("Height")? })
    }
}

/// What the handler of a command works with. The streams are those that the client wanted.
#[derive(Debug)]
pub struct RemoteCommand {
    /// What the client types; its end is the client's end of input.
    pub stdin: Option<Incoming>,
    /// Where output goes.
    pub stdout: Option<Outgoing>,
    /// Where errors go.
    pub stderr: Option<Outgoing>,
    /// The terminal's newest size, once the client has told one.
    pub size: watch::Receiver<Option<Size>>,
}

impl CommandDialect {
    /// Speaks this dialect over an upgraded connection until the handler is done or the client is gone; then the handler
    /// is dropped.
    pub async fn serve<I, H, F>(self, io: I, wanted: Wanted, handler: H) -> Result<(), StreamError>
    where
        I: AsyncRead + AsyncWrite + Send,
        H: FnOnce(RemoteCommand) -> F + Send,
        F: Future<Output = Outcome> + Send,
    {
        // Boxed, for all that a connection needs is in these futures.
        match self {
            Self::Channels { half_close } => Box::pin(channels::serve(io, wanted, half_close, handler)).await,
            Self::Spdy => Box::pin(streams::serve(io, wanted, handler)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_nonsense_is_not() {
        assert_eq!(Size::parse(br#"{"Width":80,"Height":24}"#), Some(Size { columns: 80, rows: 24 }));
        for text in ["", "{}", "[]", r#"{"Width":-1,"Height":2}"#, r#"{"Width":70000,"Height":2}"#] {
            assert_eq!(Size::parse(text.as_bytes()), None, "{text}");
        }
    }
}
