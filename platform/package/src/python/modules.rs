//! The modules that a program imports, found by the interpreter's own parser reading sources: see `imports.py`. Nothing of
//! the program runs here.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::interpreter::Interpreter;
use crate::PackError;
use crate::cache::Cache;
use crate::program::Program;

const HELPER: &str = include_str!("imports.py");

#[derive(Serialize)]
struct Question<'a> {
    program: &'a PathBuf,
    path: &'a [PathBuf],
    library: [PathBuf; 2],
    packages: &'a [PathBuf],
}

/// What a program imports.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Modules {
    /// Standard modules.
    pub(super) standard: Vec<String>,
    /// Files in the program's folder, itself included.
    pub(super) local: Vec<PathBuf>,
    /// Top-level packages and modules elsewhere.
    pub(super) taken: Vec<PathBuf>,
    /// What describes the distributions that they belong to.
    pub(super) metadata: Vec<PathBuf>,
    /// Entries of the search path that any of it came from.
    pub(super) entries: Vec<PathBuf>,
    /// Modules that are not there, and the file that imports them.
    pub(super) missing: Vec<(String, String)>,
    /// Modules that are not there and that we bring.
    pub(super) provided: Vec<String>,
    /// Commands that the program plainly starts.
    pub(super) commands: Vec<String>,
    /// Libraries that it loads by name.
    pub(super) libraries: Vec<String>,
    /// Whether it starts commands through the shell.
    pub(super) shell: bool,
    watched: Vec<PathBuf>,
    error: Option<Mistake>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Mistake {
    line: u64,
    message: String,
}

impl Modules {
    /// Whether any of these standard modules is imported.
    pub(super) fn uses(&self, names: &[&str]) -> bool {
        self.standard.iter().any(|module| names.contains(&module.as_str()))
    }
}

/// Finds what the program imports.
pub(super) fn find(program: &Program, python: &Interpreter, cache: &Cache) -> Result<Modules, PackError> {
    let library = [python.library.clone(), python.library.join("lib-dynload")];
    let question = Question { program: &program.path, path: &python.path, library, packages: &python.packages };
    let question =
        serde_json::to_string(&question).map_err(|e| PackError::io("read", &program.path, io::Error::other(e)))?;
    let key = format!("{}\n{question}\n{HELPER}", python.executable.display());
    if let Some(known) = cache.read_watched::<Modules>("imports", &key) {
        return Ok(known);
    }
    let mut modules = ask(python, &question)?;
    if let Some(Mistake { line, message }) = modules.error.take() {
        return Err(PackError::Syntax { path: program.path.clone(), line, message });
    }
    let watched = std::mem::take(&mut modules.watched);
    cache.write_watched("imports", &key, &modules, watched)?;
    Ok(modules)
}

fn ask(python: &Interpreter, question: &str) -> Result<Modules, PackError> {
    let broken = |reason: String| PackError::BrokenPython { path: python.executable.clone(), reason };
    let mut child = Command::new(&python.executable)
        .args(["-I", "-S", "-c", HELPER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| broken(e.to_string()))?;
    // The question fits in the pipe's buffer many times over, or the child reads it before it answers.
    let asked = child.stdin.take().expect("it is piped").write_all(question.as_bytes());
    let output = child.wait_with_output().map_err(|e| broken(e.to_string()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
        return Err(broken(format!("reading the imports failed: {last}")));
    }
    asked.map_err(|e| broken(e.to_string()))?;
    serde_json::from_slice(&output.stdout).map_err(|e| broken(e.to_string()))
}
