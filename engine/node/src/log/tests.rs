//! Reading, tailing and following CRI log files.

use super::*;
use std::io::Write;
use std::time::Duration;
use tokio::sync::oneshot;

struct Log {
    folder: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("0.log")
    }

    fn append(&self, lines: &[(&str, &str, &str)]) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.path()).expect("opened");
        for (time, tag, text) in lines {
            writeln!(file, "2026-01-01T00:00:{time}.5Z stdout {tag} {text}").expect("written");
        }
    }

    fn rotate(&self, ending: &str) {
        std::fs::rename(self.path(), self.folder.path().join(format!("0.log.{ending}"))).expect("rotated");
    }

    async fn read(&self, query: &str) -> String {
        let query = Query::parse(query, "2026-01-01T00:01:00Z".parse().expect("a time")).expect("a query");
        all(stream(self.path(), query, std::future::pending())).await
    }
}

async fn all(mut chunks: mpsc::Receiver<std::io::Result<Bytes>>) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        text.extend_from_slice(&chunk.expect("a chunk"));
    }
    String::from_utf8(text).expect("text")
}

#[tokio::test]
async fn the_whole_log_is_read_with_its_rotated_files() {
    let log = Log::new();
    log.append(&[("01", "F", "one"), ("02", "F", "two")]);
    log.rotate("1");
    log.append(&[("03", "F", "three")]);
    assert_eq!(log.read("").await, "one\ntwo\nthree\n");
    assert_eq!(log.read("tailLines=2").await, "two\nthree\n");
    assert_eq!(log.read("tailLines=0").await, "");
    assert_eq!(log.read("tailLines=9").await, "one\ntwo\nthree\n");
    assert_eq!(log.read("sinceTime=2026-01-01T00%3A00%3A02Z").await, "two\nthree\n");
    assert_eq!(log.read("sinceSeconds=57").await, "three\n");
    assert_eq!(log.read("limitBytes=5").await, "one\nt");
    assert_eq!(log.read("timestamps=true&tailLines=1").await, "2026-01-01T00:00:03.5Z three\n");
}

#[tokio::test]
async fn parts_of_a_long_line_are_one_line() {
    let log = Log::new();
    log.append(&[("01", "P", "a"), ("01", "P", "b"), ("01", "F", "c"), ("02", "F", "")]);
    assert_eq!(log.read("timestamps=true").await, "2026-01-01T00:00:01.5Z abc\n2026-01-01T00:00:02.5Z \n");
}

#[tokio::test]
async fn following_sees_growth_survives_rotation_and_ends_with_the_container() {
    let log = Log::new();
    log.append(&[("01", "F", "one")]);
    let query = Query { follow: true, ..Query::default() };
    let (end, ended) = oneshot::channel::<()>();
    let mut chunks = stream(log.path(), query, async move { drop(ended.await) });
    let mut seen = String::new();
    let mut expect = async |text: &str| {
        while seen.len() < text.len() {
            let chunk = tokio::time::timeout(Duration::from_secs(5), chunks.recv()).await.expect("in time");
            seen.push_str(std::str::from_utf8(&chunk.expect("a chunk").expect("read")).expect("text"));
        }
        assert_eq!(seen, text);
    };
    expect("one\n").await;
    log.append(&[("02", "F", "two")]);
    expect("one\ntwo\n").await;
    log.append(&[("03", "F", "three")]);
    log.rotate("1");
    log.append(&[("04", "F", "four")]);
    expect("one\ntwo\nthree\nfour\n").await;
    log.append(&[("05", "F", "five")]);
    end.send(()).expect("the reader is there");
    expect("one\ntwo\nthree\nfour\nfive\n").await;
    assert!(chunks.recv().await.is_none());
}

#[tokio::test]
async fn following_ends_when_the_reader_goes_away() {
    let log = Log::new();
    log.append(&[("01", "F", "one")]);
    let (chunks, mut received) = mpsc::channel(CHUNKS);
    let path = log.path();
    let query = Query { follow: true, ..Query::default() };
    let task = tokio::spawn(async move { follow::run(&path, &query, std::future::pending(), &chunks).await });
    received.recv().await.expect("a chunk").expect("read");
    drop(received);
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("in time").expect("no panic").expect("no error");
}

#[test]
fn a_query_that_makes_no_sense_is_named() {
    let now = Timestamp::UNIX_EPOCH;
    assert_eq!(Query::parse("tailLines=-1", now), Err("invalid value \"-1\" for tailLines".to_owned()));
    assert!(Query::parse("sinceTime=yesterday", now).is_err());
    assert!(Query::parse("follow=perhaps", now).is_err());
    assert_eq!(Query::parse("pretty=true&follow", now), Ok(Query { follow: true, ..Query::default() }));
}

proptest::proptest! {
    #[test]
    fn the_tail_is_the_end_of_the_whole(lines in proptest::collection::vec("[a-z ]{0,20}", 0..40), cut in 0_usize..40, tail in 0_u64..45) {
        let log = Log::new();
        std::fs::write(log.path(), "").expect("written");
        for (number, line) in lines.iter().enumerate() {
            if number == cut {
                log.rotate("1");
            }
            log.append(&[("01", "F", line)]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let read = runtime.block_on(log.read(&format!("tailLines={tail}")));
        let from = lines.len().saturating_sub(usize::try_from(tail).expect("small"));
        let expected: String = lines[from..].iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        proptest::prop_assert_eq!(read, expected);
    }
}
