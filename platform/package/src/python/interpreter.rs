//! The interpreter that would run the program: found, then asked about itself. Version managers put small scripts in its
//! place, so only an answer tells which one it really is; the answer is kept as long as what it rests on is unchanged.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::PackError;
use crate::cache::Cache;
use crate::program::{Program, find_command};
use crate::tree::Tree;

const QUERY: &str = include_str!("query.py");
/// Variables on which the answer depends.
const VARIABLES: [&str; 8] = [
    "PYENV_VERSION",
    "PYENV_ROOT",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONNOUSERSITE",
    "PYTHONUSERBASE",
    "VIRTUAL_ENV",
    "HOME",
];
/// The oldest version whose grammar and tools are as the helpers expect.
const OLDEST: [u32; 2] = [3, 6];

/// What an interpreter says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Interpreter {
    version: Vec<u32>,
    pub(super) executable: PathBuf,
    /// The one that a virtual environment was made from; else the same.
    pub(super) base_executable: PathBuf,
    prefix: PathBuf,
    base_prefix: PathBuf,
    /// The standard library.
    pub(super) library: PathBuf,
    /// Where it looks for modules.
    pub(super) path: Vec<PathBuf>,
    /// Where packages are installed.
    pub(super) packages: Vec<PathBuf>,
    /// Marks its compiled modules.
    pub(super) cache_tag: String,
    implementation: String,
}

/// Finds the interpreter and asks it.
pub(super) fn find(program: &Program, given: Option<&Path>, cache: &Cache) -> Result<Interpreter, PackError> {
    let launcher = launcher(program, given)?;
    let folder = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let mut question = format!("{}\n{}\n{QUERY}", launcher.display(), folder.display());
    for name in VARIABLES {
        write!(question, "\n{name}={:?}", env::var_os(name)).expect("a string takes all");
    }
    if let Some(known) = cache.read_watched("interpreters", &question) {
        return Ok(known);
    }
    let interpreter = ask(&launcher)?;
    let answer = interpreter.checked(&launcher)?;
    if let Some(selectors) = selectors(&launcher, &folder) {
        let watched = [&launcher, &answer.executable, &answer.base_executable, &answer.library];
        let watched = watched.into_iter().chain(&answer.packages).chain(&answer.path).cloned();
        let watched = watched.chain([answer.prefix.join("pyvenv.cfg")]).chain(selectors);
        cache.write_watched("interpreters", &question, &answer, watched)?;
    }
    Ok(answer)
}

fn launcher(program: &Program, given: Option<&Path>) -> Result<PathBuf, PackError> {
    if let Some(given) = given {
        let missing =
            || PackError::InterpreterMissing { path: program.path.clone(), interpreter: given.display().to_string() };
        let absolute = std::path::absolute(given).map_err(|e| PackError::io("read", given, e))?;
        let found = if given.components().count() == 1 { find_command(&given.to_string_lossy()) } else { None };
        return found.or_else(|| absolute.is_file().then_some(absolute)).ok_or_else(missing);
    }
    let named = program.shebang.as_ref().filter(|shebang| shebang.is_python());
    if let Some(found) = named.and_then(|shebang| find_command(&shebang.interpreter)) {
        return Ok(found);
    }
    find_command("python3").ok_or(PackError::NoPython)
}

/// The files by which a version manager chooses; none for the interpreter itself, None if the way it chooses is unknown.
fn selectors(launcher: &Path, folder: &Path) -> Option<Vec<PathBuf>> {
    let head = fs::read(launcher).ok()?;
    if head.starts_with(b"\x7fELF") {
        return Some(Vec::new());
    }
    if !String::from_utf8_lossy(&head[..head.len().min(4096)]).contains("pyenv") {
        return None;
    }
    let root = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".pyenv")))?;
    Some(folder.ancestors().map(|above| above.join(".python-version")).chain([root.join("version")]).collect())
}

fn ask(launcher: &Path) -> Result<Interpreter, PackError> {
    let broken = |reason: String| PackError::BrokenPython { path: launcher.to_owned(), reason };
    let output =
        Command::new(launcher).args(["-c", QUERY]).stdin(Stdio::null()).output().map_err(|e| broken(e.to_string()))?;
    let last = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
    };
    let answer = last(&output.stdout);
    serde_json::from_str(&answer).map_err(|error| {
        let words = last(&output.stderr);
        broken(if words.is_empty() { format!("it answers `{answer}` ({error})") } else { words })
    })
}

impl Interpreter {
    fn checked(self, launcher: &Path) -> Result<Self, PackError> {
        if self.version.as_slice() < OLDEST.as_slice() {
            let found = self.version.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
            return Err(PackError::OldPython { path: launcher.to_owned(), found });
        }
        let broken = |reason: &str| PackError::BrokenPython { path: launcher.to_owned(), reason: reason.to_owned() };
        if self.implementation != "cpython" {
            return Err(broken(&format!("it is {}, and only CPython can be packed", self.implementation)));
        }
        if !self.executable.is_absolute() {
            return Err(broken("it does not know its own path"));
        }
        let base_executable = self.base_executable.canonicalize().unwrap_or_else(|_| self.base_executable.clone());
        let library = self.library.canonicalize().unwrap_or_else(|_| self.library.clone());
        Ok(Self { base_executable, library, ..self })
    }

    /// Whether compiled modules can do without the time stamp of their source.
    pub(super) fn has_hashed_bytecode(&self) -> bool {
        self.version.as_slice() >= [3, 7].as_slice() && !self.cache_tag.is_empty()
    }

    /// Adds the name under which the interpreter is started, and what makes a virtual environment one.
    pub(super) fn add_environment(&self, tree: &mut Tree) -> Result<(), PackError> {
        tree.host(&self.executable)?;
        if self.prefix != self.base_prefix {
            tree.host(&self.prefix.join("pyvenv.cfg"))?;
            for name in ["python", "python3"] {
                let alias = self.executable.with_file_name(name);
                if alias.exists() {
                    tree.host(&alias)?;
                }
            }
        }
        Ok(())
    }
}
