//! The ConfigMaps, Secrets and claims that a pod refers to: which they are, and their contents at one moment, together with the
//! tokens that are shown beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Volume};
use kube::Api;

use crate::error::{NodeError, is_not_found};
use crate::pod;
use crate::tokens::{Issued, Wanted};
use crate::volume::{Claimed, claim_of};

/// One object in the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reference {
    ConfigMap(String),
    Secret(String),
    Claim(String),
}

/// Files in volumes of the pod, by volume and path, and their text.
pub(crate) type Files = BTreeMap<(String, String), String>;

/// What the referred objects hold; an absent object has no entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    config_maps: BTreeMap<String, Arc<ConfigMap>>,
    secrets: BTreeMap<String, Arc<Secret>>,
    claims: BTreeMap<String, Arc<Claimed>>,
    tokens: Issued,
    files: Files,
}

impl Contents {
    /// Reads `wanted` from the API, all at once.
    pub(crate) async fn read(
        client: &kube::Client,
        namespace: &str,
        wanted: impl IntoIterator<Item = Reference>,
    ) -> Result<Self, NodeError> {
        let reads = wanted.into_iter().map(|reference| read_one(client, namespace, reference));
        let mut contents = Self::default();
        for found in futures::future::try_join_all(reads).await? {
            match found {
                Some(Object::ConfigMap(object)) => contents.insert_config_map(object),
                Some(Object::Secret(object)) => contents.insert_secret(object),
                Some(Object::Claim(name, claimed)) => contents.insert_claim(&name, *claimed),
                None => {}
            }
        }
        Ok(contents)
    }

    pub(crate) fn insert_config_map(&mut self, object: ConfigMap) {
        self.config_maps.insert(object.metadata.name.clone().unwrap_or_default(), Arc::new(object));
    }

    pub(crate) fn insert_secret(&mut self, object: Secret) {
        self.secrets.insert(object.metadata.name.clone().unwrap_or_default(), Arc::new(object));
    }

    pub(crate) fn insert_claim(&mut self, name: &str, claimed: Claimed) {
        self.claims.insert(name.to_owned(), Arc::new(claimed));
    }

    /// A claim and what it is bound to.
    pub(crate) fn claim(&self, name: &str) -> Option<&Claimed> {
        self.claims.get(name).map(|claimed| &**claimed)
    }

    pub(crate) fn insert_tokens(&mut self, tokens: Issued) {
        self.tokens.extend(tokens);
    }

    pub(crate) fn insert_files(&mut self, files: Files) {
        self.files.extend(files);
    }

    /// The text of a file in one of the pod's volumes.
    pub(crate) fn file(&self, volume: &str, path: &str) -> Option<&str> {
        self.files.get(&(volume.to_owned(), path.to_owned())).map(String::as_str)
    }

    pub(crate) fn token(&self, wanted: &Wanted) -> Option<&str> {
        self.tokens.get(wanted).map(|token| &**token)
    }

    /// Every key of a ConfigMap, text and binary.
    pub(crate) fn config_map(&self, name: &str) -> Option<BTreeMap<&str, &[u8]>> {
        let object = self.config_maps.get(name)?;
        let text = object.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
        let binary = object.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
        Some(text.chain(binary).collect())
    }

    /// Every key of a Secret.
    pub(crate) fn secret(&self, name: &str) -> Option<BTreeMap<&str, &[u8]>> {
        let data = self.secrets.get(name)?.data.iter().flatten();
        Some(data.map(|(key, value)| (key.as_str(), value.0.as_slice())).collect())
    }
}

enum Object {
    ConfigMap(ConfigMap),
    Secret(Secret),
    Claim(String, Box<Claimed>),
}

async fn read_one(client: &kube::Client, namespace: &str, reference: Reference) -> Result<Option<Object>, NodeError> {
    let found = match &reference {
        Reference::ConfigMap(name) => {
            Api::<ConfigMap>::namespaced(client.clone(), namespace).get(name).await.map(Object::ConfigMap)
        }
        Reference::Secret(name) => {
            Api::<Secret>::namespaced(client.clone(), namespace).get(name).await.map(Object::Secret)
        }
        Reference::Claim(name) => read_claim(client, namespace, name).await,
    };
    match found {
        Ok(object) => Ok(Some(object)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(NodeError::api(format!("read {reference:?} in {namespace}"), error)),
    }
}

/// The claim, and the volume that it names.
async fn read_claim(client: &kube::Client, namespace: &str, name: &str) -> Result<Object, kube::Error> {
    let claim = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace).get(name).await?;
    let volume = match claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) {
        Some(name) if !name.is_empty() => Api::<PersistentVolume>::all(client.clone()).get_opt(name).await?,
        _ => None,
    };
    Ok(Object::Claim(name.to_owned(), Box::new(Claimed { claim, volume })))
}

/// What the environment of a container refers to.
pub(crate) fn of_environment(container: &Container) -> BTreeSet<Reference> {
    let mut all = BTreeSet::new();
    for source in container.env_from.iter().flatten() {
        all.extend(source.config_map_ref.as_ref().map(|map| Reference::ConfigMap(map.name.clone())));
        all.extend(source.secret_ref.as_ref().map(|secret| Reference::Secret(secret.name.clone())));
    }
    for from in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        all.extend(from.config_map_key_ref.as_ref().map(|key| Reference::ConfigMap(key.name.clone())));
        all.extend(from.secret_key_ref.as_ref().map(|key| Reference::Secret(key.name.clone())));
    }
    all
}

/// The files that the environment of a container is taken from: volume and path.
pub(crate) fn files_of(container: &Container) -> BTreeSet<(String, String)> {
    let sources = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let files = sources.filter_map(|from| from.file_key_ref.as_ref());
    files.map(|file| (file.volume_name.clone(), file.path.clone())).collect()
}

/// What the volumes of a pod refer to.
pub(crate) fn of_volumes(pod: &Pod) -> BTreeSet<Reference> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let claims = volumes.into_iter().flatten().filter_map(|volume| claim_of(pod, volume)).map(Reference::Claim);
    volumes.into_iter().flatten().flat_map(of_volume).chain(claims).collect()
}

/// What one volume refers to.
pub(crate) fn of_volume(volume: &Volume) -> BTreeSet<Reference> {
    let mut all = BTreeSet::new();
    all.extend(volume.config_map.as_ref().map(|map| Reference::ConfigMap(map.name.clone())));
    all.extend(volume.secret.as_ref().and_then(|secret| secret.secret_name.clone()).map(Reference::Secret));
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        all.extend(source.config_map.as_ref().map(|map| Reference::ConfigMap(map.name.clone())));
        all.extend(source.secret.as_ref().map(|secret| Reference::Secret(secret.name.clone())));
    }
    all
}

/// All of them: what has to be watched for a pod that waits.
pub(crate) fn of_pod(pod: &Pod) -> BTreeSet<Reference> {
    let mut all = of_volumes(pod);
    all.extend(pod::containers(pod).flat_map(of_environment));
    all
}
