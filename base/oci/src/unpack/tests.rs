//! Layers as they should be, and layers made to break out: each refused door has a test that knocks.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::time::Duration;

use tar::EntryType;

use super::*;
use crate::{ImageConfig, Layer, LayerBuilder, compose};

/// An archive written by hand, so that it may hold what no builder would write.
#[derive(Default)]
struct Forged(Vec<u8>);

impl Forged {
    fn entry(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o640 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", content)
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
    layers: Layers,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("content")).unwrap();
        let layers = Layers::open(&dir.path().join("layers")).unwrap();
        Self { dir, store, layers }
    }

    fn image(&self, blob: &[u8], content: &[u8]) -> Image {
        let layer = Layer {
            digest: self.store.put(blob).unwrap(),
            diff_id: Digest::of(content),
            size: blob.len() as u64,
            media_type: "application/vnd.oci.image.layer.v1.tar".into(),
        };
        Image::load(&self.store, &compose(&self.store, &[layer], &ImageConfig::default()).unwrap()).unwrap()
    }

    fn unpack(&self, forged: Forged) -> Result<PathBuf> {
        let bytes = forged.bytes();
        let image = self.image(&bytes, &bytes);
        self.layers.ensure(&self.store, &image).map(|mut dirs| dirs.remove(0))
    }

    /// The layer is refused for this reason, nothing of it is left, and nothing outside was touched.
    fn refuses(&self, forged: Forged, reason: &str) {
        let error = self.unpack(forged).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        let left: Vec<_> = fs::read_dir(&self.layers.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name.to_string_lossy().starts_with(".lock-")), "{left:?}");
        assert!(!self.dir.path().join("layers/evil").exists() && !self.dir.path().join("evil").exists());
    }
}

#[test]
fn a_built_layer_unpacks_to_what_was_put_in() {
    let bench = Bench::new();
    let mut builder = LayerBuilder::new(&bench.store).unwrap();
    builder.directory("tmp".as_ref(), 0o1777).unwrap();
    builder.file("bin/tool".as_ref(), 0o4755, &mut &b"#!"[..], 2).unwrap();
    builder.symlink("bin/link".as_ref(), "/bin/tool".as_ref()).unwrap();
    let layer = builder.finish().unwrap();
    let digest = compose(&bench.store, &[layer], &ImageConfig::default()).unwrap();
    let image = Image::load(&bench.store, &digest).unwrap();
    let root = &bench.layers.ensure(&bench.store, &image).unwrap()[0];
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("tmp"), mode("bin"), mode("bin/tool")), (0o1777, 0o755, 0o4755));
    assert_eq!(fs::metadata(root.join("bin/tool")).unwrap().mtime(), 0);
    assert_eq!(fs::read_link(root.join("bin/link")).unwrap(), Path::new("/bin/tool"));
}

#[test]
fn gzip_zstd_and_plain_layers_all_unpack() {
    let bench = Bench::new();
    for (n, pack) in [gzip, zstd_pack, <[u8]>::to_vec].iter().enumerate() {
        let content = Forged::default().file("f", format!("text {n}").as_bytes()).bytes();
        let image = bench.image(&pack(&content), &content);
        let root = &bench.layers.ensure(&bench.store, &image).unwrap()[0];
        assert_eq!(fs::read_to_string(root.join("f")).unwrap(), format!("text {n}"));
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd_pack(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[test]
fn whiteouts_take_the_form_that_overlayfs_reads() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let bench = Bench::new();
    let forged = Forged::default()
        .file("a/.wh.gone", b"")
        .file("b/.wh..wh..opq", b"")
        .file("b/new", b"x")
        .file("c/.wh..wh.plnk", b"")
        .file(".wh.again", b"")
        .entry(EntryType::Directory, "again", "", b"")
        .file("again/x", b"");
    let root = bench.unpack(forged).unwrap();
    let gone = fs::symlink_metadata(root.join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 1];
    for folder in ["b", "again"] {
        rustix::fs::getxattr(root.join(folder), "trusted.overlay.opaque", &mut value[..]).unwrap();
        assert_eq!(&value, b"y");
    }
    assert!(!root.join("a/.wh.gone").exists() && !root.join("c/.wh..wh.plnk").exists());
}

#[test]
fn paths_that_climb_or_are_absolute_are_refused() {
    let bench = Bench::new();
    bench.refuses(Forged::default().file("../evil", b"x"), "climbs");
    bench.refuses(Forged::default().file("a/../../../evil", b"x"), "climbs");
    bench.refuses(Forged::default().file("/evil", b"x"), "absolute");
    bench.refuses(Forged::default().file("a/.wh...", b"x"), "whiteout of nothing");
}

#[test]
fn a_symlink_is_never_written_through() {
    let bench = Bench::new();
    let out = bench.dir.path().to_str().unwrap().to_owned();
    let link = |target: &str| Forged::default().entry(EntryType::Symlink, "door", target, b"");
    bench.refuses(link(&out).file("door/evil", b"x"), "not a directory of this layer");
    bench.refuses(link("../..").file("door/evil", b"x"), "not a directory of this layer");
    bench.refuses(link(&out).entry(EntryType::Directory, "door/evil", "", b""), "not a directory of this layer");
    bench.refuses(link(&out).file("door/.wh.content", b""), "not a directory of this layer");
    let file = format!("{out}/evil");
    let root = bench.unpack(link(&file).file("door", b"inside")).unwrap();
    assert!(!Path::new(&file).exists());
    assert_eq!(fs::read(root.join("door")).unwrap(), b"inside");
    let root = bench.unpack(link(&out).entry(EntryType::Directory, "door", "", b"").file("door/evil", b"x")).unwrap();
    assert!(root.join("door").is_dir() && !Path::new(&file).exists());
}

#[test]
fn hard_links_stay_inside() {
    let bench = Bench::new();
    let secret = bench.dir.path().join("secret");
    fs::write(&secret, "s").unwrap();
    let link = |target: &str| Forged::default().entry(EntryType::Link, "l", target, b"");
    bench.refuses(link(secret.to_str().unwrap()), "outside the layer");
    bench.refuses(link("../../../secret"), "outside the layer");
    bench.refuses(link("missing"), "not in the layer");
    bench.refuses(link("no/such"), "not in the layer");
    let through = Forged::default().entry(EntryType::Symlink, "d", bench.dir.path().to_str().unwrap(), b"").entry(
        EntryType::Link,
        "l",
        "d/secret",
        b"",
    );
    bench.refuses(through, "not a directory of this layer");
    let root = bench.unpack(Forged::default().file("f", b"x").entry(EntryType::Link, "l", "f", b"")).unwrap();
    assert_eq!(fs::metadata(root.join("l")).unwrap().nlink(), 2);
}

#[test]
fn devices_are_refused_and_those_below_dev_left_out() {
    let bench = Bench::new();
    bench.refuses(Forged::default().entry(EntryType::Char, "null", "", b""), "device");
    bench.refuses(Forged::default().entry(EntryType::Block, "etc/sda", "", b""), "device");
    let root = bench.unpack(Forged::default().entry(EntryType::Char, "dev/null", "", b"")).unwrap();
    assert!(!root.join("dev/null").exists());
}

#[test]
fn what_is_too_large_or_not_what_it_says_is_refused() {
    let mut bench = Bench::new();
    bench.layers = bench.layers.with_limits(Limits { entries: 2, bytes: 10_000 });
    let two = Forged::default().file("1", b"").file("2", b"");
    bench.refuses(Forged(two.0.clone()).file("3", b""), "more than 2 entries");
    bench.unpack(two).unwrap();
    let bench = Bench { layers: bench.layers, ..Bench::new() };
    let bomb = vec![0; 1 << 20];
    let error = bench.unpack(Forged::default().file("bomb", &bomb)).unwrap_err().to_string();
    assert!(error.contains("more than 10000 bytes"), "{error}");
    let bench = Bench::new();
    let long = Forged::default().entry(EntryType::GNULongName, "././@LongLink", "", &vec![b'a'; 2 << 20]);
    bench.refuses(long.file("x", b""), "header bytes");
    let content = Forged::default().file("f", b"x").bytes();
    let image = bench.image(&content, b"something else");
    assert!(matches!(bench.layers.ensure(&bench.store, &image), Err(Error::LayerDamaged { .. })));
}

#[test]
fn a_torn_archive_is_refused() {
    let bench = Bench::new();
    let mut content = Forged::default().file("f", &[7; 2000]).bytes();
    content.truncate(1500);
    let image = bench.image(&content, &content);
    assert!(matches!(bench.layers.ensure(&bench.store, &image), Err(Error::LayerUnreadable { .. })));
    assert!(!bench.layers.dir.join(Digest::of(&content).hex()).exists());
}

#[test]
fn many_ask_at_once_and_one_unpacks() {
    let bench = Bench::new();
    let content = Forged::default().file("f", &vec![7; 200_000]).bytes();
    let image = bench.image(&content, &content);
    let inodes: HashSet<u64> = thread::scope(|scope| {
        let ask = || fs::metadata(bench.layers.ensure(&bench.store, &image).unwrap()[0].join("f")).unwrap().ino();
        let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(inodes.len(), 1);
}

#[test]
fn layers_of_an_earlier_boot_are_made_anew_and_unused_ones_removed() {
    let bench = Bench::new();
    let content = Forged::default().file("f", b"x").bytes();
    let image = bench.image(&content, &content);
    let root = bench.layers.ensure(&bench.store, &image).unwrap().remove(0);
    fs::write(root.join("f"), "torn").unwrap();
    fs::write(root.join("../boot"), "another boot").unwrap();
    bench.layers.ensure(&bench.store, &image).unwrap();
    assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "x");
    let content = Digest::of(&content);
    let retain = |keep: HashSet<Digest>, grace| bench.layers.retain(&keep, grace).unwrap().blobs;
    assert_eq!(retain(HashSet::from([content]), Duration::ZERO), 0);
    assert_eq!(retain(HashSet::new(), Duration::from_mins(1)), 0, "it was asked for a moment ago");
    let long_ago = std::time::SystemTime::now() - Duration::from_mins(2);
    fs::File::open(root.join("../boot")).unwrap().set_modified(long_ago).unwrap();
    bench.layers.ensure(&bench.store, &image).unwrap();
    assert_eq!(retain(HashSet::new(), Duration::from_mins(1)), 0, "it was asked for again");
    assert_eq!(Layers::content_at(&root), Some(content));
    assert_eq!(retain(HashSet::new(), Duration::ZERO), 1);
    assert!(!root.exists());
}
