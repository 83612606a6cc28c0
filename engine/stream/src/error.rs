//! What can go wrong with a connection of streams.

use std::io;

/// Why a connection of streams ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Reading or writing failed: most often the client is gone.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The client sent what its protocol does not allow.
    #[error("the client breaks the protocol: {0}")]
    Protocol(&'static str),
    /// The client did not open the streams that it asked for.
    #[error("the client did not open its streams in time")]
    Late,
}
