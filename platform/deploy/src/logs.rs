//! The logs of all replicas as one stream of lines.
//!
//! A follower hears every line of every container once, also of replicas that come later, of containers that restart,
//! and over a restart of the cluster's control plane: a broken stream is taken up after the last line heard.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::LogParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::app::APP_LABEL;

/// How many lines may wait for a slow reader before the streams wait for it.
const WAITING: usize = 1024;
/// The pause before a broken stream is taken up again.
const PAUSE: Duration = Duration::from_millis(200);

/// Calls `line(pod, text)` for every line that the app's containers write; ends only when dropped, or after what there
/// is if not `follow`.
pub async fn follow(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    follow: bool,
    mut line: impl FnMut(&str, &str),
) {
    let (sender, mut lines) = mpsc::channel::<(Arc<str>, String)>(WAITING);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let reading = read_all(pods, format!("{APP_LABEL}={name}"), follow, sender);
    let printing = async {
        while let Some((pod, text)) = lines.recv().await {
            line(&pod, &text);
        }
    };
    futures::join!(reading, printing);
}

/// Starts a reader for each container run that appears.
async fn read_all(pods: Api<Pod>, selector: String, follow: bool, lines: mpsc::Sender<(Arc<str>, String)>) {
    let mut readers = JoinSet::new();
    let mut known = HashSet::new();
    let mut changes = pin!(watcher(pods.clone(), watcher::Config::default().labels(&selector)).default_backoff());
    while let Some(change) = changes.next().await {
        match change {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                for run in runs(&pod).filter(|run| known.insert(run.clone())) {
                    readers.spawn(read(pods.clone(), run, follow, lines.clone()));
                }
            }
            Ok(watcher::Event::InitDone) if !follow => break,
            _ => {}
        }
    }
    drop(lines);
    while readers.join_next().await.is_some() {}
}

/// One run of one container: a restart is another run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Run {
    pod: Arc<str>,
    container: String,
    restarts: i32,
}

fn runs(pod: &Pod) -> impl Iterator<Item = Run> {
    let name: Arc<str> = pod.name_any().into();
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.clone()).unwrap_or_default();
    statuses.into_iter().filter_map(move |status| {
        let state = status.state?;
        (state.running.is_some() || state.terminated.is_some()).then(|| Run {
            pod: name.clone(),
            container: status.name,
            restarts: status.restart_count,
        })
    })
}

async fn read(pods: Api<Pod>, run: Run, follow: bool, lines: mpsc::Sender<(Arc<str>, String)>) {
    let mut last: Option<Timestamp> = None;
    loop {
        let complete = read_once(&pods, &run, follow, &mut last, &lines).await;
        if complete || !follow || lines.is_closed() || !is_still_there(&pods, &run).await {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads until the stream ends; true where it ended because the container did.
async fn read_once(
    pods: &Api<Pod>,
    run: &Run,
    follow: bool,
    last: &mut Option<Timestamp>,
    lines: &mpsc::Sender<(Arc<str>, String)>,
) -> bool {
    let parameters = LogParams {
        container: Some(run.container.clone()),
        follow,
        timestamps: true,
        since_time: *last,
        ..LogParams::default()
    };
    let heard = *last;
    let Ok(stream) = pods.log_stream(&run.pod, &parameters).await else { return false };
    let mut stream = stream.lines();
    loop {
        match stream.try_next().await {
            Ok(Some(line)) => {
                let (time, text) = line.split_once(' ').unwrap_or(("", &line));
                let time: Option<Timestamp> = time.parse().ok();
                if time.is_some() && time <= heard {
                    continue; // heard before the stream broke
                }
                *last = time.or(*last);
                if lines.send((run.pod.clone(), text.to_owned())).await.is_err() {
                    return true;
                }
            }
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

async fn is_still_there(pods: &Api<Pod>, run: &Run) -> bool {
    match pods.get(&run.pod).await {
        Ok(pod) => runs(&pod).any(|now| now == *run),
        Err(kube::Error::Api(status)) => status.code != 404,
        Err(_) => true,
    }
}
