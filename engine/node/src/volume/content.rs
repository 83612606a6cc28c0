//! What the files of a configMap, secret, downwardAPI or projected volume hold, and who may read them. Pure.

use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use crate::amount::{Allocatable, resource_field};
use crate::downward;
use crate::pod;
use crate::references::Contents;
use crate::tokens::Wanted;
use crate::users;

const DEFAULT_MODE: i32 = 0o644;
/// Of tokens where it is known who reads them.
const PRIVATE: i32 = 0o600;

/// All that volumes are made from.
pub(crate) struct Sources<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) contents: &'a Contents,
    pub(crate) allocatable: &'a Allocatable,
    /// This node's name.
    pub(crate) node: &'a str,
    /// Where this node keeps the folders of volumes.
    pub(crate) folders: &'a Path,
}

/// One file of a volume.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct File {
    /// Relative, without `..`.
    pub(crate) path: String,
    pub(crate) mode: u32,
    /// Whose it is, unless the node's own.
    pub(crate) owner: Option<u32>,
    pub(crate) bytes: Vec<u8>,
}

/// The files of a volume that shows objects; `None` for other kinds of volumes.
pub(crate) fn files(volume: &Volume, sources: &Sources<'_>) -> Result<Option<Vec<File>>, String> {
    let files = if let Some(map) = &volume.config_map {
        config_map(sources, &map.name, map.items.as_deref(), map.optional, map.default_mode)?
    } else if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        self::secret(sources, name, secret.items.as_deref(), secret.optional, secret.default_mode)?
    } else if let Some(downward) = &volume.downward_api {
        downward_files(sources, downward.items.as_deref(), downward.default_mode)?
    } else if let Some(projected) = &volume.projected {
        let mut files = Vec::new();
        for source in projected.sources.iter().flatten() {
            files.extend(projection(sources, source, projected.default_mode)?);
        }
        files
    } else {
        return Ok(None);
    };
    files.iter().try_for_each(|file| check_path(&file.path))?;
    Ok(Some(files))
}

fn projection(sources: &Sources<'_>, source: &VolumeProjection, mode: Option<i32>) -> Result<Vec<File>, String> {
    if let Some(map) = &source.config_map {
        config_map(sources, &map.name, map.items.as_deref(), map.optional, mode)
    } else if let Some(secret) = &source.secret {
        self::secret(sources, &secret.name, secret.items.as_deref(), secret.optional, mode)
    } else if let Some(downward) = &source.downward_api {
        downward_files(sources, downward.items.as_deref(), mode)
    } else if let Some(source) = &source.service_account_token {
        token(sources, source, mode).map(|file| vec![file])
    } else {
        Err("a projected source is of a kind that this node does not support".to_owned())
    }
}

/// A token belongs to the user of all containers where there is one, and is open to the volumes' group.
fn token(sources: &Sources<'_>, source: &ServiceAccountTokenProjection, mode: Option<i32>) -> Result<File, String> {
    let token = sources.contents.token(&Wanted::of(source));
    let token =
        token.ok_or_else(|| format!("no token for audience \"{}\"", source.audience.as_deref().unwrap_or_default()))?;
    let owner = users::of_all(sources.pod);
    let mode = if owner.is_some() || super::fs_group(sources.pod).is_some() { Some(PRIVATE) } else { mode };
    Ok(File { owner, ..file(&source.path, None, mode, token.as_bytes().to_vec()) })
}

fn config_map(
    sources: &Sources<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: Option<i32>,
) -> Result<Vec<File>, String> {
    let found = sources.contents.config_map(name);
    keys(found.as_ref(), &format!("configmap \"{name}\""), items, optional, mode)
}

fn secret(
    sources: &Sources<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: Option<i32>,
) -> Result<Vec<File>, String> {
    let found = sources.contents.secret(name);
    keys(found.as_ref(), &format!("secret \"{name}\""), items, optional, mode)
}

fn keys(
    found: Option<&std::collections::BTreeMap<&str, &[u8]>>,
    what: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: Option<i32>,
) -> Result<Vec<File>, String> {
    let optional = optional == Some(true);
    let Some(found) = found else {
        return if optional { Ok(Vec::new()) } else { Err(format!("{what} not found")) };
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let all = found.iter().map(|(key, value)| file(key, None, mode, value.to_vec()));
        return Ok(all.collect());
    };
    let mut files = Vec::new();
    for item in items {
        match found.get(item.key.as_str()) {
            Some(value) => files.push(file(&item.path, item.mode, mode, value.to_vec())),
            None if optional => {}
            None => {
                return Err(format!(
                    "references non-existent {} key: {}",
                    what.split(' ').next().unwrap_or(what),
                    item.key
                ));
            }
        }
    }
    Ok(files)
}

fn downward_files(
    sources: &Sources<'_>,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: Option<i32>,
) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    for item in items.unwrap_or_default() {
        let value = if let Some(field) = &item.field_ref {
            downward::field(sources.pod, &field.field_path)?
        } else if let Some(field) = &item.resource_field_ref {
            let name = field.container_name.as_deref().unwrap_or_default();
            let container = pod::container(sources.pod, name).ok_or_else(|| format!("container {name} not found"))?;
            resource_field(container, &field.resource, field.divisor.as_ref(), sources.allocatable)?
        } else {
            return Err(format!("{} names neither a field nor a resource", item.path));
        };
        files.push(file(&item.path, item.mode, mode, value.into_bytes()));
    }
    Ok(files)
}

fn file(path: &str, own: Option<i32>, default: Option<i32>, bytes: Vec<u8>) -> File {
    let mode = own.or(default).unwrap_or(DEFAULT_MODE);
    File { path: path.to_owned(), mode: u32::try_from(mode).unwrap_or(0o644) & 0o777, owner: None, bytes }
}

/// No absolute path, no `..`, nothing that could be taken for the volume's own bookkeeping.
fn check_path(path: &str) -> Result<(), String> {
    let plain = !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if plain && !path.starts_with("..") {
        Ok(())
    } else {
        Err(format!("path \"{path}\" must be relative, without \"..\", and must not begin with \"..\""))
    }
}
