//! The main job, as a newcomer does it: a program becomes a running, scaled, reachable service, and goes again.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shipway_tests::{Instance, Loop, Residue, Signal, free_port, get, kill, wait_for};

const HELLO: &str = "examples/hello/hello.py";

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn one_command_takes_a_program_to_a_scaled_service_and_every_replica_answers() -> Result<()> {
    let instance = Instance::new()?;
    let port = free_port()?;
    let published = format!("{port}:8080");
    instance.ok(&["run", HELLO, "--replicas", "3", "--port", &published, "--detach"])?;
    let asking = Loop::start(local(port));
    wait_for("three replicas to have answered", Duration::from_secs(20), || {
        let seen: Vec<_> = (0..12).map(|_| get(local(port), "/")).collect::<Result<_>>()?;
        Ok(seen.iter().collect::<std::collections::BTreeSet<_>>().len() == 3)
    })?;
    let outcome = asking.stop()?;
    ensure!(outcome.failed.is_empty(), "{:?}", outcome.failed);

    let apps: Value = serde_json::from_str(&instance.ok(&["ps", "--output", "json"])?)?;
    ensure!(apps[0]["name"] == "hello" && apps[0]["ready"] == 3, "{apps}");
    let logs = instance.ok(&["logs", "hello"])?;
    ensure!(logs.lines().any(|line| line.starts_with("hello-") && line.contains("listening on port 8080")), "{logs}");

    instance.ok(&["scale", "hello", "1"])?;
    wait_for("one replica to be left", Duration::from_secs(20), || {
        let apps: Value = serde_json::from_str(&instance.ok(&["ps", "--output", "json"])?)?;
        Ok(apps[0]["ready"] == 1)
    })?;
    instance.ok(&["rm", "hello"])?;
    ensure!(get(local(port), "/").is_err(), "it still answers");
    Ok(())
}

#[test]
fn without_a_port_the_ones_it_listens_on_are_found_and_ctrl_c_removes_everything() -> Result<()> {
    let instance = Instance::up()?;
    let folder = tempfile::tempdir()?;
    let port = free_port()?;
    let program = folder.path().join("found.py");
    let text = std::fs::read_to_string(shipway_tests::root().join(HELLO))?;
    std::fs::write(&program, text.replace("PORT = 8080", &format!("PORT = {port}")))?;
    let mut running = instance
        .command(&["run", &program.display().to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let progress = BufReader::new(running.stderr.take().context("piped")?).lines();
    let mut said = Vec::new();
    for line in progress {
        said.push(line?);
        if said.last().is_some_and(|line| line.contains("answers at")) {
            break;
        }
    }
    ensure!(said.iter().any(|line| line.contains("packed") && line.contains("sha256:")), "{said:?}");
    ensure!(said.iter().any(|line| line.contains("replicas ready: 1/1")), "{said:?}");
    ensure!(said.last().is_some_and(|line| line.contains(&format!("http://127.0.0.1:{port}"))), "{said:?}");
    ensure!(get(local(port), "/x")?.contains("at /x"));
    let mut logs = BufReader::new(running.stdout.take().context("piped")?).lines();
    ensure!(logs.next().context("no log line")??.starts_with("found-"));
    kill(running.id(), Signal::INT)?;
    let status = running.wait()?;
    ensure!(status.success(), "{status}");
    let apps: Value = serde_json::from_str(&instance.ok(&["ps", "--output", "json"])?)?;
    ensure!(apps == Value::Array(Vec::new()), "{apps}");

    let id = instance.id()?;
    instance.ok(&["down"])?;
    let residue = Residue::of(instance.home(), &id)?;
    ensure!(residue == Residue::default(), "{residue:?}");
    Ok(())
}

#[test]
fn a_binary_and_a_script_run_as_well() -> Result<()> {
    let instance = Instance::up()?;
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("count.sh");
    std::fs::write(&script, "#!/bin/sh\necho \"script says $1 $GREETING\"\nexec sleep 1000\n")?;
    let script = script.display().to_string();
    instance.ok(&["run", &script, "--detach", "--env", "GREETING=hello", "--", "one"])?;
    wait_for("the script's line", Duration::from_secs(10), || {
        Ok(instance.ok(&["logs", "count"])?.contains("script says one hello"))
    })?;
    instance.ok(&["run", "/bin/sleep", "--name", "sleeper", "--detach", "--", "1000"])?;
    let apps: Value = serde_json::from_str(&instance.ok(&["ps", "--output", "json"])?)?;
    ensure!(apps.as_array().map(Vec::len) == Some(2), "{apps}");
    Ok(())
}

#[test]
fn a_pod_reaches_a_service_by_its_name() -> Result<()> {
    let instance = Instance::up()?;
    let published = format!("{}:8080", free_port()?);
    instance.ok(&["run", HELLO, "--port", &published, "--detach"])?;
    let folder = tempfile::tempdir()?;
    let asker = folder.path().join("asker.py");
    let (port, _) = published.split_once(':').context("published and target")?;
    let program = format!(
        "import time, urllib.request\n\
         for name in ('hello', 'hello.default', 'hello.default.svc.cluster.local'):\n    \
             print(urllib.request.urlopen('http://%s:{port}/' % name).read().decode().strip(), flush=True)\n\
         time.sleep(1000)\n"
    );
    std::fs::write(&asker, program)?;
    instance.ok(&["run", &asker.display().to_string(), "--detach"])?;
    wait_for("three answers by name", Duration::from_secs(20), || {
        Ok(instance.ok(&["logs", "asker"])?.matches("Hello from hello-").count() == 3)
    })
}

#[test]
fn instances_run_side_by_side_without_touching_each_other() -> Result<()> {
    let (one, other) = (Instance::up()?, Instance::up()?);
    let ports = [free_port()?, free_port()?];
    for (instance, port) in [&one, &other].into_iter().zip(ports) {
        instance.ok(&["run", HELLO, "--port", &format!("{port}:8080"), "--detach"])?;
    }
    let asking = Loop::start(local(ports[1]));
    let id = one.id()?;
    one.ok(&["down"])?;
    ensure!(Residue::of(one.home(), &id)? == Residue::default());
    std::thread::sleep(Duration::from_millis(300));
    let outcome = asking.stop()?;
    ensure!(outcome.failed.is_empty() && outcome.answered > 10, "{outcome:?}");
    ensure!(get(local(ports[0]), "/").is_err(), "the first one still answers");
    Ok(())
}

#[test]
fn a_publish_that_fails_says_how_to_mend_it_and_leaves_the_app_running() -> Result<()> {
    let instance = Instance::up()?;
    let port = free_port()?;
    let nowhere = format!("localhost:{}/me", free_port()?);
    let published = format!("{port}:8080");
    let output =
        instance.output(&["run", HELLO, "--port", &published, "--repository", &nowhere, "--publish", "--detach"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && said.contains("warning: not published"), "{said}");
    ensure!(get(local(port), "/")?.starts_with("Hello from"));
    Ok(())
}

#[test]
fn what_was_deployed_comes_back_after_down_and_up() -> Result<()> {
    let instance = Instance::up()?;
    let port = free_port()?;
    instance.ok(&["run", HELLO, "--port", &format!("{port}:8080"), "--detach"])?;
    instance.ok(&["down"])?;
    ensure!(get(local(port), "/").is_err(), "it answers while everything is down");
    instance.ok(&["up"])?;
    wait_for("it to answer again", Duration::from_secs(20), || Ok(get(local(port), "/")?.starts_with("Hello from")))
}

#[test]
fn a_new_version_that_fails_leaves_the_former_one_serving() -> Result<()> {
    let instance = Instance::up()?;
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    let program = folder.path().join("service.py");
    let text = std::fs::read_to_string(shipway_tests::root().join(HELLO))?;
    std::fs::write(&program, &text)?;
    let (path, published) = (program.display().to_string(), format!("{port}:8080"));
    let run = ["run", &path, "--port", &published, "--detach"];
    instance.ok(&run)?;
    let asking = Loop::start(local(port));
    std::fs::write(&program, "raise SystemExit(7)\n")?;
    let error = instance.fails(&run)?;
    ensure!(error.contains("exited with code 7") && error.contains("former version goes on"), "{error}");
    std::thread::sleep(Duration::from_millis(500));
    let outcome = asking.stop()?;
    ensure!(outcome.failed.is_empty() && outcome.answered > 10, "{outcome:?}");
    Ok(())
}
