//! The definitions that the build embeds, compressed: inflated to build the tree, or when somebody asks for a document.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use flate2::read::DeflateDecoder;
use serde_json::Value;

use crate::registry::Definitions;

static SHAPES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shapes.z"));
static DEFINITIONS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/definitions.z"));

/// Changes whenever a definition, a row or the writing of documents does.
pub(crate) const FINGERPRINT: &str = include_str!(concat!(env!("OUT_DIR"), "/definitions.hash"));

fn inflate(bytes: &[u8]) -> String {
    let mut text = String::new();
    DeflateDecoder::new(bytes).read_to_string(&mut text).expect("the build wrote this");
    text
}

/// The definitions without prose.
pub(crate) fn shapes() -> Definitions {
    match serde_json::from_str(&inflate(SHAPES)) {
        Ok(Value::Object(shapes)) => shapes,
        _ => unreachable!("the build wrote an object"),
    }
}

/// The definitions with prose, as JSON text.
pub(crate) struct Prose {
    text: String,
}

impl Prose {
    /// Inflates them; about a megabyte that lives as long as the value.
    pub(crate) fn load() -> Self {
        Self { text: inflate(DEFINITIONS) }
    }

    /// The named definitions and everything they refer to, in order of name.
    pub(crate) fn closure<'a>(&'a self, roots: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, &'a str> {
        let lines: BTreeMap<&str, (&str, &str)> = self.text.lines().filter_map(split).collect();
        let mut open: Vec<&str> = roots.into_iter().collect();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut found = BTreeMap::new();
        while let Some(name) = open.pop() {
            if let Some((references, json)) = lines.get(name).filter(|_| seen.insert(name)) {
                open.extend(references.split(',').filter(|name| !name.is_empty()));
                found.insert(name, *json);
            }
        }
        found
    }
}

fn split(line: &str) -> Option<(&str, (&str, &str))> {
    let (name, rest) = line.split_once('\t')?;
    Some((name, rest.split_once('\t')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closure_holds_all_it_refers_to_and_nothing_else() {
        let prose = Prose::load();
        let found = prose.closure(["io.k8s.api.coordination.v1.Lease"]);
        assert!(found.contains_key("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));
        assert!(found.contains_key("io.k8s.api.coordination.v1.LeaseSpec"));
        assert!(!found.contains_key("io.k8s.api.core.v1.PodSpec"));
        for json in found.values() {
            serde_json::from_str::<Value>(json).expect("a definition is JSON");
        }
    }
}
