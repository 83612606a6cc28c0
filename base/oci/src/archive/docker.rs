//! Docker's own form: `manifest.json` names, for each image, its configuration, its layers and its tags by the paths of
//! members. There is no manifest of the image in it, so one is made.

use std::collections::HashMap;
use std::io::Read;

use oci_spec::image::{ImageConfiguration, MediaType};
use serde::Deserialize;

use super::members::Members;
use super::{LAYER_LIMIT, Loaded, name, refused};
use crate::image::{DOCUMENT_LIMIT, manifest, parse};
use crate::source::{GZIP, ZSTD};
use crate::{Digest, Error, Layer, Result, Store};

/// The member that lists the images.
pub(super) const MANIFEST: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The images that the archive lists.
pub(super) fn images(store: &Store, members: &Members) -> Result<Vec<Loaded>> {
    let list = member(members, MANIFEST)?;
    let entries: Vec<Entry> = parse("list of images", &list, &store.read_blob(&list, DOCUMENT_LIMIT)?)?;
    let mut kinds = HashMap::new();
    entries.iter().map(|entry| image(store, members, entry, &mut kinds)).collect()
}

fn image(
    store: &Store,
    members: &Members,
    entry: &Entry,
    kinds: &mut HashMap<Digest, (u64, MediaType)>,
) -> Result<Loaded> {
    let config_digest = member(members, &entry.config)?;
    let bytes = store.read_blob(&config_digest, DOCUMENT_LIMIT)?;
    let config: ImageConfiguration = parse("configuration", &config_digest, &bytes)?;
    let contents = config.rootfs().diff_ids();
    if contents.len() != entry.layers.len() || contents.len() > LAYER_LIMIT {
        let (listed, known) = (entry.layers.len(), contents.len());
        let what = format!("{MANIFEST} lists {listed} layers of `{}`, its configuration {known}", entry.config);
        return Err(refused(format!("{what}; both have to be the same and at most {LAYER_LIMIT}")));
    }
    let pairs = entry.layers.iter().zip(contents);
    let layers =
        pairs.map(|(path, content)| layer(store, members, path, content, kinds)).collect::<Result<Vec<_>>>()?;
    let digest = manifest(store, &layers, &config_digest, bytes.len() as u64)?;
    let tags = entry.repo_tags.iter().flatten();
    Ok(Loaded { digest, references: tags.map(|tag| name(tag)).collect::<Result<_>>()? })
}

fn layer(
    store: &Store,
    members: &Members,
    path: &str,
    content: &str,
    kinds: &mut HashMap<Digest, (u64, MediaType)>,
) -> Result<Layer> {
    let (digest, diff_id) = (member(members, path)?, content.parse::<Digest>()?);
    let (size, kind) = match kinds.get(&digest) {
        Some(known) => known.clone(),
        None => kinds.entry(digest).or_insert(describe(store, &digest)?).clone(),
    };
    // A compressed layer is compared with what the configuration says when it is unpacked.
    if kind == MediaType::ImageLayer && digest != diff_id {
        return Err(Error::LayerDamaged { layer: diff_id, found: digest });
    }
    Ok(Layer { digest, diff_id, size, media_type: kind.to_string() })
}

/// The size of a layer and how it is compressed, by its first bytes.
fn describe(store: &Store, digest: &Digest) -> Result<(u64, MediaType)> {
    let mut start = Vec::new();
    let file = store.open_blob(digest)?;
    file.take(ZSTD.len() as u64).read_to_end(&mut start).map_err(|e| Error::io("read", &store.blob_path(digest), e))?;
    let kind = if start.starts_with(&GZIP) {
        MediaType::ImageLayerGzip
    } else if start == ZSTD {
        MediaType::ImageLayerZstd
    } else {
        MediaType::ImageLayer
    };
    Ok((store.size(digest).ok_or_else(|| store.missing(digest))?, kind))
}

fn member(members: &Members, path: &str) -> Result<Digest> {
    members.find(path).ok_or_else(|| refused(format!("{MANIFEST} names `{path}`, which is not in it")))
}
