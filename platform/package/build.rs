//! Compiles the init program for the target, and embeds it and the Python SDK into the crate.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the SDK's modules are, from this folder.
const SDK: &str = "../../sdk/python/src";
const MODULES: [&str; 2] = ["metaparticle", "metaparticle_pkg"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    init(&output.join("init"));
    fs::write(output.join("sdk.rs"), sdk()).expect("OUT_DIR can be written");
}

fn init(output: &Path) {
    println!("cargo::rerun-if-changed=init/init.rs");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition", "2024", "--crate-name", "init", "--crate-type", "bin", "--target", &variable("TARGET")]);
    for option in [
        "opt-level=s",
        "panic=abort",
        "lto=fat",
        "strip=symbols",
        "relocation-model=static",
        "target-feature=+crt-static",
        "force-unwind-tables=no",
        "link-arg=-nostartfiles",
        "link-arg=-nostdlib",
        "link-arg=-static",
        "link-arg=-no-pie",
        "link-arg=-Wl,--build-id=none",
        "link-arg=-Wl,-z,norelro",
        "link-arg=-Wl,--no-eh-frame-hdr",
    ] {
        rustc.args(["-C", option]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let status = rustc.arg("-o").arg(output).arg("init/init.rs").status().expect("rustc can be started");
    assert!(status.success(), "init/init.rs does not compile");
}

/// A table of the SDK's files: path from the module folder's parent, and bytes.
fn sdk() -> String {
    let root = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join(SDK);
    let mut files = Vec::new();
    for module in MODULES {
        println!("cargo::rerun-if-changed={SDK}/{module}");
        collect(&root.join(module), &mut files);
    }
    files.sort();
    let mut table = String::from(
        "/// The Python SDK: path and content of each file.\npub(crate) static FILES: &[(&str, &[u8])] = &[\n",
    );
    for file in files {
        let name = file.strip_prefix(&root).expect("it was found below").to_string_lossy();
        let file = file.to_string_lossy();
        writeln!(table, "    ({name:?}, include_bytes!({file:?})),").expect("a string takes all");
    }
    table.push_str("];\n");
    table
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "py") {
            files.push(path);
        }
    }
}
