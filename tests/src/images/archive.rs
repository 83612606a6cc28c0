//! An image of one layer as one archive in the form that `docker save` writes. Written apart from the code under test, so
//! that both have to agree on the form.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::recipe::{Node, Recipe};

/// Writes the archive aside and gives it its name when it is whole.
pub(super) fn write(recipe: &Recipe, tags: &[&str], path: &Path) -> Result<()> {
    let layer = layer(recipe)?;
    let config = config(recipe, &hex(&layer)).to_string().into_bytes();
    let list = json!([{ "Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"] }]).to_string().into_bytes();
    let half = path.with_extension(format!("{}.half", std::process::id()));
    let mut archive = Builder::new(File::create(&half).with_context(|| format!("cannot write {}", half.display()))?);
    for (name, content) in [("layer.tar", &layer), ("config.json", &config), ("manifest.json", &list)] {
        put(&mut archive, Path::new(name), 0o644, content)?;
    }
    archive.into_inner()?.sync_all()?;
    std::fs::rename(&half, path).with_context(|| format!("cannot write {}", path.display()))
}

fn config(recipe: &Recipe, content: &str) -> serde_json::Value {
    let ports: serde_json::Map<_, _> = recipe.port.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
    let mut run = json!({ "Cmd": recipe.command, "Env": recipe.env, "ExposedPorts": ports });
    if let Some(signal) = recipe.stop_signal {
        run["StopSignal"] = json!(signal);
    }
    let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    json!({
        "created": "1970-01-01T00:00:00Z", "architecture": architecture, "os": "linux", "config": run,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{content}")] },
    })
}

fn layer(recipe: &Recipe) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let mut folders = BTreeSet::new();
    for (path, node) in &recipe.nodes {
        let path = path.strip_prefix("/").unwrap_or(path);
        parents(&mut archive, &mut folders, path)?;
        match node {
            Node::Copy(from) => {
                let content = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
                let mode = std::fs::metadata(from)?.permissions().mode() & 0o777;
                put(&mut archive, path, mode, &content)?;
            }
            Node::Text(text) => put(&mut archive, path, 0o644, text.as_bytes())?,
            Node::Link(target) => archive.append_link(&mut header(EntryType::Symlink, 0o777), path, target)?,
            Node::Folder(mode) if folders.insert(path.to_owned()) => folder(&mut archive, path, *mode)?,
            Node::Folder(_) => {}
        }
    }
    Ok(archive.into_inner()?)
}

fn parents(archive: &mut Builder<Vec<u8>>, folders: &mut BTreeSet<PathBuf>, path: &Path) -> Result<()> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|it| !it.as_os_str().is_empty()).collect();
    above.reverse();
    for parent in above {
        if folders.insert(parent.to_owned()) {
            folder(archive, parent, 0o755)?;
        }
    }
    Ok(())
}

fn folder(archive: &mut Builder<Vec<u8>>, path: &Path, mode: u32) -> Result<()> {
    let mut header = header(EntryType::Directory, mode);
    Ok(archive.append_data(&mut header, format!("{}/", path.display()), std::io::empty())?)
}

fn put<W: std::io::Write>(archive: &mut Builder<W>, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, mode);
    header.set_size(content.len() as u64);
    Ok(archive.append_data(&mut header, path, content)?)
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all that is written");
        text
    })
}
