//! Images to and from registries. Content is hashed while it arrives and referenced only when whole; what is here or
//! there already is not sent again. Registries on this machine (localhost) are spoken to without TLS.

mod credentials;
mod failure;
mod mirror;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use oci_client::client::{BlobResponse, Client, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference as Remote, RegistryOperation};
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, MediaType};
use tokio_util::io::ReaderStream;

pub use credentials::Credentials;
pub use mirror::Mirrors;

use crate::image::{DOCUMENT_LIMIT, choose, descriptor_digest, parse};
use crate::store::BlobWriter;
use crate::{Digest, Error, Image, Reference, Result, Store};
use failure::Failure;
use mirror::Mirror;

/// How many blobs travel at once.
const PARALLEL: usize = 3;
/// How long a connection may take, and how long an open one may be silent.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_mins(1);
/// How often a blob that stopped on its way is asked for again, and the first pause before that; each next one is as long again.
const RETRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);
/// Media types of manifests and indices that are understood.
const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Sends the image that `reference` names in the store to the registry and repository that it names there. Without
/// credentials, with what `docker login` left.
pub async fn push(store: &Store, reference: &Reference, credentials: Option<&Credentials>) -> Result<()> {
    let digest = store.resolve(reference)?.ok_or_else(|| Error::Unknown { reference: reference.clone().into() })?;
    let image = Image::load(store, &digest)?;
    let session = Session::open(reference, credentials, RegistryOperation::Push).await?;
    let blobs = std::iter::once(image.manifest.config()).chain(image.manifest.layers());
    futures::stream::iter(blobs.map(|blob| session.send(store, blob)))
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    let bytes = store.read_blob(&digest, DOCUMENT_LIMIT)?;
    let media_type = image.manifest.media_type().as_ref().unwrap_or(&MediaType::ImageManifest).to_string();
    let media_type = media_type.parse().map_err(|_| session.failed("the manifest's media type is malformed"))?;
    session.client.push_manifest_raw(&session.remote, bytes, media_type).await.map_err(|e| session.explain(&e))?;
    Ok(())
}

/// Fetches an image for this machine's platform, names it `reference` in the store and gives its digest. Without
/// credentials, with what `docker login` left.
pub async fn pull(store: &Store, reference: &Reference, credentials: Option<&Credentials>) -> Result<Digest> {
    pull_through(store, reference, credentials, &Mirrors::default()).await
}

/// The same, where a mirror of the registry has it, from that.
pub async fn pull_through(
    store: &Store,
    reference: &Reference,
    credentials: Option<&Credentials>,
    mirrors: &Mirrors,
) -> Result<Digest> {
    let _hold = store.hold()?;
    for mirror in mirrors.of(reference.registry()) {
        let tried = async { Session::at(mirror, reference).await?.pull(store).await };
        match tried.await {
            Ok(digest) => return Ok(digest),
            Err(error) => tracing::info!(mirror = mirror.host, %error, "the mirror has not what is wanted"),
        }
    }
    Session::open(reference, credentials, RegistryOperation::Pull).await?.pull(store).await
}

/// A blob as far as it has come.
struct Arriving {
    writer: BlobWriter,
    size: u64,
}

/// Why a blob did not come whole.
enum Stopped {
    /// On its way: the rest may be asked for.
    Interrupted(Error),
    Refused(Error),
}

/// One conversation with one registry about one repository.
struct Session {
    client: Client,
    remote: Remote,
    reference: Reference,
    auth: RegistryAuth,
}

impl Session {
    async fn open(
        reference: &Reference,
        credentials: Option<&Credentials>,
        operation: RegistryOperation,
    ) -> Result<Self> {
        let auth = credentials.unwrap_or(&Credentials::Docker).resolve(reference.registry())?;
        let remote = remote(reference.registry(), reference);
        let plain = is_local(remote.resolve_registry());
        Self::begin(reference, remote, plain, auth, operation).await
    }

    /// A conversation with a mirror of the reference's registry.
    async fn at(mirror: &Mirror, reference: &Reference) -> Result<Self> {
        let auth = Credentials::Docker.resolve(&mirror.host)?;
        let remote = remote(&mirror.host, reference);
        Self::begin(reference, remote, mirror.plain, auth, RegistryOperation::Pull).await
    }

    async fn begin(
        reference: &Reference,
        remote: Remote,
        plain: bool,
        auth: RegistryAuth,
        operation: RegistryOperation,
    ) -> Result<Self> {
        let session = Self { client: client(&remote, plain)?, remote, reference: reference.clone(), auth };
        session.client.auth(&session.remote, &session.auth, operation).await.map_err(|e| session.explain(&e))?;
        Ok(session)
    }

    /// Fetches all of the image and names it.
    async fn pull(&self, store: &Store) -> Result<Digest> {
        let digest = self.manifest(store).await?;
        let manifest: ImageManifest = parse("manifest", &digest, &store.read_blob(&digest, DOCUMENT_LIMIT)?)?;
        let blobs = std::iter::once(manifest.config()).chain(manifest.layers());
        futures::stream::iter(blobs.map(|blob| self.fetch(store, blob)))
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        store.tag(&self.reference, &digest)?;
        Ok(digest)
    }

    fn explain(&self, error: &OciDistributionError) -> Error {
        Failure::of(error).about(&self.reference)
    }

    fn failed(&self, reason: &str) -> Error {
        Error::Registry { registry: self.reference.registry().to_owned(), reason: reason.to_owned() }
    }

    async fn send(&self, store: &Store, blob: &Descriptor) -> Result<()> {
        let digest = descriptor_digest(blob)?;
        let text = digest.to_string();
        if self.client.blob_exists(&self.remote, &text).await.map_err(|e| self.explain(&e))? {
            return Ok(());
        }
        let stream = read(store, &digest)?;
        self.client
            .push_blob_stream(&self.remote, stream, &text, Some(blob.size()))
            .await
            .map_err(|e| self.explain(&e))?;
        Ok(())
    }

    /// Stores the manifest for this platform and gives its digest.
    async fn manifest(&self, store: &Store) -> Result<Digest> {
        let (bytes, digest) = self.raw_manifest(&self.remote).await?;
        let named: MaybeIndex = parse("manifest", &digest, &bytes)?;
        if named.manifests.is_none() {
            return store.put(&bytes);
        }
        let index: ImageIndex = parse("manifest", &digest, &bytes)?;
        let wanted = choose(&index).ok_or_else(|| Error::NoPlatform {
            reference: self.reference.clone().into(),
            platform: format!("linux/{}", Arch::default()),
        })?;
        let wanted = descriptor_digest(wanted)?;
        let (bytes, found) = self.raw_manifest(&self.remote.clone_with_digest(wanted.to_string())).await?;
        if found != wanted {
            return Err(Error::BlobDamaged { digest: wanted, found, store: store.path().to_owned() });
        }
        store.put(&bytes)
    }

    async fn raw_manifest(&self, remote: &Remote) -> Result<(bytes::Bytes, Digest)> {
        let (bytes, _) =
            self.client.pull_manifest_raw(remote, &self.auth, &ACCEPTED).await.map_err(|e| self.explain(&e))?;
        if bytes.len() as u64 > DOCUMENT_LIMIT {
            return Err(self.failed("the manifest is too large"));
        }
        let digest = Digest::of(&bytes);
        match remote.digest() {
            Some(wanted) if wanted != digest.to_string() => {
                Err(self.failed("the manifest does not hash to its digest"))
            }
            _ => Ok((bytes, digest)),
        }
    }

    async fn fetch(&self, store: &Store, blob: &Descriptor) -> Result<()> {
        let digest = descriptor_digest(blob)?;
        if store.size(&digest) == Some(blob.size()) && store.renew(&digest)? {
            return Ok(());
        }
        let mut arriving = Arriving { writer: store.writer()?, size: 0 };
        let mut tried = 0;
        while let Err(stopped) = self.receive(&digest, blob.size(), &mut arriving).await {
            match stopped {
                // All of it came, but it is not what it should be: that is told below.
                Stopped::Interrupted(_) if arriving.size == blob.size() => break,
                Stopped::Interrupted(error) if tried < RETRIES => {
                    tried += 1;
                    tracing::info!(%digest, at = arriving.size, %error, "a blob stopped on its way, asking for the rest");
                    tokio::time::sleep(PAUSE * tried).await;
                }
                Stopped::Interrupted(error) | Stopped::Refused(error) => return Err(error),
            }
        }
        let Arriving { writer, .. } = arriving;
        let path = store.path().to_owned();
        let (found, _) = tokio::task::spawn_blocking(move || writer.finish())
            .await
            .map_err(|e| Error::io("write", &path, std::io::Error::other(e)))??;
        if found == digest { Ok(()) } else { Err(Error::BlobDamaged { digest, found, store: path }) }
    }
}

impl Session {
    /// Takes what of a blob is still missing.
    async fn receive(&self, digest: &Digest, whole: u64, into: &mut Arriving) -> Result<(), Stopped> {
        let text = digest.to_string();
        let refused = |error: &OciDistributionError| Stopped::Refused(self.explain(error));
        let interrupted = |error: &OciDistributionError| Stopped::Interrupted(self.explain(error));
        let mut known = 0;
        let mut stream = if into.size == 0 {
            self.client.pull_blob_stream(&self.remote, text.as_str()).await.map_err(|e| refused(&e))?.stream
        } else {
            let rest = self.client.pull_blob_stream_partial(&self.remote, text.as_str(), into.size, None).await;
            match rest.map_err(|e| interrupted(&e))? {
                BlobResponse::Partial(rest) => rest.stream,
                BlobResponse::Full(all) => {
                    known = into.size;
                    all.stream
                }
            }
        };
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|e| Stopped::Interrupted(self.failed(&e.to_string())))?;
            let skipped = usize::try_from(known).unwrap_or(usize::MAX).min(piece.len());
            known -= skipped as u64;
            let piece = &piece[skipped..];
            into.size += piece.len() as u64;
            if into.size > whole {
                return Err(Stopped::Refused(self.failed("a layer is larger than the manifest says")));
            }
            let path = into.writer.path().to_owned();
            // The page cache takes these pieces: at most 16 KB each, from the network.
            into.writer.write_all(piece).map_err(|e| Stopped::Refused(Error::io("write", &path, e)))?;
        }
        if into.size < whole {
            return Err(Stopped::Interrupted(self.failed("a layer is smaller than the manifest says")));
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct MaybeIndex {
    manifests: Option<serde::de::IgnoredAny>,
}

fn read(
    store: &Store,
    digest: &Digest,
) -> Result<impl Stream<Item = Result<bytes::Bytes, OciDistributionError>> + use<>> {
    let file = tokio::fs::File::from_std(store.open_blob(digest)?);
    Ok(ReaderStream::with_capacity(file, 1 << 18).map_err(OciDistributionError::from))
}

/// The image at a registry: its own, or one that stands in for it.
fn remote(registry: &str, reference: &Reference) -> Remote {
    let (registry, repository) = (registry.to_owned(), reference.repository().to_owned());
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => Remote::with_digest(registry, repository, digest.to_string()),
        (None, tag) => Remote::with_tag(registry, repository, tag.unwrap_or("latest").to_owned()),
    }
}

fn client(remote: &Remote, plain: bool) -> Result<Client> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may win this race; then its provider serves as well.
        let installed: Result<(), Arc<_>> = rustls::crypto::ring::default_provider().install_default();
        tracing::debug!(first = installed.is_ok(), "cryptography provider");
    }
    let registry = remote.resolve_registry();
    let protocol = if plain { ClientProtocol::HttpsExcept(vec![registry.to_owned()]) } else { ClientProtocol::Https };
    let config = ClientConfig {
        protocol,
        use_monolithic_push: true,
        connect_timeout: Some(CONNECT),
        read_timeout: Some(SILENCE),
        user_agent: concat!("shipway/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    Client::try_from(config)
        .map_err(|e| Error::Registry { registry: registry.to_owned(), reason: format!("no TLS client: {e}") })
}

/// Whether the registry is on this machine, where no one listens in.
fn is_local(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    };
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
