//! What a pod's row says. The status word is not a field: it is worked out from phase, containers and deletion.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::human::since;
use super::{AGE, NAME, NONE, column, wide};
use crate::lookup::{at, flag, integer, list, text};
use crate::resource::{Cell, Column};

pub(crate) const POD: &[Column] = &[
    NAME,
    column("Ready", Cell::With(ready)),
    column("Status", Cell::With(status)),
    column("Restarts", Cell::With(restarts)),
    AGE,
    wide("IP", Cell::With(address)),
    wide("Node", Cell::Text("spec.nodeName", NONE)),
    wide("Nominated Node", Cell::Text("status.nominatedNodeName", NONE)),
    wide("Readiness Gates", Cell::With(gates)),
];

/// What a pod's containers amount to.
struct Summary {
    ready: usize,
    total: usize,
    word: String,
    restarts: i64,
    /// When a container last ended before it was started again.
    last_restart: Option<Timestamp>,
}

fn ready(pod: &Value, _: Timestamp) -> Value {
    let summary = summarize(pod);
    format!("{}/{}", summary.ready, summary.total).into()
}

fn status(pod: &Value, _: Timestamp) -> Value {
    summarize(pod).word.into()
}

fn restarts(pod: &Value, now: Timestamp) -> Value {
    let summary = summarize(pod);
    match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, since(&last.to_string(), now)).into()
        }
        _ => summary.restarts.to_string().into(),
    }
}

fn address(pod: &Value, _: Timestamp) -> Value {
    let first = text(pod, "status.podIPs.0.ip");
    let address = if first.is_empty() { text(pod, "status.podIP") } else { first };
    if address.is_empty() { NONE.into() } else { address.into() }
}

fn gates(pod: &Value, _: Timestamp) -> Value {
    let gates = list(pod, "spec.readinessGates");
    if gates.is_empty() {
        return NONE.into();
    }
    let open = gates.iter().filter(|gate| condition(pod, text(gate, "conditionType")) == "True").count();
    json!(format!("{open}/{}", gates.len()))
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let found = list(pod, "status.conditions").iter().find(|each| text(each, "type") == kind);
    found.map_or("", |each| text(each, "status"))
}

fn summarize(pod: &Value) -> Summary {
    let mut summary = Summary {
        ready: 0,
        total: list(pod, "spec.containers").len(),
        word: first_word(pod),
        restarts: 0,
        last_restart: None,
    };
    let sidecars = sidecars(pod);
    summary.total += sidecars.len();
    let initializing = initial(pod, &sidecars, &mut summary);
    if !initializing || condition(pod, "Initialized") == "True" {
        main(pod, &sidecars, &mut summary);
    }
    if at(pod, "metadata.deletionTimestamp").is_some() {
        if text(pod, "status.reason") == "NodeLost" {
            summary.word = "Unknown".into();
        } else if !matches!(text(pod, "status.phase"), "Succeeded" | "Failed") {
            summary.word = "Terminating".into();
        }
    }
    summary
}

/// What the pod itself says: a reason, or its phase.
fn first_word(pod: &Value) -> String {
    let gated = list(pod, "status.conditions")
        .iter()
        .any(|each| text(each, "type") == "PodScheduled" && text(each, "reason") == "SchedulingGated");
    let reason = text(pod, "status.reason");
    if gated {
        "SchedulingGated".to_owned()
    } else if reason.is_empty() {
        text(pod, "status.phase").to_owned()
    } else {
        reason.to_owned()
    }
}

/// The initial containers that keep running.
fn sidecars(pod: &Value) -> Vec<&str> {
    let all = list(pod, "spec.initContainers").iter();
    all.filter(|each| text(each, "restartPolicy") == "Always").map(|each| text(each, "name")).collect()
}

impl Summary {
    fn count_restarts(&mut self, container: &Value) {
        self.restarts += integer(container, "restartCount").unwrap_or(0);
        let ended = text(container, "lastState.terminated.finishedAt").parse::<Timestamp>().ok();
        self.last_restart = self.last_restart.max(ended);
    }
}

/// Looks at the initial containers; says whether one of them is not done.
fn initial(pod: &Value, sidecars: &[&str], summary: &mut Summary) -> bool {
    let total = list(pod, "spec.initContainers").len();
    for (index, container) in list(pod, "status.initContainerStatuses").iter().enumerate() {
        summary.count_restarts(container);
        let ended = at(container, "state.terminated");
        if ended.is_some_and(|ended| integer(ended, "exitCode").unwrap_or(0) == 0) {
            continue;
        }
        if sidecars.contains(&text(container, "name")) && flag(container, "started") {
            summary.ready += usize::from(flag(container, "ready"));
            continue;
        }
        let waiting = text(container, "state.waiting.reason");
        summary.word = match ended {
            Some(ended) => format!("Init:{}", end(ended)),
            None if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
            None => format!("Init:{index}/{total}"),
        };
        return true;
    }
    false
}

/// How a container ended, in a word.
fn end(terminated: &Value) -> String {
    let reason = text(terminated, "reason");
    let signal = integer(terminated, "signal").unwrap_or(0);
    if !reason.is_empty() {
        reason.to_owned()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", integer(terminated, "exitCode").unwrap_or(0))
    }
}

fn main(pod: &Value, sidecars: &[&str], summary: &mut Summary) {
    // Restarts of initial containers stop counting once they are done; those of sidecars do not.
    (summary.restarts, summary.last_restart) = (0, None);
    let initial = list(pod, "status.initContainerStatuses").iter();
    initial.filter(|each| sidecars.contains(&text(each, "name"))).for_each(|each| summary.count_restarts(each));
    let mut running = false;
    for container in list(pod, "status.containerStatuses").iter().rev() {
        summary.count_restarts(container);
        let waiting = text(container, "state.waiting.reason");
        if !waiting.is_empty() {
            summary.word = waiting.into();
        } else if let Some(ended) = at(container, "state.terminated") {
            summary.word = end(ended);
        } else if flag(container, "ready") && at(container, "state.running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.word == "Completed" && running {
        let word = if condition(pod, "Ready") == "True" { "Running" } else { "NotReady" };
        summary.word = word.into();
    }
}
