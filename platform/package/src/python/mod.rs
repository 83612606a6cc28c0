//! A Python program: its interpreter with its libraries, the standard library, what the program imports, and its folder.
//!
//! Everything of the host keeps its absolute path, virtual environments included, so the interpreter in the image finds its
//! library and its modules by itself, as it did there.

pub(crate) mod bytecode;
mod interpreter;
mod library;
mod modules;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::PackError;
use crate::cache::Cache;
use crate::folder;
use crate::image::Plan;
use crate::libraries::{Linker, Place};
use crate::program::{APP, Program, find_command};
use crate::progress::Progress;
use crate::script::add_command;
use crate::system;
use crate::tree::Tree;
use interpreter::Interpreter;
use modules::Modules;

/// Where the modules are that we bring ourselves.
const PROVIDED: &str = "/.shipway/python";
/// Standard modules that speak TLS, and so need the authorities.
const TLS: [&str; 7] = ["ssl", "_ssl", "http.client", "urllib.request", "smtplib", "ftplib", "imaplib"];
/// Where the time zones are.
const ZONES: &str = "/usr/share/zoneinfo";

/// The Python SDK, embedded.
mod sdk {
    include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
}

pub(crate) fn plan(
    program: &Program,
    given: Option<&Path>,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<Plan, PackError> {
    progress.step("asking the interpreter");
    let python = interpreter::find(program, given, cache)?;
    progress.step("following the imports");
    let modules = modules::find(program, &python, cache)?;
    for (name, by) in &modules.missing {
        progress.note(&format!("module `{name}`, which {by} imports, is not installed and left out"));
    }
    progress.step("collecting files");
    let purpose = python.executable.to_string_lossy().into_owned();
    let mut linker = Linker::open(cache, &purpose);
    let main = Place::same(&python.base_executable);
    let base = base(&python, &main, &mut linker)?;
    let library = library::tree(&python, &modules.standard, &mut linker, &main)?;
    let mut env = environment(&python, program, &modules);
    let third = third_party(program, &python, &modules, &mut linker, &main, &mut env)?;
    linker.close(cache, &purpose)?;
    let mut app = Tree::default();
    let local: BTreeSet<PathBuf> = modules.local.iter().cloned().collect();
    folder::add(program, &local, &mut app, progress)?;
    let command = [&python.executable, &program.target].map(|path| path.to_string_lossy().into_owned());
    Ok(Plan {
        layers: vec![("interpreter", base), ("library", library), ("modules", third), ("program", app)],
        env,
        entrypoint: system::entrypoint(command),
        workdir: APP.to_owned(),
    })
}

/// The interpreter, its libraries and those of the standard library: the same for all programs of this interpreter.
fn base(python: &Interpreter, main: &Place, linker: &mut Linker) -> Result<Tree, PackError> {
    let mut tree = Tree::default();
    system::add_base(&mut tree);
    tree.host(&main.host)?;
    linker.closure(main, None)?.complete()?.add_to(&mut tree)?;
    for module in library::extensions(python)? {
        let closure = linker.closure(&Place::same(&module), Some(main))?;
        if closure.missing.is_empty() {
            closure.add_to(&mut tree)?;
        }
    }
    // The plain names of the interpreter, by which programs start further ones.
    for name in ["python3", "python"] {
        let alias = main.host.with_file_name(name);
        if alias.canonicalize().is_ok_and(|real| main.host.canonicalize().is_ok_and(|main| main == real)) {
            tree.host(&alias)?;
        }
    }
    Ok(tree)
}

/// What this program needs beyond the standard library.
fn third_party(
    program: &Program,
    python: &Interpreter,
    modules: &Modules,
    linker: &mut Linker,
    main: &Place,
    env: &mut Vec<(String, String)>,
) -> Result<Tree, PackError> {
    let mut tree = Tree::default();
    python.add_environment(&mut tree)?;
    for path in modules.taken.iter().filter(|path| !path.starts_with(&program.folder) || is_package(python, path)) {
        library::add_module(path, python, &mut tree)?;
    }
    for path in &modules.metadata {
        library::add_metadata(path, &mut tree)?;
    }
    let binaries: Vec<PathBuf> = tree.nodes().keys().filter(|path| library::is_extension(path)).cloned().collect();
    for binary in binaries {
        // A missing library is no failure yet: packages bring variants for machines other than this.
        linker.closure(&Place::same(&binary), Some(main))?.add_to(&mut tree)?;
    }
    for name in &modules.libraries {
        if let Some(closure) = linker.named(name, main)? {
            closure.add_to(&mut tree)?;
        }
    }
    let shell = modules.shell.then_some("/bin/sh");
    for command in shell.into_iter().chain(modules.commands.iter().map(String::as_str)).filter_map(find_command) {
        add_command(&command, linker, &mut tree)?;
    }
    if !modules.provided.is_empty() {
        for (name, content) in sdk::FILES {
            tree.bytes(Path::new(PROVIDED).join(name), *content, 0o644);
        }
    }
    if modules.uses(&TLS) || !modules.taken.is_empty() {
        env.extend(system::add_authorities(&mut tree)?);
    }
    if modules.uses(&["zoneinfo"]) && Path::new(ZONES).is_dir() {
        tree.host_folder(Path::new(ZONES), &|name, _| !name.starts_with("right") && !name.starts_with("posix"))?;
    }
    Ok(tree)
}

/// Whether the path is in a folder of installed packages, even if that is below the program's folder.
fn is_package(python: &Interpreter, path: &Path) -> bool {
    python.packages.iter().any(|packages| path.starts_with(packages))
}

fn environment(python: &Interpreter, program: &Program, modules: &Modules) -> Vec<(String, String)> {
    let folder = python.executable.parent().unwrap_or(Path::new("/usr/bin")).to_string_lossy().into_owned();
    let path = if system::PATH.split(':').any(|known| known == folder) {
        system::PATH.to_owned()
    } else {
        format!("{folder}:{}", system::PATH)
    };
    let mut env = system::environment(&path);
    env.push(("PYTHONUNBUFFERED".to_owned(), "1".to_owned()));
    env.push(("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()));
    let search = search_path(python, program, modules);
    if !search.is_empty() {
        env.push(("PYTHONPATH".to_owned(), search.join(":")));
    }
    env.extend(program.shebang.iter().flat_map(|shebang| shebang.variables.clone()));
    env
}

/// The entries of the search path that the interpreter in the image would not have by itself.
fn search_path(python: &Interpreter, program: &Program, modules: &Modules) -> Vec<String> {
    let own = |entry: &&PathBuf| !python.packages.contains(entry) && **entry != program.folder;
    let mut search: Vec<String> = modules
        .entries
        .iter()
        .filter(own)
        .map(|entry| match entry.strip_prefix(&program.folder) {
            Ok(below) => Path::new(APP).join(below),
            Err(_) => entry.clone(),
        })
        .map(|entry| entry.to_string_lossy().into_owned())
        .collect();
    if !modules.provided.is_empty() {
        search.push(PROVIDED.to_owned());
    }
    search
}
