//! Reads protobuf messages out of the source of a crate that prost generated: tags and types, nothing else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One field of a message.
pub(crate) struct Field {
    pub(crate) tag: u32,
    /// The Rust name in lower case without underscores, which is also the JSON name's without its capitals.
    pub(crate) name: String,
    /// prost's word for the type: `string`, `message`, `int32` ...; of a map, its value's.
    pub(crate) scalar: String,
    pub(crate) cardinality: Cardinality,
    /// The message's path such as `api.core.v1.PodSpec`, when the type is one.
    pub(crate) message: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cardinality {
    One,
    Many,
    Map,
}

/// The source folder of a dependency: in cargo's registry if it is there, else wherever cargo says.
pub(crate) fn locate(package: &str) -> PathBuf {
    in_registry(package).or_else(|| by_metadata(package)).unwrap_or_else(|| panic!("no source of {package} found"))
}

fn in_registry(package: &str) -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let folder = format!("{package}-{}", locked_version(package)?);
    let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
    let mut found = registries.flatten().map(|registry| registry.path().join(&folder).join("src"));
    found.find(|source| source.is_dir())
}

/// The version that the workspace's lock file names.
fn locked_version(package: &str) -> Option<String> {
    let here = std::env::current_dir().ok()?;
    let lock = here.ancestors().map(|folder| folder.join("Cargo.lock")).find(|lock| lock.is_file())?;
    let lock = std::fs::read_to_string(lock).ok()?;
    let mut lines = lock.lines().skip_while(|line| *line != format!("name = {package:?}"));
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"').map(str::to_owned)
}

fn by_metadata(package: &str) -> Option<PathBuf> {
    let host = std::env::var("HOST").expect("cargo sets HOST");
    let output = Command::new(std::env::var_os("CARGO").expect("cargo sets CARGO"))
        .args(["metadata", "--offline", "--format-version", "1", "--filter-platform", &host])
        .output()
        .ok()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let packages = metadata.get("packages")?.as_array()?;
    let found = packages.iter().find(|each| each["name"] == package)?;
    Some(Path::new(found["manifest_path"].as_str()?).with_file_name("src"))
}

/// Every message of the crate by its path.
pub(crate) fn messages(source: &Path) -> HashMap<String, Vec<Field>> {
    let mut messages = HashMap::new();
    let mut folders = vec![(source.to_owned(), Vec::new())];
    while let Some((folder, module)) = folders.pop() {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                folders.push((entry.path(), module.iter().cloned().chain([name]).collect()));
            } else if name == "mod.rs" {
                let text = std::fs::read_to_string(entry.path()).expect("a source file is text");
                read_module(&text, &module, &mut messages);
            }
        }
    }
    messages
}

fn read_module(text: &str, module: &[String], messages: &mut HashMap<String, Vec<Field>>) {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let mut current = String::new();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("pub struct ") {
            current = format!("{}.{}", module.join("."), name.trim_end_matches([' ', '{', '}']));
            messages.insert(current.clone(), Vec::new());
        } else if line.starts_with("#[prost(") {
            let mut attribute = line.to_owned();
            while !attribute.ends_with(']') {
                attribute.push_str(lines.next().expect("an attribute ends"));
            }
            let mut declaration = String::new();
            while !complete(&declaration) {
                declaration.push_str(lines.next().expect("a field has a declaration"));
            }
            let fields = messages.get_mut(&current).expect("a field stands in a message");
            fields.push(read_field(&attribute, &declaration, module));
        }
    }
}

fn complete(declaration: &str) -> bool {
    declaration.ends_with(',') && declaration.matches('<').count() == declaration.matches('>').count()
}

fn read_field(attribute: &str, declaration: &str, module: &[String]) -> Field {
    let quoted = |key: &str| {
        let (_, rest) = attribute.split_once(&format!("{key} = \""))?;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    let map = quoted("btree_map").or_else(|| quoted("map"));
    let cardinality = match &map {
        Some(_) => Cardinality::Map,
        None if attribute.contains("repeated") => Cardinality::Many,
        None => Cardinality::One,
    };
    let scalar = match &map {
        Some(types) => types.rsplit(',').next().expect("split yields a part").trim().to_owned(),
        None => attribute["#[prost(".len()..].split([',', ' ', '=']).next().expect("split yields a part").to_owned(),
    };
    let (name, kind) = declaration.split_once(':').expect("a declaration has a type");
    let name = name.trim().trim_start_matches("pub ").trim_start_matches("r#").replace('_', "").to_lowercase();
    let inner = kind.split(['<', '>', ',']).map(str::trim).rfind(|part| !part.is_empty()).expect("a type has a name");
    let message = (scalar == "message").then(|| resolve(inner, module));
    Field {
        tag: quoted("tag").and_then(|tag| tag.parse().ok()).expect("a field has a tag"),
        name,
        scalar,
        cardinality,
        message,
    }
}

/// `super::super::meta::v1::Time` as seen from a module.
fn resolve(path: &str, module: &[String]) -> String {
    let mut at: Vec<&str> = module.iter().map(String::as_str).collect();
    for segment in path.split("::").filter(|segment| !segment.is_empty()) {
        if segment == "super" {
            at.pop();
        } else {
            at.push(segment);
        }
    }
    at.join(".")
}
