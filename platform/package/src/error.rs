//! Every way in which packing can fail: one line each that says what, where and how to mend it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a program cannot be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// There is no such file.
    #[error("no program at {}", .0.display())]
    Missing(PathBuf),
    /// It is a folder.
    #[error("{} is a folder; name the program in it", .0.display())]
    Directory(PathBuf),
    /// It is a device, a socket or a pipe.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// It is empty.
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    /// It cannot be read.
    #[error("cannot read {}: permission denied; run `chmod +r` on it or run as its owner", .0.display())]
    Unreadable(PathBuf),
    /// Neither Python nor a script nor a binary.
    #[error("{} is no program: it is not a binary, has no `#!` line and does not end in .py or .sh", .0.display())]
    Unknown(PathBuf),
    /// A binary without the executable bit.
    #[error("{} is not executable; run `chmod +x` on it", .0.display())]
    NotExecutable(PathBuf),
    /// A binary for another kind of machine.
    #[error("{} is built for {found}, this machine is {host}; build it for {host}", path.display())]
    ForeignArchitecture {
        /// The binary.
        path: PathBuf,
        /// What it is for.
        found: String,
        /// What this machine is.
        host: String,
    },
    /// A binary that cannot be read as one.
    #[error("{} is a damaged binary: {reason}", path.display())]
    Malformed {
        /// The binary.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A library that the program needs is not on this machine.
    #[error("{} needs the library {name}, which is not on this machine; install it and try again", path.display())]
    LibraryMissing {
        /// Who needs it.
        path: PathBuf,
        /// Its name.
        name: String,
    },
    /// The interpreter is not on this machine.
    #[error("{} wants the interpreter `{interpreter}`, which is not on this machine; install it or change the first line", path.display())]
    InterpreterMissing {
        /// The script.
        path: PathBuf,
        /// What its first line names.
        interpreter: String,
    },
    /// No Python.
    #[error("there is no `python3` on PATH; install Python 3.8 or newer (Debian: `apt install python3`)")]
    NoPython,
    /// The interpreter does not answer.
    #[error("the interpreter {} does not work: {reason}", path.display())]
    BrokenPython {
        /// The interpreter.
        path: PathBuf,
        /// Its last words.
        reason: String,
    },
    /// The interpreter is too old.
    #[error("{} is Python {found}; 3.6 or newer is needed", path.display())]
    OldPython {
        /// The interpreter.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// The program is not valid Python.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line.
        line: u64,
        /// What the interpreter's parser says.
        message: String,
    },
    /// The content store.
    #[error(transparent)]
    Store(#[from] shipway_oci::Error),
    /// The disk is full.
    #[error("no space left on the disk while writing {}; free some and try again", .0.display())]
    Full(PathBuf),
    /// Any other failure of the file system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl PackError {
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(path.to_owned()),
            io::ErrorKind::PermissionDenied if action == "read" => Self::Unreadable(path.to_owned()),
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }
}
