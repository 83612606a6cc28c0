//! A full disk: said in plain words, and nothing half-written stays. Needs root, for a small disk of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use shipway_oci::{Error, LayerBuilder, Layers, Store};

const DISK: &str = "SMALL_DISK";

#[test]
fn a_full_disk_is_said_and_nothing_half_written_stays() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=1m none \"$1\" && exec \"$2\" --exact --ignored on_a_small_disk";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([dir.path(), &std::env::current_exe().unwrap()])
        .env(DISK, dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).expect("the folder is there").count()
}

#[test]
#[ignore = "the test above runs it, on a disk of its own"]
fn on_a_small_disk() {
    let disk = std::env::var_os(DISK).unwrap();
    let disk = Path::new(&disk);
    let store = Store::open(&disk.join("content")).unwrap();
    let noise: Vec<u8> = (0..2u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    assert!(matches!(store.put(&noise), Err(Error::Full { .. })));
    let mut builder = LayerBuilder::with(&store, shipway_oci::Compression::None).unwrap();
    let added = builder.file("noise".as_ref(), 0o644, &mut noise.as_slice(), noise.len() as u64);
    let error = added.map_or_else(|error| error, |()| builder.finish().unwrap_err());
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!((files(&disk.join("content/blobs/sha256")), files(&disk.join("content/ingest"))), (0, 0));
    let zeros = vec![0; 4 << 20];
    let mut builder = LayerBuilder::new(&store).unwrap();
    builder.file("zeros".as_ref(), 0o644, &mut zeros.as_slice(), zeros.len() as u64).unwrap();
    let layer = builder.finish().unwrap();
    let digest = shipway_oci::compose(&store, &[layer], &shipway_oci::ImageConfig::default()).unwrap();
    let image = shipway_oci::Image::load(&store, &digest).unwrap();
    let layers = Layers::open(&disk.join("layers")).unwrap();
    let error = layers.ensure(&store, &image).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    let left =
        fs::read_dir(disk.join("layers")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| name.starts_with(".lock-")));
}
