//! The logs of containers: files in the CRI format under `<home>/logs/pods/<ns>_<pod>_<uid>/<container>/<run>.log`,
//! read from a chosen place and followed by events of the file system.
//!
//! One line of a file is `<time> <stream> <P|F> <text>`; a rotated file keeps its name with an ending of its own.

mod files;
mod follow;
mod line;
mod read;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use crate::pod;

pub(crate) use line::last_words;

/// How many chunks may wait for a slow reader; reading pauses when they do.
const CHUNKS: usize = 16;

/// Which part of a log is wanted, as the API's `log` subresource asks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Query {
    pub(crate) follow: bool,
    pub(crate) previous: bool,
    pub(crate) timestamps: bool,
    pub(crate) tail: Option<u64>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) limit: Option<u64>,
    /// The one stream that is wanted.
    pub(crate) stream: Option<&'static str>,
}

impl Query {
    /// Reads a URL's query; an error names the parameter that makes no sense.
    pub(crate) fn parse(query: &str, now: Timestamp) -> Result<Self, String> {
        let mut parsed = Self::default();
        for (name, value) in parameters(query) {
            let refuse = || format!("invalid value \"{value}\" for {name}");
            let flag = || match value.as_str() {
                "" | "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(refuse()),
            };
            let number = || value.parse::<u64>().map_err(|_| refuse());
            match name {
                "follow" => parsed.follow = flag()?,
                "previous" => parsed.previous = flag()?,
                "timestamps" => parsed.timestamps = flag()?,
                "tailLines" => parsed.tail = Some(number()?),
                "limitBytes" => parsed.limit = Some(number()?),
                "sinceSeconds" => {
                    let seconds = jiff::SignedDuration::from_secs(i64::try_from(number()?).map_err(|_| refuse())?);
                    parsed.since = Some(now.checked_sub(seconds).map_err(|_| refuse())?);
                }
                "stream" => {
                    parsed.stream = match value.as_str() {
                        "" | "All" => None,
                        "Stdout" => Some("stdout"),
                        "Stderr" => Some("stderr"),
                        _ => return Err(refuse()),
                    }
                }
                "sinceTime" => parsed.since = Some(value.parse().map_err(|_| refuse())?),
                _ => {}
            }
        }
        Ok(parsed)
    }
}

/// The parameters of a URL's query, values decoded.
pub(crate) fn parameters(query: &str) -> impl Iterator<Item = (&str, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (name, decode(value)))
}

/// `%3A` and `+` as they are in a URL's query.
fn decode(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.filter(|_| first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (byte, after) = match escaped {
            Some(byte) => (byte, &after[2..]),
            None => (if first == b'+' { b' ' } else { first }, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The folder of a pod's logs.
pub(crate) fn pod_folder(home: &Path, pod: &Pod) -> PathBuf {
    home.join("logs/pods").join(format!("{}_{}_{}", pod::namespace(pod), pod::name(pod), pod::uid(pod)))
}

/// The file of one run.
pub(crate) fn file(home: &Path, pod: &Pod, container: &str, run: u32) -> PathBuf {
    pod_folder(home, pod).join(container).join(format!("{run}.log"))
}

/// Removes the logs of all runs before `oldest`.
pub(crate) fn forget_before(home: &Path, pod: &Pod, container: &str, oldest: u32) -> std::io::Result<()> {
    let folder = pod_folder(home, pod).join(container);
    for entry in std::fs::read_dir(&folder)? {
        let name = entry?.file_name();
        let run = name.to_str().and_then(|name| name.split('.').next()?.parse::<u32>().ok());
        if run.is_some_and(|run| run < oldest) {
            std::fs::remove_file(folder.join(name))?;
        }
    }
    Ok(())
}

/// A log as it is asked for, in chunks. Following ends when `ended` resolves and all that was written is read; dropping
/// the receiver ends the reading.
pub(crate) fn stream(
    path: PathBuf,
    query: Query,
    ended: impl Future<Output = ()> + Send + 'static,
) -> mpsc::Receiver<std::io::Result<Bytes>> {
    let (chunks, received) = mpsc::channel(CHUNKS);
    tokio::spawn(async move {
        if let Err(error) = follow::run(&path, &query, ended, &chunks).await
            && chunks.send(Err(error)).await.is_err()
        {
            tracing::debug!(path = %path.display(), "the reader of a log went away");
        }
    });
    received
}

#[cfg(test)]
mod tests;
