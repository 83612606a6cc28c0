//! From the image a container names to unpacked layers: the local store first, the registry as the pull policy says.
//!
//! One pull and one unpacking of the same image runs at a time, whoever asks. Images under `shipway.local/` exist
//! nowhere else and are never asked for at a registry.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use shipway_oci::{Credentials, Digest, Layers, Mirrors, Reference, Store};
use tokio::sync::{Notify, OnceCell};

use crate::keyring::Keyring;

/// Where images live that `shipway run` packed on this machine.
const LOCAL_REGISTRY: &str = "shipway.local";

/// An image that is ready to be run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Image {
    /// The name for the status.
    pub(crate) name: String,
    /// `imageID`: the repository at a digest.
    pub(crate) id: String,
    /// Unpacked layers, lowest first.
    pub(crate) lowers: Vec<PathBuf>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) working_dir: String,
    pub(crate) user: String,
    pub(crate) stop_signal: Option<String>,
}

/// Whether and when the registry is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// The policy of a container; unset, it follows the tag as the API would have defaulted it.
    pub(crate) fn of(word: Option<&str>, image: &str) -> Self {
        match word {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            Some("IfNotPresent") => Self::IfNotPresent,
            _ if image.contains('@') => Self::IfNotPresent,
            _ => match image.rsplit('/').next().and_then(|last| last.split_once(':')) {
                Some((_, tag)) if tag != "latest" => Self::IfNotPresent,
                _ => Self::Always,
            },
        }
    }
}

/// What happened on the way to an image, in order, for the pod's events.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// reason, message
    Normal(&'static str, String),
    /// reason, message
    Warning(&'static str, String),
}

/// An answer: the image or the waiting reason and its message; and what to tell.
pub(crate) type Answer = (Result<Arc<Image>, (String, String)>, Vec<Told>);

/// Images and whether somebody has them still.
type Held = Vec<(Digest, Weak<Image>)>;

type Flight<T> = Arc<OnceCell<Result<T, String>>>;

/// The images of this machine.
#[derive(Clone)]
pub(crate) struct Images {
    store: Store,
    layers: Layers,
    unpacking: Arc<Mutex<HashMap<Digest, Flight<Arc<Image>>>>>,
    pulling: Arc<Mutex<HashMap<String, Flight<()>>>>,
    /// Images that pods hold, started or not.
    held: Arc<Mutex<Held>>,
    /// Told when something was pulled.
    pulled: Arc<Notify>,
    /// Where it is told which registries stand in for others.
    registries: PathBuf,
    /// By which credentials are told apart without keeping them.
    hashing: RandomState,
}

impl Images {
    pub(crate) fn new(store: Store, layers: Layers, registries: PathBuf) -> Self {
        let (unpacking, pulling) = (Arc::default(), Arc::default());
        let (held, pulled) = (Arc::default(), Arc::default());
        Self { store, layers, unpacking, pulling, held, pulled, registries, hashing: RandomState::new() }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Manifests and unpacked layers of the images that pods hold.
    pub(crate) fn held(&self) -> (HashSet<Digest>, HashSet<Digest>) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let living: Vec<(Digest, Arc<Image>)> =
            held.iter().filter_map(|(digest, image)| Some((*digest, image.upgrade()?))).collect();
        let layers = living.iter().flat_map(|(_, image)| &image.lowers);
        (
            living.iter().map(|(digest, _)| *digest).collect(),
            layers.filter_map(|path| Layers::content_at(path)).collect(),
        )
    }

    /// Resolves when something was pulled since the last time.
    pub(crate) async fn pulled(&self) {
        self.pulled.notified().await;
    }

    /// Finds `wanted`, pulling it when the policy asks for that.
    pub(crate) async fn fetch(&self, wanted: &str, policy: PullPolicy, keys: &Keyring) -> Answer {
        let mut told = Vec::new();
        let result = self.try_fetch(wanted, policy, keys, &mut told).await;
        if let Err((reason, message)) = &result {
            told.push(Told::Warning("Failed", format!("{message} ({reason})")));
        }
        (result, told)
    }

    async fn try_fetch(
        &self,
        wanted: &str,
        policy: PullPolicy,
        keys: &Keyring,
        told: &mut Vec<Told>,
    ) -> Result<Arc<Image>, (String, String)> {
        let reference: Reference = wanted.parse().map_err(|error| {
            ("InvalidImageName".to_owned(), format!("couldn't parse image name \"{wanted}\": {error}"))
        })?;
        let local_only = is_local(&reference);
        let present = self.resolve(&reference).await?;
        match (present, policy) {
            (Some(digest), PullPolicy::IfNotPresent | PullPolicy::Never) => {
                told.push(Told::Normal("Pulled", format!("Container image \"{wanted}\" already present on machine")));
                self.unpack(&reference, digest).await
            }
            (Some(digest), PullPolicy::Always) if local_only => {
                told.push(Told::Normal("Pulled", format!("Container image \"{wanted}\" is local to this machine")));
                self.unpack(&reference, digest).await
            }
            (None, PullPolicy::Never) => Err((
                "ErrImageNeverPull".to_owned(),
                format!("Container image \"{wanted}\" is not present with pull policy of Never"),
            )),
            (None, _) if local_only => Err((
                "ErrImagePull".to_owned(),
                format!("image \"{wanted}\" is not in the store of this machine; pack it with `shipway run`"),
            )),
            (present, _) => {
                let credentials = keys.credentials(&reference);
                let error = match self.pull_with_events(&reference, wanted, credentials, told).await {
                    Ok(digest) => return self.unpack(&reference, digest).await,
                    Err(error) => error,
                };
                let Some(digest) = present else { return Err(pull_error(wanted, &error)) };
                let message = format!("Could not pull image \"{wanted}\" ({error}); the copy on this machine is used");
                told.push(Told::Warning("PullFailedUsingLocal", message));
                self.unpack(&reference, digest).await
            }
        }
    }

    async fn pull_with_events(
        &self,
        reference: &Reference,
        wanted: &str,
        credentials: Vec<Credentials>,
        told: &mut Vec<Told>,
    ) -> Result<Digest, String> {
        told.push(Told::Normal("Pulling", format!("Pulling image \"{wanted}\"")));
        let begun = tokio::time::Instant::now();
        self.pull(reference, credentials).await?;
        let message = format!("Successfully pulled image \"{wanted}\" in {:.1?}", begun.elapsed());
        told.push(Told::Normal("Pulled", message));
        let digest = self.resolve(reference).await.map_err(|(_, message)| message)?;
        digest.ok_or_else(|| "it was not in the store afterwards".to_owned())
    }

    async fn resolve(&self, reference: &Reference) -> Result<Option<Digest>, (String, String)> {
        let (store, reference) = (self.store.clone(), reference.clone());
        let found = tokio::task::spawn_blocking(move || store.resolve(&reference)).await;
        found
            .map_err(|error| ("ImageInspectError".to_owned(), error.to_string()))?
            .map_err(|error| ("ImageInspectError".to_owned(), error.to_string()))
    }

    /// Tries the credentials one after the other, then what the machine itself has.
    async fn pull(&self, reference: &Reference, credentials: Vec<Credentials>) -> Result<(), String> {
        // Nobody is lent what another's secret opened.
        let told: Vec<(&str, &str)> = credentials.iter().filter_map(Credentials::basic).collect();
        let key = format!("{reference} {}", self.hashing.hash_one(told));
        let flight = flight(&self.pulling, &key);
        let result = flight
            .get_or_init(|| async {
                let (store, reference) = (self.store.clone(), reference.clone());
                let handle = tokio::runtime::Handle::current();
                // It writes files as it goes; a thread that may block is the place for that.
                let registries = self.registries.clone();
                let pulled = tokio::task::spawn_blocking(move || {
                    let mirrors = Mirrors::read(&registries)?;
                    handle.block_on(pull(&store, &reference, &credentials, &mirrors))
                });
                let pulled = pulled.await.map_err(|error| error.to_string())?;
                pulled.map_err(|error| error.to_string())
            })
            .await
            .clone();
        land(&self.pulling, &key);
        self.pulled.notify_one();
        result
    }

    async fn unpack(&self, reference: &Reference, digest: Digest) -> Result<Arc<Image>, (String, String)> {
        let flight = flight(&self.unpacking, &digest);
        let result = flight
            .get_or_init(|| async {
                let (store, layers, of) = (self.store.clone(), self.layers.clone(), digest);
                let unpacked = tokio::task::spawn_blocking(move || load(&store, &layers, &of)).await;
                unpacked.map_err(|error| error.to_string()).and_then(|image| image.map(Arc::new))
            })
            .await
            .clone();
        land(&self.unpacking, &digest);
        let mut image = result.map_err(|message| ("ErrImagePull".to_owned(), message))?;
        let named = Arc::make_mut(&mut image);
        named.name = reference.to_string();
        named.id = format!("{}@{digest}", repository(&named.name));
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|(_, image)| image.strong_count() > 0);
        held.push((digest, Arc::downgrade(&image)));
        Ok(image)
    }
}

async fn pull(
    store: &Store,
    reference: &Reference,
    credentials: &[Credentials],
    mirrors: &Mirrors,
) -> shipway_oci::Result<()> {
    let mut last = None;
    for one in credentials.iter().map(Some).chain([None]) {
        match shipway_oci::pull_through(store, reference, one, mirrors).await {
            Ok(_) => return Ok(()),
            // The word of the registry on credentials says more than that on none.
            Err(error) => drop(last.get_or_insert(error)),
        }
    }
    Err(last.expect("it was tried at least once"))
}

fn pull_error(wanted: &str, error: &str) -> (String, String) {
    ("ErrImagePull".to_owned(), format!("Failed to pull image \"{wanted}\": {error}"))
}

fn flight<K: Clone + Eq + std::hash::Hash, T>(flights: &Mutex<HashMap<K, Flight<T>>>, key: &K) -> Flight<T> {
    let mut flights = flights.lock().unwrap_or_else(PoisonError::into_inner);
    flights.entry(key.clone()).or_default().clone()
}

fn land<K: Eq + std::hash::Hash, T>(flights: &Mutex<HashMap<K, Flight<T>>>, key: &K) {
    flights.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
}

/// Whether the image exists nowhere but on this machine.
pub(crate) fn is_local(reference: &Reference) -> bool {
    reference.registry() == LOCAL_REGISTRY
}

/// The reference without tag and digest.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rfind(':') {
        Some(colon) if !name[colon..].contains('/') => &name[..colon],
        _ => name,
    }
}

fn load(store: &Store, layers: &Layers, digest: &Digest) -> Result<Image, String> {
    let image = shipway_oci::Image::load(store, digest).map_err(|error| error.to_string())?;
    let lowers = layers.ensure(store, &image).map_err(|error| error.to_string())?;
    let config = image.config.config().clone().unwrap_or_default();
    let env = config.env().iter().flatten();
    Ok(Image {
        name: String::new(),
        id: String::new(),
        lowers,
        env: env
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
        stop_signal: config.stop_signal().clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_policy_follows_the_tag_when_it_is_not_set() {
        assert_eq!(PullPolicy::of(None, "busybox"), PullPolicy::Always);
        assert_eq!(PullPolicy::of(None, "busybox:latest"), PullPolicy::Always);
        assert_eq!(PullPolicy::of(None, "host:5000/busybox"), PullPolicy::Always);
        assert_eq!(PullPolicy::of(None, "busybox:1.36"), PullPolicy::IfNotPresent);
        assert_eq!(PullPolicy::of(Some("Never"), "busybox"), PullPolicy::Never);
    }

    #[test]
    fn the_repository_is_the_reference_without_tag_and_digest() {
        assert_eq!(repository("docker.io/library/busybox:latest"), "docker.io/library/busybox");
        assert_eq!(repository("host:5000/app@sha256:00"), "host:5000/app");
        assert_eq!(repository("host:5000/app"), "host:5000/app");
    }
}
