//! Image references in the form that people type them, normalised the way the Docker client does: `busybox` means
//! `docker.io/library/busybox:latest`. A reference is text only; it promises nothing about what exists.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error};

/// The registry that a name without one belongs to.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The folder on it for names without one.
const OFFICIAL: &str = "library/";
/// Bound on registry and repository together, as the distribution specification has it.
const NAME_LIMIT: usize = 255;
/// Bound on a tag.
const TAG_LIMIT: usize = 128;

/// A normalised image reference: registry, repository, and a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and port of the registry, for example `docker.io` or `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path within the registry, for example `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if neither a tag nor a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that pins the content, if given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same repository at exactly this content.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The short form that people type: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(rest) => rest.strip_prefix(OFFICIAL).filter(|name| !name.contains('/')).unwrap_or(rest).to_owned(),
            None => full,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|reason| Error::InvalidReference { text: text.to_owned(), reason })
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| "what follows `@` is not a sha256 digest")?)),
        None => (text, None),
    };
    let (name, tag) = split_tag(rest);
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    if digest.is_none() && tag.is_none() && Digest::from_hex(name).is_ok() {
        return Err("64 hex digits are an identifier, not a name; write `name@sha256:...`");
    }
    let (registry, path) = split_registry(name);
    check_registry(registry)?;
    for component in path.split('/') {
        check_component(component)?;
    }
    let official = registry == DEFAULT_REGISTRY && !path.contains('/');
    let repository = if official { format!("{OFFICIAL}{path}") } else { path.to_owned() };
    if registry.len() + 1 + repository.len() > NAME_LIMIT {
        return Err("the name is longer than 255 characters");
    }
    let tag = tag.or_else(|| digest.is_none().then_some("latest")).map(str::to_owned);
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// The tag is what follows the last colon, unless that colon belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// The first component is a registry if it could not be a folder: it has a dot, a port, an upper-case letter, or is
/// `localhost`.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            (if first == "index.docker.io" { DEFAULT_REGISTRY } else { first }, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or("the registry's `[` is not closed")?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| "the registry is not an IPv6 address")?;
            ("", if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or("the port is not a number")?) })
        }
        None => registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port))),
    };
    if port.is_some_and(|port| port.is_empty() || port.parse::<u16>().is_err() || port.starts_with('+')) {
        return Err("the registry's port is not a number");
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !registry.starts_with('[') && !host.split('.').all(label) {
        return Err("the registry is not a host name");
    }
    Ok(())
}

/// Lower-case letters and digits, joined by one dot, one or two underscores, or any number of dashes.
fn check_component(component: &str) -> Result<(), &'static str> {
    if component.is_empty() {
        return Err("a part of the name is empty");
    }
    if component.contains(|c: char| c.is_ascii_uppercase()) {
        return Err("the name must be lower case");
    }
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.iter().all(|&b| word(b) || matches!(b, b'.' | b'_' | b'-')) {
        return Err("the name may hold lower-case letters, digits, `.`, `_`, `-` and `/` only");
    }
    if !word(bytes[0]) || !word(bytes[bytes.len() - 1]) {
        return Err("each part of the name begins and ends with a letter or digit");
    }
    let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|s| !s.is_empty());
    for separator in separators {
        if !matches!(separator, "." | "_" | "__") && separator.bytes().any(|b| b != b'-') {
            return Err("separators in the name are one `.`, one or two `_`, or dashes");
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match tag.as_bytes() {
        [] => Err("the tag is empty"),
        bytes if bytes.len() > TAG_LIMIT => Err("the tag is longer than 128 characters"),
        bytes if !word(bytes[0]) || !bytes.iter().all(|&b| word(b) || matches!(b, b'.' | b'-')) => {
            Err("the tag may hold letters, digits, `_`, `.` and `-` only, and not begin with `.` or `-`")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn short_names_mean_what_the_docker_client_says() {
        assert_eq!(full("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(full("user/app:v1"), "docker.io/user/app:v1");
        assert_eq!(full("localhost/app"), "localhost/app:latest");
        assert_eq!(full("localhost:5000/a/b:x"), "localhost:5000/a/b:x");
        assert_eq!(full("index.docker.io/library/busybox"), "docker.io/library/busybox:latest");
        assert_eq!(full("docker.io/busybox"), "docker.io/library/busybox:latest");
        assert_eq!(full("ghcr.io/a__b/c--d.e"), "ghcr.io/a__b/c--d.e:latest");
        assert_eq!(full("[::1]:5000/app"), "[::1]:5000/app:latest");
    }

    #[test]
    fn a_digest_pins_and_needs_no_tag() {
        let digest = Digest::of(b"x");
        assert_eq!(full(&format!("busybox@{digest}")), format!("docker.io/library/busybox@{digest}"));
        assert_eq!(full(&format!("busybox:1@{digest}")), format!("docker.io/library/busybox:1@{digest}"));
    }

    #[test]
    fn familiar_names_are_short() {
        for (text, short) in
            [("busybox", "busybox:latest"), ("docker.io/u/a:1", "u/a:1"), ("ghcr.io/a", "ghcr.io/a:latest")]
        {
            assert_eq!(text.parse::<Reference>().unwrap().familiar(), short);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let hex = Digest::of(b"x").hex();
        let cases = [
            ("", "empty"),
            ("Busybox", "lower case"),
            ("a//b", "empty"),
            ("a/../b", "begins and ends"),
            ("a:b:c", "only"),
            ("a:", "tag is empty"),
            ("a@sha256:12", "not a sha256"),
            ("-a", "begins"),
            ("a..b", "separators"),
            ("a___b", "separators"),
            (hex.as_str(), "identifier"),
            ("host:port/a", "port"),
            ("ba d", "only"),
        ];
        for (text, reason) in cases {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent(text in "([a-z]{1,6}(\\.[a-z]{2,3})?(:[0-9]{1,4})?/)?[a-z0-9]{1,8}(/[a-z0-9_.-]{1,8})?(:[a-zA-Z0-9_.-]{1,8})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                let again: Reference = reference.to_string().parse().unwrap();
                prop_assert_eq!(&again, &reference);
                let familiar: Reference = reference.familiar().parse().unwrap();
                prop_assert_eq!(familiar, reference);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert!(reference.to_string().parse::<Reference>().is_ok());
            }
        }
    }
}
