//! A program to an image that holds just the files it needs: no Dockerfile, no base image, nothing written beside the
//! program.
//!
//! A Python program brings its interpreter, the libraries of that, the standard library and what it imports; a script its
//! interpreter and the commands it names; a binary its libraries. Layers are split so that an edit re-packs only a small
//! top one. Promises: the same files give the same digest wherever and whenever they are packed; secrets stay out. Knows
//! nothing of Kubernetes: the result is an image in a content store.

mod binary;
mod cache;
mod error;
mod folder;
mod image;
mod libraries;
mod object;
mod program;
mod progress;
mod python;
mod script;
mod system;
mod tree;

use std::path::PathBuf;

use shipway_oci::{Digest, Reference, Store};

pub use error::PackError;
pub use program::ProgramKind;
pub use progress::Progress;

use cache::Cache;
use program::Program;
use progress::Meter;

/// What to pack.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The program: a Python file, a script or a binary.
    pub program: PathBuf,
    /// What it is started with, unless a user says otherwise.
    pub arguments: Vec<String>,
    /// The image's name; by default `shipway.local/<name of the program>:latest`.
    pub reference: Option<Reference>,
    /// The interpreter that runs a Python program; by default the one it names, else `python3` on PATH.
    pub interpreter: Option<PathBuf>,
    /// A folder for what makes the next time faster; it may be removed at any time.
    pub cache: PathBuf,
}

/// A packed program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// A name made of the program's, fit for a Kubernetes object.
    pub name: String,
    /// The image's name in the store.
    pub reference: Reference,
    /// The image's manifest.
    pub digest: Digest,
    /// Number of files in the image.
    pub files: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
    /// Whether the name meant this very image before.
    pub unchanged: bool,
    /// What the program is.
    pub kind: ProgramKind,
}

/// Packs a program into an image in the store and names it. Blocks; see [`Progress`] for a sign of life.
pub fn pack(store: &Store, request: &Request, progress: &dyn Progress) -> Result<Packed, PackError> {
    let _hold = store.hold()?;
    let program = Program::open(&request.program)?;
    let reference = match &request.reference {
        Some(reference) => reference.clone(),
        None => format!("shipway.local/{}:latest", program.name).parse()?,
    };
    let cache = Cache::open(&request.cache)?;
    let plan = match program.kind {
        ProgramKind::Python => python::plan(&program, request.interpreter.as_deref(), &cache, progress)?,
        ProgramKind::Script => script::plan(&program, &cache, progress)?,
        ProgramKind::Elf => binary::plan(&program, &cache)?,
    };
    let meter = Meter::new(progress);
    let digest = image::write(store, &cache, &plan, &request.arguments, &meter)?;
    let unchanged = store.resolve(&reference)? == Some(digest);
    store.tag(&reference, &digest)?;
    let (files, bytes) = meter.totals();
    Ok(Packed { name: program.name, reference, digest, files, bytes, unchanged, kind: program.kind })
}
