//! References in the store: one small file each, named by the hash of the reference, so that several processes may tag
//! at once without a common index. A reference is set only when the whole image is here.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::image::parts;
use crate::store::{sync_directory, write_atomically};
use crate::{Digest, Error, Reference, Result, Store};

/// One reference of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The name.
    pub reference: Reference,
    /// The manifest it names.
    pub digest: Digest,
    /// When it was set.
    pub created: SystemTime,
    /// Bytes of manifest, configuration and layers as stored.
    pub size: u64,
}

#[derive(Serialize, Deserialize)]
struct Record {
    reference: Reference,
    digest: Digest,
    size: u64,
}

impl Store {
    fn reference_path(&self, reference: &Reference) -> PathBuf {
        self.references().join(format!("{}.json", Digest::of(reference.to_string().as_bytes()).hex()))
    }

    /// Lets the reference name this manifest, whose configuration and layers must all be here.
    pub fn tag(&self, reference: &Reference, digest: &Digest) -> Result<()> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let mut size = 0;
        for part in parts(self, digest)? {
            size += self.size(&part).ok_or(Error::Incomplete { reference: reference.clone().into(), missing: part })?;
        }
        let path = self.reference_path(reference);
        if read_record(&path)?.is_some_and(|(record, _)| record.digest == *digest) {
            return Ok(());
        }
        let record = Record { reference: reference.clone(), digest: *digest, size };
        let bytes = serde_json::to_vec(&record).expect("a record of strings and numbers is JSON");
        write_atomically(self.ingest(), &path, &bytes)
    }

    /// Forgets the reference; false if there was none. Its content goes with the next collection.
    pub fn untag(&self, reference: &Reference) -> Result<bool> {
        let path = self.reference_path(reference);
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(self.references()).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("remove", &path, e)),
        }
    }

    /// The manifest that the reference names. A reference with a digest also finds a manifest that is here without a
    /// name.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Digest>> {
        if let Some(digest) = reference.digest() {
            return Ok(self.has(&digest).then_some(digest));
        }
        Ok(read_record(&self.reference_path(reference))?.map(|(record, _)| record.digest))
    }

    /// All references, in the order of their names.
    pub fn list(&self) -> Result<Vec<Tagged>> {
        let folder = self.references();
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))? {
            let path = entry.map_err(|e| Error::io("read", folder, e))?.path();
            if let Some((Record { reference, digest, size }, created)) = read_record(&path)? {
                found.push(Tagged { reference, digest, created, size });
            }
        }
        found.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(found)
    }
}

/// None if there is no such file; one that does not parse is an error, never a forgotten reference.
fn read_record(path: &PathBuf) -> Result<Option<(Record, SystemTime)>> {
    let read = || -> io::Result<_> { Ok((fs::read(path)?, fs::metadata(path)?.modified()?)) };
    let (bytes, created) = match read() {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    let record = serde_json::from_slice(&bytes).map_err(|e| Error::io("parse", path, io::Error::other(e)))?;
    Ok(Some((record, created)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImageConfig, LayerBuilder, compose};

    fn image(store: &Store, text: &[u8]) -> Digest {
        let mut builder = LayerBuilder::new(store).unwrap();
        builder.file("f".as_ref(), 0o644, &mut &*text, text.len() as u64).unwrap();
        let layer = builder.finish().unwrap();
        compose(store, &[layer], &ImageConfig::default()).unwrap()
    }

    #[test]
    fn a_tag_is_found_listed_moved_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let name: Reference = "a/b:1".parse().unwrap();
        let (first, second) = (image(&store, b"1"), image(&store, b"2"));
        assert_eq!(store.resolve(&name).unwrap(), None);
        store.tag(&name, &first).unwrap();
        store.tag(&name, &second).unwrap();
        assert_eq!(store.resolve(&name).unwrap(), Some(second));
        assert_eq!(store.resolve(&name.at(first)).unwrap(), Some(first));
        let list = store.list().unwrap();
        assert_eq!(list.len(), 1);
        assert!(list[0].size > 100 && list[0].reference == name);
        assert!(store.untag(&name).unwrap());
        assert!(!store.untag(&name).unwrap());
        assert_eq!(store.resolve(&name).unwrap(), None);
    }

    #[test]
    fn an_image_with_a_missing_layer_cannot_be_tagged() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = image(&store, b"1");
        let layer = parts(&store, &digest).unwrap()[2];
        fs::remove_file(store.blob_path(&layer)).unwrap();
        let error = store.tag(&"x".parse().unwrap(), &digest).unwrap_err();
        assert!(matches!(error, Error::Incomplete { missing, .. } if missing == layer));
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn many_threads_tag_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = image(&store, b"1");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (store, digest) = (&store, &digest);
                scope.spawn(move || {
                    for i in 0..5 {
                        store.tag(&format!("app{n}:{i}").parse().unwrap(), digest).unwrap();
                    }
                });
            }
        });
        assert_eq!(store.list().unwrap().len(), 40);
    }
}
