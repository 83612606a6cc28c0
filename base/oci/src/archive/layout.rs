//! An OCI layout: `index.json` describes the images, content is named by its digest. Of an image for several platforms
//! the one for this machine is taken, and signatures and other attachments are passed over.

use oci_spec::image::{Arch, Descriptor, ImageIndex, MediaType, Os};

use super::members::Members;
use super::{Loaded, name, refused};
use crate::image::{DOCUMENT_LIMIT, choose, descriptor_digest, parse};
use crate::{Digest, Reference, Result, Store};

/// The member that lists the images.
pub(super) const INDEX: &str = "index.json";
/// How deep an index may stand in another.
const DEPTH_LIMIT: usize = 4;
/// The annotation with the whole name, as Docker and containerd write it.
const WHOLE_NAME: &str = "io.containerd.image.name";
/// The annotation of the specification: a whole name or a tag alone.
const NAME_OR_TAG: &str = "org.opencontainers.image.ref.name";
/// The annotation of what belongs to an image without being one.
const ATTACHMENT: &str = "vnd.docker.reference.type";
/// Docker's older word for an index.
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The images that the layout lists, each once with all its names.
pub(super) fn images(store: &Store, members: &Members) -> Result<Vec<Loaded>> {
    let Some(index) = members.find(INDEX) else { return Err(refused(format!("it has no {INDEX}"))) };
    let index: ImageIndex = parse("index", &index, &store.read_blob(&index, DOCUMENT_LIMIT)?)?;
    let mut images: Vec<Loaded> = Vec::new();
    for entry in index.manifests().iter().filter(|entry| is_for_us(entry)) {
        let digest = resolve(store, entry)?;
        let reference = reference(entry)?;
        match images.iter_mut().find(|image| image.digest == digest) {
            Some(image) => image.references.extend(reference),
            None => images.push(Loaded { digest, references: reference.into_iter().collect() }),
        }
    }
    if images.is_empty() {
        return Err(refused(format!("it holds no image for linux/{}", Arch::default())));
    }
    Ok(images)
}

/// Whether the entry is an image that this machine could run, as far as the entry says.
fn is_for_us(entry: &Descriptor) -> bool {
    let attached = entry.annotations().as_ref().is_some_and(|all| all.contains_key(ATTACHMENT));
    let fits = entry.platform().as_ref().is_none_or(|p| *p.os() == Os::Linux && *p.architecture() == Arch::default());
    !attached && fits
}

/// The manifest that an entry means, through the indices of several platforms.
fn resolve(store: &Store, entry: &Descriptor) -> Result<Digest> {
    let mut entry = entry.clone();
    for _ in 0..DEPTH_LIMIT {
        let digest = descriptor_digest(&entry)?;
        if !is_index(entry.media_type()) {
            return Ok(digest);
        }
        let index: ImageIndex = parse("index", &digest, &store.read_blob(&digest, DOCUMENT_LIMIT)?)?;
        let chosen = choose(&index).or_else(|| index.manifests().iter().find(|entry| is_for_us(entry)));
        entry =
            chosen.cloned().ok_or_else(|| refused(format!("{digest} has nothing for linux/{}", Arch::default())))?;
    }
    Err(refused(format!("an index stands more than {DEPTH_LIMIT} deep in others")))
}

fn is_index(kind: &MediaType) -> bool {
    *kind == MediaType::ImageIndex || kind.to_string() == DOCKER_LIST
}

/// The name of an entry. A tag alone says nothing of what it is a tag of, so it is none.
fn reference(entry: &Descriptor) -> Result<Option<Reference>> {
    let Some(all) = entry.annotations() else { return Ok(None) };
    let whole = all.get(WHOLE_NAME).or_else(|| all.get(NAME_OR_TAG).filter(|text| text.contains([':', '/'])));
    whole.map(|text| name(text)).transpose()
}
