//! Images in one tar archive, as `docker save`, `podman save` and `skopeo copy` write them: an OCI layout or Docker's own
//! form, plain or compressed with gzip or zstd.
//!
//! The archive is read once from front to back into the content store, so it may come from a pipe; its names are looked
//! up, never written. A reference is set only when every image of the archive has been found whole.

mod docker;
mod layout;
mod members;

use std::io::Read;

use oci_spec::image::Descriptor;

use crate::image::descriptor_digest;
use crate::{Digest, Error, Image, Limits, Reference, Result, Store};
use members::Members;

/// Bounds on an archive: far more members than any tool writes, and as many bytes as one layer may have.
const LIMITS: Limits = Limits { entries: 10_000, bytes: 64 << 30 };
/// Bound on the layers of one image, ten times that of the kernel's overlay file system.
const LAYER_LIMIT: usize = 1_000;

/// An image of an archive, in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Digest of its manifest.
    pub digest: Digest,
    /// The names that the archive gives it, now set in the store; none if it gives none.
    pub references: Vec<Reference>,
}

/// Takes the images of an archive into the store, and their names.
pub fn load(store: &Store, input: impl Read + 'static) -> Result<Vec<Loaded>> {
    load_within(store, input, LIMITS)
}

fn load_within(store: &Store, input: impl Read + 'static, limits: Limits) -> Result<Vec<Loaded>> {
    let _hold = store.hold()?;
    let members = Members::read(store, input, limits)?;
    let images = if members.find(layout::INDEX).is_some() {
        layout::images(store, &members)?
    } else if members.find(docker::MANIFEST).is_some() {
        docker::images(store, &members)?
    } else {
        return Err(refused(format!("it holds neither {} nor {}", layout::INDEX, docker::MANIFEST)));
    };
    for image in &images {
        check(store, image)?;
    }
    for image in &images {
        for reference in &image.references {
            store.tag(reference, &image.digest)?;
        }
    }
    Ok(images)
}

/// Every part is in the store and as large as the manifest says.
fn check(store: &Store, loaded: &Loaded) -> Result<()> {
    let image = Image::load(store, &loaded.digest)?;
    let layers = image.layers()?;
    if layers.len() > LAYER_LIMIT {
        return Err(refused(format!("image {} has more than {LAYER_LIMIT} layers", loaded.digest)));
    }
    std::iter::once(image.manifest.config()).chain(image.manifest.layers()).try_for_each(|part| present(store, part))
}

fn present(store: &Store, part: &Descriptor) -> Result<()> {
    let digest = descriptor_digest(part)?;
    match store.size(&digest) {
        Some(size) if size == part.size() => Ok(()),
        Some(size) => Err(refused(format!("content {digest} has {size} bytes, its manifest says {}", part.size()))),
        None => Err(refused(format!("content {digest} is not in it"))),
    }
}

/// A name that an archive gives: it has to carry a tag, since a digest names the content by itself.
fn name(text: &str) -> Result<Reference> {
    let reference: Reference = text.parse()?;
    if reference.digest().is_some() {
        return Err(refused(format!("it names an image `{text}`; a name has a tag and no digest")));
    }
    Ok(reference)
}

fn refused(reason: String) -> Error {
    Error::Archive { reason }
}

#[cfg(test)]
mod tests;
