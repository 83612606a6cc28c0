//! The program's folder: what of it comes along. `.gitignore` and `.shipwayignore` are honoured, in a repository or not;
//! version control, virtual environments, caches and secrets never come along, and nothing outside by a link.
//!
//! A folder that is no project (a home, a temporary folder, or one too large to be meant) stays behind as a whole; then only
//! the files that the program is known to use are taken.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ignore::{DirEntry, WalkBuilder};

use crate::PackError;
use crate::cache::Stamp;
use crate::program::{APP, Program};
use crate::progress::Progress;
use crate::tree::{Node, Tree, ends_with, normalised};

/// Bounds on a folder that is taken as a whole.
const FILES: usize = 20_000;
const BYTES: u64 = 512 << 20;
/// Our own list of what to leave behind; the same language as `.gitignore`, and stronger.
const IGNORE_FILE: &str = ".shipwayignore";
/// Folders that are never taken.
const NEVER: [&str; 16] = [
    ".aws",
    ".docker",
    ".git",
    ".gnupg",
    ".hg",
    ".kube",
    ".ssh",
    ".svn",
    ".tox",
    ".nox",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".ipynb_checkpoints",
    "__pycache__",
    "node_modules",
];
/// Files that hold secrets, by name and by ending.
const SECRETS: [&str; 10] = [
    ".npmrc",
    ".pypirc",
    ".netrc",
    ".git-credentials",
    ".pgpass",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "credentials.json",
];
const SECRET_ENDINGS: [&str; 7] = [".pem", ".key", ".p12", ".pfx", ".jks", ".keystore", ".kdbx"];
/// Folders that are taken whole by accident only.
const NO_PROJECT: [&str; 14] = [
    "/", "/bin", "/boot", "/etc", "/home", "/lib", "/opt", "/root", "/sbin", "/srv", "/tmp", "/usr", "/var", "/var/tmp",
];

/// Adds the program's folder, or of it just the program and `used`, where it is no project.
pub(crate) fn add(
    program: &Program,
    used: &BTreeSet<PathBuf>,
    tree: &mut Tree,
    progress: &dyn Progress,
) -> Result<(), PackError> {
    tree.directory(APP, 0o755);
    match is_project(&program.folder).then(|| collect(&program.folder)).transpose()? {
        Some(Collected::All { files, secrets }) => {
            if !secrets.is_empty() {
                let names = secrets.join(", ");
                progress.note(&format!("left out, because they look like secrets: {names}; give them at run time"));
            }
            for (name, node) in files {
                tree.insert(Path::new(APP).join(name), node);
            }
        }
        Some(Collected::TooLarge(reason)) => progress.note(&left_behind(&program.folder, reason)),
        None => progress.note(&left_behind(&program.folder, "it is no project folder")),
    }
    for file in used {
        if let Ok(name) = file.strip_prefix(&program.folder) {
            tree.copy(Path::new(APP).join(name), file)?;
        }
    }
    tree.copy(&program.target, &program.path)?;
    for note in outward_links(program, tree) {
        progress.note(&note);
    }
    Ok(())
}

fn left_behind(folder: &Path, reason: &str) -> String {
    format!(
        "only the program and the modules it imports are taken from {}: {reason}; move the program to a folder of its own \
         or list in {IGNORE_FILE} what to leave behind",
        folder.display()
    )
}

fn is_project(folder: &Path) -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let system = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/lib", "/dev/shm"];
    !NO_PROJECT.iter().chain(&system).any(|path| folder == Path::new(path))
        && home.is_none_or(|home| home.canonicalize().unwrap_or(home) != folder)
        && std::env::temp_dir() != folder
        // The commands of a virtual environment.
        && !folder.parent().is_some_and(|above| above.join("pyvenv.cfg").exists())
}

enum Collected {
    All { files: Vec<(PathBuf, Node)>, secrets: Vec<String> },
    TooLarge(&'static str),
}

fn collect(folder: &Path) -> Result<Collected, PackError> {
    let secrets = Arc::new(Mutex::new(Vec::new()));
    let found = Arc::clone(&secrets);
    let walk = WalkBuilder::new(folder)
        .hidden(false)
        .require_git(false)
        .git_global(false)
        .git_exclude(false)
        .ignore(false)
        .add_custom_ignore_filename(IGNORE_FILE)
        .same_file_system(true)
        .filter_entry(move |entry| {
            let secret = entry.depth() > 0 && !is_folder(entry) && is_secret(entry.file_name());
            if secret {
                let name = entry.file_name().to_string_lossy().into_owned();
                found.lock().expect("the walk does not panic").push(name);
            }
            entry.depth() == 0 || !secret && !is_left_out(entry)
        })
        .build();
    let (mut files, mut bytes) = (Vec::new(), 0);
    for entry in walk {
        let entry = entry.map_err(|e| unreadable(folder, e))?;
        let (path, Some(kind)) = (entry.path(), entry.file_type()) else { continue };
        let name = path.strip_prefix(folder).expect("the walk stays below the folder").to_owned();
        if kind.is_symlink() {
            let target = fs::read_link(path).map_err(|e| PackError::io("read", path, e))?;
            files.push((name, Node::Symlink(target)));
        } else if kind.is_file() {
            let data = fs::symlink_metadata(path).map_err(|e| PackError::io("read", path, e))?;
            bytes += data.len();
            files.push((name, Node::Host { source: path.to_owned(), stamp: Stamp::of(&data) }));
        } else if kind.is_dir() && entry.depth() > 0 {
            files.push((name, Node::Directory { mode: 0o755 }));
        }
        if files.len() > FILES {
            return Ok(Collected::TooLarge("it holds more than 20,000 files"));
        }
        if bytes > BYTES {
            return Ok(Collected::TooLarge("it holds more than 512 MiB"));
        }
    }
    let mut secrets = std::mem::take(&mut *secrets.lock().expect("the walk does not panic"));
    secrets.sort();
    Ok(Collected::All { files, secrets })
}

fn unreadable(folder: &Path, error: ignore::Error) -> PackError {
    let text = error.to_string();
    let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other(text));
    PackError::Io { action: "look through", path: folder.to_owned(), source }
}

fn is_folder(entry: &DirEntry) -> bool {
    entry.file_type().is_some_and(|kind| kind.is_dir())
}

fn is_left_out(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    if is_folder(entry) {
        return NEVER.iter().any(|never| name == *never) || entry.path().join("pyvenv.cfg").exists();
    }
    ends_with(name, ".pyc") || name == ".DS_Store"
}

/// Whether a file of this name is taken for a secret.
fn is_secret(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_lowercase();
    name == ".env"
        || name.starts_with(".env.")
        || name == ".envrc"
        || SECRETS.contains(&name.as_str())
        || SECRET_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Takes out the links that lead out of the folder or nowhere; says which.
fn outward_links(program: &Program, tree: &mut Tree) -> Vec<String> {
    let mut out = Vec::new();
    for (path, node) in tree.nodes() {
        let (Node::Symlink(target), Ok(name)) = (node, path.strip_prefix(APP)) else { continue };
        let link = program.folder.join(name);
        let inside = target.is_relative()
            && normalised(&link.parent().expect("it has a folder").join(target)).starts_with(&program.folder)
            && link.canonicalize().is_ok_and(|real| real.starts_with(&program.folder));
        if !inside {
            out.push((path.clone(), format!("{} is left out: it leads to {}", link.display(), target.display())));
        }
    }
    out.into_iter()
        .map(|(path, note)| {
            tree.remove(&path);
            note
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Progress for Notes {
        fn step(&self, what: &str) {
            self.0.lock().unwrap().push(what.to_owned());
        }
        fn packed(&self, _: u64, _: u64) {}
    }

    fn taken(root: &Path) -> (Vec<String>, Vec<String>) {
        let (mut tree, notes) = (Tree::default(), Notes::default());
        add(&Program::open(&root.join("app.py")).unwrap(), &BTreeSet::new(), &mut tree, &notes).unwrap();
        let names = tree.nodes().iter().filter(|(_, node)| !matches!(node, Node::Directory { .. }));
        (names.map(|(path, _)| path.to_string_lossy().into_owned()).collect(), notes.0.into_inner().unwrap())
    }

    fn fill(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
    }

    #[test]
    fn secrets_environments_and_version_control_stay_behind() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fill(
            &root,
            &["app.py", "data/a.txt", ".config", ".git/config", "venv/pyvenv.cfg", "venv/lib/x.py", "environment.py"],
        );
        fill(
            &root,
            &[".env", ".env.local", "tls.key", "cert.pem", "id_rsa", "__pycache__/app.pyc", "node_modules/x.js"],
        );
        let (names, notes) = taken(&root);
        assert_eq!(names, ["/app/.config", "/app/app.py", "/app/data/a.txt", "/app/environment.py"]);
        assert!(notes.len() == 1 && notes[0].contains(".env, .env.local, cert.pem, id_rsa, tls.key"), "{notes:?}");
    }

    #[test]
    fn ignore_files_are_honoured_outside_of_a_repository() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fill(&root, &["app.py", "a.log", "b.log", "big/data", "out/x"]);
        fs::write(root.join(".gitignore"), "*.log\nout/\n").unwrap();
        fs::write(root.join(".shipwayignore"), "big\n!b.log\n").unwrap();
        assert_eq!(taken(&root).0, ["/app/.gitignore", "/app/.shipwayignore", "/app/app.py", "/app/b.log"]);
    }

    #[test]
    fn links_that_lead_out_are_left_out_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fill(&root, &["app.py", "sub/file"]);
        for (target, link) in [
            ("sub/file", "inside"),
            ("/etc/passwd", "absolute"),
            ("../../etc/passwd", "sub/up"),
            ("nothing", "dangling"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let (names, notes) = taken(&root);
        assert_eq!(names, ["/app/app.py", "/app/inside", "/app/sub/file"]);
        assert_eq!(notes.len(), 3);
        assert!(notes.iter().any(|note| note.contains("/etc/passwd")));
    }

    #[test]
    fn a_folder_that_is_no_project_stays_behind() {
        assert!(!is_project(Path::new("/")) && !is_project(Path::new("/tmp")) && !is_project(Path::new("/usr/bin")));
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fill(&root, &["app.py", "other.py"]);
        fs::File::create(root.join("huge")).unwrap().set_len(BYTES + 1).unwrap();
        let (names, notes) = taken(&root);
        assert_eq!(names, ["/app/app.py"]);
        assert!(notes[0].contains("512 MiB"), "{notes:?}");
    }
}
