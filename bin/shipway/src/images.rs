//! `shipway images`: what is in the instance's store of images, and what goes in and out. The store may be shared with an
//! engine that runs; none is needed.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use shipway_oci::{Error, Loaded, Reference, Store};

use crate::cli::{ImagesArgs, ImagesCommand, ListArgs};
use crate::home::Home;
use crate::output::{age, bytes, print_list, write_out};

/// Lists, loads, removes or collects.
pub(crate) fn images(home: &Home, args: &ImagesArgs) -> Result<()> {
    let store = Store::open(&home.path("content"))?;
    match &args.command {
        None => list(&store, &args.list),
        Some(ImagesCommand::Load { file }) => load(&store, file),
        Some(ImagesCommand::Rm { references }) => references.iter().try_for_each(|text| remove(&store, text)),
        Some(ImagesCommand::Prune) => prune(&store),
    }
}

/// What was written a moment ago stays: somebody may be about to name it.
fn prune(store: &Store) -> Result<()> {
    let collected = store.collect()?;
    write_out(&format!("Total reclaimed space: {}\n", bytes(collected.bytes)))
}

fn load(store: &Store, file: &Path) -> Result<()> {
    let loaded = if file.as_os_str() == "-" {
        shipway_oci::load(store, std::io::stdin().lock()).context("cannot load the standard input")?
    } else {
        let input = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        shipway_oci::load(store, input).with_context(|| format!("cannot load {}", file.display()))?
    };
    let lines: Vec<String> = loaded.iter().flat_map(describe).collect();
    write_out(&format!("{}\n", lines.join("\n")))
}

/// One line for each name, as Docker's client says it.
fn describe(image: &Loaded) -> Vec<String> {
    if image.references.is_empty() {
        return vec![format!("Loaded image ID: {}", image.digest)];
    }
    image.references.iter().map(|reference| format!("Loaded image: {}", reference.familiar())).collect()
}

fn remove(store: &Store, text: &str) -> Result<()> {
    let reference: Reference = text.parse()?;
    if !store.untag(&reference)? {
        return Err(Error::Unknown { reference: reference.into() }.into());
    }
    write_out(&format!("Untagged: {}\n", reference.familiar()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageRow {
    reference: String,
    digest: String,
    size: u64,
    created: Option<String>,
}

fn list(store: &Store, list: &ListArgs) -> Result<()> {
    let rows: Vec<ImageRow> = store
        .list()?
        .into_iter()
        .map(|image| ImageRow {
            reference: image.reference.to_string(),
            digest: image.digest.to_string(),
            size: image.size,
            created: jiff::Timestamp::try_from(image.created).ok().map(|time| time.to_string()),
        })
        .collect();
    print_list(list.output, &rows, &["REFERENCE", "DIGEST", "SIZE", "CREATED"], |row| {
        let digest = row.digest.chars().take("sha256:".len() + 12).collect();
        vec![row.reference.clone(), digest, bytes(row.size), age(row.created.as_deref())]
    })
}
