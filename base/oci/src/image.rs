//! An image: its manifest and configuration, read from the store and composed into it. Composing is reproducible: no
//! clock, no map order, no host name goes into the bytes.

use std::collections::BTreeMap;

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Digest, Error, Layer, Result, Store};

/// Bound on a manifest or a configuration in bytes.
pub(crate) const DOCUMENT_LIMIT: u64 = 4 << 20;
/// The moment that reproducible images say they were made at.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// An image in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Digest of the manifest.
    pub digest: Digest,
    /// What it is made of.
    pub manifest: ImageManifest,
    /// How it wants to run.
    pub config: ImageConfiguration,
}

impl Image {
    /// Reads the image whose manifest has this digest. Layers are not touched.
    pub fn load(store: &Store, digest: &Digest) -> Result<Self> {
        let manifest: ImageManifest = parse("manifest", digest, &store.read_blob(digest, DOCUMENT_LIMIT)?)?;
        let config_digest = descriptor_digest(manifest.config())?;
        let config: ImageConfiguration =
            parse("configuration", &config_digest, &store.read_blob(&config_digest, DOCUMENT_LIMIT)?)?;
        let image = Self { digest: *digest, manifest, config };
        if image.manifest.layers().len() != image.config.rootfs().diff_ids().len() {
            let reason = "the manifest and the configuration name different numbers of layers".to_owned();
            return Err(Error::InvalidDocument { what: "manifest", digest: *digest, reason });
        }
        Ok(image)
    }

    /// Each layer's blob digest and uncompressed digest, lowest first.
    pub fn layers(&self) -> Result<Vec<(Digest, Digest)>> {
        let blobs = self.manifest.layers().iter().map(descriptor_digest);
        let contents = self.config.rootfs().diff_ids().iter().map(|text| text.parse::<Digest>());
        blobs.zip(contents).map(|(blob, content)| Ok((blob?, content?))).collect()
    }

    /// Bytes of manifest, configuration and layers as stored.
    pub fn size(&self) -> u64 {
        self.manifest.config().size() + self.manifest.layers().iter().map(Descriptor::size).sum::<u64>()
    }
}

/// How an image that we make wants to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Environment, in this order.
    pub env: Vec<(String, String)>,
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that a user may replace.
    pub cmd: Vec<String>,
    /// Folder to start in; empty: `/`.
    pub workdir: String,
    /// Ports, for example `8080/tcp`.
    pub exposed: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `user[:group]`; empty: root.
    pub user: String,
}

/// Makes an image of layers that are in the store, lowest first; gives the digest of its manifest. It has no name yet:
/// see [`Store::tag`].
pub fn compose(store: &Store, layers: &[Layer], config: &ImageConfig) -> Result<Digest> {
    let config = serde_json::to_vec(&Configuration::new(layers, config)).expect("strings and numbers are JSON");
    let config_digest = store.put(&config)?;
    manifest(store, layers, &config_digest, config.len() as u64)
}

/// Makes the manifest of these layers and a configuration that is in the store already.
pub(crate) fn manifest(store: &Store, layers: &[Layer], config: &Digest, size: u64) -> Result<Digest> {
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| json!({"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}))
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.as_ref(),
        "config": {"mediaType": MediaType::ImageConfig.as_ref(), "digest": config, "size": size},
        "layers": layers,
    });
    store.put(&serde_json::to_vec(&manifest).expect("strings and numbers are JSON"))
}

/// The image configuration document, with ordered maps so that its bytes are always the same.
#[derive(Serialize)]
struct Configuration<'a> {
    created: &'static str,
    architecture: String,
    os: &'static str,
    config: Run<'a>,
    rootfs: Value,
    history: Vec<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Run<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<&'a str, Value>,
    env: Vec<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    working_dir: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}

impl<'a> Configuration<'a> {
    fn new(layers: &[Layer], config: &'a ImageConfig) -> Self {
        let run = Run {
            user: &config.user,
            exposed_ports: config.exposed.iter().map(|port| (port.as_str(), json!({}))).collect(),
            env: config.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            entrypoint: &config.entrypoint,
            cmd: &config.cmd,
            working_dir: &config.workdir,
            labels: &config.labels,
        };
        Self {
            created: CREATED,
            architecture: Arch::default().to_string(),
            os: "linux",
            config: run,
            rootfs: json!({"type": "layers", "diff_ids": layers.iter().map(|l| l.diff_id).collect::<Vec<_>>()}),
            history: layers.iter().map(|_| json!({"created": CREATED, "created_by": "shipway"})).collect(),
        }
    }
}

/// The manifest, the configuration and the layers of an image, in this order, without looking whether all are here.
pub(crate) fn parts(store: &Store, manifest_digest: &Digest) -> Result<Vec<Digest>> {
    let manifest: ImageManifest =
        parse("manifest", manifest_digest, &store.read_blob(manifest_digest, DOCUMENT_LIMIT)?)?;
    let named = std::iter::once(manifest.config()).chain(manifest.layers()).map(descriptor_digest);
    std::iter::once(Ok(*manifest_digest)).chain(named).collect()
}

/// The digest of a descriptor, which must be a sha256.
pub(crate) fn descriptor_digest(descriptor: &Descriptor) -> Result<Digest> {
    descriptor.digest().to_string().parse()
}

/// The entry of an index that is for this machine's platform.
pub(crate) fn choose(index: &ImageIndex) -> Option<&Descriptor> {
    let fits = |entry: &&Descriptor| {
        entry.platform().as_ref().is_some_and(|p| *p.os() == Os::Linux && *p.architecture() == Arch::default())
    };
    index.manifests().iter().find(fits)
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(what: &'static str, digest: &Digest, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::InvalidDocument { what, digest: *digest, reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LayerBuilder;

    fn config() -> ImageConfig {
        ImageConfig {
            env: vec![("PATH".into(), "/bin".into()), ("A".into(), "b".into())],
            entrypoint: vec!["/init".into()],
            cmd: vec!["x".into()],
            workdir: "/app".into(),
            exposed: vec!["8080/tcp".into()],
            labels: (0..20).map(|n| (format!("label{n}"), n.to_string())).collect(),
            user: String::new(),
        }
    }

    #[test]
    fn what_is_composed_is_loaded_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layer = LayerBuilder::new(&store).unwrap().finish().unwrap();
        let digest = compose(&store, std::slice::from_ref(&layer), &config()).unwrap();
        assert_eq!(digest, compose(&store, std::slice::from_ref(&layer), &config()).unwrap());
        let image = Image::load(&store, &digest).unwrap();
        let run = image.config.config().as_ref().unwrap();
        assert_eq!(run.env().as_ref().unwrap(), &["PATH=/bin", "A=b"]);
        assert_eq!(run.entrypoint().as_ref().unwrap(), &["/init"]);
        assert_eq!(run.working_dir().as_deref(), Some("/app"));
        assert_eq!(run.exposed_ports().as_ref().unwrap(), &["8080/tcp"]);
        assert_eq!(run.labels().as_ref().unwrap().len(), 20);
        assert_eq!(image.layers().unwrap(), [(layer.digest, layer.diff_id)]);
    }

    #[test]
    fn a_blob_that_is_no_manifest_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put(b"{}").unwrap();
        assert!(matches!(Image::load(&store, &digest), Err(Error::InvalidDocument { what: "manifest", .. })));
    }
}
