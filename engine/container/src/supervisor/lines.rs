//! A stream of bytes as lines of the CRI log format: time, stream, `F` for a full line or `P` for a part, text.

/// A longer line is written in parts of this size.
const PART_MAX: usize = 16 * 1024;

/// The lines of one stream; holds at most one unfinished part.
pub(super) struct Lines {
    stream: &'static str,
    pending: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: &'static str) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Writes all lines that the bytes complete; returns how many.
    pub(super) fn push(&mut self, mut bytes: &[u8], stamp: &str, out: &mut Vec<u8>) -> u64 {
        let mut written = 0;
        while !bytes.is_empty() {
            let room = PART_MAX - self.pending.len();
            let window = &bytes[..bytes.len().min(room)];
            let (taken, full) = match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end, true),
                None => (window.len(), false),
            };
            self.pending.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken + usize::from(full)..];
            if full || self.pending.len() == PART_MAX {
                self.write(if full { b'F' } else { b'P' }, stamp, out);
                written += 1;
            }
        }
        written
    }

    /// Writes what was left unfinished.
    pub(super) fn finish(&mut self, stamp: &str, out: &mut Vec<u8>) -> u64 {
        if self.pending.is_empty() {
            return 0;
        }
        self.write(b'P', stamp, out);
        1
    }

    fn write(&mut self, tag: u8, stamp: &str, out: &mut Vec<u8>) {
        for field in [stamp.as_bytes(), b" ", self.stream.as_bytes(), b" ", &[tag], b" ", &self.pending, b"\n"] {
            out.extend_from_slice(field);
        }
        // An idle stream holds no memory.
        self.pending = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(chunks: &[&[u8]]) -> String {
        let (mut lines, mut out) = (Lines::new("stdout"), Vec::new());
        for chunk in chunks {
            lines.push(chunk, "T", &mut out);
        }
        lines.finish("T", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_joined_over_reads_and_an_unfinished_one_is_a_part() {
        assert_eq!(run(&[b"on", b"e\n\ntw", b"o"]), "T stdout F one\nT stdout F \nT stdout P two\n");
    }

    #[test]
    fn a_long_line_is_written_in_parts() {
        let long = vec![b'x'; PART_MAX * 2 + 3];
        let parts: Vec<_> = run(&[&long, b"\n"]).lines().map(|line| (line.as_bytes()[9], line.len() - 11)).collect();
        assert_eq!(parts, [(b'P', PART_MAX), (b'P', PART_MAX), (b'F', 3)]);
    }
}
