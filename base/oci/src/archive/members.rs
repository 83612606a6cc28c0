//! The members of an archive: each file is a blob of the store, each link a name for another member.
//!
//! Names are keys and nothing else. Special files, sparse files and names that stand twice are refused, since no tool
//! writes them and a reader could be led astray by them.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use tar::{Entry, EntryType};

use super::refused;
use crate::source::{HEADER_LIMIT, Meter, Source};
use crate::{Digest, Error, Limits, Result, Store};

/// Where an OCI layout keeps its content.
const BLOBS: &str = "blobs/sha256/";
/// Bound on a name in bytes.
const NAME_LIMIT: usize = 4096;
/// How many links may lead from one to the next.
const LINK_LIMIT: usize = 8;

enum Member {
    File(Digest),
    Link(String),
}

/// The files of an archive, by name.
pub(super) struct Members(HashMap<String, Member>);

impl Members {
    /// Reads the archive to its end.
    pub(super) fn read(store: &Store, input: impl Read + 'static, limits: Limits) -> Result<Self> {
        let source = Source::open(input).map_err(|e| unreadable(&e))?;
        let meter = source.meter();
        let mut archive = tar::Archive::new(source);
        let mut members = Self(HashMap::new());
        let mut entries = archive.entries().map_err(|e| unreadable(&e))?;
        let mut count = 0;
        loop {
            meter.allow(HEADER_LIMIT);
            let Some(entry) = entries.next() else { return Ok(members) };
            let entry = entry.map_err(|e| too_large(&meter, &e, "header bytes", HEADER_LIMIT))?;
            count += 1;
            if count > limits.entries {
                return Err(refused(format!("it has more than {} members", limits.entries)));
            }
            meter.allow(limits.bytes.saturating_sub(meter.used()));
            members.take(store, entry, &meter, limits)?;
        }
    }

    /// The content of a file, through links.
    pub(super) fn find(&self, name: &str) -> Option<Digest> {
        let mut name = normal(name)?;
        for _ in 0..LINK_LIMIT {
            match self.0.get(&name)? {
                Member::File(digest) => return Some(*digest),
                Member::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    fn take(&mut self, store: &Store, mut entry: Entry<'_, Source>, meter: &Meter, limits: Limits) -> Result<()> {
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::Directory | EntryType::XGlobalHeader) {
            return Ok(());
        }
        let name = normal(&path).filter(|name| !name.is_empty() && name.len() <= NAME_LIMIT);
        let Some(name) = name else { return Err(refused(format!("its member `{path}` has no usable name"))) };
        let member = match kind {
            EntryType::Regular | EntryType::Continuous => {
                Member::File(keep(store, &mut entry, &name).map_err(|e| e.about(meter, limits))?)
            }
            EntryType::Symlink | EntryType::Link => Member::Link(target(&entry, &name, kind)?),
            _ => return Err(refused(format!("its member `{path}` is neither a file, a folder nor a link"))),
        };
        match self.0.insert(name, member) {
            None => Ok(()),
            Some(_) => Err(refused(format!("its member `{path}` stands twice"))),
        }
    }
}

/// Where a failure came from: the archive or the store.
enum Fault {
    Read(io::Error),
    Other(Error),
}

impl Fault {
    fn about(self, meter: &Meter, limits: Limits) -> Error {
        match self {
            Self::Read(source) => too_large(meter, &source, "bytes", limits.bytes),
            Self::Other(error) => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Stores one file. What a layout calls by a digest has to have it.
fn keep(store: &Store, entry: &mut Entry<'_, Source>, name: &str) -> Result<Digest, Fault> {
    let mut writer = store.writer()?;
    let path = writer.path().to_owned();
    let (size, mut written) = (entry.size(), 0);
    let mut piece = vec![0; 1 << 17];
    loop {
        let count = entry.read(&mut piece).map_err(Fault::Read)?;
        if count == 0 {
            break;
        }
        writer.write_all(&piece[..count]).map_err(|e| Error::io("write", &path, e))?;
        written += count as u64;
    }
    if written != size {
        return Err(Fault::Read(io::ErrorKind::UnexpectedEof.into()));
    }
    let (digest, _) = writer.finish()?;
    match name.strip_prefix(BLOBS) {
        Some(hex) if hex != digest.hex() => {
            Err(refused(format!("its member `{name}` is damaged: it hashes to {digest}")).into())
        }
        _ => Ok(digest),
    }
}

/// Where a link leads: a symbolic one from its folder, a hard one from the root of the archive.
fn target(entry: &Entry<'_, Source>, name: &str, kind: EntryType) -> Result<String> {
    let link = entry.link_name_bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = if kind == EntryType::Link { link.clone() } else { format!("{folder}/{link}") };
    normal(&path).ok_or_else(|| refused(format!("its link `{name}` leads out of it")))
}

/// The path with its `.` and `..` resolved; none if it leaves the archive.
fn normal(path: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

fn too_large(meter: &Meter, source: &io::Error, what: &str, limit: u64) -> Error {
    if meter.exhausted() {
        return refused(format!("it has more than {limit} {what}"));
    }
    unreadable(source)
}

fn unreadable(source: &io::Error) -> Error {
    refused(format!("it is not a readable tar archive (plain, gzip or zstd): {source}"))
}
