//! Every way in which an operation of this crate can fail, with the hint that mends it where there is one.

use std::io;
use std::path::{Path, PathBuf};

use crate::{Digest, Reference};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, on what.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A string is no sha256 digest.
    #[error("`{text}` is not a digest: expected `sha256:` and 64 lower-case hex digits")]
    InvalidDigest {
        /// What was given.
        text: String,
    },
    /// A string is no image reference.
    #[error("`{text}` is not an image reference: {reason}")]
    InvalidReference {
        /// What was given.
        text: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// A blob is not in the store.
    #[error("content {digest} is not in the store {}", store.display())]
    BlobMissing {
        /// The blob asked for.
        digest: Digest,
        /// The store's directory.
        store: PathBuf,
    },
    /// A blob's bytes do not hash to its name.
    #[error("content {digest} in {} is damaged: its bytes hash to {found}; remove the file and pack or pull again", store.display())]
    BlobDamaged {
        /// The name of the blob.
        digest: Digest,
        /// What its bytes hash to.
        found: Digest,
        /// The store's directory.
        store: PathBuf,
    },
    /// A blob is larger than the reader is ready to hold.
    #[error("content {digest} has {size} bytes, more than the {limit} allowed here")]
    BlobTooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The bound in bytes.
        limit: u64,
    },
    /// An image cannot be tagged because part of it is missing.
    #[error("cannot tag {reference}: its part {missing} is not in the store")]
    Incomplete {
        /// The reference that was to be set.
        reference: Box<Reference>,
        /// The first missing blob.
        missing: Digest,
    },
    /// No image of that name.
    #[error("no image {reference} in the store")]
    Unknown {
        /// The reference asked for.
        reference: Box<Reference>,
    },
    /// A manifest or configuration does not parse or makes no sense.
    #[error("{what} {digest} is invalid: {reason}")]
    InvalidDocument {
        /// "manifest" or "configuration".
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// An archive of images cannot be taken in.
    #[error("the archive is refused: {reason}")]
    Archive {
        /// What is wrong with it.
        reason: String,
    },
    /// The disk is full.
    #[error("no space left on the disk while writing {}; free some and try again", path.display())]
    Full {
        /// The file that was being written.
        path: PathBuf,
    },
    /// A layer entry that must not be unpacked.
    #[error("layer {layer} is refused: entry `{entry}` {reason}")]
    Refused {
        /// The layer's uncompressed digest.
        layer: Digest,
        /// The path as the archive spells it.
        entry: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A layer is larger than what is allowed to be unpacked.
    #[error("layer {layer} is refused: more than {limit} {what}")]
    LayerTooLarge {
        /// The layer's uncompressed digest.
        layer: Digest,
        /// "entries" or "bytes".
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A layer's content does not hash to what the image's configuration says.
    #[error("layer {layer} is damaged: its content hashes to {found}; pull or pack the image again")]
    LayerDamaged {
        /// What the configuration says.
        layer: Digest,
        /// What was found.
        found: Digest,
    },
    /// A layer is no readable archive.
    #[error("cannot read layer {layer}: {source}")]
    LayerUnreadable {
        /// The layer.
        layer: Digest,
        /// Why.
        source: io::Error,
    },
    /// A file handed to a layer builder did not have the promised size.
    #[error("`{}` changed while it was being packed: {expected} bytes expected, {found} found", path.display())]
    Changed {
        /// Path inside the layer.
        path: PathBuf,
        /// The promised size.
        expected: u64,
        /// What there was.
        found: u64,
    },
    /// A path handed to a layer builder cannot stand in a layer.
    #[error("`{}` cannot stand in a layer: {reason}", path.display())]
    InvalidEntry {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The registry does not answer.
    #[error(
        "cannot reach registry {registry}: {reason}; check the network, or name another registry in the image reference"
    )]
    Unreachable {
        /// Its host name.
        registry: String,
        /// What the connection said.
        reason: String,
    },
    /// The registry wants other credentials.
    #[error(
        "registry {registry} refuses access to {repository}: {reason}; run `docker login {registry}` with an account that may use it"
    )]
    Unauthorized {
        /// Its host name.
        registry: String,
        /// The repository asked for.
        repository: String,
        /// What the registry said.
        reason: String,
    },
    /// The registry has no such image.
    #[error("registry {} has no image {reference}; check its name and tag", reference.registry())]
    NotFound {
        /// The reference asked for.
        reference: Box<Reference>,
    },
    /// The registry has the image, but not for this machine.
    #[error("{reference} exists, but not for {platform}")]
    NoPlatform {
        /// The reference asked for.
        reference: Box<Reference>,
        /// For example `linux/amd64`.
        platform: String,
    },
    /// The registry asks to come back later.
    #[error(
        "registry {registry} limits the rate of requests: {reason}; wait, or log in with `docker login {registry}`"
    )]
    RateLimited {
        /// Its host name.
        registry: String,
        /// What it said.
        reason: String,
    },
    /// The registry answered something else than what was asked.
    #[error("registry {registry} failed: {reason}")]
    Registry {
        /// Its host name.
        registry: String,
        /// What it said.
        reason: String,
    },
    /// The Docker client's configuration or one of its helpers cannot be used.
    #[error("cannot read registry credentials from {}: {reason}", path.display())]
    Credentials {
        /// The file or program.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Any other failure of the file system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// An input/output failure, told apart from a full disk.
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path: path.to_owned() },
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }
}
