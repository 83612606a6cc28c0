//! Derives what the crate embeds: the definitions of the served kinds, annotated with our own merge facts, and the
//! protobuf tags of their fields. Nothing it writes is committed; the sources are `k8s-openapi`, `k8s-pb` and `facts/`.

#[path = "build/definitions.rs"]
mod definitions;
#[path = "build/facts.rs"]
mod facts;
#[path = "build/metrics.rs"]
mod metrics;
#[path = "build/source.rs"]
mod source;
#[path = "build/tags.rs"]
mod tags;

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, write::DeflateEncoder};

/// The sources that OpenAPI documents depend on beside the definitions.
const DOCUMENT_SOURCES: [&str; 2] = ["src/openapi", "src/rows"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=facts");
    for file in DOCUMENT_SOURCES {
        println!("cargo::rerun-if-changed={file}");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let keys = std::fs::read_to_string("facts/keys.txt").expect("facts/keys.txt is in the crate");
    let pointers = std::fs::read_to_string("facts/pointers.txt").expect("facts/pointers.txt is in the crate");

    let mut definitions = definitions::generate();
    facts::annotate(&mut definitions, &keys);
    let pointers = facts::pointers(&definitions, &pointers);

    let text = definitions::document(&definitions);
    // A document also changes with what writes its paths.
    let written_by = DOCUMENT_SOURCES.map(|folder| sources(Path::new(folder))).concat();
    write(&out, "definitions.hash", definitions::fingerprint(format!("{text}{written_by}").as_bytes()).as_bytes());
    write(&out, "definitions.z", &deflate(text.as_bytes()));
    write(&out, "shapes.z", &deflate(definitions::shapes(&definitions).as_bytes()));

    let messages = source::messages(&source::locate("k8s-pb"));
    write(&out, "tags.txt", tags::table(&messages, &definitions, &pointers).as_bytes());
}

/// The text of a folder's files, in order of name.
fn sources(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).expect("the crate is whole").flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read_to_string(file).expect("a source file is text")).collect()
}

fn write(out: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(out.join(name), bytes).expect("OUT_DIR is writable");
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("a Vec takes any bytes");
    encoder.finish().expect("a Vec takes any bytes")
}
