//! What the tests share: a bench with a store, a cache and a program's folder, and a root folder to run the result in.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use shipway_oci::{Digest, Image, Layers, Store};
use shipway_package::{PackError, Packed, Progress, Request, pack};

/// A store, a cache and a folder for a program, all temporary.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
}

/// What was said while packing.
#[derive(Default)]
pub(crate) struct Notes(pub(crate) Mutex<Vec<String>>);

impl Progress for Notes {
    fn step(&self, _: &str) {}
    fn packed(&self, _: u64, _: u64) {}
    fn note(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("content")).unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        Self { dir, store }
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.dir.path().join("src")
    }

    /// Writes a file of the program's folder.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn request(&self, program: impl Into<PathBuf>) -> Request {
        Request { program: program.into(), cache: self.dir.path().join("cache"), ..Request::default() }
    }

    pub(crate) fn pack(&self, program: impl Into<PathBuf>) -> Packed {
        pack(&self.store, &self.request(program), &()).unwrap()
    }

    pub(crate) fn fail(&self, program: impl Into<PathBuf>) -> PackError {
        pack(&self.store, &self.request(program), &()).unwrap_err()
    }

    pub(crate) fn image(&self, packed: &Packed) -> Image {
        Image::load(&self.store, &packed.digest).unwrap()
    }

    pub(crate) fn layers(&self, packed: &Packed) -> Vec<Digest> {
        self.image(packed).layers().unwrap().into_iter().map(|(blob, _)| blob).collect()
    }

    /// All files of the image, by path.
    pub(crate) fn files(&self, packed: &Packed) -> Vec<String> {
        let root = self.root(packed);
        let mut found = Vec::new();
        let mut pending = vec![root.clone()];
        while let Some(folder) = pending.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.symlink_metadata().unwrap().is_dir() {
                    pending.push(path);
                } else {
                    found.push(format!("/{}", path.strip_prefix(&root).unwrap().display()));
                }
            }
        }
        found.sort();
        found
    }

    /// The image as one root folder: its layers copied over each other.
    pub(crate) fn root(&self, packed: &Packed) -> PathBuf {
        let root = self.dir.path().join(format!("root-{}", packed.digest.hex()));
        if !root.exists() {
            fs::create_dir(&root).unwrap();
            let layers = Layers::open(&self.dir.path().join("layers")).unwrap();
            for layer in layers.ensure(&self.store, &self.image(packed)).unwrap() {
                let from = format!("{}/.", layer.display());
                let copied = Command::new("cp").args(["-a", &from]).arg(&root).status().unwrap();
                assert!(copied.success());
            }
        }
        root
    }

    /// Runs the image's entry point with its arguments in a changed root, which takes privileges; None without.
    pub(crate) fn run(&self, packed: &Packed) -> Option<Output> {
        self.command(packed).map(|mut command| command.output().unwrap())
    }

    pub(crate) fn command(&self, packed: &Packed) -> Option<Command> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let image = self.image(packed);
        let config = image.config.config().as_ref().unwrap();
        // Its own mounts, so that /proc goes with the process.
        let script = "mount --rbind /proc \"$1/proc\" && mount --rbind /dev \"$1/dev\" && exec chroot \"$@\"";
        let mut command = Command::new("unshare");
        command.env_clear().args(["--mount", "sh", "-c", script, "sh"]).arg(self.root(packed));
        for pair in config.env().iter().flatten() {
            let (name, value) = pair.split_once('=').unwrap();
            command.env(name, value);
        }
        command.args(config.entrypoint().iter().flatten()).args(config.cmd().iter().flatten());
        Some(command)
    }
}

/// Time stamps tell a change only a moment after a file was written.
pub(crate) fn settle() {
    std::thread::sleep(Duration::from_millis(60));
}

/// What the program printed; the test fails if it did not end well.
pub(crate) fn printed(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Copies a folder, with time stamps of its own.
pub(crate) fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}
