//! Compiled modules: a container starts several times faster with them, but those of the host are tied to the time stamps of
//! the sources there. Here they are tied to nothing, which Python allows since 3.7 (PEP 552): "unchecked hash".

use crate::cache::Stamp;

/// Bytes before the code: magic number, flags, and time and size of the source.
const HEADER: usize = 16;
/// The flags of a module that is never compared with its source.
const UNCHECKED: [u8; 4] = [1, 0, 0, 0];

/// The compiled module without its tie, if it is tied to this very source; else None.
pub(crate) fn detached(mut module: Vec<u8>, source: &Stamp) -> Option<Vec<u8>> {
    let word = |at: usize| module.get(at..at + 4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("4 bytes")));
    let (flags, modified, size) = (word(4)?, word(8)?, word(12)?);
    // The format keeps the low 32 bits of both.
    let (expected, length) = (source.modified_seconds() & 0xffff_ffff, source.size & 0xffff_ffff);
    if flags != 0 || u64::from(modified) != expected || u64::from(size) != length {
        return None;
    }
    module[4..8].copy_from_slice(&UNCHECKED);
    module[8..HEADER].fill(0);
    Some(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_belongs_to_the_source_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.py");
        std::fs::write(&path, "pass").unwrap();
        let stamp = Stamp::at(&path).unwrap();
        let time = u32::try_from(stamp.modified_seconds()).unwrap().to_le_bytes();
        let module = [b"mgic".as_slice(), &[0; 4], &time, &4u32.to_le_bytes(), b"code"].concat();
        let free = detached(module.clone(), &stamp).unwrap();
        assert_eq!(free, [b"mgic".as_slice(), &[1, 0, 0, 0], &[0; 8], b"code"].concat());
        assert_eq!(detached(free, &stamp), None);
        std::fs::write(&path, "other").unwrap();
        assert_eq!(detached(module, &Stamp::at(&path).unwrap()), None);
        assert_eq!(detached(b"short".to_vec(), &stamp), None);
    }
}
