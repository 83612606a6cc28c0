//! A pod worker against a recorded machine.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use shipway_driver::Recorder;

use super::*;
use crate::amount::Allocatable;
use crate::files::Names;
use crate::followed::Followed;
use crate::logs::Runs;
use crate::resize::Room;
use crate::testing::{self, Answer, Imagined};

/// A worker over an imagined machine and an imagined API.
struct Play {
    machine: Imagined,
    asked: testing::Log,
    desired: watch::Sender<Desired>,
    pod: Pod,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    home: tempfile::TempDir,
}

fn shared(machine: Imagined, client: kube::Client, home: &Path) -> Arc<Shared<Imagined>> {
    let (services, _) = kube::runtime::reflector::store();
    Arc::new(Shared {
        machine,
        recorder: Recorder::new(client.clone(), "kubelet", "here"),
        followed: Followed::new(client.clone()),
        client,
        home: home.to_owned(),
        names: Names {
            node: "here".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            dns_address: Ipv4Addr::new(10, 0, 0, 10),
        },
        host: "192.0.2.1".parse().expect("an address"),
        allocatable: Allocatable { cpu_milli: 1000, memory: 1 << 30, storage: 1 << 30 },
        room: Room::new(Allocatable { cpu_milli: 1000, memory: 1 << 30, storage: 1 << 30 }),
        orders: watch::Sender::new(None),
        services,
        runs: Runs::default(),
        leash: None,
        collects: None,
    })
}

impl Play {
    fn begin(spec: &Value, machine: Imagined) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let settings = Arc::new(Mutex::new(None::<Value>));
        let known = settings.clone();
        let tokens = Arc::new(AtomicUsize::new(0));
        let (client, asked) = testing::api(move |asked| {
            if asked.path.ends_with("/token") {
                let token = format!("token-{}", tokens.fetch_add(1, Ordering::Relaxed));
                let status = json!({"token": token, "expirationTimestamp": "2030-01-01T00:00:00Z"});
                return Answer::Echo(json!({"metadata": {}, "status": status}));
            }
            let settings = known.lock().expect("not poisoned").clone();
            match (asked.method.as_str(), settings) {
                ("GET", None) if asked.path.contains("/configmaps/") => Answer::NotFound,
                _ => Answer::Echo(json!({"metadata": {"name": "p", "uid": "u"}})),
            }
        });
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec
        }))
        .expect("a pod");
        let (desired, receiver) = watch::channel(Desired::Present(Arc::new(pod.clone())));
        let shared = shared(machine.clone(), client, home.path());
        let stop = CancellationToken::new();
        let task = tokio::spawn(attend(shared, Arc::new(pod.clone()), receiver, None, stop.clone()));
        Self { machine, asked, desired, pod, stop, task, home }
    }

    /// Waits until the API was told a status of which `wanted` holds.
    async fn until(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..2000 {
            let told = self.asked.lock().expect("not poisoned").iter().rev().find_map(|asked| {
                let status = &asked.body["status"];
                (asked.path.ends_with("/pods/p/status") && wanted(status)).then(|| status.clone())
            });
            if let Some(status) = told {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("no such status was written: {:#?}", self.asked.lock().expect("not poisoned"));
    }

    fn delete(&mut self, grace: i64) {
        let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now());
        self.pod.metadata.deletion_timestamp = Some(time);
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.desired.send_replace(Desired::Present(Arc::new(self.pod.clone())));
    }

    fn deeds(&self) -> Vec<String> {
        self.machine.deeds.lock().expect("not poisoned").clone()
    }

    async fn end(self) -> Vec<String> {
        tokio::time::timeout(Duration::from_secs(30), self.task).await.expect("in time").expect("no panic");
        self.machine.deeds.lock().expect("not poisoned").clone()
    }
}

fn is_running(status: &Value) -> bool {
    status["phase"] == "Running"
}

#[tokio::test]
async fn a_pod_runs_is_deleted_and_leaves_nothing() {
    let mut stage = Play::begin(&json!({"containers": [{"name": "a", "image": "i"}]}), Imagined::default());
    let status = stage.until(is_running).await;
    assert_eq!(status["podIP"], "10.0.0.7");
    stage.delete(30);
    let asked = stage.asked.clone();
    let deeds = stage.end().await;
    let expected = ["create u", "attach u", "start a-0", "released 10.0.0.7", "kill a-0 15", "destroy", "detach u"];
    assert_eq!(deeds, expected);
    let asked = asked.lock().expect("not poisoned");
    let last = asked.iter().rfind(|asked| asked.path.ends_with("/pods/p")).expect("its removal");
    assert_eq!((last.method.as_str(), &last.body["gracePeriodSeconds"]), ("DELETE", &json!(0)));
    assert_eq!(last.body["preconditions"]["uid"], "u");
    let last = asked.iter().rfind(|asked| asked.path.ends_with("/status")).expect("a status");
    assert_eq!(last.body["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 143);
}

#[tokio::test]
async fn a_container_that_exits_is_restarted_and_told() {
    let stage = Play::begin(&json!({"containers": [{"name": "a", "image": "i"}]}), Imagined::default());
    stage.until(is_running).await;
    stage.machine.place().exit("a-0", 3);
    let status = stage
        .until(|status| {
            status["containerStatuses"][0]["restartCount"] == 1 && status["containerStatuses"][0]["ready"] == true
        })
        .await;
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);
    assert!(stage.deeds().contains(&"forget a-0".to_owned()));
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_told_and_the_pod_can_still_be_deleted() {
    let machine = Imagined::default();
    machine.missing.lock().expect("not poisoned").push("i".to_owned());
    let mut stage = Play::begin(&json!({"containers": [{"name": "a", "image": "i"}]}), machine);
    stage.until(|status| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull").await;
    stage.delete(30);
    assert!(!stage.end().await.iter().any(|deed| deed.starts_with("start")));
}

#[tokio::test]
async fn a_missing_config_map_is_a_config_error() {
    let env = json!([{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k"}}}]);
    let stage = Play::begin(&json!({"containers": [{"name": "a", "image": "i", "env": env}]}), Imagined::default());
    let status = stage.until(|status| status["containerStatuses"][0]["state"]["waiting"]["message"].is_string()).await;
    let waiting = &status["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(waiting, &json!({"reason": "CreateContainerConfigError", "message": "configmap \"no\" not found"}));
    stage.desired.send_replace(Desired::Gone);
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_while_its_pod_runs() {
    let source = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}});
    let volumes = json!([{"name": "v", "projected": {"sources": [source]}}]);
    let spec = json!({"containers": [{"name": "a", "image": "i"}], "volumes": volumes});
    let stage = Play::begin(&spec, Imagined::default());
    stage.until(is_running).await;
    let file = stage.home.path().join("pods/u/volumes/v/token");
    let token = || std::fs::read_to_string(&file).expect("a token");
    assert_eq!(token(), "token-0");
    for (number, seconds) in [(1, 2900), (2, 2900)] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        assert_eq!(token(), format!("token-{number}"));
    }
    stage.desired.send_replace(Desired::Gone);
    stage.end().await;
}

#[tokio::test]
async fn a_program_that_cannot_be_run_loops_with_its_message() {
    let spec = json!({"containers": [{"name": "a", "image": "i", "command": ["/nope"]}]});
    let stage = Play::begin(&spec, Imagined::default());
    let crashing = |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let status = stage.until(crashing).await;
    let last = &status["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(128), &json!("StartError")));
    assert_eq!(last["message"], "executable \"/nope\" not found");
}

#[tokio::test]
async fn a_lost_supervisor_means_a_new_sandbox_and_a_counted_restart() {
    let stage = Play::begin(&json!({"containers": [{"name": "a", "image": "i"}]}), Imagined::default());
    stage.until(is_running).await;
    stage.machine.place().lose();
    stage.until(|status| is_running(status) && status["containerStatuses"][0]["restartCount"] == 1).await;
    let creations = stage.deeds().iter().filter(|deed| *deed == "create u").count();
    assert_eq!(creations, 2);
}

#[tokio::test]
async fn stopping_the_engine_ends_no_container() {
    let stage = Play::begin(&json!({"containers": [{"name": "a", "image": "i"}]}), Imagined::default());
    stage.until(is_running).await;
    stage.stop.cancel();
    let deeds = stage.end().await;
    assert_eq!(deeds, ["create u", "attach u", "start a-0"]);
}

#[tokio::test]
async fn a_forced_deletion_takes_all_down_at_once() {
    let machine = Imagined { stubborn: true, ..Imagined::default() };
    let stage = Play::begin(&json!({"containers": [{"name": "a", "image": "i"}]}), machine);
    stage.until(is_running).await;
    stage.desired.send_replace(Desired::Gone);
    assert_eq!(stage.end().await, ["create u", "attach u", "start a-0", "destroy", "detach u"]);
}

#[tokio::test]
async fn a_pod_whose_task_panics_is_taken_up_again_from_what_is_there() {
    let machine = Imagined { panics: Arc::new(AtomicUsize::new(1)), ..Imagined::default() };
    let mut stage = Play::begin(&json!({"containers": [{"name": "a", "image": "i"}]}), machine);
    stage.until(is_running).await;
    let deeds = stage.deeds();
    // What was found had no container yet: it is cleared and made anew.
    let expected = ["create u", "attach u", "find u", "destroy", "detach u", "create u", "attach u", "start a-0"];
    assert_eq!(deeds, expected);
    let told = |asked: &testing::Asked| {
        let (reason, note) = (&asked.body["reason"], asked.body["message"].as_str().unwrap_or_default());
        reason == "FailedSync" && note.contains("no image today")
    };
    assert!(stage.asked.lock().expect("not poisoned").iter().any(told), "{:?}", stage.asked);
    stage.delete(0);
    assert_eq!(stage.end().await.last().map(String::as_str), Some("detach u"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_while_nobody_attends_to_it_is_cleared() {
    let machine = Imagined { panics: Arc::new(AtomicUsize::new(2)), ..Imagined::default() };
    let stage = Play::begin(&json!({"containers": [{"name": "a", "image": "i"}]}), machine);
    while !stage.deeds().contains(&"attach u".to_owned()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.desired.send_replace(Desired::Gone);
    let deeds = stage.end().await;
    assert!(deeds.contains(&"destroy".to_owned()), "{deeds:?}");
}

/// A container that asks for so much of the processor, and of which the node has one thousand thousandths.
fn asking(amount: &str, policy: &str) -> Value {
    let policy = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
    let resources = json!({"requests": {"cpu": amount}, "limits": {"cpu": amount}});
    json!({"containers": [{"name": "a", "image": "i", "resources": resources, "resizePolicy": policy}]})
}

impl Play {
    fn change(&mut self, spec: &Value) {
        self.pod.spec = serde_json::from_value(spec.clone()).expect("a specification");
        self.desired.send_replace(Desired::Present(Arc::new(self.pod.clone())));
    }
}

#[tokio::test]
async fn a_running_container_is_given_what_the_pod_asks_for_by_now() {
    let mut stage = Play::begin(&asking("500m", "NotRequired"), Imagined::default());
    let status = stage.until(is_running).await;
    assert_eq!(status["containerStatuses"][0]["allocatedResources"]["cpu"], "500m");
    stage.change(&asking("2", "NotRequired"));
    let pending = |status: &Value, reason: &str| {
        let conditions = status["conditions"].as_array().expect("conditions");
        conditions.iter().any(|it| it["type"] == "PodResizePending" && it["reason"] == reason)
    };
    let status = stage.until(|status| pending(status, "Infeasible")).await;
    assert_eq!(status["containerStatuses"][0]["resources"]["limits"]["cpu"], "500m");
    stage.change(&asking("800m", "NotRequired"));
    let status = stage.until(|status| status["containerStatuses"][0]["resources"]["limits"]["cpu"] == "800m").await;
    assert!(!pending(&status, "Infeasible") && status["containerStatuses"][0]["restartCount"] == 0);
    assert!(stage.deeds().contains(&"resize a-0 Some(800) None".to_owned()), "{:?}", stage.deeds());
}

#[tokio::test]
async fn a_container_is_run_anew_for_what_its_policy_names() {
    let mut stage = Play::begin(&asking("500m", "RestartContainer"), Imagined::default());
    stage.until(is_running).await;
    stage.change(&asking("800m", "RestartContainer"));
    let status = stage.until(|status| status["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(status["containerStatuses"][0]["resources"]["limits"]["cpu"], "800m");
    let deeds = stage.deeds();
    assert!(deeds.contains(&"kill a-0 15".to_owned()) && deeds.contains(&"start a-1".to_owned()), "{deeds:?}");
    assert!(deeds.iter().all(|deed| !deed.starts_with("resize")), "{deeds:?}");
}

#[tokio::test]
async fn a_pod_that_the_node_refuses_fails_and_nothing_of_it_is_made() {
    let spec = json!({
        "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]},
        "containers": [{"name": "a", "image": "i"}],
    });
    let stage = Play::begin(&spec, Imagined::default());
    let status = stage.until(|status| status["phase"] == "Failed").await;
    assert_eq!(status["reason"], "SysctlForbidden");
    assert!(stage.deeds().iter().all(|deed| !deed.starts_with("create")), "{:?}", stage.deeds());
}
