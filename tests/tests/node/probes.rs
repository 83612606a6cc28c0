//! Probes of all kinds (https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::{World, condition, phase, restarts, sh, status, with};

/// A container with a small web server on port 8080.
fn web(more: Value) -> Value {
    let ports = json!([{ "name": "web", "containerPort": 8080 }]);
    with(
        with(sh("mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www"), json!({ "ports": ports })),
        more,
    )
}

pub(crate) async fn a_page_answers_and_the_pod_is_ready(world: &World) -> Result<()> {
    let probe = json!({ "httpGet": { "path": "/index.html", "port": "web" }, "periodSeconds": 1 });
    world.create("page", json!({ "containers": [web(json!({ "readinessProbe": probe }))] })).await?;
    world.until("page", |pod| condition(pod, "Ready") == "True").await?;
    world.delete("page").await
}

pub(crate) async fn a_page_that_is_missing_keeps_the_pod_unready(world: &World) -> Result<()> {
    let probe = json!({ "httpGet": { "path": "/none", "port": 8080 }, "periodSeconds": 1 });
    world.create("no-page", json!({ "containers": [web(json!({ "readinessProbe": probe }))] })).await?;
    let mut message = String::new();
    while !message.contains("404") {
        message = world.event("no-page", "Unhealthy").await?;
    }
    ensure!(message.starts_with("Readiness probe failed: "), "{message}");
    let pod = world.until("no-page", |pod| phase(pod) == "Running").await?;
    ensure!(condition(&pod, "Ready") == "False" && restarts(&pod, "c") == 0, "{:?}", pod.status);
    world.delete("no-page").await
}

pub(crate) async fn a_named_port_is_connected_to(world: &World) -> Result<()> {
    let probe = json!({ "tcpSocket": { "port": "web" }, "periodSeconds": 1 });
    let probes = json!({ "readinessProbe": probe, "livenessProbe": probe });
    world.create("port", json!({ "containers": [web(probes)] })).await?;
    world.until("port", |pod| condition(pod, "Ready") == "True").await?;
    world.delete("port").await
}

/// Answers every HTTP/2 connection with one call's answer: the server serves. Frames by https://www.rfc-editor.org/rfc/rfc9113.
fn serve_health(listener: &TcpListener) {
    let frame = |kind: u8, flags: u8, stream: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).expect("small frames");
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], content].concat()
    };
    // ":status: 200" by its index, then names and values as they are.
    let head = [&[0x88, 0x0f, 0x10, 16][..], b"application/grpc"].concat();
    let trailers = [&[0x00, 11][..], b"grpc-status", &[1], b"0"].concat();
    let answer = [
        frame(4, 0, 0, &[]),
        frame(4, 1, 0, &[]),
        frame(1, 4, 1, &head),
        frame(0, 0, 1, &[0, 0, 0, 0, 2, 8, 1]),
        frame(1, 5, 1, &trailers),
    ];
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let mut asked = Vec::new();
        let mut chunk = [0; 1024];
        while !asked.windows(9).any(|part| part[3..] == [0, 1, 0, 0, 0, 1]) {
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(length) => asked.extend_from_slice(&chunk[..length]),
            }
        }
        // Whoever hangs up has asked enough.
        drop(stream.write_all(&answer.concat()));
        drop(stream.read(&mut chunk));
    }
}

pub(crate) async fn a_grpc_server_is_asked_for_its_health(world: &World) -> Result<()> {
    // A pod on the host's network is asked at the host's address, where this process answers.
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || serve_health(&listener));
    let probe = json!({ "grpc": { "port": port }, "periodSeconds": 1 });
    let container = with(sh("sleep 1000"), json!({ "readinessProbe": probe }));
    world.create("grpc", json!({ "hostNetwork": true, "containers": [container] })).await?;
    world.until("grpc", |pod| condition(pod, "Ready") == "True").await?;
    world.delete("grpc").await
}

pub(crate) async fn a_startup_probe_holds_back_the_others(world: &World) -> Result<()> {
    let exec = |script: &str| json!({ "exec": { "command": ["/bin/sh", "-c", script] }, "periodSeconds": 1 });
    let probes = json!({
        "startupProbe": with(exec("test -e /tmp/up"), json!({ "failureThreshold": 30 })),
        // It would give the container up at once.
        "livenessProbe": with(exec("test -e /tmp/up"), json!({ "failureThreshold": 1 })),
    });
    let container = with(sh("sleep 2.5; touch /tmp/up; sleep 1000"), probes);
    world.create("startup", json!({ "containers": [container] })).await?;
    let pod = world.until("startup", |pod| phase(pod) == "Running").await?;
    ensure!(status(&pod, "c").is_some_and(|status| status.started == Some(false)), "{:?}", pod.status);
    let pod = world.until("startup", |pod| condition(pod, "Ready") == "True").await?;
    ensure!(restarts(&pod, "c") == 0, "{:?}", pod.status);
    world.delete("startup").await
}

pub(crate) async fn a_liveness_probe_may_shorten_the_grace_period(world: &World) -> Result<()> {
    let probe = json!({
        "exec": { "command": ["false"] }, "periodSeconds": 1, "failureThreshold": 1, "terminationGracePeriodSeconds": 1,
    });
    let container = with(sh("trap '' TERM; while :; do sleep 0.1; done"), json!({ "livenessProbe": probe }));
    let start = Instant::now();
    world.create("short", json!({ "containers": [container] })).await?;
    world.until("short", |pod| restarts(pod, "c") > 0).await?;
    ensure!(start.elapsed() < Duration::from_secs(20), "the pod's own period is 30 s: {:?}", start.elapsed());
    world.delete("short").await
}

pub(crate) async fn a_readiness_gate_keeps_the_pod_unready_until_it_opens(world: &World) -> Result<()> {
    let gates = json!([{ "conditionType": "example.com/open" }]);
    world.create("gate", json!({ "readinessGates": gates, "containers": [sh("sleep 1000")] })).await?;
    let pod = world.until("gate", |pod| condition(pod, "ContainersReady") == "True").await?;
    ensure!(condition(&pod, "Ready") == "False", "{:?}", pod.status);
    let open = json!({ "status": { "conditions": [{ "type": "example.com/open", "status": "True" }] } });
    world.pods().patch_status("gate", &PatchParams::default(), &Patch::Strategic(open)).await?;
    world.until("gate", |pod| condition(pod, "Ready") == "True").await?;
    world.delete("gate").await
}
