//! The protocol of an attachment, once a supervisor has answered the request for it: frames both ways, each a byte for
//! what it is, its length in four bytes, big end first, and that many bytes.

/// From the engine: what the program is to read; an empty one ends the attachment's input.
pub(crate) const INPUT: u8 = 0;
/// From the supervisor: what the program has written.
pub(crate) const OUTPUT: u8 = 1;
/// From the supervisor: what the program has written as errors.
pub(crate) const ERRORS: u8 = 2;
/// From the engine: columns and rows of its terminal, two bytes each.
pub(crate) const RESIZE: u8 = 4;
/// Bytes before the content.
pub(crate) const HEAD: usize = 5;
/// The longest content, in bytes.
pub(crate) const CONTENT_MAX: usize = 32 * 1024;

/// Appends a frame of at most [`CONTENT_MAX`] bytes.
pub(crate) fn push(kind: u8, content: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(content.len()).expect("contents are short");
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(content);
}

/// What stands before a content: its kind and length; none when the length is more than anybody sends.
pub(crate) fn head(bytes: [u8; HEAD]) -> Option<(u8, usize)> {
    let [kind, length @ ..] = bytes;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    (length <= CONTENT_MAX).then_some((kind, length))
}

/// The first whole frame of a buffer: its kind and content, and how long it is as a whole.
pub(crate) fn first(buffer: &[u8]) -> Result<Option<Frame<'_>>, TooLong> {
    let Some(bytes) = buffer.first_chunk() else { return Ok(None) };
    let (kind, length) = head(*bytes).ok_or(TooLong)?;
    Ok(buffer.get(HEAD..HEAD + length).map(|content| (kind, content, HEAD + length)))
}

/// Kind, content, and the length of the whole.
pub(crate) type Frame<'a> = (u8, &'a [u8], usize);

/// A frame that nobody sends.
#[derive(Debug)]
pub(crate) struct TooLong;

/// Columns and rows of a [`RESIZE`].
pub(crate) fn size(content: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = content else { return None };
    Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        push(INPUT, b"abc", &mut bytes);
        push(RESIZE, &[0, 80, 0, 24], &mut bytes);
        let (kind, content, length) = first(&bytes).unwrap().unwrap();
        assert_eq!((kind, content), (INPUT, &b"abc"[..]));
        let (kind, content, _) = first(&bytes[length..]).unwrap().unwrap();
        assert_eq!((kind, size(content)), (RESIZE, Some((80, 24))));
        assert!(first(&bytes[..length - 1]).unwrap().is_none());
        assert!(first(&[INPUT, 0xff, 0, 0, 0]).is_err());
    }
}
