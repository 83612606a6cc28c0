//! The watch cache: every object of every resource as shared bytes, kept by one task that follows the store.
//!
//! Reads never go behind an acknowledged write: they wait until the cache has applied the store's newest revision. A
//! snapshot of one resource is consistent at the revision it names, although no lock spans two resources.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use shipway_schema::Resource;
use shipway_store::{Commit, Event, EventKind, KeyValue, Range, Revision, Store, StoreError, Watcher};
use tokio::sync::watch;

use crate::error::ApiError;
use crate::object::Object;
use crate::ring::{Change, Ring};

/// Where every key of the server begins.
pub(crate) const ROOT: &str = "/registry/";
/// Where addresses and ports taken by services are claimed, one key each.
pub(crate) const CLAIMS: &str = "/registry/ranges/";
/// How long a read waits for a revision that has not come up yet.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to leave the store alone after it failed to read.
const RETRY: Duration = Duration::from_millis(200);
/// How often following may panic over the same commit.
const PANICS: u32 = 4;

/// Events with their keys within a table.
type Keyed<'a> = Vec<(&'a str, &'a Event)>;

/// All resources.
pub(crate) struct Cache {
    /// By prefix; made when the first object or reader comes, so that the cache need not know which kinds are served.
    tables: RwLock<HashMap<Box<str>, Arc<Table>>>,
    /// Every change after this revision was seen.
    loaded: Revision,
    claims: RwLock<BTreeSet<Box<str>>>,
    applied: watch::Sender<Revision>,
    /// Set when the store can no longer be followed.
    lost: AtomicBool,
    store: Arc<dyn Store>,
}

/// The objects of one kind, whatever versions show them, and their recent changes.
pub(crate) struct Table {
    /// `/registry/<group or core>/<plural>/`
    pub(crate) prefix: Box<str>,
    state: RwLock<State>,
    /// The ring's end, for watchers to wait on.
    moved: watch::Sender<u64>,
}

struct State {
    objects: BTreeMap<Box<str>, Arc<Object>>,
    ring: Ring,
    /// The revision of the newest change.
    last: Revision,
}

/// Objects of one resource at one revision.
pub(crate) struct Snapshot {
    /// In the order of their keys.
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) revision: Revision,
    /// The number of the first change behind the snapshot.
    pub(crate) next: u64,
}

impl Table {
    fn new(prefix: &str, objects: BTreeMap<Box<str>, Arc<Object>>, loaded: Revision) -> Self {
        let last = objects.values().map(|object| object.revision).max().unwrap_or(0);
        let state = RwLock::new(State { objects, ring: Ring::new(loaded), last });
        Self { prefix: prefix.into(), state, moved: watch::Sender::new(0) }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.read().objects.get(key).cloned()
    }

    /// One object with the revision of the look, given that everything up to `applied` has been applied.
    pub(crate) fn get_at(&self, key: &str, applied: Revision) -> (Option<Arc<Object>>, Revision) {
        let state = self.read();
        (state.objects.get(key).cloned(), applied.max(state.last))
    }

    /// The number of the next change.
    pub(crate) fn end(&self) -> u64 {
        self.read().ring.end()
    }

    /// Wakes on every change; holds the number of the next change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Up to `limit` changes from a number on, with the revision the ring is complete to, given that everything up to
    /// `applied` has been applied; `None` when the watcher has been overtaken.
    pub(crate) fn read_changes(
        &self,
        number: u64,
        limit: usize,
        applied: Revision,
    ) -> Option<(Vec<Arc<Change>>, Revision)> {
        let state = self.read();
        let changes = state.ring.from(number, limit)?;
        let drained = number + changes.len() as u64 == state.ring.end();
        let complete = if drained { applied.max(state.last) } else { changes.last()?.revision };
        Some((changes, complete))
    }

    /// The revision that the table is complete to, and the number of the next change.
    pub(crate) fn edge(&self, applied: Revision) -> (Revision, u64) {
        let state = self.read();
        (applied.max(state.last), state.ring.end())
    }

    /// Whether nothing has changed since a revision.
    pub(crate) fn unchanged_since(&self, revision: Revision) -> bool {
        self.read().last <= revision
    }

    /// The number of the first change after a revision, if all of them are still here.
    pub(crate) fn position(&self, revision: Revision) -> Option<u64> {
        self.read().ring.after(revision)
    }

    /// Applies the changes that one revision made to this resource, as one step; once, however often it is told.
    fn apply(&self, revision: Revision, events: &[(&str, &Event)]) {
        // What could fail comes before anything is changed.
        let read: Vec<_> = events.iter().filter_map(|(key, event)| Some((*key, news(key, event, revision)?))).collect();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.last >= revision {
            return;
        }
        for (key, news) in read {
            if let Some(change) = state.change(key, news, revision) {
                state.ring.push(Arc::new(change));
            }
        }
        state.last = revision;
        let end = state.ring.end();
        drop(state);
        self.moved.send_replace(end);
    }
}

/// What an event means for a table.
enum News {
    Put(Arc<Object>),
    Deleted,
}

/// None where the object cannot be read.
fn news(key: &str, event: &Event, revision: Revision) -> Option<News> {
    match event.kind {
        EventKind::Put => match Object::stored(key, event.kv.value.clone(), revision) {
            Ok(object) => Some(News::Put(Arc::new(object))),
            Err(error) => {
                tracing::error!(key, revision, %error, "ignoring a stored object that cannot be read");
                None
            }
        },
        EventKind::Delete => Some(News::Deleted),
    }
}

impl State {
    fn change(&mut self, key: &str, news: News, revision: Revision) -> Option<Change> {
        match news {
            News::Put(object) => {
                let previous = self.objects.insert(key.into(), object.clone());
                Some(Change { revision, object, previous, deleted: false })
            }
            News::Deleted => {
                let previous = self.objects.remove(key)?;
                let object = Arc::new(previous.restamped(revision));
                Some(Change { revision, object, previous: Some(previous), deleted: true })
            }
        }
    }
}

impl Cache {
    /// Loads everything at one revision; [`Cache::follow`] must then be run with the watcher returned.
    pub(crate) async fn load(store: Arc<dyn Store>) -> Result<(Self, Box<dyn Watcher>), ApiError> {
        let loaded = store.range(Range::prefix(Bytes::from_static(ROOT.as_bytes()))).await?;
        let revision = loaded.revision;
        // Everything, not only our keys: readers wait for the store's revision, whoever made it.
        let watcher = store.watch(Range::all(), revision + 1).await?;
        let mut claims = BTreeSet::new();
        let mut objects: HashMap<Box<str>, BTreeMap<Box<str>, Arc<Object>>> = HashMap::new();
        for kv in &loaded.items {
            let (prefix, key) = match place(&kv.key) {
                Some(Place::Object(prefix, key)) => (prefix, key),
                Some(Place::Claim(claim)) => {
                    claims.insert(claim.into());
                    continue;
                }
                None => continue,
            };
            let object = read(key, kv)?;
            objects.entry(prefix.into()).or_default().insert(key.into(), Arc::new(object));
        }
        let tables = objects.into_iter().map(|(prefix, own)| {
            let table = Arc::new(Table::new(&prefix, own, revision));
            (prefix, table)
        });
        let cache = Self {
            tables: RwLock::new(tables.collect()),
            loaded: revision,
            claims: RwLock::new(claims),
            applied: watch::Sender::new(revision),
            lost: AtomicBool::new(false),
            store,
        };
        Ok((cache, watcher))
    }

    /// Follows the store for good. Should that panic, it goes on behind the last commit that was applied as a whole; where
    /// it cannot, readers get an error instead of waiting.
    pub(crate) async fn keep_up(&self, mut watcher: Box<dyn Watcher>) {
        let mut panics = 0;
        loop {
            let before = self.revision();
            if AssertUnwindSafe(self.follow(watcher)).catch_unwind().await.is_ok() {
                return;
            }
            panics = if self.revision() > before { 1 } else { panics + 1 };
            tracing::error!(panics, revision = self.revision(), "following the store panicked");
            tokio::time::sleep(RETRY * panics).await;
            watcher = match self.store.watch(Range::all(), self.revision() + 1).await {
                Ok(watcher) if panics < PANICS => watcher,
                _ => return self.lose(),
            };
        }
    }

    /// Applies commits until the store fails. Readers then get an error instead of stale answers.
    pub(crate) async fn follow(&self, mut watcher: Box<dyn Watcher>) {
        loop {
            match watcher.next().await {
                Ok(commit) => self.apply(&commit),
                Err(error @ (StoreError::Io { .. } | StoreError::Full { .. })) => {
                    tracing::warn!(%error, "the watch cache cannot read the store; trying again");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => {
                    tracing::error!(%error, "the watch cache lost the store");
                    return self.lose();
                }
            }
        }
    }

    /// Says that the store is followed no more: readers get an error instead of stale answers.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    fn apply(&self, commit: &Commit) {
        let mut changed: Vec<(Arc<Table>, Keyed<'_>)> = Vec::new();
        for event in &commit.events {
            match place(&event.kv.key) {
                Some(Place::Object(prefix, key)) => match changed.iter_mut().find(|(own, _)| *own.prefix == *prefix) {
                    Some((_, events)) => events.push((key, event)),
                    None => changed.push((self.at(prefix), vec![(key, event)])),
                },
                Some(Place::Claim(claim)) => self.claim(claim, event),
                None => {}
            }
        }
        for (table, events) in changed {
            table.apply(commit.revision, &events);
        }
        self.applied.send_replace(commit.revision);
    }

    fn claim(&self, claim: &str, event: &Event) {
        let mut claims = self.claims.write().unwrap_or_else(PoisonError::into_inner);
        match event.kind {
            EventKind::Put => claims.insert(claim.into()),
            EventKind::Delete => claims.remove(claim),
        };
    }

    /// Whether an address or port was taken when last seen; the commit decides.
    pub(crate) fn is_claimed(&self, claim: &str) -> bool {
        self.claims.read().unwrap_or_else(PoisonError::into_inner).contains(claim)
    }

    /// The objects that are kept under a group and a plural.
    pub(crate) fn table_of(&self, group: &str, plural: &str) -> Arc<Table> {
        self.at(&format!("{ROOT}{group}/{plural}/"))
    }

    /// The objects that the resource shows.
    pub(crate) fn table(&self, resource: &Resource) -> Arc<Table> {
        self.at(&prefix(resource))
    }

    /// The objects of a kind by its group (`core` for the core group) and plural, whether it is served or not.
    pub(crate) fn named(&self, group: &str, plural: &str) -> Arc<Table> {
        self.at(&format!("{ROOT}{group}/{plural}/"))
    }

    fn at(&self, prefix: &str) -> Arc<Table> {
        if let Some(table) = self.tables.read().unwrap_or_else(PoisonError::into_inner).get(prefix) {
            return table.clone();
        }
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let empty = || Arc::new(Table::new(prefix, BTreeMap::new(), self.loaded));
        tables.entry(prefix.into()).or_insert_with(empty).clone()
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Whether the cache follows the store.
    pub(crate) fn is_following(&self) -> bool {
        !self.lost.load(Ordering::Acquire)
    }

    /// How many objects there are of each kind: group, plural, count.
    pub(crate) fn counts(&self) -> Vec<(String, String, i64)> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let count = |prefix: &str, table: &Table| {
            let (group, plural) = prefix.strip_prefix(ROOT)?.trim_end_matches('/').split_once('/')?;
            let group = if group == "core" { "" } else { group };
            Some((group.to_owned(), plural.to_owned(), i64::try_from(table.read().objects.len()).unwrap_or(i64::MAX)))
        };
        tables.iter().filter_map(|(prefix, table)| count(prefix, table)).collect()
    }

    /// The newest revision applied.
    pub(crate) fn revision(&self) -> Revision {
        *self.applied.borrow()
    }

    /// Waits until everything acknowledged so far can be read.
    pub(crate) async fn catch_up(&self) -> Result<(), ApiError> {
        self.reach(self.store.revision()).await
    }

    /// Waits until a revision has been applied; fails when it does not come up in time.
    pub(crate) async fn reach(&self, revision: Revision) -> Result<(), ApiError> {
        if self.revision() >= revision {
            return Ok(());
        }
        if !self.is_following() {
            return Err(ApiError::Unavailable("the watch cache lost the store".into()));
        }
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|applied| *applied >= revision);
        let late = || ApiError::FutureRevision { asked: revision, current: self.revision() };
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }

    /// The objects whose keys lie behind `after` (if given) and, if a namespace is given, within it.
    pub(crate) fn snapshot(&self, table: &Table, namespace: Option<&str>, after: Option<&str>) -> Snapshot {
        let applied = self.revision();
        let state = table.read();
        // No change is between `applied` and the table's own last one, so the state holds at the later of both.
        let revision = applied.max(state.last);
        let next = state.ring.end();
        let start = namespace.map(|namespace| format!("{namespace}/"));
        let bound = match (&start, after) {
            (Some(start), Some(after)) if after < start.as_str() => Bound::Included(start.as_str()),
            (_, Some(after)) => Bound::Excluded(after),
            (Some(start), None) => Bound::Included(start.as_str()),
            (None, None) => Bound::Unbounded,
        };
        let within = |key: &str| start.as_deref().is_none_or(|start| key.starts_with(start));
        let objects = state.objects.range::<str, _>((bound, Bound::Unbounded));
        let objects = objects.take_while(|(key, _)| within(key)).map(|(_, object)| object.clone()).collect();
        Snapshot { objects, revision, next }
    }
}

enum Place<'a> {
    /// The table's prefix and the rest of the key.
    Object(&'a str, &'a str),
    Claim(&'a str),
}

fn place(key: &[u8]) -> Option<Place<'_>> {
    let key = std::str::from_utf8(key).ok()?;
    if let Some(claim) = key.strip_prefix(CLAIMS) {
        return Some(Place::Claim(claim));
    }
    let rest = key.strip_prefix(ROOT)?;
    let mut slashes = rest.match_indices('/').map(|(at, _)| at);
    slashes.next()?;
    let (prefix, object) = key.split_at(ROOT.len() + slashes.next()? + 1);
    Some(Place::Object(prefix, object))
}

/// Reads an object that the store returned.
pub(crate) fn read(key: &str, kv: &KeyValue) -> Result<Object, ApiError> {
    let unreadable = |error| ApiError::Internal(format!("the stored object {key} cannot be read: {error}"));
    Object::stored(key, kv.value.clone(), kv.mod_revision).map_err(unreadable)
}

/// `/registry/<group or core>/<plural>/`
fn prefix(resource: &Resource) -> String {
    let kept = &resource.kept;
    let group = if kept.group.is_empty() { "core" } else { &kept.group };
    format!("{ROOT}{group}/{}/", kept.plural)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipway_store::{Log, Options, Txn};

    /// Panics the first time that there is something to tell.
    struct Nervous(Option<Box<dyn Watcher>>);

    #[async_trait::async_trait]
    impl Watcher for Nervous {
        async fn next(&mut self) -> Result<Arc<Commit>, StoreError> {
            let mut watcher = self.0.take().expect("it is asked once");
            watcher.next().await?;
            panic!("a commit was lost");
        }
    }

    #[tokio::test]
    async fn a_panic_costs_no_commit_and_none_is_applied_twice() {
        let home = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Log::open(home.path(), Options::default()).unwrap();
        let (cache, watcher) = Cache::load(store.clone()).await.unwrap();
        let cache = Arc::new(cache);
        let follower = cache.clone();
        let following = tokio::spawn(async move { follower.keep_up(Box::new(Nervous(Some(watcher)))).await });
        let table = cache.named("core", "configmaps");
        for name in ["a", "b"] {
            let value = format!(r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}"}}}}"#);
            store.txn(Txn::new().put(format!("/registry/core/configmaps/n/{name}"), value)).await.unwrap();
            cache.catch_up().await.unwrap();
        }
        assert!(cache.is_following() && table.get("n/a").is_some() && table.get("n/b").is_some());
        assert_eq!(table.end(), 2);
        following.abort();
    }

    #[test]
    fn keys_fall_into_their_tables() {
        let split = |key: &'static str| match place(key.as_bytes()) {
            Some(Place::Object(prefix, key)) => Some((prefix, key)),
            _ => None,
        };
        assert_eq!(split("/registry/core/nodes/a"), Some(("/registry/core/nodes/", "a")));
        assert_eq!(split("/registry/apps/deployments/ns/a"), Some(("/registry/apps/deployments/", "ns/a")));
        assert_eq!(split("/other"), None);
        assert!(matches!(place(b"/registry/ranges/ip/10.0.0.1"), Some(Place::Claim("ip/10.0.0.1"))));
    }
}
