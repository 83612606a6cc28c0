//! What a controller changed and the watch does not show yet, by revision.
//!
//! A controller that counts must not look at an object as it was before its own last write: what it took into a number
//! then would be taken again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::{Resource, ResourceExt};
use shipway_driver::{Change, revision};

use crate::Key;

/// Revisions that the watch has to show, by the uid of the object.
///
/// It always does, or shows that the object is gone; nothing has to be given up after a while.
#[derive(Default)]
pub(crate) struct Written(Mutex<HashMap<String, (Key, u64)>>);

impl Written {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, (Key, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object was written on behalf of `owner`; `shown` is what the watch shows in its place.
    pub(crate) fn wrote<K: Resource>(&self, owner: &Key, object: &K, shown: impl Fn() -> Option<Arc<K>>) {
        let Some(uid) = object.uid() else { return };
        let written = revision(object);
        self.entries().insert(uid.clone(), (owner.clone(), written));
        // Looked at after the entry is there: what is shown between the answer and the entry is not missed.
        let is_ahead = |shown: Arc<K>| shown.uid().as_ref() == Some(&uid) && revision(&*shown) < written;
        if !shown().is_some_and(is_ahead) {
            self.entries().remove(&uid);
        }
    }

    /// The watch showed a change.
    pub(crate) fn saw<K: Resource>(&self, change: &Change<K>) {
        let object = change.object();
        let Some(uid) = object.uid() else { return };
        let mut entries = self.entries();
        let gone = matches!(change, Change::Deleted(_));
        if entries.get(&uid).is_some_and(|(_, written)| gone || revision(&**object) >= *written) {
            entries.remove(&uid);
        }
    }

    /// Whether something that was written on behalf of `owner` has not been seen yet.
    pub(crate) fn awaits(&self, owner: &Key) -> bool {
        self.entries().values().any(|(by, _)| by == owner)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, revision: u64) -> Arc<Pod> {
        let object = json!({"metadata": {"name": "a", "uid": uid, "resourceVersion": revision.to_string()}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_write_is_awaited_until_it_or_the_end_of_the_object_is_seen() {
        let (written, owner) = (Written::default(), ("n".to_owned(), "o".to_owned()));
        let write = || written.wrote(&owner, &*pod("x", 5), || Some(pod("x", 4)));
        write();
        assert!(written.awaits(&owner) && !written.awaits(&("n".to_owned(), "other".to_owned())));
        written.saw(&Change::Applied(pod("x", 4)));
        assert!(written.awaits(&owner));
        written.saw(&Change::Applied(pod("x", 6)));
        assert!(!written.awaits(&owner));
        write();
        written.saw(&Change::Deleted(pod("x", 4)));
        assert!(!written.awaits(&owner));
    }

    #[test]
    fn what_is_shown_already_is_not_awaited() {
        let (written, owner) = (Written::default(), ("n".to_owned(), "o".to_owned()));
        for shown in [Some(pod("x", 5)), Some(pod("x", 7)), Some(pod("y", 1)), None] {
            written.wrote(&owner, &*pod("x", 5), || shown.clone());
            assert!(!written.awaits(&owner), "{shown:?}");
        }
    }
}
