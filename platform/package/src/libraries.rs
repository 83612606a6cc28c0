//! The libraries that a binary needs, found the way the loader finds them: search paths of the binary, LD_LIBRARY_PATH,
//! the configured folders, the built-in ones. The loader's own cache is neither needed nor packed: what it alone would find
//! gets a link in a built-in folder.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::PackError;
use crate::cache::{Cache, Stamp};
use crate::object::{self, Object};
use crate::tree::{Node, Tree, normalised};

/// The folder names of this architecture on Debian and its kin.
#[cfg(target_arch = "x86_64")]
const TRIPLE: &str = "x86_64-linux-gnu";
#[cfg(target_arch = "aarch64")]
const TRIPLE: &str = "aarch64-linux-gnu";

/// Libraries that the C library loads by name when it resolves names or ends threads.
const LOADED_BY_LIBC: [&str; 4] = ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1"];
/// Where the locale that we set has its tables, on systems whose C library has it not built in.
const LOCALES: [&str; 2] = ["/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8"];
/// How deep configuration files may include each other.
const INCLUDE_DEPTH: usize = 8;

/// A file and the path that it gets in the image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) host: PathBuf,
    pub(crate) image: PathBuf,
}

impl Place {
    /// A file that keeps its path.
    pub(crate) fn same(path: &Path) -> Self {
        Self { host: path.to_owned(), image: path.to_owned() }
    }
}

/// What a binary needs, without itself.
#[derive(Debug, Default)]
pub(crate) struct Closure {
    libraries: Vec<Place>,
    /// Links by which libraries of unusual folders are found.
    links: Vec<(PathBuf, PathBuf)>,
    interpreter: Option<PathBuf>,
    /// Who needs what that is not here.
    pub(crate) missing: Vec<(PathBuf, String)>,
}

impl Closure {
    /// Puts all of it into the tree.
    pub(crate) fn add_to(&self, tree: &mut Tree) -> Result<(), PackError> {
        for place in &self.libraries {
            if place.host == place.image {
                tree.host(&place.image)?;
            } else {
                tree.copy(&place.image, &place.host)?;
            }
        }
        for (link, target) in &self.links {
            if !tree.has(link) {
                tree.insert(link, Node::Symlink(target.clone()));
            }
        }
        if let Some(interpreter) = &self.interpreter {
            tree.host(interpreter)?;
            if is_glibc(interpreter) {
                for locale in LOCALES.map(Path::new).into_iter().filter(|path| path.is_dir()) {
                    tree.host_folder(locale, &|_, _| true)?;
                }
            }
        }
        Ok(())
    }

    /// The first missing library as an error.
    pub(crate) fn complete(self) -> Result<Self, PackError> {
        match self.missing.first() {
            Some((path, name)) => Err(PackError::LibraryMissing { path: path.clone(), name: name.clone() }),
            None => Ok(self),
        }
    }
}

fn is_glibc(interpreter: &Path) -> bool {
    interpreter.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"))
}

/// A folder to look in.
#[derive(Clone, Debug)]
struct Search {
    folder: Place,
    /// Whether the loader in the image looks there by itself.
    native: bool,
}

/// Finds libraries; remembers what binaries say about themselves.
pub(crate) struct Linker {
    known: BTreeMap<PathBuf, Known>,
    fresh: bool,
    environment: Vec<Search>,
    system: Vec<Search>,
    builtin: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    /// None: no binary of this machine.
    object: Option<Object>,
    #[serde(skip)]
    used: bool,
}

impl Linker {
    /// A linker that remembers what it read for this purpose before.
    pub(crate) fn open(cache: &Cache, purpose: &str) -> Self {
        let builtin = builtin_folders();
        let native = |folder: &PathBuf| builtin.contains(folder);
        let mut system: Vec<Search> = configured_folders()
            .iter()
            .map(|folder| Search { folder: Place::same(folder), native: native(folder) })
            .collect();
        system.extend(builtin.iter().map(|folder| Search { folder: Place::same(folder), native: true }));
        let environment = std::env::var_os("LD_LIBRARY_PATH")
            .iter()
            .flat_map(std::env::split_paths)
            .filter(|folder| folder.is_absolute())
            .map(|folder| Search { native: native(&folder), folder: Place::same(&folder) })
            .collect();
        let home = builtin.iter().find(|folder| folder.join("libc.so.6").exists()).or(builtin.first());
        // The real path: a link must not be put below another link.
        let builtin = home.and_then(|folder| folder.canonicalize().ok()).unwrap_or_else(|| PathBuf::from("/usr/lib"));
        let known = cache.read("objects", purpose).unwrap_or_default();
        Self { known, fresh: false, environment, system, builtin }
    }

    /// Keeps what was read for the next time.
    pub(crate) fn close(mut self, cache: &Cache, purpose: &str) -> Result<(), PackError> {
        if self.fresh {
            self.known.retain(|_, known| known.used && known.stamp.is_settled());
            cache.write("objects", purpose, &self.known)?;
        }
        Ok(())
    }

    /// What a binary says about itself; None if it is none of this machine.
    pub(crate) fn object(&mut self, path: &Path) -> Result<Option<Object>, PackError> {
        let Some(stamp) = Stamp::at(path) else { return Ok(None) };
        if let Some(known) = self.known.get_mut(path).filter(|known| known.stamp == stamp) {
            known.used = true;
            return Ok(known.object.clone());
        }
        let object = match object::read(path) {
            Err(error) if object::is_foreign(&error) => None,
            read => read?,
        };
        self.fresh = true;
        self.known.insert(path.to_owned(), Known { stamp, object: object.clone(), used: true });
        Ok(object)
    }

    /// All that `root` needs, transitively; with `main` as the program that loads it, if it is not one itself.
    pub(crate) fn closure(&mut self, root: &Place, main: Option<&Place>) -> Result<Closure, PackError> {
        let mut closure = Closure::default();
        let mut inherited = Vec::new();
        if let Some(main) = main
            && let Some(object) = self.object(&main.host)?
            && object.runpath.is_empty()
        {
            inherited = expand(&object.rpath, main);
        }
        let mut seen = HashSet::new();
        let mut pending = vec![(root.clone(), inherited)];
        while let Some((place, mut inherited)) = pending.pop() {
            let Some(object) = self.object(&place.host)? else { continue };
            if let Some(interpreter) = object.interpreter.clone().filter(|_| place == *root) {
                if object::is_absent(&interpreter) {
                    closure.missing.push((place.host.clone(), interpreter.display().to_string()));
                } else {
                    self.with_libc(&interpreter, &mut pending, &mut closure);
                    closure.interpreter = Some(interpreter);
                }
            }
            if object.runpath.is_empty() {
                inherited.splice(0..0, expand(&object.rpath, &place));
            }
            for name in &object.needed {
                match self.find(name, &object, &place, &inherited) {
                    Some((found, native)) if seen.insert(found.clone()) => {
                        closure.add(&found, name, native, &self.builtin);
                        pending.push((found, inherited.clone()));
                    }
                    Some(_) => {}
                    None if is_loader(name, closure.interpreter.as_deref()) => {}
                    None => closure.missing.push((place.host.clone(), name.clone())),
                }
            }
        }
        Ok(closure)
    }

    /// What the C library loads without saying so.
    fn with_libc(&mut self, interpreter: &Path, pending: &mut Vec<(Place, Vec<Search>)>, closure: &mut Closure) {
        if !is_glibc(interpreter) {
            return;
        }
        for name in LOADED_BY_LIBC {
            if let Some((found, native)) = self.find(name, &Object::default(), &Place::same(interpreter), &[]) {
                closure.add(&found, name, native, &self.builtin);
                pending.push((found, Vec::new()));
            }
        }
    }

    /// A library that a program loads by name at run time, with all that it needs; None if it is not here.
    pub(crate) fn named(&mut self, name: &str, main: &Place) -> Result<Option<Closure>, PackError> {
        let Some((found, native)) = self.find(name, &Object::default(), main, &[]) else { return Ok(None) };
        let mut closure = self.closure(&found, Some(main))?;
        closure.add(&found, name, native, &self.builtin);
        Ok(Some(closure))
    }

    /// Where the loader would find the library, and whether it would in the image too.
    fn find(&mut self, name: &str, by: &Object, at: &Place, inherited: &[Search]) -> Option<(Place, bool)> {
        if name.contains('/') {
            let path = normalised(Path::new(name));
            return path.is_absolute().then(|| (Place::same(&path), true)).filter(|_| self.usable(&path));
        }
        let own = expand(&by.runpath, at);
        let inherited = if by.runpath.is_empty() { inherited } else { &[] };
        let folders: Vec<Search> =
            inherited.iter().chain(&self.environment).chain(&own).chain(&self.system).cloned().collect();
        folders.into_iter().find_map(|Search { folder, native }| {
            let path = folder.host.join(name);
            self.usable(&path).then(|| (Place { host: path, image: folder.image.join(name) }, native))
        })
    }

    fn usable(&mut self, path: &Path) -> bool {
        // What cannot be read as a library is passed over, as the loader does.
        self.object(path).is_ok_and(|object| object.is_some())
    }
}

impl Closure {
    fn add(&mut self, found: &Place, name: &str, native: bool, builtin: &Path) {
        self.libraries.push(found.clone());
        if !native {
            self.links.push((builtin.join(name), found.image.clone()));
        }
    }
}

fn is_loader(name: &str, interpreter: Option<&Path>) -> bool {
    interpreter.and_then(Path::file_name).is_some_and(|file| file == name)
}

/// A binary's search path with its variables filled in, here and in the image.
fn expand(path: &[String], at: &Place) -> Vec<Search> {
    let fill = |folder: &str, place: &Path| {
        let origin = place.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
        let mut text = folder.to_owned();
        for (name, value) in [("ORIGIN", origin.as_str()), ("LIB", &format!("lib/{TRIPLE}"))] {
            text = text.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
        }
        normalised(Path::new(&text))
    };
    // The loader works out ORIGIN from the real path of what it loaded.
    let real = at.host.canonicalize().unwrap_or_else(|_| at.host.clone());
    let image = if at.host == at.image { real.clone() } else { at.image.clone() };
    path.iter()
        .map(|folder| Search { folder: Place { host: fill(folder, &real), image: fill(folder, &image) }, native: true })
        .filter(|search| search.folder.host.is_absolute())
        .collect()
}

/// The folders that every loader looks in.
fn builtin_folders() -> Vec<PathBuf> {
    let names = [
        format!("/lib/{TRIPLE}"),
        format!("/usr/lib/{TRIPLE}"),
        "/lib64".into(),
        "/usr/lib64".into(),
        "/lib".into(),
        "/usr/lib".into(),
    ];
    names.into_iter().map(PathBuf::from).filter(|folder| folder.is_dir()).collect()
}

/// The folders that this machine's configuration adds.
fn configured_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    read_configuration(Path::new("/etc/ld.so.conf"), INCLUDE_DEPTH, &mut folders);
    folders
}

fn read_configuration(file: &Path, depth: usize, folders: &mut Vec<PathBuf>) {
    let Ok(text) = fs::read_to_string(file) else { return };
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        match line.strip_prefix("include").filter(|rest| rest.starts_with(char::is_whitespace)) {
            Some(pattern) if depth > 0 => {
                for included in matching(&file.parent().expect("a file has a folder").join(pattern.trim())) {
                    read_configuration(&included, depth - 1, folders);
                }
            }
            None if line.starts_with('/') => folders.push(PathBuf::from(line)),
            _ => {}
        }
    }
}

/// The files that a pattern with one `*` in its last name means, sorted.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some((before, after)) = name.split_once('*') else { return vec![pattern.to_owned()] };
    let Some(Ok(entries)) = pattern.parent().map(fs::read_dir) else { return Vec::new() };
    let fits =
        |name: &str| name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after);
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| fits(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linker() -> (tempfile::TempDir, Linker) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        (dir, Linker::open(&cache, "test"))
    }

    #[test]
    fn a_programs_loader_and_libraries_are_found_through_all_links() {
        let (_dir, mut linker) = linker();
        let mut tree = Tree::default();
        linker
            .closure(&Place::same(Path::new("/bin/ls")), None)
            .unwrap()
            .complete()
            .unwrap()
            .add_to(&mut tree)
            .unwrap();
        let names: Vec<String> = tree.nodes().keys().map(|path| path.to_string_lossy().into_owned()).collect();
        assert!(names.iter().any(|name| name.ends_with("/libc.so.6")), "{names:?}");
        assert!(names.iter().any(|name| name.contains("/ld-linux")), "{names:?}");
        assert!(names.iter().any(|name| name.contains("libnss_dns")), "{names:?}");
    }

    #[test]
    fn what_only_this_machine_would_find_gets_a_link_where_every_loader_looks() {
        let (dir, mut linker) = linker();
        let folder = dir.path().canonicalize().unwrap();
        let main = Place::same(Path::new("/bin/ls"));
        let known = linker.find("libc.so.6", &Object::default(), &main, &[]).unwrap().0;
        fs::copy(&known.host, folder.join("libodd.so.9")).unwrap();
        assert!(linker.named("libodd.so.9", &main).unwrap().is_none());
        linker.environment = vec![Search { folder: Place::same(&folder), native: false }];
        let mut tree = Tree::default();
        linker.named("libodd.so.9", &main).unwrap().unwrap().add_to(&mut tree).unwrap();
        let link = linker.builtin.join("libodd.so.9");
        assert_eq!(tree.nodes()[&link], Node::Symlink(folder.join("libodd.so.9")));
        assert_eq!(linker.builtin, linker.builtin.canonicalize().unwrap());
    }

    #[test]
    fn origin_moves_with_the_program() {
        let place = Place { host: "/home/me/bin/tool".into(), image: "/app/tool".into() };
        let found = expand(&["$ORIGIN/../lib".into(), "${ORIGIN}/x".into(), "/opt/$LIB".into()], &place);
        let pairs: Vec<_> =
            found.iter().map(|s| (s.folder.host.to_str().unwrap(), s.folder.image.to_str().unwrap())).collect();
        assert_eq!(pairs[..2], [("/home/me/lib", "/lib"), ("/home/me/bin/x", "/app/x")]);
        assert_eq!(pairs[2].0, format!("/opt/lib/{TRIPLE}"));
    }

    #[test]
    fn configuration_is_read_with_what_it_includes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/b.conf"), "/b # comment\n").unwrap();
        fs::write(dir.path().join("d/a.conf"), "/a\ninclude ../main.conf\n").unwrap();
        fs::write(dir.path().join("d/other"), "/other\n").unwrap();
        fs::write(dir.path().join("main.conf"), "include d/*.conf\n/last\n").unwrap();
        let mut folders = Vec::new();
        read_configuration(&dir.path().join("main.conf"), 1, &mut folders);
        assert_eq!(folders, ["/a", "/b", "/last"].map(PathBuf::from));
    }
}
