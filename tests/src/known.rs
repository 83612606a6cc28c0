//! Failures that are known, each with its reason: `tests/known-failures.txt`. Whatever fails beyond them is news, and so is
//! one of them that passes.

use anyhow::{Context, Result, ensure};

use crate::root;

/// The list of known failures.
#[derive(Debug, Default)]
pub struct Known(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    suite: String,
    test: String,
    reason: String,
}

impl Known {
    /// Reads the list of this tree.
    pub fn read() -> Result<Self> {
        let path = root().join("tests/known-failures.txt");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text)
    }

    /// One failure a line: suite, test and reason between bars; `#` begins a comment.
    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(entry).collect::<Result<Vec<_>>>().map(Self)
    }

    /// Why this test of this suite fails, if that is known.
    pub fn reason(&self, suite: &str, test: &str) -> Option<&str> {
        self.0.iter().find(|entry| entry.suite == suite && entry.test == test).map(|entry| entry.reason.as_str())
    }
}

fn entry(line: &str) -> Result<Entry> {
    let parts: Vec<&str> = line.split(" | ").map(str::trim).collect();
    let [suite, test, reason] = parts.as_slice() else { anyhow::bail!("`{line}` is not `suite | test | reason`") };
    ensure!(!reason.is_empty(), "`{line}` gives no reason");
    Ok(Entry { suite: (*suite).to_owned(), test: (*test).to_owned(), reason: (*reason).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_failure_has_a_reason() {
        let known = Known::parse("# why\n\nkube | a::b | no such door yet\n").unwrap();
        assert_eq!(known.reason("kube", "a::b"), Some("no such door yet"));
        assert_eq!(known.reason("python", "a::b"), None);
        assert!(Known::parse("kube | a::b").is_err());
    }

    #[test]
    fn the_list_of_this_tree_can_be_read() {
        Known::read().unwrap();
    }
}
