//! Who we are to a registry: given, or what `docker login` left in the Docker client's configuration, also through its
//! credential helpers. Secrets are never logged or shown.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use crate::{Error, Result};

/// The name under which the Docker client files its own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Who we are to a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// What `docker login` left in `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`; anonymous if nothing.
    #[default]
    Docker,
    /// What stands in this file of the same form.
    File(PathBuf),
    /// Nobody.
    Anonymous,
    /// A name and a password or token.
    Basic {
        /// Account name.
        username: String,
        /// Password or access token.
        password: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Docker => f.write_str("Docker"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => f.debug_struct("Basic").field("username", username).finish_non_exhaustive(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// Name and password, joined by a colon, in base64.
    auth: String,
    username: String,
    password: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

impl Credentials {
    /// The name and the password, where these are what it is.
    pub fn basic(&self) -> Option<(&str, &str)> {
        match self {
            Self::Basic { username, password } => Some((username, password)),
            _ => None,
        }
    }

    /// What to say to this registry.
    pub(super) fn resolve(&self, registry: &str) -> Result<RegistryAuth> {
        match self {
            Self::Anonymous => Ok(RegistryAuth::Anonymous),
            Self::Basic { username, password } => Ok(RegistryAuth::Basic(username.clone(), password.clone())),
            Self::File(path) => from_config(path, registry),
            Self::Docker => match default_path() {
                Some(path) => from_config(&path, registry),
                None => Ok(RegistryAuth::Anonymous),
            },
        }
    }
}

fn default_path() -> Option<PathBuf> {
    let folder = match std::env::var_os("DOCKER_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
    };
    Some(folder.join("config.json"))
}

fn from_config(path: &Path, registry: &str) -> Result<RegistryAuth> {
    let failed = |reason: String| Error::Credentials { path: path.to_owned(), reason };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
        Err(e) => return Err(failed(e.to_string())),
    };
    let config: Config = serde_json::from_slice(&bytes).map_err(|e| failed(e.to_string()))?;
    let names = names(registry);
    let helper = names.iter().find_map(|name| config.cred_helpers.get(name)).or(config.creds_store.as_ref());
    if let Some(helper) = helper {
        return names.iter().find_map(|name| ask(helper, name).transpose()).unwrap_or(Ok(RegistryAuth::Anonymous));
    }
    let Some(entry) = names.iter().find_map(|name| config.auths.get(name)) else { return Ok(RegistryAuth::Anonymous) };
    if entry.auth.is_empty() {
        let has_name = !entry.username.is_empty();
        let given = RegistryAuth::Basic(entry.username.clone(), entry.password.clone());
        return Ok(if has_name { given } else { RegistryAuth::Anonymous });
    }
    let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((username, password)) => {
            Ok(RegistryAuth::Basic(username.to_owned(), password.trim_end_matches('\0').to_owned()))
        }
        None => Err(failed(format!("the entry for {registry} is malformed; run `docker login {registry}` again"))),
    }
}

/// The names under which a registry may be filed.
fn names(registry: &str) -> Vec<String> {
    let mut names = vec![registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v1/")];
    if registry == "docker.io" {
        names.insert(0, DOCKER_HUB.to_owned());
        names.push("index.docker.io".to_owned());
    }
    names
}

/// Asks a credential helper, a program that reads the registry's name and answers in JSON; None if it knows nothing.
fn ask(helper: &str, name: &str) -> Result<Option<RegistryAuth>> {
    let program = format!("docker-credential-{helper}");
    let failed = |reason: String| Error::Credentials { path: PathBuf::from(&program), reason };
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(name.as_bytes())
        .or_else(|e| if e.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(e) })
        .map_err(|e| failed(e.to_string()))?;
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Ok(None);
    }
    let Helped { username, secret } = serde_json::from_slice(&output.stdout).map_err(|e| failed(e.to_string()))?;
    Ok(Some(RegistryAuth::Basic(username, secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(config: &str, registry: &str) -> Result<RegistryAuth> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, config).unwrap();
        Credentials::File(path).resolve(registry)
    }

    #[test]
    fn what_docker_login_left_is_found() {
        let config = format!(
            r#"{{"auths": {{"{DOCKER_HUB}": {{"auth": "{}"}}, "ghcr.io": {{"auth": "{}"}}}}}}"#,
            STANDARD.encode("me:se:cret"),
            STANDARD.encode("you:x"),
        );
        assert!(resolve(&config, "docker.io").unwrap() == RegistryAuth::Basic("me".into(), "se:cret".into()));
        assert!(resolve(&config, "ghcr.io").unwrap() == RegistryAuth::Basic("you".into(), "x".into()));
        assert!(resolve(&config, "quay.io").unwrap() == RegistryAuth::Anonymous);
    }

    #[test]
    fn a_missing_file_is_nobody_and_a_broken_one_is_said() {
        assert!(Credentials::File("/no/such".into()).resolve("a").unwrap() == RegistryAuth::Anonymous);
        assert!(resolve("{", "a").unwrap_err().to_string().contains("config.json"));
        let error = resolve(r#"{"auths": {"a.io": {"auth": "!"}}}"#, "a.io").unwrap_err();
        assert!(error.to_string().contains("docker login a.io"));
        assert!(resolve(r#"{"credsStore": "no-such-helper"}"#, "a.io").is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials::Basic { username: "me".into(), password: "hidden".into() };
        assert!(!format!("{credentials:?}").contains("hidden"));
    }
}
