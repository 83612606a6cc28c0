//! The dialects in which clients run commands in containers, attach to them and forward ports, over a connection that
//! was upgraded from HTTP/1.1: WebSocket channels, SPDY/3.1, and SPDY/3.1 inside of WebSocket frames.
//!
//! [`CommandDialect`] and [`ForwardDialect`] read a request's headers and give the `101` reply; their `serve` hands what
//! the client wants to a handler in one neutral form, [`RemoteCommand`] or [`Forward`]. Everything a client can make
//! this crate hold is bounded, and a side that does not read stops the other one from writing.
//! Knows neither containers nor the network: only bytes that can be read and written.

mod channel;
mod command;
mod converse;
mod error;
mod forward;
mod negotiate;
mod outcome;
mod spdy;
#[cfg(test)]
mod testing;
mod websocket;

pub use channel::{Incoming, Outgoing};
pub use command::{RemoteCommand, Size, Wanted};
pub use error::StreamError;
pub use forward::Forward;
pub use negotiate::{CommandDialect, ForwardDialect, Refusal};
pub use outcome::Outcome;
