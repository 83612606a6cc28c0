//! The standard library without what programs in a container do not use, and installed packages whole.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::interpreter::Interpreter;
use crate::PackError;
use crate::cache::Stamp;
use crate::libraries::{Linker, Place};
use crate::tree::{Node, Tree, ends_with};

/// Parts of the standard library that come along only if the program imports them.
const OPTIONAL: [&str; 9] =
    ["test", "idlelib", "tkinter", "turtledemo", "turtle", "ensurepip", "lib2to3", "pydoc_data", "distutils"];
/// Extension modules that go with them.
const OPTIONAL_EXTENSIONS: [&str; 6] = ["_tkinter", "_test", "_xxtest", "xxlimited", "_ctypes_test", "xxsubtype"];
/// Folders of tests anywhere in the standard library.
const TESTS: [&str; 3] = ["test", "tests", "idle_test"];

/// The standard library; `used` are the standard modules that the program imports.
pub(super) fn tree(
    python: &Interpreter,
    used: &[String],
    linker: &mut Linker,
    main: &Place,
) -> Result<Tree, PackError> {
    let used: BTreeSet<&str> = used.iter().map(|name| name.split('.').next().unwrap_or(name)).collect();
    let mut tree = Tree::default();
    tree.host_folder(&python.library, &|below, is_folder| is_kept(below, is_folder, &used))?;
    let mut broken = Vec::new();
    for module in tree.nodes().keys().filter(|path| is_extension(path)) {
        if !linker.closure(&Place::same(module), Some(main))?.missing.is_empty() {
            broken.push(module.clone());
        }
    }
    for module in &broken {
        tree.remove(module);
    }
    add_bytecode(python, &mut tree);
    Ok(tree)
}

/// The extension modules of the standard library.
pub(super) fn extensions(python: &Interpreter) -> Result<Vec<PathBuf>, PackError> {
    let folder = python.library.join("lib-dynload");
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| PackError::io("read", &folder, e))?.path();
        if is_extension(&path) && !is_optional_extension(path.file_name().unwrap_or_default(), &BTreeSet::new()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn is_kept(below: &Path, is_folder: bool, used: &BTreeSet<&str>) -> bool {
    let name = below.file_name().unwrap_or_default();
    let text = name.to_string_lossy();
    let top = below.components().count() == 1;
    if text == "__pycache__" || text == "site-packages" || text == "dist-packages" {
        return false;
    }
    if top {
        let module = text.strip_suffix(".py").unwrap_or(&text);
        let excluded = OPTIONAL.contains(&module) && !used.contains(module);
        return !(excluded || is_folder && text.starts_with("config-"));
    }
    if is_folder && TESTS.iter().any(|tests| name == *tests) {
        return used.contains("test");
    }
    !is_optional_extension(name, used) && !ends_with(name, ".pyc")
}

fn is_optional_extension(name: &OsStr, used: &BTreeSet<&str>) -> bool {
    let name = name.to_string_lossy();
    OPTIONAL_EXTENSIONS.iter().any(|prefix| name.starts_with(prefix))
        && !(name.starts_with("_tkinter") && used.contains("tkinter"))
        && !(name.contains("test") && used.contains("test"))
}

/// Adds a top-level package or module of an installed distribution.
pub(super) fn add_module(path: &Path, python: &Interpreter, tree: &mut Tree) -> Result<(), PackError> {
    let mut module = Tree::default();
    if path.is_dir() {
        module.host_folder(path, &|below, _| {
            let name = below.file_name().unwrap_or_default();
            name != "__pycache__" && !ends_with(name, ".pyc")
        })?;
    } else {
        module.host(path)?;
    }
    add_bytecode(python, &mut module);
    for (path, node) in module.nodes() {
        tree.insert(path, node.clone());
    }
    Ok(())
}

/// Adds what says which version of a distribution is installed; programs read it at run time.
pub(super) fn add_metadata(path: &Path, tree: &mut Tree) -> Result<(), PackError> {
    if path.is_dir() {
        // The record lists compiled files and dates of this machine.
        return tree
            .host_folder(path, &|below, _| below != Path::new("RECORD") && below != Path::new("direct_url.json"));
    }
    tree.host(path).map(|_| ())
}

/// Whether the file is a library by its name.
pub(super) fn is_extension(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".so") || name.contains(".so.")
}

/// Adds the compiled modules beside the sources in the tree.
fn add_bytecode(python: &Interpreter, tree: &mut Tree) {
    if !python.has_hashed_bytecode() {
        return;
    }
    let mut found = Vec::new();
    for (path, node) in tree.nodes() {
        let Node::Host { source, stamp } = node else { continue };
        let Some(stem) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".py"))
        else {
            continue;
        };
        let name = format!("__pycache__/{stem}.{}.pyc", python.cache_tag);
        let compiled = source.with_file_name(&name);
        if let Some(compiled_stamp) = Stamp::at(&compiled) {
            let node = Node::Bytecode { source: compiled, stamp: compiled_stamp, of: *stamp };
            found.push((path.with_file_name(&name), node));
        }
    }
    for (path, node) in found {
        tree.insert(path, node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_tools_of_the_standard_library_stay_behind_unless_used() {
        let none = BTreeSet::new();
        for (path, folder) in [
            ("test", true),
            ("idlelib", true),
            ("turtle.py", false),
            ("__pycache__", true),
            ("site-packages", true),
            ("config-3.11-x86_64-linux-gnu", true),
            ("unittest/test", true),
            ("lib-dynload/_testcapi.cpython-311-x86_64-linux-gnu.so", false),
        ] {
            assert!(!is_kept(Path::new(path), folder, &none), "{path}");
        }
        for (path, folder) in [("os.py", false), ("json", true), ("lib-dynload/_json.so", false), ("unittest", true)] {
            assert!(is_kept(Path::new(path), folder, &none), "{path}");
        }
        assert!(is_kept(Path::new("tkinter"), true, &BTreeSet::from(["tkinter"])));
    }
}
