//! What an engine does itself when there is no supervisor to do it: read the last states, kill by control group,
//! clean up.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cgroup::Group;
use crate::disk;
use crate::error::{ContainerError, Failure};
use crate::layout::{Layout, PodPaths};
use crate::process::Identity;
use crate::spec::ContainerSpec;
use crate::state::ContainerState;
use crate::supervisor::{Kept, Record};

/// How long a killed supervisor may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// The states as the supervisor last wrote them.
pub(super) fn last_states(paths: &PodPaths) -> BTreeMap<String, ContainerState> {
    let Ok(entries) = std::fs::read_dir(paths.containers()) else { return BTreeMap::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    ids.map(|id| {
        let kept = disk::read::<Kept>(&paths.container(&id).state());
        (id, kept.map_or(ContainerState::Created, |kept| kept.state))
    })
    .collect()
}

/// The first process of a container, as the supervisor last wrote it.
pub(super) fn process_of(paths: &PodPaths, id: &str) -> Option<Identity> {
    disk::read::<Kept>(&paths.container(id).state()).ok()?.process
}

/// The layers that the specifications of all containers of all pods name.
pub(super) fn layers(layout: &Layout) -> io::Result<HashSet<PathBuf>> {
    let mut all = HashSet::new();
    for uid in names(&layout.state)? {
        let Ok(paths) = layout.pod(&uid) else { continue };
        for id in names(&paths.containers())? {
            match disk::read::<ContainerSpec>(&paths.container(&id).spec()) {
                Ok(spec) => all.extend(spec.lowers),
                // Being made: its layers were asked for a moment ago. Or being removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(all)
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
    }
}

/// Removes what a supervisor leaves that has shut down in order.
pub(super) async fn files(paths: &PodPaths) -> Result<(), ContainerError> {
    blocking(paths, tidy).await
}

/// Leaves nothing of the pod: no process, no control group, no file of ours. Files of others in its folder stay.
pub(super) async fn pod(paths: &PodPaths) -> Result<(), ContainerError> {
    blocking(paths, sweep).await
}

async fn blocking(paths: &PodPaths, work: fn(&PodPaths) -> io::Result<()>) -> Result<(), ContainerError> {
    let uid = paths.uid.clone();
    let paths = paths.clone();
    let done = tokio::task::spawn_blocking(move || work(&paths)).await;
    done.map_err(|error| Failure::internal(format!("cleaning up pod {uid}: {error}")))?
        .map_err(ContainerError::io(format!("clean up pod {uid}")))
}

fn sweep(paths: &PodPaths) -> io::Result<()> {
    let record: Option<Record> = disk::read(&paths.supervisor()).ok();
    let processes = record.map(|record| [Some(record.process), record.processes]).into_iter().flatten().flatten();
    for handle in processes.filter_map(Identity::open) {
        handle.kill()?;
        if !handle.wait(KILL_LIMIT)? {
            return Err(io::Error::other("the supervisor does not end"));
        }
    }
    Group::new(&paths.cgroup)?.remove()?;
    tidy(paths)
}

/// Removes the files, when no process uses them any more.
fn tidy(paths: &PodPaths) -> io::Result<()> {
    disk::remove_file(&paths.socket)?;
    disk::remove_folder(&paths.containers())?;
    disk::remove_folder(&paths.shared_memory())?;
    // Last, for it says that there is a pod.
    for file in [paths.supervisor_log(), paths.supervisor(), paths.sandbox()] {
        disk::remove_file(&file)?;
    }
    match disk::gone_is_fine(std::fs::remove_dir(&paths.folder)) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other,
    }
}
