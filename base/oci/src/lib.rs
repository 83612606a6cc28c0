//! OCI images on one machine: digests and references, a content store that several processes share, reproducible
//! layers, their safe unpacking for overlayfs, and registries.
//!
//! Promises: what a reference names is on disk and whole; the same input gives the same digest; no entry of a layer is
//! ever written outside its directory. Knows nothing of Kubernetes, containers or programs.

mod archive;
mod collect;
mod digest;
mod error;
mod image;
mod layer;
mod reference;
mod registry;
mod source;
mod store;
mod tags;
mod unpack;

pub use archive::{Loaded, load};
pub use collect::{Collected, GRACE, Hold};
pub use digest::Digest;
pub use error::{Error, Result};
pub use image::{Image, ImageConfig, compose};
pub use layer::{Compression, Layer, LayerBuilder};
pub use reference::Reference;
pub use registry::{Credentials, Mirrors, pull, pull_through, push};
pub use store::{BlobWriter, Store};
pub use tags::Tagged;
pub use unpack::{Layers, Limits};
