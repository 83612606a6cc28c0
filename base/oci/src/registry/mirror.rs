//! Registries that stand in for others: asked first, in their order, and passed over when they have not what is wanted. They
//! are told in a file, `{"mirrors": {"docker.io": ["https://mirror.example.org"]}}`, and never shown the credentials that are
//! for the registry itself.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::{Error, Result};

/// The mirrors of each registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors(BTreeMap<String, Vec<Mirror>>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    /// Host, and port if it is not the usual one.
    pub(super) host: String,
    /// Whether it is spoken to without TLS.
    pub(super) plain: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mirrors: BTreeMap<String, Vec<String>>,
}

impl Mirrors {
    /// Reads the file; there are none where it is not there.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |reason: String| Error::Credentials { path: path.to_owned(), reason };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error.to_string())),
        };
        let file: File = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
        let mirrors = file.mirrors.into_iter().map(|(registry, urls)| {
            let all: Result<Vec<Mirror>> = urls.iter().map(|url| Mirror::parse(url).map_err(failed)).collect();
            Ok((registry, all?))
        });
        Ok(Self(mirrors.collect::<Result<_>>()?))
    }

    pub(super) fn of(&self, registry: &str) -> &[Mirror] {
        self.0.get(registry).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Mirror {
    fn parse(url: &str) -> std::result::Result<Self, String> {
        let (plain, host) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(host), _) => (false, host),
            (_, Some(host)) => (true, host),
            _ => return Err(format!("\"{url}\" must begin with https:// or http://")),
        };
        let host = host.trim_end_matches('/');
        if host.is_empty() || host.contains(['/', '@', '?', ' ']) {
            return Err(format!("\"{url}\" must name a host and nothing else"));
        }
        Ok(Self { host: host.to_owned(), plain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_hosts_told_by_registry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.json");
        assert_eq!(Mirrors::read(&path).unwrap(), Mirrors::default());
        std::fs::write(&path, r#"{"mirrors": {"docker.io": ["https://one.example.org/", "http://localhost:5000"]}}"#)
            .unwrap();
        let mirrors = Mirrors::read(&path).unwrap();
        let hosts: Vec<_> = mirrors.of("docker.io").iter().map(|one| (one.host.as_str(), one.plain)).collect();
        assert_eq!(hosts, [("one.example.org", false), ("localhost:5000", true)]);
        assert!(mirrors.of("quay.io").is_empty());
        for wrong in [r#"{"mirrors": {"a": ["one.example.org"]}}"#, r#"{"mirrors": {"a": ["https://x/y"]}}"#, "{}", "["]
        {
            std::fs::write(&path, wrong).unwrap();
            assert!(Mirrors::read(&path).is_err(), "{wrong} was taken");
        }
    }
}
