//! Streams with the real kubectl, every version that is there: they speak SPDY, WebSocket, or the one inside the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};
use shipway_tests::{Instance, get, kubectls, wait_for, with_input};

/// An instance with an image of a few tools.
struct Cluster {
    instance: Instance,
    kubectls: Vec<PathBuf>,
}

impl Cluster {
    /// None where this machine has no kubectl.
    fn start() -> Result<Option<Self>> {
        let kubectls = kubectls();
        if kubectls.is_empty() {
            return Ok(None);
        }
        let instance = Instance::up()?;
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("tools.sh");
        // The tools that a script plainly names are packed with it.
        let tools = "#!/bin/sh\ncat /dev/null\nls /\nhead -c 1 /etc/hosts\ntar --version\nstty size\nsleep 1000\n";
        std::fs::write(&script, tools)?;
        instance.ok(&["run", &script.display().to_string(), "--detach"])?;
        instance.ok(&["rm", "tools"])?;
        Ok(Some(Self { instance, kubectls }))
    }

    fn newest(&self) -> &Path {
        self.kubectls.last().expect("there is one")
    }

    fn kubectl(&self, kubectl: &Path, arguments: &[&str]) -> Command {
        self.instance.command_of(kubectl, arguments)
    }

    /// Runs the newest one to a good end.
    fn ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.kubectl(self.newest(), arguments).output()?;
        ensure!(output.status.success(), "kubectl {arguments:?}: {}", text(&output.stderr));
        Ok(text(&output.stdout))
    }

    /// A pod of one container that runs a shell script; returns when it runs.
    fn pod(&self, name: &str, script: &str, more: &Value) -> Result<()> {
        let mut container = json!({
            "name": "c", "image": "shipway.local/tools:latest", "command": ["/bin/sh", "-c", script],
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            container[key] = value.clone();
        }
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
        });
        let created = with_input(&mut self.kubectl(self.newest(), &["create", "-f", "-"]), &pod.to_string())?;
        ensure!(created.status.success(), "{}", text(&created.stderr));
        wait_for("the pod to run", Duration::from_secs(30), || {
            Ok(self.ok(&["get", "pod", name, "-o", "jsonpath={.status.phase}"])? == "Running")
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn seen(output: &Output) -> (Option<i32>, String, String) {
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A process on a terminal of its own, and our end of it.
fn on_terminal(command: &mut Command, columns: u16, rows: u16) -> Result<(Child, std::fs::File)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    tcsetwinsize(&ours, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
    let theirs = ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    let child = command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs).spawn()?;
    Ok((child, ours.into()))
}

/// Reads a terminal until it has shown something, or is gone.
fn shown(terminal: &mut std::fs::File, wanted: &str) -> String {
    let (mut all, mut chunk) = (String::new(), [0; 1024]);
    while !all.contains(wanted) {
        match terminal.read(&mut chunk) {
            Ok(length) if length > 0 => all.push_str(&text(&chunk[..length])),
            _ => break,
        }
    }
    all
}

#[test]
fn a_command_gets_input_and_gives_output_errors_and_its_code() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.pod("box", "sleep 1000", &json!({}))?;
    for kubectl in &cluster.kubectls {
        let shell = |more: &[&str], script: &str| {
            cluster.kubectl(kubectl, &[&["exec"], more, &["box", "--", "/bin/sh", "-c", script]].concat())
        };
        let output = with_input(&mut shell(&["-i"], "cat; echo bad >&2; exit 3"), "hello\n")?;
        let expected = (Some(3), "hello\n".to_owned(), "bad\ncommand terminated with exit code 3\n".to_owned());
        ensure!(seen(&output) == expected, "{}: {:?}", kubectl.display(), seen(&output));
        let output = shell(&[], "cat; echo done").output()?;
        ensure!(seen(&output) == (Some(0), "done\n".into(), String::new()), "{:?}", seen(&output));
        let big = shell(&[], "head -c 3000000 /dev/zero").output()?;
        ensure!(big.status.success() && big.stdout.len() == 3_000_000, "{} bytes", big.stdout.len());
        let nope = cluster.kubectl(kubectl, &["exec", "box", "--", "/no/such"]).output()?;
        ensure!(!nope.status.success() && text(&nope.stderr).contains("No such file"), "{:?}", seen(&nope));
        let other = cluster.kubectl(kubectl, &["exec", "box", "-c", "other", "--", "ls"]).output()?;
        ensure!(!other.status.success() && text(&other.stderr).contains("other"), "{:?}", seen(&other));
    }
    Ok(())
}

#[test]
fn a_command_on_a_terminal_has_its_size_and_what_is_typed() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.pod("box", "sleep 1000", &json!({}))?;
    for kubectl in &cluster.kubectls {
        let script = "sleep 0.5; stty size; read line; echo got $line; exit 4";
        let mut exec = cluster.kubectl(kubectl, &["exec", "-it", "box", "--", "/bin/sh", "-c", script]);
        let (mut child, mut terminal) = on_terminal(&mut exec, 97, 31)?;
        // Otherwise our own copy would keep the terminal from ending.
        drop(exec);
        let first = shown(&mut terminal, "31 97");
        ensure!(first.contains("31 97"), "{}: {first:?}", kubectl.display());
        terminal.write_all(b"word\r")?;
        let second = shown(&mut terminal, "got word");
        ensure!(second.contains("got word"), "{second:?}");
        ensure!(child.wait()?.code() == Some(4));
    }
    Ok(())
}

#[test]
fn a_client_that_goes_away_takes_its_command_with_it() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.pod("box", "sleep 1000", &json!({}))?;
    for kubectl in &cluster.kubectls {
        let mut exec = cluster.kubectl(kubectl, &["exec", "-i", "box", "--", "/bin/sh", "-c", "echo begun; sleep 777"]);
        let mut child = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        ensure!(line == "begun\n", "{line:?}");
        child.kill()?;
        child.wait()?;
        wait_for("the command to be gone", Duration::from_secs(10), || {
            let found = cluster.ok(&["exec", "box", "--", "/bin/sh", "-c", "cat /proc/[0-9]*/cmdline"])?;
            Ok(!found.contains("777"))
        })?;
    }
    Ok(())
}

#[test]
fn what_a_client_sent_before_it_went_away_reaches_its_command_and_then_the_end_of_input() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.pod("box", "sleep 1000", &json!({}))?;
    for (number, kubectl) in cluster.kubectls.iter().enumerate() {
        let script = format!("cat > /{number}; sleep 0.3; echo end >> /{number}");
        let mut exec = cluster.kubectl(kubectl, &["exec", "-i", "box", "--", "/bin/sh", "-c", &script]);
        let mut child = exec.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        child.stdin.as_mut().context("piped")?.write_all(b"words\n")?;
        let path = format!("/{number}");
        let file = || cluster.ok(&["exec", "box", "--", "cat", &path]);
        wait_for("the words to arrive", Duration::from_secs(10), || Ok(file()? == "words\n"))?;
        child.kill()?;
        child.wait()?;
        let what = format!("the command of {} to end by itself", kubectl.display());
        wait_for(&what, Duration::from_secs(10), || Ok(file()? == "words\nend\n"))?;
    }
    Ok(())
}

#[test]
fn files_are_copied_in_and_out() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.pod("box", "mkdir -p /data; sleep 1000", &json!({}))?;
    let folder = tempfile::tempdir()?;
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    let content: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&there, &content)?;
    for kubectl in &cluster.kubectls {
        let copy = |from: &str, to: &str| -> Result<()> {
            let output = cluster.kubectl(kubectl, &["cp", from, to]).output()?;
            ensure!(output.status.success(), "{}: {:?}", kubectl.display(), seen(&output));
            Ok(())
        };
        copy(&there.display().to_string(), "box:/tmp-copy")?;
        copy("box:/tmp-copy", &back.display().to_string())?;
        ensure!(std::fs::read(&back)? == content, "{}: the copy differs", kubectl.display());
        std::fs::remove_file(&back)?;
    }
    Ok(())
}

#[test]
fn a_running_container_is_attached_to() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    let script = "while read line; do echo out $line; echo err $line >&2; done";
    cluster.pod("listener", script, &json!({"stdin": true}))?;
    for kubectl in &cluster.kubectls {
        let mut attach = cluster.kubectl(kubectl, &["attach", "-i", "listener"]);
        let mut child = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut input = child.stdin.take().context("piped")?;
        let mut output = BufReader::new(child.stdout.take().context("piped")?);
        let mut line = String::new();
        for word in ["one", "two"] {
            writeln!(input, "{word}")?;
            line.clear();
            output.read_line(&mut line)?;
            ensure!(line == format!("out {word}\n"), "{}: {line:?}", kubectl.display());
        }
        child.kill()?;
        child.wait()?;
    }
    // Its log has it all, and it still runs.
    ensure!(cluster.ok(&["logs", "listener"])?.matches("out one").count() == cluster.kubectls.len());
    ensure!(cluster.ok(&["get", "pod", "listener", "-o", "jsonpath={.status.phase}"])? == "Running");
    Ok(())
}

#[test]
fn a_pod_is_run_like_a_program() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    for (number, kubectl) in cluster.kubectls.iter().enumerate() {
        let name = format!("filter-{number}");
        let image = "--image=shipway.local/tools:latest";
        let script = "cat; exit 5";
        let arguments = [
            "run",
            &name,
            image,
            "-i",
            "--rm",
            "--quiet",
            "--restart=Never",
            "--command",
            "--",
            "/bin/sh",
            "-c",
            script,
        ];
        let output = with_input(&mut cluster.kubectl(kubectl, &arguments), "through the pod\n")?;
        let (code, out, error) = seen(&output);
        ensure!(
            code == Some(5) && out.contains("through the pod"),
            "{}: {code:?} {out:?} {error:?}",
            kubectl.display()
        );
        let name = format!("console-{number}");
        let script = "read line; stty size; echo got $line";
        let arguments = [
            "run",
            &name,
            image,
            "-it",
            "--rm",
            "--quiet",
            "--restart=Never",
            "--command",
            "--",
            "/bin/sh",
            "-c",
            script,
        ];
        let mut run = cluster.kubectl(kubectl, &arguments);
        let (mut child, mut terminal) = on_terminal(&mut run, 90, 30)?;
        drop(run);
        wait_for("the console to run", Duration::from_secs(20), || {
            Ok(cluster.ok(&["get", "pod", &name, "-o", "jsonpath={.status.phase}"])? == "Running")
        })?;
        std::thread::sleep(Duration::from_millis(700));
        terminal.write_all(b"word\r")?;
        let all = shown(&mut terminal, "got word");
        ensure!(all.contains("30 90") && all.contains("got word"), "{}: {all:?}", kubectl.display());
        child.wait()?;
    }
    Ok(())
}

/// A kubectl that forwards, until it is dropped.
struct Forwarding {
    child: Child,
    address: SocketAddr,
    /// Without a reader, its next word would end it.
    _output: BufReader<std::process::ChildStdout>,
}

impl Forwarding {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("piped")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let rest = line.strip_prefix("Forwarding from 127.0.0.1:");
        let port: Option<u16> = rest.and_then(|rest| rest.split(' ').next()?.parse().ok());
        let address = SocketAddr::from(([127, 0, 0, 1], port.with_context(|| format!("no port in {line:?}"))?));
        Ok(Self { child, address, _output: output })
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if self.child.kill().and_then(|()| self.child.wait()).is_err() {
            eprintln!("a kubectl was not ended");
        }
    }
}

#[test]
fn ports_are_forwarded_one_after_the_other_and_all_at_once() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.instance.ok(&["run", "examples/hello/hello.py", "--detach"])?;
    for kubectl in &cluster.kubectls {
        let to = |port| Forwarding::start(cluster.kubectl(kubectl, &["port-forward", "deployment/hello", port]));
        let forwarding = to(":8080")?;
        let address = forwarding.address;
        let mut bodies = (0..20).map(|_| get(address, "/")).collect::<Result<Vec<_>>>()?;
        let parallel: Vec<_> = (0..5).map(|_| std::thread::spawn(move || get(address, "/"))).collect();
        for thread in parallel {
            bodies.push(thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        bodies.dedup();
        ensure!(bodies.len() == 1 && bodies[0].contains("hello"), "{}: {bodies:?}", kubectl.display());
        // A port that nobody listens on is said to be closed.
        let mut closed = to(":81")?;
        ensure!(get(closed.address, "/").is_err());
        let mut errors = BufReader::new(closed.child.stderr.take().context("piped")?);
        let mut line = String::new();
        while !line.contains("refused") {
            ensure!(errors.read_line(&mut line)? > 0, "{}: {line:?}", kubectl.display());
        }
    }
    Ok(())
}

#[test]
fn logs_are_shown_as_they_are_asked_for() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    let script = "echo oops >&2; sleep 0.5; echo first; echo last; sleep 4; echo later; sleep 1000";
    cluster.pod("talker", script, &json!({}))?;
    wait_for("its words", Duration::from_secs(10), || Ok(cluster.ok(&["logs", "talker"])?.contains("last")))?;
    let logs = |more: &[&str]| cluster.ok(&[&["logs", "talker"], more].concat());
    ensure!(logs(&["--tail=1"])? == "last\n");
    ensure!(logs(&["--limit-bytes=8"])?.len() == 8);
    ensure!(logs(&["--timestamps", "--tail=1"])?.ends_with("Z last\n"));
    ensure!(logs(&["--since=1h", "-c", "c"])?.lines().count() == 3);
    ensure!(logs(&["--since-time=2100-01-01T00:00:00Z"])?.is_empty());
    let raw =
        |query: &str| cluster.ok(&["get", "--raw", &format!("/api/v1/namespaces/default/pods/talker/log?{query}")]);
    ensure!(raw("stream=Stderr")? == "oops\n");
    ensure!(!raw("stream=Stdout")?.contains("oops"));
    let refused = raw("stream=Stdout&tailLines=1").map_err(|error| error.to_string());
    ensure!(refused.as_ref().is_err_and(|error| error.contains("mutually exclusive")), "{refused:?}");
    let mut follow = cluster.kubectl(cluster.newest(), &["logs", "-f", "--tail=1", "talker"]);
    let mut child = follow.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    let next = [lines.next(), lines.next()].into_iter().flatten().collect::<std::io::Result<Vec<_>>>()?;
    ensure!(next == ["last", "later"], "{next:?}");
    child.kill()?;
    child.wait()?;
    Ok(())
}

#[test]
fn a_container_is_added_to_a_running_pod_to_look_into_it() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.pod("patient", "exec sleep 4321", &json!({}))?;
    for (number, kubectl) in cluster.kubectls.iter().enumerate() {
        let name = format!("doctor-{number}");
        let arguments = [
            "debug",
            "patient",
            "-i",
            "-c",
            &name,
            "--image=shipway.local/tools:latest",
            "--target=c",
            "--profile=general",
            "--",
            "/bin/sh",
            "-c",
            "read line; cat /proc/1/cmdline; echo; echo $line",
        ];
        let output = with_input(&mut cluster.kubectl(kubectl, &arguments), "aha\n")?;
        let (code, out, error) = seen(&output);
        ensure!(code == Some(0), "{}: {out:?} {error:?}", kubectl.display());
        let log = || cluster.ok(&["logs", "patient", "-c", &name]);
        wait_for("its words", Duration::from_secs(10), || Ok(log()?.contains("aha")))?;
        ensure!(log()?.contains("sleep\u{0}4321"), "{:?}", log()?);
        wait_for("its end to be told", Duration::from_secs(10), || {
            let path = format!("jsonpath={{.status.ephemeralContainerStatuses[{number}].state.terminated.exitCode}}");
            Ok(cluster.ok(&["get", "pod", "patient", "-o", &path])? == "0")
        })?;
    }
    let pod = cluster.instance.raw("/api/v1/namespaces/default/pods/patient")?;
    ensure!(pod["status"]["phase"] == "Running" && pod["status"]["containerStatuses"][0]["restartCount"] == 0);
    let mut changed = pod;
    changed["spec"]["ephemeralContainers"] = json!([]);
    let replace = &["replace", "--raw", "/api/v1/namespaces/default/pods/patient/ephemeralcontainers", "-f", "-"];
    let refused = with_input(&mut cluster.kubectl(cluster.newest(), replace), &changed.to_string())?;
    ensure!(text(&refused.stderr).contains("may not be removed"), "{:?}", seen(&refused));
    Ok(())
}

#[test]
fn requests_are_handed_on_to_pods_services_and_nodes() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.instance.ok(&["run", "examples/hello/hello.py", "--port", "8080", "--detach"])?;
    let raw = |path: &str| cluster.ok(&["get", "--raw", path]);
    let pods = cluster.instance.raw("/api/v1/namespaces/default/pods")?;
    let pod = pods["items"][0]["metadata"]["name"].as_str().context("a pod")?.to_owned();
    let base = "/api/v1/namespaces/default";
    ensure!(raw(&format!("{base}/pods/{pod}:8080/proxy/"))?.contains("hello"));
    ensure!(raw(&format!("{base}/services/hello:8080/proxy/"))?.contains("hello"));
    let closed = raw(&format!("{base}/pods/{pod}:82/proxy/")).map_err(|error| error.to_string());
    ensure!(closed.as_ref().is_err_and(|error| error.contains("error trying to reach service")), "{closed:?}");
    let node = cluster.ok(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?;
    let container = pods["items"][0]["spec"]["containers"][0]["name"].as_str().context("a container")?;
    let log = raw(&format!("/api/v1/nodes/{node}/proxy/containerLogs/default/{pod}/{container}"))?;
    ensure!(log.contains("listening"), "{log:?}");
    Ok(())
}
