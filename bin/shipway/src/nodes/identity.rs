//! What a node is known by: the cluster's authority, the node's certificate and its key, in files of its own folder.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use shipway_apiserver::pki::{KeyPairPem, node_server_config};

/// The authority's certificate.
const AUTHORITY: &str = "ca.crt";
/// The node's own certificate and its key, in one file, so that they always fit each other.
const OWN: &str = "node.pem";
const KEY: &str = "-----BEGIN PRIVATE KEY-----";

/// Both of them.
pub(crate) struct Credentials {
    pub(crate) ca: String,
    pub(crate) pair: KeyPairPem,
}

/// Writes what a node is known by, replacing what was there.
pub(crate) fn write(folder: &Path, ca: &str, pair: &KeyPairPem) -> Result<()> {
    let own = format!("{}\n{}", pair.certificate.trim_end(), pair.key);
    for (name, text) in [(AUTHORITY, ca), (OWN, own.as_str())] {
        let (path, fresh) = (folder.join(name), folder.join(format!("{name}.new")));
        let file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh);
        let mut file = file.with_context(|| format!("cannot write {}", fresh.display()))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The certificates of a text in PEM form, as they are in themselves.
pub(crate) fn certificates(pem: &str) -> Result<Vec<Vec<u8>>> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes()).map(|one| Ok(one?.as_ref().to_vec()));
    all.collect::<Result<_>>().context("the authority's certificate cannot be read")
}

impl Credentials {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (ca, own) = (read(AUTHORITY)?, read(OWN)?);
        let at = own.find(KEY).with_context(|| format!("{} holds no key", folder.join(OWN).display()))?;
        let (certificate, key) = own.split_at(at);
        Ok(Self { ca, pair: KeyPairPem { certificate: certificate.to_owned(), key: key.to_owned() } })
    }

    /// A client of the API at that place.
    pub(crate) async fn client(&self, server: &str) -> Result<kube::Client> {
        let mut config = kube::Config::from_custom_kubeconfig(self.kubeconfig(server)?, &KubeConfigOptions::default())
            .await
            .context("the node's credentials cannot be used")?;
        // Whoever was cut off does not hear that its connections have ended.
        config.connect_timeout = Some(super::process::KNOCK);
        config.read_timeout = Some(super::process::SILENCE);
        Ok(kube::Client::try_from(config)?)
    }

    fn kubeconfig(&self, server: &str) -> Result<Kubeconfig> {
        let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
        let cluster = json!({"server": server, "certificate-authority-data": encode(&self.ca)});
        let user = json!({
            "client-certificate-data": encode(&self.pair.certificate),
            "client-key-data": encode(&self.pair.key),
        });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "node",
            "clusters": [{"name": "node", "cluster": cluster}],
            "users": [{"name": "node", "user": user}],
            "contexts": [{"name": "node", "context": {"cluster": "node", "user": "node"}}],
        });
        Ok(serde_json::from_value(config)?)
    }

    /// TLS for the door at which the API server asks the node.
    pub(crate) fn door(&self) -> Result<Arc<rustls::ServerConfig>> {
        Ok(node_server_config(&self.ca, &self.pair)?)
    }
}
