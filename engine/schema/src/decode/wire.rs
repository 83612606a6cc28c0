//! Protobuf's wire format: tags, lengths, varints. It knows no message.

/// One field as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'a> {
    /// A varint.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes.
    Fixed32(u32),
    /// Text, bytes, a message or packed numbers.
    Bytes(&'a [u8]),
}

impl Wire<'_> {
    /// A varint as a signed number: `int32` and `int64` are written in two's complement.
    pub(super) fn integer(self) -> Option<i64> {
        match self {
            Self::Varint(number) => Some(number.cast_signed()),
            _ => None,
        }
    }
}

/// Walks the fields of one message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and value; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, &'static str> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number =
            u32::try_from(key >> 3).ok().filter(|number| *number > 0).ok_or("a field number is out of range")?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| "a length is out of range")?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err("an unknown wire type"),
        };
        Ok(Some((number, value)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number is longer than ten bytes")
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.take(N).map(|bytes| bytes.try_into().expect("take gave N bytes"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("it ends too early")?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_order() {
        let mut reader = Reader::new(&[0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i']);
        assert_eq!(reader.next(), Ok(Some((1, Wire::Varint(150)))));
        assert_eq!(reader.next(), Ok(Some((2, Wire::Bytes(b"hi")))));
        assert_eq!(reader.next(), Ok(None));
    }

    #[test]
    fn negative_numbers_take_ten_bytes() {
        let mut reader = Reader::new(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        let (_, value) = reader.next().expect("well-formed").expect("one field");
        assert_eq!(value.integer(), Some(-1));
    }

    #[test]
    fn what_ends_too_early_is_refused() {
        assert!(Reader::new(&[0x12, 0x05, b'h']).next().is_err());
        assert!(Reader::new(&[0x08, 0xff]).next().is_err());
        assert!(Reader::new(&[0x0b]).next().is_err());
    }
}
