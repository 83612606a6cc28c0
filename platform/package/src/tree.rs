//! The files of one layer before they are written: where each goes in the image and where its content comes from.
//!
//! Files of the host keep their absolute paths, and every symbolic link on the way is kept too, so that what worked there
//! by its path works here. Modes are 0755 or 0644, as in git: what a umask did on one machine must not change a digest.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use shipway_oci::Digest;

use crate::PackError;
use crate::cache::Stamp;

/// Links followed for one path, as in the kernel.
const LINK_LIMIT: usize = 40;

/// One name in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Directory {
        mode: u32,
    },
    Symlink(PathBuf),
    Bytes {
        content: Cow<'static, [u8]>,
        mode: u32,
    },
    Host {
        source: PathBuf,
        stamp: Stamp,
    },
    /// A compiled Python module, to be taken only if it belongs to the source beside it.
    Bytecode {
        source: PathBuf,
        stamp: Stamp,
        of: Stamp,
    },
}

impl Node {
    pub(crate) fn host(source: &Path, data: &fs::Metadata) -> Self {
        Self::Host { source: source.to_owned(), stamp: Stamp::of(data) }
    }
}

/// The names of one layer, by absolute path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
    /// What host paths turned out to be: the target of a link, or none.
    links: HashMap<PathBuf, Option<PathBuf>>,
}

impl Tree {
    pub(crate) fn nodes(&self) -> &BTreeMap<PathBuf, Node> {
        &self.nodes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn has(&self, path: &Path) -> bool {
        self.nodes.contains_key(path)
    }

    pub(crate) fn insert(&mut self, path: impl Into<PathBuf>, node: Node) {
        self.nodes.insert(path.into(), node);
    }

    pub(crate) fn directory(&mut self, path: impl Into<PathBuf>, mode: u32) {
        self.insert(path, Node::Directory { mode });
    }

    pub(crate) fn bytes(&mut self, path: impl Into<PathBuf>, content: impl Into<Cow<'static, [u8]>>, mode: u32) {
        self.insert(path, Node::Bytes { content: content.into(), mode });
    }

    pub(crate) fn remove(&mut self, path: &Path) {
        self.nodes.remove(path);
    }

    /// The content of a host file, at another path of the image.
    pub(crate) fn copy(&mut self, path: impl Into<PathBuf>, source: &Path) -> Result<(), PackError> {
        let data = fs::metadata(source).map_err(|e| PackError::io("read", source, e))?;
        self.insert(path, Node::host(source, &data));
        Ok(())
    }

    /// A host file or folder (without what is in it) at its own path, with all links on the way; gives its real path.
    pub(crate) fn host(&mut self, path: &Path) -> Result<PathBuf, PackError> {
        let real = self.walk(path)?;
        if !self.nodes.contains_key(&real) {
            let data = fs::symlink_metadata(&real).map_err(|e| PackError::io("read", &real, e))?;
            let node = if data.is_dir() { Node::Directory { mode: 0o755 } } else { Node::host(&real, &data) };
            self.nodes.insert(real.clone(), node);
        }
        Ok(real)
    }

    /// The real path; records the links on the way.
    fn walk(&mut self, path: &Path) -> Result<PathBuf, PackError> {
        let mut pending = names(path);
        let mut current = PathBuf::from("/");
        let mut followed = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                current.pop();
                continue;
            }
            current.push(&name);
            let Some(target) = self.link(&current)? else { continue };
            followed += 1;
            if followed > LINK_LIMIT {
                let error = std::io::Error::other("too many symbolic links");
                return Err(PackError::io("follow", path, error));
            }
            self.nodes.insert(current.clone(), Node::Symlink(target.clone()));
            current.pop();
            if target.is_absolute() {
                current = PathBuf::from("/");
            }
            pending.extend(names(&target));
        }
        Ok(current)
    }

    fn link(&mut self, path: &Path) -> Result<Option<PathBuf>, PackError> {
        if let Some(known) = self.links.get(path) {
            return Ok(known.clone());
        }
        let data = fs::symlink_metadata(path).map_err(|e| PackError::io("read", path, e))?;
        let read = || fs::read_link(path).map_err(|e| PackError::io("read", path, e));
        let target = data.is_symlink().then(read).transpose()?;
        self.links.insert(path.to_owned(), target.clone());
        Ok(target)
    }

    /// A host folder with all that is in it but what `keep` refuses, at its own path; `keep` gets the path below the
    /// folder and whether it is a folder itself.
    pub(crate) fn host_folder(&mut self, path: &Path, keep: &dyn Fn(&Path, bool) -> bool) -> Result<(), PackError> {
        let real = self.host(path)?;
        let mut pending = vec![PathBuf::new()];
        while let Some(below) = pending.pop() {
            let folder = real.join(&below);
            for entry in fs::read_dir(&folder).map_err(|e| PackError::io("read", &folder, e))? {
                let entry = entry.map_err(|e| PackError::io("read", &folder, e))?;
                let (name, path) = (below.join(entry.file_name()), entry.path());
                let data = entry.metadata().map_err(|e| PackError::io("read", &path, e))?;
                if !keep(&name, data.is_dir()) {
                    continue;
                }
                if data.is_dir() {
                    pending.push(name);
                } else if data.is_symlink() {
                    // Where a link leads to a file, that comes along; folders elsewhere do not.
                    if fs::metadata(&path).is_ok_and(|target| target.is_file()) {
                        self.host(&path)?;
                    }
                } else if data.is_file() {
                    self.nodes.insert(path.clone(), Node::host(&path, &data));
                }
            }
        }
        Ok(())
    }

    /// Drops what a lower layer has in the same way.
    pub(crate) fn without(&mut self, lower: &Tree) {
        self.nodes.retain(|path, node| lower.nodes.get(path) != Some(node));
    }

    /// A text that is the same only for the same names with unchanged content.
    pub(crate) fn fingerprint(&self) -> String {
        let mut text = Vec::new();
        for (path, node) in &self.nodes {
            let line = match node {
                Node::Bytes { content, mode } => format!("bytes {} {mode:o}", Digest::of(content)),
                other => format!("{other:?}"),
            };
            for part in [path.as_os_str().as_bytes(), b"\0", line.as_bytes(), b"\n"] {
                text.extend_from_slice(part);
            }
        }
        Digest::of(&text).to_string()
    }

    /// Whether a change of any file from now on would change the fingerprint.
    pub(crate) fn is_settled(&self) -> bool {
        self.nodes.values().all(|node| match node {
            Node::Host { stamp, .. } => stamp.is_settled(),
            Node::Bytecode { stamp, of, .. } => stamp.is_settled() && of.is_settled(),
            _ => true,
        })
    }
}

/// The names of a path, last first.
fn names(path: &Path) -> Vec<OsString> {
    let kept = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    let mut names: Vec<_> = kept.collect();
    names.reverse();
    names
}

/// The path with `.` and `..` worked out by name alone.
pub(crate) fn normalised(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

/// Whether the file name ends in this.
pub(crate) fn ends_with(name: &OsStr, suffix: &str) -> bool {
    name.as_bytes().ends_with(suffix.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_on_the_way_come_along() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/sub")).unwrap();
        fs::write(root.join("real/sub/file"), "x").unwrap();
        symlink("real", root.join("folder")).unwrap();
        symlink("../sub/file", root.join("real/sub/alias")).unwrap();
        let mut tree = Tree::default();
        assert_eq!(tree.host(&root.join("folder/sub/alias")).unwrap(), root.join("real/sub/file"));
        assert_eq!(tree.nodes()[&root.join("folder")], Node::Symlink("real".into()));
        assert_eq!(tree.nodes()[&root.join("real/sub/alias")], Node::Symlink("../sub/file".into()));
        assert!(matches!(tree.nodes()[&root.join("real/sub/file")], Node::Host { .. }));
        symlink("loop", root.join("loop")).unwrap();
        assert!(tree.host(&root.join("loop")).is_err());
    }

    #[test]
    fn fingerprints_tell_changes_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let print = || {
            let mut tree = Tree::default();
            tree.copy("/f", &file).unwrap();
            tree.fingerprint()
        };
        fs::write(&file, "1").unwrap();
        let first = print();
        assert_eq!(first, print());
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&file, "2").unwrap();
        assert_ne!(first, print());
    }
}
