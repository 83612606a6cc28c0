//! Push and pull against a small registry of our own: just the requests that the client makes, over plain HTTP.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;

use super::*;
use crate::{ImageConfig, LayerBuilder, Layers, compose};

#[derive(Default)]
struct Content {
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, Vec<u8>>,
    uploads: usize,
    password: Option<&'static str>,
    /// How many blobs stop half-way, and the ranges that were asked for afterwards.
    cuts: usize,
    ranges: Vec<String>,
    /// Whether the registry knows ranges.
    knows_ranges: bool,
}

/// A registry on a port of its own, for the length of a test.
struct Registry {
    address: String,
    content: Arc<Mutex<Content>>,
}

impl Registry {
    fn start(password: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let content = Arc::new(Mutex::new(Content { password, ..Content::default() }));
        let shared = Arc::clone(&content);
        thread::spawn(move || {
            for connection in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(&connection.unwrap(), &shared));
            }
        });
        Self { address, content }
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }
}

/// Answers requests until the client hangs up.
fn serve(connection: &TcpStream, content: &Mutex<Content>) {
    let mut reader = BufReader::new(connection);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            lines
                .iter()
                .filter_map(|line| line.split_once(": "))
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|x| x.1)
        };
        let mut body = vec![0; header("content-length").map_or(0, |text| text.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        let mut words = lines[0].split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let mut content = content.lock().unwrap();
        let denied = content.password.is_some_and(|password| {
            use base64::Engine as _;
            let expected = base64::engine::general_purpose::STANDARD.encode(format!("me:{password}"));
            header("authorization") != Some(format!("Basic {expected}").as_str())
        });
        let range = header("range").map(str::to_owned);
        let (mut status, extra, mut answer) = if denied {
            (401, "WWW-Authenticate: Basic realm=\"test\"\r\n".to_owned(), b"{}".to_vec())
        } else {
            answer(&mut content, method, path, body)
        };
        if let Some(range) = range.filter(|_| status == 200) {
            content.ranges.push(range.clone());
            let from: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
            if content.knows_ranges {
                (status, answer) = (206, answer.split_off(from));
            }
        }
        let length = if method == "HEAD" { 0 } else { answer.len() };
        let cut = method == "GET" && path.contains("/blobs/") && status < 300 && length > 1 && content.cuts > 0;
        if cut {
            content.cuts -= 1;
            answer.truncate(length / 2);
        }
        let head = format!("HTTP/1.1 {status} X\r\n{extra}Content-Length: {length}\r\n\r\n");
        let mut connection = connection;
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(&answer[..length.min(answer.len())]).unwrap();
        if cut {
            return;
        }
    }
}

fn answer(content: &mut Content, method: &str, path: &str, body: Vec<u8>) -> (u16, String, Vec<u8>) {
    let unknown = || {
        let text = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        (404, String::new(), text.as_bytes().to_vec())
    };
    let last = path.rsplit('/').next().unwrap();
    match (method, path) {
        (_, "/v2/") => (200, String::new(), Vec::new()),
        ("POST", _) => (202, "Location: /upload/1\r\n".into(), Vec::new()),
        ("PUT", path) if path.starts_with("/upload/") => {
            let digest = path.split("digest=").nth(1).unwrap().replace("%3A", ":");
            content.blobs.insert(digest.clone(), body);
            content.uploads += 1;
            (201, format!("Location: /v2/blob/{digest}\r\n"), Vec::new())
        }
        ("PUT", _) => {
            content.manifests.insert(last.to_owned(), body.clone());
            content.manifests.insert(Digest::of(&body).to_string(), body);
            (201, format!("Location: {path}\r\n"), Vec::new())
        }
        (_, path) if path.contains("/blobs/") => {
            content.blobs.get(last).map_or_else(unknown, |blob| (200, String::new(), blob.clone()))
        }
        _ => content.manifests.get(last).map_or_else(unknown, |bytes| (200, String::new(), bytes.clone())),
    }
}

fn stores() -> (tempfile::TempDir, Store, Store) {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let (one, two) = (Store::open(&one).unwrap(), Store::open(&two).unwrap());
    (dir, one, two)
}

fn image(store: &Store) -> Digest {
    let content = vec![9; 700_000];
    let mut builder = LayerBuilder::new(store).unwrap();
    builder.file("data".as_ref(), 0o644, &mut content.as_slice(), content.len() as u64).unwrap();
    let layer = builder.finish().unwrap();
    compose(store, &[layer], &ImageConfig { workdir: "/app".into(), ..ImageConfig::default() }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_is_pulled_and_sent_once() {
    let registry = Registry::start(None);
    let (dir, here, there) = stores();
    let digest = image(&here);
    let name = registry.reference("user/app:v1");
    here.tag(&name, &digest).unwrap();
    push(&here, &name, Some(&Credentials::Anonymous)).await.unwrap();
    push(&here, &name, Some(&Credentials::Anonymous)).await.unwrap();
    assert_eq!(registry.content.lock().unwrap().uploads, 2);
    assert_eq!(pull(&there, &name, Some(&Credentials::Anonymous)).await.unwrap(), digest);
    assert_eq!(there.resolve(&name).unwrap(), Some(digest));
    let layers = Layers::open(&dir.path().join("layers")).unwrap();
    let dirs = layers.ensure(&there, &Image::load(&there, &digest).unwrap()).unwrap();
    assert_eq!(std::fs::metadata(dirs[0].join("data")).unwrap().len(), 700_000);
    let pinned = name.at(digest);
    assert_eq!(pull(&there, &pinned, Some(&Credentials::Anonymous)).await.unwrap(), digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_leads_to_this_machines_image() {
    let registry = Registry::start(None);
    let (_dir, here, there) = stores();
    let digest = image(&here);
    let name = registry.reference("user/app:one");
    here.tag(&name, &digest).unwrap();
    push(&here, &name, Some(&Credentials::Anonymous)).await.unwrap();
    let index = |platform: &str| {
        serde_json::json!({"schemaVersion": 2, "mediaType": ACCEPTED[1], "manifests": [{
            "mediaType": ACCEPTED[0], "digest": digest, "size": here.size(&digest),
            "platform": {"os": "linux", "architecture": platform},
        }]})
        .to_string()
        .into_bytes()
    };
    {
        let mut content = registry.content.lock().unwrap();
        content.manifests.insert("many".into(), index(&Arch::default().to_string()));
        content.manifests.insert("other".into(), index("s390x"));
    }
    let pulled = pull(&there, &registry.reference("user/app:many"), Some(&Credentials::Anonymous)).await.unwrap();
    assert_eq!(pulled, digest);
    let error = pull(&there, &registry.reference("user/app:other"), Some(&Credentials::Anonymous)).await.unwrap_err();
    assert!(matches!(error, Error::NoPlatform { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_says_how_to_mend_it() {
    let registry = Registry::start(Some("secret"));
    let (_dir, here, there) = stores();
    let name = registry.reference("user/app");
    here.tag(&name, &image(&here)).unwrap();
    let error = push(&here, &name, Some(&Credentials::Anonymous)).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }) && error.to_string().contains("docker login"), "{error}");
    let known = Credentials::Basic { username: "me".into(), password: "secret".into() };
    push(&here, &name, Some(&known)).await.unwrap();
    let error = pull(&there, &registry.reference("user/none"), Some(&known)).await.err();
    assert!(error.is_none(), "the small registry knows names by tag only: {error:?}");
    let error = pull(&there, &registry.reference("user/app:none"), Some(&known)).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone: Reference = format!("{nobody}/app").parse().unwrap();
    let error = pull(&there, &gone, Some(&known)).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(matches!(push(&there, &gone, Some(&known)).await, Err(Error::Unknown { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_what_it_says_is_not_kept() {
    let registry = Registry::start(None);
    let (_dir, here, there) = stores();
    let name = registry.reference("user/app");
    here.tag(&name, &image(&here)).unwrap();
    push(&here, &name, Some(&Credentials::Anonymous)).await.unwrap();
    for blob in registry.content.lock().unwrap().blobs.values_mut() {
        blob[0] ^= 1;
    }
    assert!(pull(&there, &name, Some(&Credentials::Anonymous)).await.is_err());
    assert_eq!(there.list().unwrap(), []);
}

#[test]
fn only_this_machine_is_spoken_to_in_the_clear() {
    for local in ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "registry.localhost:1"] {
        assert!(is_local(local), "{local}");
    }
    for other in ["docker.io", "localhost.example.org", "10.0.0.1:5000", "127.example.org"] {
        assert!(!is_local(other), "{other}");
    }
}

/// Pushes an image; gives a store to pull into and the image's name.
async fn pushed(registry: &Registry) -> (tempfile::TempDir, Store, Reference) {
    let (dir, here, there) = stores();
    let name = registry.reference("user/app:v1");
    here.tag(&name, &image(&here)).unwrap();
    push(&here, &name, Some(&Credentials::Anonymous)).await.unwrap();
    (dir, there, name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_stops_on_its_way_goes_on_where_it_stopped() {
    for knows_ranges in [true, false] {
        let registry = Registry::start(None);
        let (_dir, there, name) = pushed(&registry).await;
        {
            let mut content = registry.content.lock().unwrap();
            (content.cuts, content.knows_ranges) = (3, knows_ranges);
        }
        let digest = pull(&there, &name, Some(&Credentials::Anonymous)).await.unwrap();
        assert_eq!(there.resolve(&name).unwrap(), Some(digest));
        let ranges = registry.content.lock().unwrap().ranges.clone();
        assert!(!ranges.is_empty() && ranges.iter().all(|range| range != "bytes=0-"), "{ranges:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_asked_first_and_passed_over_when_it_has_nothing() {
    let (mirror, empty) = (Registry::start(None), Registry::start(None));
    let (dir, there, name) = pushed(&mirror).await;
    // The same name at a registry that is not there.
    let wanted: Reference = format!("nowhere.invalid/{}:v1", name.repository()).parse().unwrap();
    let file = dir.path().join("registries.json");
    let urls = [&empty, &mirror].map(|one| format!("http://{}", one.address));
    std::fs::write(&file, serde_json::json!({ "mirrors": { "nowhere.invalid": urls } }).to_string()).unwrap();
    let mirrors = Mirrors::read(&file).unwrap();
    let digest = pull_through(&there, &wanted, Some(&Credentials::Anonymous), &mirrors).await.unwrap();
    assert_eq!(there.resolve(&wanted).unwrap(), Some(digest));
    assert_eq!(there.resolve(&name).unwrap(), None, "it has the name that was asked for");
}
