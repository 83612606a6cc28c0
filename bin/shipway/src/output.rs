//! How results look: aligned tables, JSON, progress on a terminal and plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::Output;

/// Prints rows as a table with headings, or the items as JSON.
pub(crate) fn print_list<T: Serialize>(
    output: Output,
    items: &[T],
    headings: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<()> {
    if output == Output::Json {
        return print_json(&items);
    }
    let rows: Vec<Vec<String>> = items.iter().map(row).collect();
    let mut text = String::new();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let headings: Vec<String> = headings.iter().map(|&heading| heading.to_owned()).collect();
    for row in std::iter::once(&headings).chain(&rows) {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("   ").trim_end());
        text.push('\n');
    }
    write_out(&text)
}

/// Prints one value as JSON.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<()> {
    write_out(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Writes to standard output; a reader that went away (`| head`) is no failure.
pub(crate) fn write_out(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Writes a line to standard error, if anybody still reads it.
pub(crate) fn tell(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// How long ago, in the largest fitting unit: `5s`, `3m`, `2h`, `4d`.
pub(crate) fn age(created: Option<&str>) -> String {
    let Some(created) = created.and_then(|text| text.parse::<jiff::Timestamp>().ok()) else { return "-".to_owned() };
    let seconds = jiff::Timestamp::now().duration_since(created).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    HumanBytes(count).to_string()
}

/// One step at a time, on standard error: a spinner on a terminal, a line at its end elsewhere.
pub(crate) struct Steps {
    bar: Option<ProgressBar>,
    /// The last count of ready replicas that was printed as a line, plus one.
    printed: AtomicU32,
}

impl Steps {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner:.cyan} {msg}").expect("the template is valid");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, printed: AtomicU32::new(0) }
    }

    /// What goes on now.
    pub(crate) fn now(&self, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(message);
        }
    }

    /// What has been achieved; stays visible.
    pub(crate) fn done(&self, message: &str) {
        match &self.bar {
            Some(bar) => bar.println(message),
            None => tell(message),
        }
    }

    /// Takes the spinner away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// An error and its causes; a cause that the error before it has told already is left out.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |line, cause| match line.is_empty() {
        true => cause,
        false if line.ends_with(&cause) => line,
        false => format!("{line}: {cause}"),
    })
}

impl shipway_package::Progress for Steps {
    fn step(&self, what: &str) {
        self.now(format!("packing: {what}"));
    }

    fn note(&self, text: &str) {
        self.done(&format!("note: {text}"));
    }

    fn packed(&self, files: u64, size: u64) {
        self.now(format!("packing: {files} files, {}", bytes(size)));
    }
}

impl shipway_deploy::Progress for Steps {
    fn ready(&self, ready: u32, wanted: u32) {
        let width = 20;
        let full = (ready.min(wanted) * width).checked_div(wanted).unwrap_or(width) as usize;
        let bar = format!("[{}{}]", "=".repeat(full), " ".repeat(width as usize - full));
        self.now(format!("starting {bar} {ready}/{wanted} replicas ready"));
        if self.bar.is_none() && self.printed.swap(ready + 1, Ordering::Relaxed) != ready + 1 {
            tell(&format!("replicas ready: {ready}/{wanted}"));
        }
    }

    fn failed(&self, what: &str) {
        self.done(&format!("warning: {what}"));
    }
}

/// Prints log lines with the pod they came from, coloured by pod on a terminal.
pub(crate) struct LogLines {
    colour: bool,
}

impl LogLines {
    pub(crate) fn new() -> Self {
        Self { colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    pub(crate) fn line(&self, pod: &str, text: &str) {
        let line = if self.colour {
            let colour = 31 + pod.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte)) % 6;
            format!("\x1b[{colour}m{pod}\x1b[0m {text}\n")
        } else {
            format!("{pod} {text}\n")
        };
        if let Err(error) = write_out(&line) {
            tracing::debug!(%error, "log line not printed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cause_is_told_twice() {
        let error = anyhow::anyhow!("no such file").context("cannot open x: no such file").context("cannot start");
        assert_eq!(one_line(&error), "cannot start: cannot open x: no such file");
    }

    #[test]
    fn ages_are_short() {
        let ago = |seconds: i64| {
            let then = jiff::Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap();
            age(Some(&then.to_string()))
        };
        assert_eq!([ago(5), ago(600), ago(7200 * 2), ago(86400 * 9)], ["5s", "10m", "4h", "9d"]);
        assert_eq!(age(None), "-");
    }
}
