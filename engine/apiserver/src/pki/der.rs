//! Just enough DER to write a certificate: tags around contents, and the few values that certificates of ours hold
//! (ITU-T X.690; RFC 5280, section 4.1). It never reads any.

use jiff::Timestamp;

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const IDENTIFIER: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const SHORT_TIME: u8 = 0x17;
const LONG_TIME: u8 = 0x18;

/// One value: its tag, its length, and its contents one after the other.
pub(super) fn value(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let length: usize = contents.iter().map(|part| part.len()).sum();
    let mut written = vec![tag];
    if length < 0x80 {
        written.push(u8::try_from(length).expect("it is less than 128"));
    } else {
        let bytes = length.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let count = u8::try_from(bytes.len() - zeros).expect("a length has at most eight bytes");
        written.push(0x80 | count);
        written.extend_from_slice(&bytes[zeros..]);
    }
    for part in contents {
        written.extend_from_slice(part);
    }
    written
}

/// The tag of a value whose meaning follows from its place: plain contents, or values inside it.
pub(super) fn context(number: u8, holds_values: bool) -> u8 {
    0x80 | number | if holds_values { 0x20 } else { 0 }
}

/// An object identifier, from its encoded arcs.
pub(super) fn identifier(arcs: &[u8]) -> Vec<u8> {
    value(IDENTIFIER, &[arcs])
}

/// Bits, the first one highest, without zeros behind the last one that is set.
pub(super) fn bits(byte: u8) -> Vec<u8> {
    let unused = u8::try_from(byte.trailing_zeros().min(7)).expect("it is at most seven");
    value(BIT_STRING, &[&[unused, byte]])
}

/// A moment, whole seconds in UTC: two digits of the year before 2050, four from then on.
pub(super) fn time(moment: Timestamp) -> Vec<u8> {
    let text = moment.strftime("%Y%m%d%H%M%SZ").to_string();
    if text.as_str() < "2050" {
        value(SHORT_TIME, &[&text.as_bytes()[2..]])
    } else {
        value(LONG_TIME, &[text.as_bytes()])
    }
}

/// An extension of a certificate.
pub(super) fn extension(arcs: &[u8], critical: bool, content: &[u8]) -> Vec<u8> {
    let mark = if critical { value(BOOLEAN, &[&[0xff]]) } else { Vec::new() };
    value(SEQUENCE, &[&identifier(arcs), &mark, &value(OCTET_STRING, &[content])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_as_few_bytes_as_they_can() {
        assert_eq!(value(SEQUENCE, &[]), [0x30, 0]);
        assert_eq!(value(SEQUENCE, &[&[1], &[2, 3]]), [0x30, 3, 1, 2, 3]);
        assert_eq!(value(INTEGER, &[&[0; 200]])[..3], [2, 0x81, 200]);
        assert_eq!(value(INTEGER, &[&[0; 300]])[..4], [2, 0x82, 1, 44]);
    }

    #[test]
    fn times_change_their_form_in_2050() {
        let at = |text: &str| time(text.parse().unwrap());
        assert_eq!(at("2049-12-31T23:59:59Z"), [&[0x17, 13][..], b"491231235959Z"].concat());
        assert_eq!(at("2050-01-01T00:00:00Z"), [&[0x18, 15][..], b"20500101000000Z"].concat());
        assert_eq!(bits(0xa0), [3, 2, 5, 0xa0]);
    }
}
