//! The life of a pod, step by step, as decisions over plain data.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::image::Image;
use crate::observed::{Exit, Happened, StartFailure, Verdict};

/// A pod's life with a clock that only the test moves.
struct Life {
    pod: Pod,
    observed: Observed,
    now: Instant,
    wall: Timestamp,
}

impl Life {
    fn of(spec: Value) -> Self {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec
        }))
        .expect("a pod");
        let wall = Timestamp::UNIX_EPOCH;
        Self { observed: Observed::fresh(&pod, wall), pod, now: Instant::now(), wall }
    }

    /// What is begun now, in short: `Start(a)` is `start a`.
    fn step(&mut self) -> Vec<String> {
        let actions = self.observed.step(&self.pod, self.now, self.wall);
        assert!(self.observed.step(&self.pod, self.now, self.wall).is_empty(), "a step is said once");
        let short = |action: &Action| match action {
            Action::Fetch(name) => format!("fetch {name}"),
            Action::Start(name) => format!("start {name}"),
            Action::Probe(name) => format!("probe {name}"),
            Action::Hook(name) => format!("hook {name}"),
            Action::Terminate(name) => format!("terminate {name}"),
            Action::Kill(name) => format!("kill {name}"),
            other => format!("{other:?}").to_lowercase(),
        };
        actions.iter().map(short).collect()
    }

    fn take(&mut self, happened: Happened) -> Vec<String> {
        self.observed.take(happened, self.now, self.wall);
        self.step()
    }

    fn wait(&mut self, seconds: u64) -> Vec<String> {
        self.now += Duration::from_secs(seconds);
        self.wall += jiff::SignedDuration::from_secs(i64::try_from(seconds).expect("few"));
        self.step()
    }

    fn prepared(&mut self) -> Vec<String> {
        self.take(Happened::Prepared(Ok(Some(Ipv4Addr::new(10, 0, 0, 1)))))
    }

    fn fetched(&mut self, container: &str) -> Vec<String> {
        self.take(Happened::Fetched { container: container.to_owned(), result: Ok(Arc::new(Image::default())) })
    }

    fn started(&mut self, container: &str) -> Vec<String> {
        self.take(Happened::Started { container: container.to_owned(), result: Ok((1, self.wall)) })
    }

    fn run(&mut self, container: &str) -> Vec<String> {
        self.fetched(container);
        self.started(container)
    }

    fn exit(&mut self, run: &str, code: i32) -> Vec<String> {
        let since = match self.observed.containers.iter().find(|each| each.run_id() == run).map(|each| &each.phase) {
            Some(Phase::Running { since, .. }) => *since,
            other => panic!("{run} does not run: {other:?}"),
        };
        let exit =
            Exit { code, signal: None, out_of_memory: false, started_at: since, finished_at: self.wall, message: None };
        self.take(Happened::Runtime { exits: BTreeMap::from([(run.to_owned(), exit)]), lost: false })
    }

    fn delete(&mut self, grace: i64) -> Vec<String> {
        self.pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.wall));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.step()
    }
}

fn running() -> Life {
    let mut life = Life::of(json!({"containers": [{"name": "a"}]}));
    life.step();
    life.prepared();
    life.run("a");
    life
}

#[tokio::test]
async fn sandbox_and_images_are_begun_together_and_containers_follow_both() {
    let mut life = Life::of(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    assert_eq!(life.step(), ["prepare", "fetch a", "fetch b"]);
    assert_eq!(life.fetched("a"), [""; 0]);
    assert_eq!(life.prepared(), ["start a"]);
    assert_eq!(life.fetched("b"), ["start b"]);
    assert_eq!(life.started("a"), ["probe a"]);
    assert_eq!(life.started("b"), ["probe b"]);
}

#[tokio::test]
async fn init_containers_run_one_after_the_other_and_sidecars_stay() {
    let mut life = Life::of(json!({
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}]
    }));
    assert_eq!(life.step(), ["prepare", "fetch i"]);
    life.prepared();
    life.run("i");
    assert_eq!(life.exit("i-0", 0), ["fetch s"]);
    assert_eq!(life.fetched("s"), ["start s"]);
    assert_eq!(life.started("s"), ["fetch a", "probe s"]);
    life.run("a");
    // A sidecar that ends is started again and holds nothing up.
    assert_eq!(life.exit("s-0", 1), ["fetch s"]);
}

#[tokio::test]
async fn a_failed_init_container_is_tried_again_or_fails_the_pod() {
    for (policy, then) in [("Always", vec!["fetch i"]), ("Never", vec!["dismantle"])] {
        let mut life = Life::of(json!({
            "restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]
        }));
        life.step();
        life.prepared();
        life.run("i");
        assert_eq!(life.exit("i-0", 3), then, "{policy}");
    }
}

#[tokio::test]
async fn a_crashing_container_is_restarted_at_once_and_then_with_growing_waits() {
    let mut life = running();
    assert_eq!(life.exit("a-0", 1), ["fetch a"]);
    life.run("a");
    assert_eq!(life.exit("a-1", 1), [""; 0]);
    assert_eq!(life.observed.wake_at(&life.pod, life.now, life.wall), Some(life.now + Duration::from_secs(10)));
    assert_eq!(life.wait(9), [""; 0]);
    assert_eq!(life.wait(1), ["fetch a"]);
    life.run("a");
    // Ten minutes of running forgive all that.
    life.wait(600);
    assert_eq!(life.exit("a-2", 1), ["fetch a"]);
    assert_eq!(life.observed.containers[0].attempt(), 2);
}

#[tokio::test]
async fn a_pod_that_is_not_to_be_restarted_completes_and_waits_for_its_removal() {
    let mut life = Life::of(json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}]}));
    life.step();
    life.prepared();
    life.run("a");
    assert_eq!(life.exit("a-0", 1), ["fetch a"]);
    life.run("a");
    assert_eq!(life.exit("a-1", 0), ["dismantle"]);
    assert_eq!(life.take(Happened::Dismantled), [""; 0]);
    assert_eq!(life.observed.stage, Stage::Gone);
    assert_eq!(life.delete(0), ["remove"]);
    life.take(Happened::Removed { gone: true });
    assert_eq!(life.observed.stage, Stage::Finished);
}

#[tokio::test]
async fn a_deleted_pod_drains_is_asked_to_end_and_is_taken_down() {
    let mut life = running();
    assert_eq!(life.delete(30), ["drain"]);
    assert_eq!(life.take(Happened::Drained), ["terminate a"]);
    assert_eq!(life.exit("a-0", 0), ["dismantle"]);
    assert_eq!(life.take(Happened::Dismantled), ["remove"]);
    // The API did not answer: it is asked again.
    assert_eq!(life.take(Happened::Removed { gone: false }), ["remove"]);
}

#[tokio::test]
async fn a_container_that_does_not_heed_the_signal_is_killed_after_its_grace() {
    let mut life = running();
    life.delete(5);
    assert_eq!(life.take(Happened::Drained), ["terminate a"]);
    assert_eq!(life.wait(4), [""; 0]);
    assert_eq!(life.wait(1), ["kill a"]);
    assert_eq!(life.take(Happened::NotKilled { container: "a".to_owned() }), [""; 0]);
    assert_eq!(life.wait(1), ["kill a"]);
    assert_eq!(life.exit("a-0", 137), ["dismantle"]);
}

#[tokio::test]
async fn a_shorter_grace_that_is_asked_for_later_counts() {
    let mut life = running();
    life.delete(300);
    life.take(Happened::Drained);
    assert_eq!(life.delete(3), [""; 0]);
    assert_eq!(life.wait(3), ["kill a"]);
}

#[tokio::test]
async fn the_hook_comes_before_the_signal_and_counts_into_the_grace() {
    let hook = json!({"preStop": {"exec": {"command": ["x"]}}});
    let mut life = Life::of(json!({"containers": [{"name": "a", "lifecycle": hook}]}));
    life.step();
    life.prepared();
    life.run("a");
    life.delete(10);
    assert_eq!(life.take(Happened::Drained), ["hook a"]);
    assert_eq!(life.wait(9), [""; 0]);
    assert_eq!(life.take(Happened::HookDone { container: "a".to_owned() }), ["terminate a"]);
    // At least two seconds remain after the signal.
    assert_eq!(life.wait(1), [""; 0]);
    assert_eq!(life.wait(1), ["kill a"]);
}

#[tokio::test]
async fn sidecars_end_after_the_containers_the_last_one_first() {
    let sidecar = |name: &str| json!({"name": name, "restartPolicy": "Always"});
    let mut life = Life::of(json!({"initContainers": [sidecar("s"), sidecar("t")], "containers": [{"name": "a"}]}));
    life.step();
    life.prepared();
    life.run("s");
    life.run("t");
    life.run("a");
    life.delete(30);
    assert_eq!(life.take(Happened::Drained), ["terminate a"]);
    assert_eq!(life.exit("a-0", 0), ["terminate t"]);
    assert_eq!(life.exit("t-0", 0), ["terminate s"]);
    assert_eq!(life.exit("s-0", 0), ["dismantle"]);
}

#[tokio::test]
async fn a_pod_whose_object_vanished_is_taken_down_at_once() {
    let mut life = running();
    assert_eq!(life.take(Happened::Vanished), ["dismantle"]);
    life.take(Happened::Dismantled);
    assert_eq!(life.observed.stage, Stage::Finished);
}

#[tokio::test]
async fn a_pod_that_vanishes_while_it_is_made_is_made_and_taken_down() {
    let mut life = Life::of(json!({"containers": [{"name": "a"}]}));
    life.step();
    assert_eq!(life.take(Happened::Vanished), [""; 0]);
    assert_eq!(life.prepared(), ["dismantle"]);
    life.take(Happened::Dismantled);
    assert_eq!(life.observed.stage, Stage::Finished);
}

#[tokio::test]
async fn a_failed_preparation_is_tried_again_with_growing_waits() {
    let mut life = Life::of(json!({"containers": [{"name": "a"}]}));
    life.step();
    assert_eq!(life.take(Happened::Prepared(Err("no".to_owned()))), [""; 0]);
    assert_eq!(life.wait(1), ["prepare"]);
    life.take(Happened::Prepared(Err("no".to_owned())));
    assert_eq!(life.wait(1), [""; 0]);
    // A change of what it refers to ends the wait.
    assert_eq!(life.take(Happened::ReferenceChanged), ["prepare"]);
}

#[tokio::test]
async fn a_deleted_pod_that_was_never_made_is_just_removed() {
    let mut life = Life::of(json!({"containers": [{"name": "a"}]}));
    life.step();
    life.take(Happened::Prepared(Err("no".to_owned())));
    assert_eq!(life.delete(30), ["remove"]);
}

#[tokio::test]
async fn obstacles_are_tried_again_and_count_no_restart() {
    let mut life = Life::of(json!({"containers": [{"name": "a"}]}));
    life.step();
    life.prepared();
    let result = Err(("ErrImagePull".to_owned(), "no".to_owned()));
    life.take(Happened::Fetched { container: "a".to_owned(), result });
    assert_eq!(life.observed.containers[0].shown_obstacle(life.now), Some(("ErrImagePull", "no")));
    life.wait(2);
    assert_eq!(life.observed.containers[0].shown_obstacle(life.now), Some(("ImagePullBackOff", "no")));
    assert_eq!(life.wait(8), ["fetch a"]);
    life.fetched("a");
    let result = Err(StartFailure::Config("configmap \"x\" not found".to_owned()));
    assert_eq!(life.take(Happened::Started { container: "a".to_owned(), result }), [""; 0]);
    assert_eq!(life.observed.containers[0].runs, 0);
    assert_eq!(life.take(Happened::ReferenceChanged), ["fetch a"]);
}

#[tokio::test]
async fn a_program_that_cannot_be_run_is_a_run_that_failed() {
    let mut life = Life::of(json!({"containers": [{"name": "a"}]}));
    life.step();
    life.prepared();
    life.fetched("a");
    let result = Err(StartFailure::Run("no such program".to_owned()));
    assert_eq!(life.take(Happened::Started { container: "a".to_owned(), result }), ["fetch a"]);
    let last = life.observed.containers[0].last.clone().expect("a run");
    assert_eq!((last.code, last.reason.as_str()), (128, "StartError"));
}

#[tokio::test]
async fn an_unhealthy_container_is_ended_and_restarted() {
    let mut life = running();
    let verdict = Verdict::Unhealthy { grace: Duration::from_secs(5) };
    let old = Happened::Probed { container: "a".to_owned(), attempt: 7, verdict: verdict.clone() };
    assert_eq!(life.take(old), [""; 0], "a verdict on another run says nothing");
    let probed = Happened::Probed { container: "a".to_owned(), attempt: 0, verdict };
    assert_eq!(life.take(probed), ["terminate a"]);
    assert_eq!(life.exit("a-0", 143), ["fetch a"]);
    assert_eq!(life.fetched("a"), ["start a"]);
    assert_eq!(life.started("a"), ["probe a"]);
}

#[tokio::test]
async fn a_pod_whose_supervisor_died_is_set_up_afresh_and_the_restart_is_counted() {
    let mut life = running();
    assert_eq!(life.take(Happened::Runtime { exits: BTreeMap::new(), lost: true }), ["dismantle"]);
    assert_eq!(life.take(Happened::Dismantled), ["prepare", "fetch a"]);
    life.prepared();
    life.run("a");
    let container = &life.observed.containers[0];
    assert_eq!((container.attempt(), container.running()), (1, true));
    assert_eq!(container.last.as_ref().map(|run| run.reason.as_str()), Some("ContainerStatusUnknown"));
}

#[tokio::test]
async fn a_pod_past_its_deadline_is_ended() {
    let mut life = Life::of(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "a"}]}));
    life.step();
    life.prepared();
    life.run("a");
    assert_eq!(life.observed.wake_at(&life.pod, life.now, life.wall), Some(life.now + Duration::from_mins(1)));
    assert_eq!(life.wait(60), ["terminate a"]);
    assert_eq!(life.exit("a-0", 143), ["dismantle"]);
    assert_eq!(crate::status::phase(&life.observed), "Failed");
}

proptest::proptest! {
    /// Whatever happens in whatever order, a deleted pod comes to its end and no step is said twice.
    #[test]
    fn every_life_can_be_ended(events in proptest::collection::vec(0_u8..9, 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _clock = runtime.enter();
        let mut life = Life::of(json!({
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}, {"name": "b"}]
        }));
        life.step();
        for event in events {
            happen(&mut life, event);
        }
        life.delete(1);
        for round in 0..40 {
            for event in 0..9 {
                happen(&mut life, event);
            }
            life.wait(round);
        }
        proptest::prop_assert_eq!(life.observed.stage, Stage::Finished);
    }
}

/// Lets one thing happen, if the machine could do that now.
fn happen(life: &mut Life, event: u8) {
    let first = |life: &Life, wanted: fn(&Container) -> bool| {
        life.observed.containers.iter().find(|each| wanted(each)).map(|each| (each.name.clone(), each.run_id()))
    };
    let draining = life.observed.shutdown.is_some_and(|shutdown| shutdown.drain == Drain::Waiting);
    match event {
        0 if life.observed.stage == Stage::Preparing => drop(life.prepared()),
        1 if life.observed.stage == Stage::Preparing => drop(life.take(Happened::Prepared(Err(String::new())))),
        2 => drop(first(life, |each| each.phase == Phase::Fetching).map(|(name, _)| life.fetched(&name))),
        3 => drop(first(life, |each| each.phase == Phase::Starting).map(|(name, _)| life.started(&name))),
        4 => drop(first(life, Container::running).map(|(_, run)| life.exit(&run, 0))),
        5 => drop(first(life, Container::running).map(|(_, run)| life.exit(&run, 1))),
        6 if matches!(life.observed.stage, Stage::Dismantling { .. }) => drop(life.take(Happened::Dismantled)),
        7 if draining => drop(life.take(Happened::Drained)),
        8 if life.observed.removing => drop(life.take(Happened::Removed { gone: true })),
        _ => drop(life.wait(1)),
    }
}

#[tokio::test]
async fn a_container_that_is_added_runs_once_waits_for_nobody_and_decides_nothing() {
    let mut life = Life::of(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}));
    life.step();
    life.prepared();
    life.run("i");
    let added = json!([{"name": "d", "targetContainerName": "a"}]);
    life.pod.spec.as_mut().expect("a spec").ephemeral_containers = Some(serde_json::from_value(added).expect("one"));
    life.observed.add_ephemeral(&life.pod.clone());
    life.observed.add_ephemeral(&life.pod.clone());
    // The init container still runs.
    assert_eq!(life.step(), ["fetch d"]);
    assert_eq!(life.fetched("d"), ["start d"]);
    assert_eq!(life.started("d"), ["probe d"]);
    assert_eq!(life.exit("d-0", 3), [""; 0]);
    assert_eq!(life.wait(1000), [""; 0]);
    assert_eq!(life.exit("i-0", 0), ["fetch a"]);
    life.run("a");
    assert_eq!(crate::status::phase(&life.observed), "Running");
    let status =
        crate::status::status(&life.pod, &life.observed, None, Ipv4Addr::LOCALHOST.into(), (life.now, life.wall));
    let told = status.ephemeral_container_statuses.expect("it is told of");
    let end = told[0].state.as_ref().and_then(|state| state.terminated.as_ref()).expect("it ended");
    assert_eq!((told.len(), end.exit_code, told[0].ready), (1, 3, false));
    assert_eq!(
        (status.container_statuses.map(|all| all.len()), status.init_container_statuses.map(|all| all.len())),
        (Some(1), Some(1))
    );
}
