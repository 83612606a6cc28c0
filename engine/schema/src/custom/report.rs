//! What is wrong with a definition, and an end to looking for it: a definition can be long and dear to check, so both the
//! number of errors and the time are bounded.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::invalid::FieldError;
use crate::path::Path;
use crate::tree::compile_pattern;

/// After so many errors the rest is not looked for.
const ENOUGH: usize = 32;
/// How long a schema may take to be checked.
const TIME: Duration = Duration::from_secs(10);

/// Errors found so far.
pub(super) struct Report {
    errors: Vec<FieldError>,
    /// The patterns that were found to be good: most schemas repeat a few.
    patterns: HashSet<String>,
    deadline: Instant,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { errors: Vec::new(), patterns: HashSet::new(), deadline: Instant::now() + TIME }
    }

    pub(super) fn push(&mut self, error: FieldError) {
        self.errors.push(error);
    }

    pub(super) fn extend(&mut self, errors: Vec<FieldError>) {
        self.errors.extend(errors);
    }

    /// Whether to stop.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= ENOUGH || self.is_late()
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Checks a regular expression, once.
    pub(super) fn compile(&mut self, pattern: &str) -> Result<(), regex::Error> {
        if !pattern.is_empty() && !self.patterns.contains(pattern) {
            compile_pattern(pattern)?;
            self.patterns.insert(pattern.to_owned());
        }
        Ok(())
    }

    /// All errors; what was too much to check is one.
    pub(super) fn finish(mut self, path: &Path<'_>) -> Vec<FieldError> {
        if self.is_late() {
            let detail = format!("takes longer than {} seconds to check", TIME.as_secs());
            self.errors.push(FieldError::invalid(path, &Value::Null, &detail));
        }
        self.errors
    }
}
