//! One line of a log file in the CRI format, and what of it a reader is to see.

use jiff::Timestamp;

use super::Query;

/// A line taken apart; the text has no line end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line<'a> {
    pub(super) time: &'a str,
    pub(super) stream: &'a [u8],
    /// Whether the text ends with this line (`F`) or goes on in the next one (`P`).
    pub(super) whole: bool,
    pub(super) text: &'a [u8],
}

impl<'a> Line<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?;
        let stream = fields.next()?;
        let tag = fields.next()?;
        let text = fields.next().unwrap_or_default();
        Some(Self { time, stream, whole: tag.split(|byte| *byte == b':').next() != Some(b"P"), text })
    }
}

/// Turns lines of a file into what the reader sees, until the limit.
#[derive(Debug)]
pub(super) struct Renderer {
    since: Option<Timestamp>,
    timestamps: bool,
    left: Option<u64>,
    stream: Option<&'static str>,
    /// Inside a text that goes on, the time is not repeated.
    inside: bool,
}

impl Renderer {
    pub(super) fn new(query: &Query) -> Self {
        Self {
            since: query.since,
            timestamps: query.timestamps,
            left: query.limit,
            stream: query.stream,
            inside: false,
        }
    }

    /// Whether the reader has got all that it wanted.
    pub(super) fn full(&self) -> bool {
        self.left == Some(0)
    }

    pub(super) fn render(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = Line::parse(line) else { return };
        if self.stream.is_some_and(|stream| stream.as_bytes() != line.stream) {
            return;
        }
        if self.since.is_some_and(|since| line.time.parse::<Timestamp>().is_ok_and(|time| time < since)) {
            return;
        }
        let from = out.len();
        if self.timestamps && !self.inside {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if line.whole {
            out.push(b'\n');
        }
        self.inside = !line.whole;
        if let Some(left) = &mut self.left {
            let keep = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len() - from);
            out.truncate(from + keep);
            *left -= keep as u64;
        }
    }
}

/// The end of a log as text, for a termination message: at most 80 lines and 2,048 bytes.
pub(crate) fn last_words(path: &std::path::Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let mut renderer = Renderer::new(&Query::default());
    let mut out = Vec::new();
    for line in &lines[lines.len().saturating_sub(80)..] {
        renderer.render(line, &mut out);
    }
    let tail = &out[out.len().saturating_sub(2048)..];
    let text = String::from_utf8_lossy(tail).trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}
