//! From planned layers to an image in the store. Layers whose files are unchanged are not written again; those that are
//! changed are written side by side.

use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZero;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use serde::{Deserialize, Serialize};
use shipway_oci::{Digest, ImageConfig, Layer, LayerBuilder, Store};

use crate::PackError;
use crate::cache::{Cache, Stamp};
use crate::progress::Meter;
use crate::python::bytecode;
use crate::system;
use crate::tree::{Node, Tree};

/// Files up to this size are read at once, so that one that grows meanwhile (a log) is taken as it is.
const WHOLE: u64 = 4 << 20;
/// Changes when the same files would be written in another way.
const FORMAT: &str = "1";

/// What an image is made of.
pub(crate) struct Plan {
    /// Name and files of each layer, lowest first.
    pub(crate) layers: Vec<(&'static str, Tree)>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) workdir: String,
}

/// A layer that was written before.
#[derive(Clone, Serialize, Deserialize)]
struct Written {
    layer: Layer,
    files: u64,
    bytes: u64,
}

/// Writes what is not in the store yet; gives the image's digest.
pub(crate) fn write(
    store: &Store,
    cache: &Cache,
    plan: &Plan,
    arguments: &[String],
    meter: &Meter<'_>,
) -> Result<Digest, PackError> {
    let mut trees: Vec<(&str, Tree)> = Vec::new();
    for (name, tree) in &plan.layers {
        let mut tree = tree.clone();
        for (_, lower) in &trees {
            tree.without(lower);
        }
        if !tree.is_empty() {
            trees.push((name, tree));
        }
    }
    let layers = write_layers(store, cache, &trees, meter)?;
    let config = ImageConfig {
        env: plan.env.clone(),
        entrypoint: plan.entrypoint.clone(),
        cmd: arguments.to_vec(),
        workdir: plan.workdir.clone(),
        ..ImageConfig::default()
    };
    Ok(shipway_oci::compose(store, &layers, &config)?)
}

fn write_layers(
    store: &Store,
    cache: &Cache,
    trees: &[(&str, Tree)],
    meter: &Meter<'_>,
) -> Result<Vec<Layer>, PackError> {
    let done: Mutex<Vec<Option<Layer>>> = Mutex::new(vec![None; trees.len()]);
    let queue = Mutex::new(trees.iter().enumerate());
    let work = || -> Result<(), PackError> {
        while let Some((index, (name, tree))) = queue.lock().expect("no worker panics with the queue").next() {
            let layer = layer(store, cache, name, tree, meter)?;
            done.lock().expect("no worker panics with the results")[index] = Some(layer);
        }
        Ok(())
    };
    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(trees.len());
    thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|worker| worker.join().expect("writing a layer does not panic"))
    })?;
    let done = done.into_inner().expect("no worker panics with the results");
    Ok(done.into_iter().map(|layer| layer.expect("each layer was written or an error returned")).collect())
}

fn layer(store: &Store, cache: &Cache, name: &str, tree: &Tree, meter: &Meter<'_>) -> Result<Layer, PackError> {
    let question = format!("{FORMAT} {}", tree.fingerprint());
    if let Some(known) = cache.read::<Written>("layers", &question)
        && store.size(&known.layer.digest) == Some(known.layer.size)
        && store.renew(&known.layer.digest)?
    {
        meter.add(known.files, known.bytes);
        return Ok(known.layer);
    }
    meter.step(&format!("writing the {name} layer"));
    let settled = tree.is_settled();
    let mut builder = LayerBuilder::new(store)?;
    // A layer's folder replaces the attributes of the one below.
    for folder in system::OPEN_FOLDERS.map(Path::new) {
        if tree.nodes().keys().any(|path| path.starts_with(folder)) {
            builder.directory(folder, system::OPEN_MODE)?;
        }
    }
    let (mut files, mut bytes) = (0, 0);
    for (path, node) in tree.nodes() {
        let size = add(&mut builder, path, node)?;
        files += u64::from(size.is_some());
        bytes += size.unwrap_or(0);
        meter.add(u64::from(size.is_some()), size.unwrap_or(0));
    }
    let layer = builder.finish()?;
    if settled {
        cache.write("layers", &question, &Written { layer: layer.clone(), files, bytes })?;
    }
    Ok(layer)
}

/// Adds one name; gives the size if it is a file.
fn add(builder: &mut LayerBuilder<'_>, path: &Path, node: &Node) -> Result<Option<u64>, PackError> {
    match node {
        Node::Directory { mode } => builder.directory(path, *mode).map(|()| None).map_err(Into::into),
        Node::Symlink(target) => builder.symlink(path, target).map(|()| None).map_err(Into::into),
        Node::Bytes { content, mode } => {
            builder.file(path, *mode, &mut &content[..], content.len() as u64)?;
            Ok(Some(content.len() as u64))
        }
        Node::Host { source, stamp } => add_file(builder, path, source, stamp).map(Some),
        Node::Bytecode { source, stamp: _, of } => {
            let content = fs::read(source).map_err(|e| PackError::io("read", source, e))?;
            let Some(content) = bytecode::detached(content, of) else { return Ok(None) };
            builder.file(path, 0o644, &mut content.as_slice(), content.len() as u64)?;
            Ok(Some(content.len() as u64))
        }
    }
}

fn add_file(builder: &mut LayerBuilder<'_>, path: &Path, source: &Path, stamp: &Stamp) -> Result<u64, PackError> {
    let mode = if stamp.mode & 0o111 == 0 { 0o644 } else { 0o755 };
    let read = |e: io::Error| PackError::io("read", source, e);
    let mut file = File::open(source).map_err(read)?;
    if stamp.size > WHOLE {
        builder.file(path, mode, &mut file.take(stamp.size), stamp.size)?;
        return Ok(stamp.size);
    }
    let mut content = Vec::with_capacity(usize::try_from(stamp.size).expect("it is small") + 1);
    file.by_ref().take(WHOLE * 2).read_to_end(&mut content).map_err(read)?;
    builder.file(path, mode, &mut content.as_slice(), content.len() as u64)?;
    Ok(content.len() as u64)
}
