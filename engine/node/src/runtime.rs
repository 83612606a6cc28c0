//! The runtime's account of a pod, in the words of the pod's life.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use shipway_container::{ContainerState, PodState};

use crate::log;
use crate::machine::timestamp;
use crate::observed::{Exit, Observed};
use crate::pod;
use crate::recover::{Found, Run};

/// No container's last words are longer.
const LONGEST_WORDS: usize = 4096;

/// All that the runtime knows, as `recover` takes it.
pub(crate) fn found(state: &PodState) -> Found {
    let run = |state: &ContainerState| match state {
        ContainerState::Created => Run::HalfMade,
        ContainerState::Running { pid, started_at } => Run::Running { pid: *pid, since: timestamp(*started_at) },
        ContainerState::Exited { .. } => Run::Exited(exit(state).expect("it has exited")),
    };
    Found { runs: state.containers.iter().map(|(id, state)| (id.clone(), run(state))).collect(), lost: state.lost }
}

fn exit(state: &ContainerState) -> Option<Exit> {
    let ContainerState::Exited { code, signal, out_of_memory, started_at, finished_at } = state else { return None };
    Some(Exit {
        code: *code,
        signal: *signal,
        out_of_memory: *out_of_memory,
        started_at: timestamp(*started_at),
        finished_at: timestamp(*finished_at),
        message: None,
    })
}

/// The runs of `observed` that are said to run but have ended.
pub(crate) fn exits(state: &PodState, observed: &Observed) -> BTreeMap<String, Exit> {
    let running = observed.containers.iter().filter(|container| container.running());
    let ended = running.filter_map(|container| {
        let id = container.run_id();
        let exit = exit(state.containers.get(&id)?)?;
        Some((id, exit))
    });
    ended.collect()
}

/// Where a run leaves its last words.
pub(crate) fn last_words_file(pod_folder: &Path, run: &str) -> PathBuf {
    pod_folder.join("etc/last-words").join(run)
}

/// What a file begins with. The container may have made it as large as it liked.
fn beginning(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut words = Vec::new();
    std::fs::File::open(file)?.take(LONGEST_WORDS as u64).read_to_end(&mut words)?;
    Ok(words)
}

/// What a run said at its end: its termination message, or the end of its log if the pod wants that for errors.
pub(crate) fn last_words(
    home: &Path,
    pod_folder: &Path,
    pod: &Pod,
    (name, attempt): (&str, u32),
    code: i32,
) -> Option<String> {
    let file = last_words_file(pod_folder, &crate::observed::run_id(name, attempt));
    let words = beginning(&file).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).into_owned();
    if !words.is_empty() {
        return Some(words);
    }
    let spec = pod::any_container(pod, name);
    let policy = spec.as_ref().and_then(|spec| spec.termination_message_policy.as_deref());
    if policy == Some("FallbackToLogsOnError") && code != 0 {
        return log::last_words(&log::file(home, pod, name, attempt));
    }
    None
}
