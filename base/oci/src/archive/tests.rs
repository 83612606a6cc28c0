//! Archives as tools write them, and archives made to mislead: each refused door has a test that knocks.

use std::fs;
use std::io::Write;

use oci_spec::image::Arch;
use serde_json::{Value, json};
use tar::EntryType;

use super::*;

/// An archive written by hand, so that it may hold what no tool would write.
#[derive(Default, Clone)]
struct Forged(Vec<u8>);

impl Forged {
    fn entry(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", content)
    }

    fn json(self, path: &str, content: &Value) -> Self {
        self.file(path, content.to_string().as_bytes())
    }

    fn blob(self, content: &[u8]) -> Self {
        self.file(&format!("blobs/sha256/{}", Digest::of(content).hex()), content)
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("content")).unwrap();
        Self { dir, store }
    }

    fn load(&self, bytes: Vec<u8>) -> Result<Vec<Loaded>> {
        load(&self.store, std::io::Cursor::new(bytes))
    }

    /// The archive is refused for this reason, nothing is named and nothing half-written stays.
    fn refuses(&self, archive: Forged, reason: &str) {
        self.refuses_bytes(archive.bytes(), reason);
    }

    fn refuses_bytes(&self, bytes: Vec<u8>, reason: &str) {
        let error = self.load(bytes).unwrap_err().to_string();
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
        assert_eq!(self.store.list().unwrap(), [], "something was named");
        assert_eq!(fs::read_dir(self.store.ingest()).unwrap().count(), 0, "something half-written stays");
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 1, "something was written beside the store");
    }

    fn names(&self) -> Vec<String> {
        self.store.list().unwrap().into_iter().map(|tagged| tagged.reference.to_string()).collect()
    }
}

fn layer_bytes(text: &str) -> Vec<u8> {
    Forged::default().file("f", text.as_bytes()).bytes()
}

fn config(layers: &[&[u8]]) -> Value {
    let contents: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    json!({
        "architecture": Arch::default().to_string(), "os": "linux",
        "config": { "Cmd": ["/f"] }, "rootfs": { "type": "layers", "diff_ids": contents },
    })
}

fn descriptor(kind: &str, content: &[u8]) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"),
        "digest": Digest::of(content), "size": content.len(),
    })
}

/// The documents of an image of one layer: manifest, configuration, layer.
fn documents(text: &str) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let layer = layer_bytes(text);
    let config = config(&[&layer]).to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config), "layers": [descriptor("layer.v1.tar", &layer)],
    });
    (manifest.to_string().into_bytes(), config, layer)
}

fn index(entries: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries })
}

fn named(mut entry: Value, annotation: &str, name: &str) -> Value {
    entry["annotations"][annotation] = json!(name);
    entry
}

/// An OCI layout of one image whose entry in the index has this name.
fn layout(annotation: &str, name: &str) -> Forged {
    let (manifest, config, layer) = documents("one");
    let entry = named(descriptor("manifest.v1+json", &manifest), annotation, name);
    Forged::default()
        .json("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))
        .blob(&layer)
        .blob(&config)
        .json("index.json", &index(&[entry]))
        .blob(&manifest)
}

fn docker(config: &Value, layers: &[(&str, &[u8])], tags: &Value) -> Forged {
    let paths: Vec<_> = layers.iter().map(|(path, _)| path).collect();
    let list = json!([{ "Config": "config.json", "RepoTags": tags, "Layers": paths }]);
    let with_layers = layers.iter().fold(Forged::default(), |made, (path, content)| made.file(path, content));
    with_layers.json("config.json", config).json("manifest.json", &list)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_layout_is_loaded_under_the_names_that_it_gives() {
    let cases = [
        ("io.containerd.image.name", "docker.io/library/box:stable", "docker.io/library/box:stable"),
        ("org.opencontainers.image.ref.name", "box:1", "docker.io/library/box:1"),
    ];
    for (annotation, name, expected) in cases {
        let bench = Bench::new();
        let loaded = bench.load(layout(annotation, name).bytes()).unwrap();
        assert_eq!(bench.names(), [expected]);
        let (manifest, _, _) = documents("one");
        assert_eq!(loaded[0].digest, Digest::of(&manifest), "the manifest is kept as it was");
    }
}

#[test]
fn a_tag_alone_is_no_name_and_the_image_is_there_by_its_digest() {
    let bench = Bench::new();
    let loaded = bench.load(layout("org.opencontainers.image.ref.name", "latest").bytes()).unwrap();
    assert_eq!((loaded.len(), &loaded[0].references), (1, &Vec::new()));
    Image::load(&bench.store, &loaded[0].digest).unwrap();
    assert_eq!(bench.names(), [""; 0]);
}

#[test]
fn of_several_platforms_this_machines_is_taken_and_attachments_are_passed_over() {
    let bench = Bench::new();
    let (manifest, config, layer) = documents("ours");
    let mut ours = descriptor("manifest.v1+json", &manifest);
    ours["platform"] = json!({ "os": "linux", "architecture": Arch::default().to_string() });
    let mut other = descriptor("manifest.v1+json", b"not here");
    other["platform"] = json!({ "os": "linux", "architecture": "s390x" });
    let mut attached = descriptor("manifest.v1+json", b"not here either");
    attached["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let inner = index(&[other.clone(), attached.clone(), ours]).to_string().into_bytes();
    let entry = named(descriptor("index.v1+json", &inner), "io.containerd.image.name", "a/b:c");
    let archive = Forged::default().blob(&layer).blob(&config).blob(&manifest).blob(&inner);
    bench.load(archive.json("index.json", &index(&[other.clone(), attached, entry])).bytes()).unwrap();
    assert_eq!(bench.names(), ["docker.io/a/b:c"]);
    Bench::new().refuses(Forged::default().json("index.json", &index(&[other])), "no image for linux/");
}

#[test]
fn dockers_own_form_is_loaded_plain_and_compressed_whole_and_by_layer() {
    let layer = layer_bytes("text");
    let packed = gzip(&layer);
    for content in [&layer, &packed] {
        let archive = docker(&config(&[&layer]), &[("a/layer.tar", content)], &json!(["box:1", "r.example/box:2"]));
        for bytes in [archive.clone().bytes(), gzip(&archive.clone().bytes()), zstd_pack(&archive.bytes())] {
            let bench = Bench::new();
            let loaded = bench.load(bytes).unwrap();
            assert_eq!(bench.names(), ["docker.io/library/box:1", "r.example/box:2"]);
            let image = Image::load(&bench.store, &loaded[0].digest).unwrap();
            let layers = crate::Layers::open(&bench.dir.path().join("layers")).unwrap();
            let root = &layers.ensure(&bench.store, &image).unwrap()[0];
            assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "text");
        }
    }
}

fn zstd_pack(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[test]
fn layers_that_are_links_to_others_are_followed_within_the_archive_only() {
    let layer = layer_bytes("shared");
    let list = json!([{ "Config": "c.json", "RepoTags": ["box:1"], "Layers": ["b/layer.tar"] }]);
    let archive = |target: &str| {
        Forged::default()
            .file("a/layer.tar", &layer)
            .entry(EntryType::Symlink, "b/layer.tar", target, b"")
            .json("c.json", &config(&[&layer]))
            .json("manifest.json", &list)
            .bytes()
    };
    let bench = Bench::new();
    bench.load(archive("../a/layer.tar")).unwrap();
    assert_eq!(bench.names(), ["docker.io/library/box:1"]);
    let bench = Bench::new();
    bench.refuses_bytes(archive("../../../../etc/passwd"), "leads out of it");
    bench.refuses_bytes(archive("/etc/passwd"), "which is not in it");
    bench.refuses_bytes(archive("layer.tar"), "which is not in it");
}

#[test]
fn what_is_damaged_missing_or_of_another_size_is_refused() {
    let bench = Bench::new();
    let (manifest, config_bytes, layer) = documents("one");
    let entry = named(descriptor("manifest.v1+json", &manifest), "io.containerd.image.name", "box:1");
    let without_layer = Forged::default().blob(&config_bytes).blob(&manifest).json("index.json", &index(&[entry]));
    bench.refuses(without_layer, "is not in it");
    let path = format!("blobs/sha256/{}", Digest::of(&layer).hex());
    bench.refuses(Forged::default().file(&path, b"something else"), "is damaged");
    let mut lying: Value = serde_json::from_slice(&manifest).unwrap();
    lying["layers"][0]["size"] = json!(u64::MAX);
    let lying = lying.to_string().into_bytes();
    let entry = named(descriptor("manifest.v1+json", &lying), "io.containerd.image.name", "box:1");
    let archive = Forged::default().blob(&layer).blob(&config_bytes).blob(&lying);
    bench.refuses(archive.json("index.json", &index(&[entry])), "its manifest says");
    let other = layer_bytes("other");
    bench.refuses(docker(&config(&[&layer]), &[("l.tar", &other)], &json!(["box:1"])), "is damaged");
    bench.refuses(docker(&config(&[&layer, &other]), &[("l.tar", &layer)], &json!(["box:1"])), "lists 1 layers");
}

#[test]
fn what_is_no_archive_of_images_is_refused() {
    let bench = Bench::new();
    bench.refuses(Forged::default(), "neither index.json nor manifest.json");
    bench.refuses(Forged::default().file("manifest.json", b"{"), "invalid");
    bench.refuses(Forged::default().file("index.json", b"[]"), "invalid");
    bench.refuses_bytes(b"no archive, just text, ".repeat(100), "not a readable tar archive");
    bench.refuses_bytes(vec![0x1f, 0x8b, 0, 0], "not a readable tar archive");
    let whole = layout("io.containerd.image.name", "box:1").bytes();
    for length in [100, 700, 1300, 2000] {
        assert!(bench.load(whole[..length].to_vec()).is_err(), "{length} bytes of an archive were taken");
    }
}

#[test]
fn members_that_no_tool_writes_are_refused() {
    let bench = Bench::new();
    let made = Forged::default;
    bench.refuses(made().entry(EntryType::Fifo, "pipe", "", b""), "neither a file");
    bench.refuses(made().entry(EntryType::Char, "null", "", b""), "neither a file");
    bench.refuses(made().file("a", b"1").file("./a", b"2"), "stands twice");
    bench.refuses(made().file("../../evil", b"1"), "no usable name");
    bench.refuses(made().entry(EntryType::GNUSparse, "holes", "", b""), "");
}

#[test]
fn names_that_are_none_are_refused() {
    let bench = Bench::new();
    let layer = layer_bytes("x");
    let digest = Digest::of(b"x");
    let tags = ["", "UPPER:1", "a:b:c", "../evil:1", &format!("box@{digest}")];
    for tag in tags {
        let archive = docker(&config(&[&layer]), &[("l.tar", &layer)], &json!([tag]));
        bench.refuses(archive, if tag.contains('@') { "no digest" } else { "not an image reference" });
    }
}

#[test]
fn an_archive_beyond_the_bounds_is_refused() {
    let bench = Bench::new();
    let within = |bytes: Vec<u8>, limits| load_within(&bench.store, std::io::Cursor::new(bytes), limits);
    let many = (0..20).fold(Forged::default(), |made, n| made.file(&format!("f{n}"), b"x")).bytes();
    let error = within(many, Limits { entries: 10, bytes: 1 << 20 }).unwrap_err().to_string();
    assert!(error.contains("more than 10 members"), "{error}");
    let bomb = gzip(&Forged::default().file("zeros", &vec![0; 4 << 20]).bytes());
    assert!(bomb.len() < 100_000);
    let error = within(bomb, Limits { entries: 10, bytes: 1 << 20 }).unwrap_err().to_string();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
    let deep = (0..6).fold((b"end".to_vec(), Forged::default()), |(inner, made), _| {
        let outer = index(&[descriptor("index.v1+json", &inner)]).to_string().into_bytes();
        (outer.clone(), made.blob(&outer))
    });
    bench.refuses(deep.1.json("index.json", &serde_json::from_slice(&deep.0).unwrap()), "deep in others");
}

#[test]
fn nothing_is_named_unless_every_image_is_whole() {
    let bench = Bench::new();
    let layer = layer_bytes("x");
    let list = json!([
        { "Config": "c.json", "RepoTags": ["good:1"], "Layers": ["l.tar"] },
        { "Config": "c.json", "RepoTags": ["bad:1"], "Layers": ["gone.tar"] },
    ]);
    let archive = Forged::default().file("l.tar", &layer).json("c.json", &config(&[&layer]));
    bench.refuses(archive.json("manifest.json", &list), "`gone.tar`, which is not in it");
}
