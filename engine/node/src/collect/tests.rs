//! Which images go, and that what is in use stays.

use shipway_oci::{ImageConfig, LayerBuilder, compose};

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

fn image(name: &str, size: u64) -> Tagged {
    let (reference, digest) = (name.parse().expect("a name"), Digest::of(name.as_bytes()));
    Tagged { reference, digest, created: SystemTime::UNIX_EPOCH, size }
}

/// The names of the images that go, of `(name, size, minutes unused)`.
fn gone(all: &[(&str, u64, u32)], used: &[&str], wanted: Option<u64>, policy: Policy) -> Vec<String> {
    let now = SystemTime::now();
    let images: Vec<Tagged> = all.iter().map(|(name, size, _)| image(name, *size)).collect();
    let digest = |name: &str| Digest::of(name.as_bytes());
    let last_used = all.iter().map(|(name, _, minutes)| (digest(name), now - MINUTE * *minutes)).collect();
    let used = Used { images: used.iter().map(|name| digest(name)).collect(), layers: HashSet::new() };
    let victims = choose(&images, &used, &last_used, (wanted, now), policy);
    let name =
        |victim: &Digest| images.iter().find(|image| image.digest == *victim).map(|image| image.reference.to_string());
    victims.iter().filter_map(name).map(|name| name.rsplit('/').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn images_go_by_their_last_use_until_enough_is_free() {
    let all = [("a:1", 10, 5), ("b:1", 10, 50), ("c:1", 10, 20), ("d:1", 10, 1)];
    assert_eq!(gone(&all, &[], None, POLICY), [""; 0]);
    assert_eq!(gone(&all, &[], Some(1), POLICY), ["b:1"]);
    assert_eq!(gone(&all, &[], Some(15), POLICY), ["b:1", "c:1"]);
    assert_eq!(gone(&all, &[], Some(100), POLICY), ["b:1", "c:1", "a:1"], "one is too young");
    assert_eq!(gone(&all, &["b:1", "c:1"], Some(100), POLICY), ["a:1"], "what is used stays");
}

#[test]
fn what_exists_only_here_stays_and_what_is_too_old_goes_from_an_empty_disk() {
    let all = [("shipway.local/app:latest", 10, 900), ("a:1", 10, 900), ("b:1", 10, 5)];
    assert_eq!(gone(&all, &[], Some(100), POLICY), ["a:1", "b:1"]);
    let aged = Policy { most: Some(MINUTE * 60), ..POLICY };
    assert_eq!(gone(&all, &[], None, aged), ["a:1"]);
}

#[test]
fn a_disk_is_too_full_from_one_mark_on_and_emptied_to_another() {
    let excess = |available| Disk { capacity: 1000, available }.excess(POLICY);
    assert_eq!([excess(500), excess(160), excess(150), excess(0)], [None, None, Some(50), Some(200)]);
}

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
    layers: Layers,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(&dir.path().join("content")).expect("a store");
        let layers = Layers::open(&dir.path().join("layers")).expect("layers");
        Self { dir, store, layers }
    }

    /// An image of some time ago, unpacked; its manifest and where its layer lies.
    fn image(&self, name: &str) -> (Digest, std::path::PathBuf) {
        let mut builder = LayerBuilder::new(&self.store).expect("a layer");
        builder.file("f".as_ref(), 0o644, &mut name.as_bytes(), name.len() as u64).expect("a file");
        let layer = builder.finish().expect("finished");
        let digest = compose(&self.store, &[layer], &ImageConfig::default()).expect("composed");
        self.store.tag(&name.parse().expect("a name"), &digest).expect("tagged");
        let root =
            self.layers.ensure(&self.store, &Image::load(&self.store, &digest).expect("loaded")).expect("unpacked");
        (digest, root[0].clone())
    }

    /// Makes all that is there look as if it had been there for an hour.
    fn age(&self) {
        for folder in ["content", "layers"] {
            age(&self.dir.path().join(folder));
        }
    }
}

fn age(path: &Path) {
    if path.is_dir() {
        std::fs::read_dir(path).expect("listed").for_each(|entry| age(&entry.expect("an entry").path()));
    } else {
        let file = std::fs::File::open(path).expect("opened");
        file.set_modified(SystemTime::now() - MINUTE * 60).expect("aged");
    }
}

const FULL: Disk = Disk { capacity: 1_000_000, available: 0 };
const EMPTY: Disk = Disk { capacity: 1_000_000, available: 1_000_000 };

#[test]
fn a_full_disk_loses_images_but_no_layer_under_a_container() {
    let bench = Bench::new();
    let ((run, run_root), (loose, loose_root), (under, under_root)) =
        (bench.image("run:1"), bench.image("loose:1"), bench.image("under:1"));
    bench.age();
    // Of `under` only a container is left that was made of it.
    let layers = HashSet::from([Layers::content_at(&under_root).expect("a layer")]);
    let used = Used { images: HashSet::from([run]), layers };
    let mut last_used = LastUsed::new();
    let swept = sweep(&bench.store, &bench.layers, EMPTY, &used, &mut last_used).expect("swept");
    assert_eq!(swept, Swept::default());
    assert!(bench.store.has(&loose) && loose_root.exists(), "there is room");
    let swept = sweep(&bench.store, &bench.layers, FULL, &used, &mut last_used).expect("swept");
    assert!(swept.found > 0 && swept.found < swept.wanted, "{swept:?}");
    assert!(bench.store.has(&run) && run_root.exists());
    assert!(!bench.store.has(&loose) && !loose_root.exists());
    assert!(!bench.store.has(&under) && under_root.exists());
}

#[test]
fn what_no_name_leads_to_goes_without_need_and_what_was_just_used_stays() {
    let bench = Bench::new();
    let ((former, former_root), (named, _)) = (bench.image("a:1"), bench.image("b:1"));
    bench.store.untag(&"a:1".parse().expect("a name")).expect("untagged");
    let nothing = Used { images: HashSet::new(), layers: HashSet::new() };
    let mut last_used = LastUsed::new();
    sweep(&bench.store, &bench.layers, EMPTY, &nothing, &mut last_used).expect("swept");
    assert!(bench.store.has(&former) && former_root.exists(), "somebody may be about to use it");
    bench.age();
    sweep(&bench.store, &bench.layers, EMPTY, &nothing, &mut last_used).expect("swept");
    assert!(!bench.store.has(&former) && !former_root.exists());
    assert!(bench.store.has(&named));
}
