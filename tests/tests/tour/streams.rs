//! Commands that go on until they are stopped: watch, follow, attach, forward, proxy.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use shipway_tests::{Instance, free_port, get};

type Stream = fn(&Instance, &str) -> Result<()>;

/// Every stream by its name; all of them use what the stop of the pods left.
pub(crate) const ALL: [(&str, Stream); 5] = [
    ("get --watch", watch),
    ("logs --follow", follow),
    ("attach", attach),
    ("port-forward", forward),
    ("proxy", proxy),
];

/// A kubectl that runs until it is dropped.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(instance: &Instance, namespace: &str, arguments: &[&str]) -> Result<Self> {
        let mut command: Command = instance.kubectl_command().context("no kubectl")?;
        command.args(["--namespace", namespace]).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (sender, lines) = channel();
        let (printed, complained) = (child.stdout.take(), child.stderr.take());
        let errors = sender.clone();
        std::thread::spawn(move || {
            let lines = printed.into_iter().flat_map(|output| BufReader::new(output).lines().map_while(Result::ok));
            lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        std::thread::spawn(move || {
            let lines = complained.into_iter().flat_map(|output| BufReader::new(output).lines().map_while(Result::ok));
            lines.take_while(|line| errors.send(line.clone()).is_ok()).for_each(drop);
        });
        Ok(Self { child, lines })
    }

    /// Waits until a line holds these words.
    fn until(&self, words: &[&str]) -> Result<()> {
        let (start, patience) = (Instant::now(), Duration::from_secs(15));
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(patience.saturating_sub(start.elapsed())) {
            if words.iter().all(|word| line.contains(word)) {
                return Ok(());
            }
            seen.push(line);
        }
        bail!("no line with {words:?}: {}", seen.join(" / "))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.kill().and_then(|()| self.child.wait()).is_err() {
            eprintln!("a kubectl could not be ended");
        }
    }
}

fn kubectl(instance: &Instance, namespace: &str, line: &str) -> Result<String> {
    let mut words = vec!["--namespace", namespace];
    words.extend(line.split(' '));
    instance.kubectl(&words).context("no kubectl")?
}

fn watch(instance: &Instance, namespace: &str) -> Result<()> {
    let running = Running::start(instance, namespace, &["get", "configmaps", "--watch", "--output-watch-events"])?;
    kubectl(instance, namespace, "create configmap seen --from-literal=a=b")?;
    running.until(&["ADDED", "seen"])?;
    kubectl(instance, namespace, "label configmap seen a=b")?;
    running.until(&["MODIFIED", "seen"])?;
    kubectl(instance, namespace, "delete configmap seen")?;
    running.until(&["DELETED", "seen"])
}

fn follow(instance: &Instance, namespace: &str) -> Result<()> {
    let command = ["run", "counter", "--image=busybox:stable", "--restart=Never", "--"];
    let program = ["sh", "-c", "for i in 1 2 3; do echo number $i; sleep 0.3; done"];
    let words = [&["--namespace", namespace][..], &command, &program].concat();
    instance.kubectl(&words).context("no kubectl")??;
    kubectl(instance, namespace, "wait --for=condition=PodScheduled pod/counter --timeout=10s")?;
    std::thread::sleep(Duration::from_millis(500));
    let mut running = Running::start(instance, namespace, &["logs", "counter", "--follow"])?;
    running.until(&["number 1"])?;
    running.until(&["number 3"])?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if running.child.try_wait()?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("it follows a container that has ended")
}

fn attach(instance: &Instance, namespace: &str) -> Result<()> {
    let command = ["run", "echoer", "--image=busybox:stable", "--restart=Never", "--stdin", "--attach=false"];
    let words = [&["--namespace", namespace][..], &command, &["--", "sh", "-c", "while read l; do echo got $l; done"]];
    instance.kubectl(&words.concat()).context("no kubectl")??;
    kubectl(instance, namespace, "wait --for=condition=Ready pod/echoer --timeout=20s")?;
    let mut running = Running::start(instance, namespace, &["attach", "--stdin", "echoer"])?;
    let mut input = running.child.stdin.take().context("the input is piped")?;
    writeln!(input, "word")?;
    running.until(&["got word"])
}

fn forward(instance: &Instance, namespace: &str) -> Result<()> {
    let port = free_port()?;
    let running = Running::start(instance, namespace, &["port-forward", "pod/server", &format!("{port}:80")])?;
    running.until(&["Forwarding from 127.0.0.1"])?;
    for _ in 0..3 {
        let page = get(([127, 0, 0, 1], port).into(), "/")?;
        ensure!(page.contains("<h1>Welcome to nginx!</h1>"), "{page}");
    }
    let port = free_port()?;
    let running = Running::start(instance, namespace, &["port-forward", "service/server", &format!("{port}:80")])?;
    running.until(&["Forwarding from 127.0.0.1"])?;
    get(([127, 0, 0, 1], port).into(), "/").map(drop)
}

fn proxy(instance: &Instance, namespace: &str) -> Result<()> {
    let running = Running::start(instance, namespace, &["proxy", "--port=0"])?;
    let line = running.lines.recv_timeout(Duration::from_secs(15))?;
    let address = line.strip_prefix("Starting to serve on ").with_context(|| format!("it says {line:?}"))?;
    let version = get(address.parse()?, "/version")?;
    ensure!(version.contains("\"minor\""), "{version}");
    Ok(())
}
