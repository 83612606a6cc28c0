//! Volumes on a temporary folder, and the escapes that must not work.

use super::*;
use crate::amount::Allocatable;
use crate::references::Contents;
use serde_json::{Value, json};
use std::os::unix::fs::symlink;

const HERE: Allocatable = Allocatable { cpu_milli: 1000, memory: 1 << 30, storage: 1 << 30 };

fn pod(volumes: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"tier": "web"}},
        "spec": {"containers": [{"name": "c"}], "volumes": volumes}
    }))
    .expect("a pod")
}

fn settings(data: Value) -> Contents {
    let mut contents = Contents::default();
    let map = json!({"metadata": {"name": "settings"}, "data": data});
    contents.insert_config_map(serde_json::from_value(map).expect("a config map"));
    contents
}

fn sources<'a>(pod: &'a Pod, contents: &'a Contents) -> Sources<'a> {
    Sources { pod, contents, allocatable: &HERE, node: "here", folders: Path::new("/nowhere") }
}

/// Makes the volumes and writes what they show.
fn make(volumes: &Volumes, sources: &Sources<'_>) -> Result<(), VolumeError> {
    volumes.prepare(sources).and_then(|()| volumes.refresh(sources)).map(drop)
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).expect("the file can be read")
}

#[test]
fn a_config_map_volume_follows_its_object_by_one_swap() {
    let home = tempfile::tempdir().expect("a folder");
    let volumes = Volumes::new(home.path());
    let pod = pod(json!([{"name": "v", "configMap": {"name": "settings"}}]));
    let folder = home.path().join("volumes/v");

    let contents = settings(json!({"a": "1", "b": "2"}));
    make(&volumes, &sources(&pod, &contents)).expect("made");
    assert_eq!((read(&folder, "a"), read(&folder, "b")), ("1".to_owned(), "2".to_owned()));
    let first = std::fs::read_link(folder.join("..data")).expect("a link");

    let refresh = |contents: &Contents| volumes.refresh(&sources(&pod, contents)).expect("refreshed");
    assert!(!refresh(&contents), "nothing changed");
    let contents = settings(json!({"a": "3", "c": "4"}));
    assert!(refresh(&contents));
    assert_eq!((read(&folder, "a"), read(&folder, "c")), ("3".to_owned(), "4".to_owned()));
    assert!(!folder.join("b").exists() && folder.join("b").symlink_metadata().is_err());
    assert!(!folder.join(first).exists(), "the old state is gone");
}

#[test]
fn items_choose_keys_paths_and_modes() {
    let home = tempfile::tempdir().expect("a folder");
    let pod = pod(json!([{"name": "v", "configMap": {"name": "settings", "defaultMode": 0o600,
        "items": [{"key": "a", "path": "deep/er/a"}, {"key": "b", "path": "b", "mode": 0o640}]}}]));
    let contents = settings(json!({"a": "1", "b": "2", "c": "3"}));
    let sources = self::sources(&pod, &contents);
    make(&Volumes::new(home.path()), &sources).expect("made");
    let folder = home.path().join("volumes/v");
    assert_eq!(read(&folder, "deep/er/a"), "1");
    assert!(!folder.join("c").exists());
    let mode = |name: &str| std::fs::metadata(folder.join(name)).expect("it is there").mode() & 0o777;
    assert_eq!((mode("deep/er/a"), mode("b")), (0o600, 0o640));
}

#[test]
fn items_cannot_leave_the_volume() {
    let home = tempfile::tempdir().expect("a folder");
    for path in ["../x", "/etc/x", "..data", "a/../../x", ""] {
        let pod = pod(json!([{"name": "v", "configMap": {"name": "settings", "items": [{"key": "a", "path": path}]}}]));
        let contents = settings(json!({"a": "1"}));
        Volumes::new(home.path()).prepare(&sources(&pod, &contents)).expect_err(path);
    }
}

#[test]
fn a_missing_object_is_named_unless_it_is_optional() {
    let home = tempfile::tempdir().expect("a folder");
    let make = |optional: bool| {
        let pod = pod(json!([{"name": "v", "secret": {"secretName": "keys", "optional": optional}}]));
        make(&Volumes::new(home.path()), &sources(&pod, &Contents::default()))
    };
    let error = make(false).expect_err("it is missing").to_string();
    assert_eq!(error, "MountVolume.SetUp failed for volume \"v\" : secret \"keys\" not found");
    make(true).expect("it may be missing");
}

#[test]
fn projected_and_downward_volumes_show_the_pod() {
    let home = tempfile::tempdir().expect("a folder");
    let pod = pod(json!([{"name": "v", "projected": {"sources": [
        {"configMap": {"name": "settings"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
    ]}}]));
    let contents = settings(json!({"a": "1"}));
    let sources = self::sources(&pod, &contents);
    make(&Volumes::new(home.path()), &sources).expect("made");
    let folder = home.path().join("volumes/v");
    assert_eq!((read(&folder, "a"), read(&folder, "labels")), ("1".to_owned(), "tier=\"web\"".to_owned()));
}

#[tokio::test]
async fn a_token_is_for_the_user_and_the_group_that_are_known() {
    let (client, _) = crate::testing::api(|_| {
        let status = json!({"token": "word", "expirationTimestamp": "2030-01-01T00:00:00Z"});
        crate::testing::Answer::Echo(json!({"metadata": {}, "status": status}))
    });
    let show = async |context: Value| {
        let home = tempfile::tempdir().expect("a folder");
        let sources = json!([{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]);
        let mut pod = pod(json!([{"name": "v", "projected": {"sources": sources, "defaultMode": 0o644}}]));
        let context = serde_json::from_value(context).expect("a context");
        pod.spec.as_mut().expect("a spec").security_context = Some(context);
        let mut contents = Contents::default();
        contents.insert_tokens(crate::tokens::Tokens::default().read(&client, &pod).await.expect("a token"));
        let sources = self::sources(&pod, &contents);
        make(&Volumes::new(home.path()), &sources).expect("made");
        let folder = home.path().join("volumes/v");
        assert_eq!(read(&folder, "token"), "word");
        let found = std::fs::metadata(folder.join("token")).expect("it is there");
        (found.mode() & 0o777, found.uid(), found.gid())
    };
    let own = rustix::process::getuid().as_raw();
    assert_eq!(show(json!({})).await, (0o644, own, rustix::process::getgid().as_raw()));
    if own == 0 {
        assert_eq!(show(json!({"runAsUser": 7})).await, (0o600, 7, 0));
        assert_eq!(show(json!({"runAsUser": 7, "fsGroup": 9})).await, (0o640, 7, 9));
        assert_eq!(show(json!({"fsGroup": 9})).await, (0o640, 0, 9));
    }
}

#[test]
fn an_unsupported_volume_is_refused() {
    let home = tempfile::tempdir().expect("a folder");
    let pod = pod(json!([{"name": "v", "nfs": {"server": "s", "path": "/"}}]));
    Volumes::new(home.path()).prepare(&sources(&pod, &Contents::default())).expect_err("not supported");
}

#[test]
fn host_paths_are_checked_by_type() {
    let home = tempfile::tempdir().expect("a folder");
    let file = home.path().join("file");
    std::fs::write(&file, "x").expect("written");
    host_path::check(&file, "File").expect("it is a file");
    host_path::check(&file, "Directory").expect_err("it is no folder");
    host_path::check(&home.path().join("none"), "Directory").expect_err("it is not there");
    host_path::check(&home.path().join("new/er"), "DirectoryOrCreate").expect("made");
    assert!(home.path().join("new/er").is_dir());
    host_path::check(Path::new("/tmp/../etc"), "").expect_err("no way up");
    host_path::check(&file, "Odd").expect_err("no such type");
}

#[test]
fn a_sub_path_never_leads_out_of_its_volume() {
    let home = tempfile::tempdir().expect("a folder");
    let (volume, outside) = (home.path().join("volume"), home.path().join("outside"));
    for folder in [&volume, &outside] {
        std::fs::create_dir(folder).expect("made");
    }
    std::fs::write(outside.join("secret"), "x").expect("written");
    symlink(&outside, volume.join("absolute")).expect("linked");
    symlink("../outside", volume.join("relative")).expect("linked");

    sub_path::open(&volume, "../outside").expect_err("no way up");
    sub_path::open(&volume, "/etc").expect_err("no absolute path");
    for link in ["absolute", "relative"] {
        // The link is resolved with the volume as the root, where no such thing is.
        sub_path::open(&volume, &format!("{link}/secret")).expect_err(link);
    }
    let made = sub_path::open(&volume, "new/er/est").expect("missing folders are made");
    let really = rustix::fs::readlink(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&made)), vec![]);
    let really = really.expect("a path").into_string().expect("text");
    assert!(really.ends_with("/volume/new/er/est"), "{really}");
    assert!(std::fs::read_dir(&outside).expect("a folder").count() == 1, "nothing was made outside");
}

#[test]
fn a_key_of_a_config_map_volume_can_be_a_sub_path() {
    let home = tempfile::tempdir().expect("a folder");
    let pod = pod(json!([{"name": "v", "configMap": {"name": "settings"}}]));
    let contents = settings(json!({"a": "1"}));
    let sources = self::sources(&pod, &contents);
    make(&Volumes::new(home.path()), &sources).expect("made");
    sub_path::open(&home.path().join("volumes/v"), "a").expect("links inside the volume are followed");
}
