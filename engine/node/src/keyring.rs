//! The credentials that a pod's `imagePullSecrets` hold, and which of them are for an image
//! (https://kubernetes.io/docs/concepts/containers/images/#config-json): an entry names a registry, its labels may be globs, and
//! a path in it is the beginning of the repository's name. Pure; secrets are never shown.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use shipway_oci::{Credentials, Reference};

/// Entries in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keyring(Vec<(Place, Credentials)>);

/// Where an entry counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// Labels of the host, each perhaps a glob.
    labels: Vec<String>,
    port: Option<String>,
    path: String,
}

#[derive(Deserialize)]
struct Config {
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
}

impl Keyring {
    /// Adds what a secret of one of the two documented types holds; other secrets hold nothing.
    pub(crate) fn add(&mut self, data: &BTreeMap<&str, &[u8]>) -> Result<(), String> {
        let entries = if let Some(bytes) = data.get(".dockerconfigjson") {
            serde_json::from_slice::<Config>(bytes).map(|config| config.auths)
        } else if let Some(bytes) = data.get(".dockercfg") {
            serde_json::from_slice(bytes)
        } else {
            return Ok(());
        };
        // What the parser says of a text may show part of it.
        let entries = entries.map_err(|error| format!("line {}, column {}", error.line(), error.column()))?;
        let usable = entries.into_iter().filter_map(|(key, entry)| Some((Place::parse(&key)?, entry.credentials()?)));
        self.0.extend(usable);
        Ok(())
    }

    /// What to try for an image, the most particular entries first.
    pub(crate) fn credentials(&self, image: &Reference) -> Vec<Credentials> {
        let mut fitting: Vec<&(Place, Credentials)> =
            self.0.iter().filter(|(place, _)| place.holds(image.registry(), image.repository())).collect();
        fitting.sort_by_key(|(place, _)| std::cmp::Reverse(place.path.len()));
        fitting.into_iter().map(|(_, credentials)| credentials.clone()).collect()
    }
}

impl Entry {
    fn credentials(self) -> Option<Credentials> {
        if self.auth.is_empty() {
            let Self { username, password, .. } = self;
            return (!username.is_empty()).then_some(Credentials::Basic { username, password });
        }
        let text = String::from_utf8(STANDARD.decode(self.auth.trim()).ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        let password = password.trim_end_matches('\0').to_owned();
        Some(Credentials::Basic { username: username.to_owned(), password })
    }
}

impl Place {
    fn parse(key: &str) -> Option<Self> {
        let bare = key.split_once("://").map_or(key, |(_, rest)| rest);
        let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
        let path = path.trim_end_matches('/');
        // The versions of the registry's protocol are no part of a repository's name.
        let path = match path.split_once('/').unwrap_or((path, "")) {
            ("v1" | "v2", rest) => rest,
            _ => path,
        };
        let (host, port) = host_and_port(host);
        let labels: Vec<String> = host.split('.').map(str::to_lowercase).collect();
        let named = labels.iter().all(|label| !label.is_empty());
        named.then(|| Self { labels, port: port.map(str::to_owned), path: path.to_owned() })
    }

    fn holds(&self, registry: &str, repository: &str) -> bool {
        let (host, port) = host_and_port(registry);
        let named = |host: &str| {
            let labels: Vec<&str> = host.split('.').collect();
            labels.len() == self.labels.len() && self.labels.iter().zip(labels).all(|(glob, label)| fits(glob, label))
        };
        let host = named(host) || (host == "docker.io" && named("index.docker.io"));
        let below = repository.strip_prefix(self.path.as_str());
        host && port == self.port.as_deref() && below.is_some()
    }
}

fn host_and_port(host: &str) -> (&str, Option<&str>) {
    host.rsplit_once(':').map_or((host, None), |(host, port)| (host, Some(port)))
}

/// Whether a label is what a glob with `*` and `?` means.
fn fits(glob: &str, label: &str) -> bool {
    match (glob.chars().next(), label.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            fits(&glob[1..], label) || label.chars().next().is_some_and(|first| fits(glob, &label[first.len_utf8()..]))
        }
        (Some('?'), Some(first)) => fits(&glob[1..], &label[first.len_utf8()..]),
        (Some(wanted), Some(first)) if wanted == first.to_ascii_lowercase() => {
            fits(&glob[wanted.len_utf8()..], &label[first.len_utf8()..])
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ring(auths: &serde_json::Value) -> Keyring {
        let text = json!({"auths": auths}).to_string();
        let mut ring = Keyring::default();
        ring.add(&BTreeMap::from([(".dockerconfigjson", text.as_bytes())])).expect("a configuration");
        ring
    }

    fn names(ring: &Keyring, image: &str) -> Vec<String> {
        let found = ring.credentials(&image.parse().expect("a reference"));
        let name = |one| match one {
            Credentials::Basic { username, .. } => username,
            other => panic!("{other:?}"),
        };
        found.into_iter().map(name).collect()
    }

    #[test]
    fn an_entry_is_for_a_registry_its_globs_and_paths() {
        let who = |name: &str| json!({"username": name, "password": "p"});
        let ring = ring(&json!({
            "https://index.docker.io/v1/": who("hub"),
            "*.example.com": who("star"),
            "reg.example.com/team": who("team"),
            "host:5000": who("port"),
            "encoded.org": {"auth": STANDARD.encode("coded:p:q")},
        }));
        assert_eq!(names(&ring, "busybox"), ["hub"]);
        assert_eq!(names(&ring, "reg.example.com/team/app:1"), ["team", "star"]);
        assert_eq!(names(&ring, "reg.example.com/other/app"), ["star"]);
        assert_eq!(names(&ring, "a.b.example.com/app"), [""; 0]);
        assert_eq!(names(&ring, "host:5000/app"), ["port"]);
        assert_eq!(names(&ring, "host:5001/app"), [""; 0]);
        assert_eq!(names(&ring, "encoded.org/app"), ["coded"]);
    }

    #[test]
    fn the_old_form_works_and_a_malformed_one_is_told_without_its_text() {
        let mut ring = Keyring::default();
        let text = json!({"old.org": {"username": "old", "password": "p"}}).to_string();
        ring.add(&BTreeMap::from([(".dockercfg", text.as_bytes())])).expect("a configuration");
        assert_eq!(names(&ring, "old.org/app"), ["old"]);
        let error =
            ring.add(&BTreeMap::from([(".dockerconfigjson", &b"{\"auths\": secret"[..])])).expect_err("malformed");
        assert!(!error.contains("secret"), "{error}");
        ring.add(&BTreeMap::from([("token", &b"x"[..])])).expect("another kind of secret");
    }
}
