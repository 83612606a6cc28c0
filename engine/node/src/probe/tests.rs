//! Probers against local sockets and fake sandboxes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::machine::Machine;
use crate::testing::{Imagined, Place};

async fn place() -> Place {
    Imagined::default().create(shipway_container::SandboxSpec::default()).await.expect("a sandbox")
}

fn container(probes: Value) -> Container {
    let mut whole = json!({"name": "c", "ports": [{"name": "web", "containerPort": 1}]});
    whole.as_object_mut().expect("an object").extend(probes.as_object().expect("an object").clone());
    serde_json::from_value(whole).expect("a container")
}

async fn prober(probes: Value) -> Prober<Place> {
    Prober {
        target: Target { sandbox: place().await, run: "c-0".to_owned(), address: IpAddr::V4(Ipv4Addr::LOCALHOST) },
        container: container(probes),
        since: Timestamp::now(),
        started: false,
        ready: false,
        grace: Duration::from_secs(30),
    }
}

/// Asks once what the readiness probe asks.
async fn ask(probe: Value) -> Outcome {
    let prober = prober(json!({"readinessProbe": probe})).await;
    let probe = prober.container.readiness_probe.clone().expect("a probe");
    prober.ask(&Check::of(&probe, &prober.container), &probe).await
}

/// A server that answers every request with the code that it is set to; returns its port.
async fn server(code: Arc<AtomicU16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let code = code.load(Ordering::Relaxed);
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.expect("a request");
                let text = String::from_utf8_lossy(&request[..read]).to_lowercase();
                let code = if text.contains("x-want: yes") || !text.contains("/headers") { code } else { 400 };
                let reply = format!("HTTP/1.1 {code} X\r\ncontent-length: 2\r\n\r\nok");
                stream.write_all(reply.as_bytes()).await.expect("written");
            });
        }
    });
    port
}

#[tokio::test]
async fn http_answers_from_200_to_399_are_a_success() {
    let code = Arc::new(AtomicU16::new(200));
    let port = server(code.clone()).await;
    for (answer, expected) in [(200, true), (302, true), (399, true), (400, false), (500, false)] {
        code.store(answer, Ordering::Relaxed);
        let outcome = ask(json!({"httpGet": {"port": port, "path": "/x"}})).await;
        assert_eq!(outcome.is_ok(), expected, "{answer}: {outcome:?}");
    }
    let outcome = ask(json!({"httpGet": {"port": port}})).await;
    assert_eq!(outcome, Err("HTTP probe failed with statuscode: 500".to_owned()));
    code.store(200, Ordering::Relaxed);
    let headers = json!([{"name": "X-Want", "value": "yes"}]);
    ask(json!({"httpGet": {"port": port, "path": "/headers", "httpHeaders": headers}}))
        .await
        .expect("the header is sent");
    ask(json!({"httpGet": {"port": port, "path": "headers"}})).await.expect_err("the header is missing");
}

#[tokio::test]
async fn nobody_listening_is_a_failure_in_words() {
    let port = TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address").port();
    let http = ask(json!({"httpGet": {"port": port}})).await.expect_err("nobody listens");
    assert!(http.starts_with(&format!("Get \"http://127.0.0.1:{port}/\": ")), "{http}");
    let tcp = ask(json!({"tcpSocket": {"port": port}})).await.expect_err("nobody listens");
    assert!(tcp.starts_with(&format!("dial tcp 127.0.0.1:{port}: ")), "{tcp}");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    ask(json!({"tcpSocket": {"port": listener.local_addr().expect("an address").port()}})).await.expect("it listens");
}

#[tokio::test]
async fn commands_ports_and_kinds_that_do_not_work_are_named() {
    ask(json!({"exec": {"command": ["true"]}})).await.expect("it is true");
    assert_eq!(ask(json!({"exec": {"command": ["false"]}})).await, Err("it is false".to_owned()));
    let unknown = ask(json!({"tcpSocket": {"port": "none"}})).await;
    assert_eq!(unknown, Err("the container has no port \"none\"".to_owned()));
    let none = ask(json!({})).await;
    assert_eq!(none, Err("the probe names no exec, httpGet, tcpSocket or grpc".to_owned()));
}

/// A gRPC server that says this of a service called `a`, and with a status of the call as such of others; returns its port.
async fn health(status: u8) -> u16 {
    use http_body_util::{BodyExt, Full};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| async move {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let asked = request.into_body().collect().await.expect("a body").to_bytes();
        let (known, code) = if asked.ends_with(b"a") { (true, "0") } else { (false, "12") };
        let mut trailers = ::http::HeaderMap::new();
        trailers.insert("grpc-status", ::http::HeaderValue::from_static(code));
        let message = if known { vec![0, 0, 0, 0, 2, 8, status] } else { Vec::new() };
        let body = Full::new(bytes::Bytes::from(message)).with_trailers(async move { Some(Ok(trailers)) });
        Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(serving.serve_connection(TokioIo::new(stream), answer));
        }
    });
    port
}

#[tokio::test]
async fn a_grpc_server_is_asked_for_the_health_of_a_service() {
    let port = health(1).await;
    ask(json!({"grpc": {"port": port, "service": "a"}})).await.expect("it serves");
    let unknown = ask(json!({"grpc": {"port": port}})).await.expect_err("it has no such method");
    assert!(unknown.contains("does not implement the grpc health protocol"), "{unknown}");
    let port = health(2).await;
    let unhealthy = ask(json!({"grpc": {"port": port, "service": "a"}})).await;
    assert_eq!(unhealthy, Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned()));
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = silent.local_addr().expect("an address").port();
    let late = ask(json!({"grpc": {"port": port}, "timeoutSeconds": 1})).await.expect_err("no answer");
    assert!(late.starts_with("timeout: failed to connect service") && late.contains("within 1s"), "{late}");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_hangs_times_out() {
    let outcome = ask(json!({"exec": {"command": ["hang"]}, "timeoutSeconds": 2})).await;
    assert_eq!(outcome, Err("command timed out after 2s".to_owned()));
}

#[tokio::test]
async fn a_silent_server_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let outcome = ask(json!({"httpGet": {"port": port}, "timeoutSeconds": 1})).await;
    assert!(outcome.expect_err("no answer").ends_with("no answer within 1s"));
}

/// Verdicts and failures of a prober, as they come.
async fn reports(prober: Prober<Place>, most: usize) -> Vec<Report> {
    let (sender, mut received) = mpsc::channel(1);
    let run = tokio::spawn(prober.run(sender));
    let mut all = Vec::new();
    while all.len() < most {
        match received.recv().await {
            Some(report) => all.push(report),
            None => break,
        }
    }
    run.abort();
    all
}

#[tokio::test(start_paused = true)]
async fn readiness_is_told_when_it_changes_and_soon_after_the_start() {
    let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 10});
    let begun = Instant::now();
    let told = reports(prober(json!({"readinessProbe": probe})).await, 1).await;
    assert_eq!(told, [Report::Verdict(Verdict::Ready(true))]);
    assert!(begun.elapsed() < Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn a_liveness_probe_gives_up_after_its_threshold_and_delay() {
    let probe = json!({"exec": {"command": ["false"]}, "initialDelaySeconds": 5, "periodSeconds": 3, "failureThreshold": 2,
        "terminationGracePeriodSeconds": 7});
    let begun = Instant::now();
    let told = reports(prober(json!({"livenessProbe": probe})).await, 9).await;
    let failed = Report::Failed("Liveness probe failed: it is false".to_owned());
    let unhealthy = Report::Verdict(Verdict::Unhealthy { grace: Duration::from_secs(7) });
    assert_eq!(told, [failed.clone(), failed, unhealthy]);
    let took = begun.elapsed().as_secs_f64();
    assert!((7.5..9.0).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn startup_comes_first_and_holds_the_others_back() {
    let fails = json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 3});
    let told = reports(prober(json!({"startupProbe": fails, "livenessProbe": fails})).await, 9).await;
    let kinds: Vec<bool> =
        told.iter().map(|report| matches!(report, Report::Failed(text) if text.starts_with("Startup"))).collect();
    assert_eq!(kinds, [true, true, true, false]);
    assert_eq!(told[3], Report::Verdict(Verdict::Unhealthy { grace: Duration::from_secs(30) }));

    let passes = json!({"exec": {"command": ["true"]}});
    let told = reports(prober(json!({"startupProbe": passes, "readinessProbe": passes})).await, 2).await;
    assert_eq!(told, [Report::Verdict(Verdict::Started), Report::Verdict(Verdict::Ready(true))]);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_was_ready_when_the_engine_started_is_not_told_ready_again() {
    let fails = json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2});
    let mut taken_up = prober(json!({"readinessProbe": fails})).await;
    taken_up.ready = true;
    let told = reports(taken_up, 3).await;
    assert_eq!(told[2], Report::Verdict(Verdict::Ready(false)));
}
