//! From the first container to the last signal
//! (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/, .../init-containers/, .../sidecar-containers/).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::world::{World, condition, end, phase, restarts, sh, status, waits, with};

/// A folder that all containers of a pod have at `/s`.
fn shared(container: Value) -> Value {
    with(container, json!({ "volumeMounts": [{ "name": "s", "mountPath": "/s" }] }))
}

fn volume() -> Value {
    json!([{ "name": "s", "emptyDir": {} }])
}

fn named(name: &str, container: Value) -> Value {
    with(container, json!({ "name": name }))
}

pub(crate) async fn a_pod_that_ends_well_has_succeeded(world: &World) -> Result<()> {
    let ended = world.run("well", json!({ "containers": [sh("echo done")] })).await?;
    ensure!(phase(&ended.pod) == "Succeeded" && ended.log == "done\n", "{:?}", ended.pod.status);
    ensure!(end(&ended.pod, "c") == Some(("Completed".to_owned(), 0, String::new())));
    ensure!(condition(&ended.pod, "Ready") == "False");
    Ok(())
}

pub(crate) async fn a_pod_that_fails_tells_its_exit_code(world: &World) -> Result<()> {
    let ended = world.run("badly", json!({ "containers": [sh("exit 7")] })).await?;
    ensure!(phase(&ended.pod) == "Failed", "{:?}", ended.pod.status);
    ensure!(end(&ended.pod, "c") == Some(("Error".to_owned(), 7, String::new())));
    // Of two dollars one is left: they are how a pod writes one.
    let killed = world.run("killed", json!({ "containers": [sh("sh -c 'kill -9 $$$$'; exit $?")] })).await?;
    ensure!(end(&killed.pod, "c").is_some_and(|(_, code, _)| code == 137), "{:?}", killed.pod.status);
    Ok(())
}

pub(crate) async fn a_missing_program_is_a_start_error(world: &World) -> Result<()> {
    let missing = with(sh(""), json!({ "command": ["/no/such/program"] }));
    let ended = world.run("missing", json!({ "containers": [missing] })).await?;
    let (reason, code, message) = end(&ended.pod, "c").context("it has not ended")?;
    ensure!(reason == "StartError" && code == 128 && message.contains("/no/such/program"), "{reason} {code} {message}");
    Ok(())
}

pub(crate) async fn init_containers_run_one_after_the_other(world: &World) -> Result<()> {
    let first = named("first", shared(sh("sleep 0.3; echo one > /s/f")));
    let second = named("second", shared(sh("echo two >> /s/f")));
    let spec =
        json!({ "initContainers": [first, second], "containers": [shared(sh("cat /s/f"))], "volumes": volume() });
    let ended = world.run("inits", spec).await?;
    ensure!(ended.log == "one\ntwo\n", "{}", ended.log);
    ensure!(condition(&ended.pod, "Initialized") == "True");
    Ok(())
}

pub(crate) async fn a_failing_init_container_fails_a_pod_that_never_restarts(world: &World) -> Result<()> {
    let spec = json!({ "initContainers": [named("first", sh("exit 3"))], "containers": [sh("echo never")] });
    let ended = world.run("init-fails", spec).await?;
    ensure!(phase(&ended.pod) == "Failed" && ended.log.is_empty(), "{:?}", ended.pod.status);
    ensure!(end(&ended.pod, "first").is_some_and(|(_, code, _)| code == 3));
    ensure!(waits(&ended.pod, "c") == "PodInitializing", "{:?}", ended.pod.status);
    Ok(())
}

pub(crate) async fn a_sidecar_runs_beside_and_ends_after_the_others(world: &World) -> Result<()> {
    let script = "trap 'cat /s/main > /s/seen; exit 0' TERM; touch /s/up; while :; do sleep 0.05; done";
    let startup = json!({ "exec": { "command": ["test", "-e", "/s/up"] }, "periodSeconds": 1 });
    let sidecar =
        with(shared(sh(script)), json!({ "name": "side", "restartPolicy": "Always", "startupProbe": startup }));
    let main = shared(sh("test -e /s/up && echo main ended > /s/main"));
    let spec = json!({ "initContainers": [sidecar], "containers": [main], "volumes": volume() });
    let ended = world.run("sidecar", spec).await?;
    ensure!(phase(&ended.pod) == "Succeeded", "{:?}", ended.pod.status);
    let (reason, code, _) = end(&ended.pod, "side").context("it has not ended")?;
    ensure!(reason == "Completed" && code == 0, "the sidecar saw no end of the others: {reason} {code}");
    Ok(())
}

pub(crate) async fn on_failure_a_container_is_run_until_it_ends_well(world: &World) -> Result<()> {
    let container = shared(sh("test -e /s/x || { touch /s/x; exit 1; }; echo second"));
    let spec = json!({ "restartPolicy": "OnFailure", "containers": [container], "volumes": volume() });
    let ended = world.run("on-failure", spec).await?;
    ensure!(phase(&ended.pod) == "Succeeded" && restarts(&ended.pod, "c") == 1, "{:?}", ended.pod.status);
    let last = status(&ended.pod, "c").and_then(|status| status.last_state.as_ref()?.terminated.clone());
    ensure!(last.is_some_and(|last| last.exit_code == 1));
    Ok(())
}

pub(crate) async fn a_container_may_have_a_restart_policy_of_its_own(world: &World) -> Result<()> {
    let once = with(sh("exit 5"), json!({ "restartPolicy": "Never" }));
    let spec = json!({ "restartPolicy": "Always", "containers": [named("runs", sh("sleep 1000")), once] });
    world.create("own-policy", spec).await?;
    let pod = world.until("own-policy", |pod| end(pod, "c").is_some() && phase(pod) == "Running").await?;
    ensure!(end(&pod, "c").is_some_and(|(_, code, _)| code == 5) && restarts(&pod, "c") == 0, "{:?}", pod.status);
    world.delete("own-policy").await
}

pub(crate) async fn exit_codes_may_ask_for_another_run(world: &World) -> Result<()> {
    let rules = json!([{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }]);
    let script = "test -e /s/x || { touch /s/x; exit 42; }; exit 43";
    let container = with(shared(sh(script)), json!({ "restartPolicy": "Never", "restartPolicyRules": rules }));
    let ended = world.run("rules", json!({ "containers": [container], "volumes": volume() })).await?;
    ensure!(restarts(&ended.pod, "c") == 1, "{:?}", ended.pod.status);
    ensure!(end(&ended.pod, "c").is_some_and(|(_, code, _)| code == 43));
    Ok(())
}

pub(crate) async fn the_termination_message_is_read_from_its_file(world: &World) -> Result<()> {
    let script = "echo -n usual > /dev/termination-log; echo -n chosen > /tmp/words; exit 1";
    let ended = world.run("words", json!({ "containers": [sh(script)] })).await?;
    ensure!(end(&ended.pod, "c").is_some_and(|(_, _, message)| message == "usual"), "{:?}", ended.pod.status);
    let chosen = with(sh(script), json!({ "terminationMessagePath": "/tmp/words" }));
    let ended = world.run("chosen-words", json!({ "containers": [chosen] })).await?;
    ensure!(end(&ended.pod, "c").is_some_and(|(_, _, message)| message == "chosen"), "{:?}", ended.pod.status);
    Ok(())
}

pub(crate) async fn the_end_of_the_log_is_the_message_of_a_failure_that_asks_for_it(world: &World) -> Result<()> {
    let asks = json!({ "terminationMessagePolicy": "FallbackToLogsOnError" });
    for (name, script, wanted) in [("log-fails", "echo it broke; exit 1", "it broke"), ("log-well", "echo fine", "")] {
        let ended = world.run(name, json!({ "containers": [with(sh(script), asks.clone())] })).await?;
        ensure!(end(&ended.pod, "c").is_some_and(|(_, _, message)| message == wanted), "{:?}", ended.pod.status);
    }
    Ok(())
}

pub(crate) async fn a_pod_past_its_deadline_is_ended(world: &World) -> Result<()> {
    let spec =
        json!({ "activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 1, "containers": [sh("sleep 1000")] });
    let ended = world.run("deadline", spec).await?;
    let status = ended.pod.status.clone().unwrap_or_default();
    ensure!(phase(&ended.pod) == "Failed" && status.reason.as_deref() == Some("DeadlineExceeded"), "{status:?}");
    Ok(())
}

/// A pod that tells a folder of the host what happens to it, until it is deleted.
async fn told(world: &World, name: &str, container: Value, more: Value) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let container = with(
        shared(container),
        json!({ "readinessProbe": {
        "exec": { "command": ["test", "-e", "/s/up"] }, "periodSeconds": 1,
    } }),
    );
    let volumes = json!([{ "name": "s", "hostPath": { "path": folder.path() } }]);
    world.create(name, with(json!({ "containers": [container], "volumes": volumes }), more)).await?;
    world.until(name, |pod| condition(pod, "Ready") == "True").await?;
    world.delete(name).await?;
    world.until_gone(name).await?;
    Ok(std::fs::read_to_string(folder.path().join("f")).unwrap_or_default())
}

const HEEDS: &str = "trap 'echo term >> /s/f; exit 0' TERM; touch /s/up; while :; do sleep 0.05; done";

pub(crate) async fn a_hook_runs_before_the_stop_signal(world: &World) -> Result<()> {
    let hook = json!({ "preStop": { "exec": { "command": ["/bin/sh", "-c", "sleep 0.3; echo hook >> /s/f"] } } });
    let said = told(world, "hook", with(sh(HEEDS), json!({ "lifecycle": hook })), json!({})).await?;
    ensure!(said == "hook\nterm\n", "{said}");
    Ok(())
}

pub(crate) async fn a_hook_may_sleep(world: &World) -> Result<()> {
    let hook = json!({ "preStop": { "sleep": { "seconds": 1 } } });
    let start = Instant::now();
    let said = told(world, "sleepy", with(sh(HEEDS), json!({ "lifecycle": hook })), json!({})).await?;
    ensure!(said == "term\n" && start.elapsed() >= Duration::from_secs(1), "{said} after {:?}", start.elapsed());
    Ok(())
}

pub(crate) async fn a_hook_after_the_start_comes_before_running(world: &World) -> Result<()> {
    let hook = json!({ "postStart": { "exec": { "command": ["/bin/sh", "-c", "sleep 0.3; echo hook > /tmp/f"] } } });
    let script = "while ! test -e /tmp/f; do sleep 0.05; done; cat /tmp/f";
    let said = world.says("after-start", with(sh(script), json!({ "lifecycle": hook })), json!({})).await?;
    ensure!(said == "hook\n", "{said}");
    Ok(())
}

pub(crate) async fn a_failing_hook_after_the_start_ends_the_container(world: &World) -> Result<()> {
    let hook = json!({ "postStart": { "exec": { "command": ["/bin/sh", "-c", "echo no luck; exit 1"] } } });
    let container = with(sh("trap 'exit 9' TERM; while :; do sleep 0.05; done"), json!({ "lifecycle": hook }));
    let ended = world.run("bad-start", json!({ "containers": [container] })).await?;
    ensure!(end(&ended.pod, "c").is_some_and(|(_, code, _)| code == 9), "{:?}", ended.pod.status);
    let message = world.event("bad-start", "FailedPostStartHook").await?;
    ensure!(message.contains("no luck"), "{message}");
    Ok(())
}

pub(crate) async fn who_does_not_heed_the_signal_is_killed_after_the_grace_period(world: &World) -> Result<()> {
    let deaf = "trap '' TERM; touch /s/up; while :; do sleep 0.05; done";
    let start = Instant::now();
    told(world, "deaf", sh(deaf), json!({ "terminationGracePeriodSeconds": 1 })).await?;
    ensure!(start.elapsed() < Duration::from_secs(15), "it took {:?}", start.elapsed());
    Ok(())
}

pub(crate) async fn the_stop_signal_may_be_chosen(world: &World) -> Result<()> {
    let script = "trap 'echo usr1 >> /s/f; exit 0' USR1; trap 'echo term >> /s/f; exit 0' TERM; touch /s/up; \
                  while :; do sleep 0.05; done";
    let container = with(sh(script), json!({ "lifecycle": { "stopSignal": "SIGUSR1" } }));
    let said = told(world, "signal", container, json!({ "os": { "name": "linux" } })).await?;
    ensure!(said == "usr1\n", "{said}");
    Ok(())
}

pub(crate) async fn the_conditions_of_a_running_pod_hold(world: &World) -> Result<()> {
    world.create("conditions", json!({ "containers": [sh("sleep 1000")] })).await?;
    let all = ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready", "PodScheduled"];
    let pod = world.until("conditions", |pod| all.iter().all(|kind| condition(pod, kind) == "True")).await?;
    let status = pod.status.clone().unwrap_or_default();
    ensure!(status.pod_ip.is_some() && status.host_ip.is_some() && status.start_time.is_some(), "{status:?}");
    ensure!(status.observed_generation == pod.metadata.generation, "{status:?}");
    world.delete("conditions").await
}
