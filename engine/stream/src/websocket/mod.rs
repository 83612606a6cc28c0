//! WebSocket connections (RFC 6455), server side, as far as streams need them: no extensions, messages handed on in
//! pieces as they come, so that no message is ever held whole.

mod frame;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

pub(crate) use frame::{Decoder, Event, close, head, pong};

/// The RFC's own constant, section 1.3.
const ACCEPT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What `Sec-WebSocket-Accept` answers to `Sec-WebSocket-Key`.
pub(crate) fn accept(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), ACCEPT].concat()))
}

/// Whether it is what a client has to send: sixteen bytes in base64.
pub(crate) fn is_key(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_answered_as_there() {
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ==") && !is_key("short") && !is_key(""));
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
