//! Commands with streams of their own, attachments, terminals.

use std::time::Duration;

use shipway_container::{Command, ContainerSpec, Process, Streams};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

use crate::world::{World, code, exit};

/// The near ends of a program's streams.
struct Near {
    stdin: Option<DuplexStream>,
    stdout: DuplexStream,
    stderr: DuplexStream,
    size: watch::Sender<Option<(u16, u16)>>,
}

impl Near {
    async fn all(&mut self) -> (String, String) {
        let (mut output, mut errors) = (String::new(), String::new());
        let (first, second) =
            tokio::join!(self.stdout.read_to_string(&mut output), self.stderr.read_to_string(&mut errors));
        first.and(second).expect("text");
        (output, errors)
    }

    /// Reads output until it holds `wanted`.
    async fn until(&mut self, wanted: &str) -> String {
        let mut text = String::new();
        while !text.contains(wanted) {
            let mut chunk = [0; 4096];
            let length = self.stdout.read(&mut chunk).await.expect("output");
            assert!(length > 0, "no {wanted:?} in {text:?}");
            text.push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
        text
    }

    async fn send(&mut self, text: &str) {
        self.stdin.as_mut().expect("open").write_all(text.as_bytes()).await.expect("sent");
    }
}

fn pair() -> (Near, Streams<DuplexStream, DuplexStream>) {
    let [(stdin, far_stdin), (stdout, far_stdout), (stderr, far_stderr)] = [(); 3].map(|()| tokio::io::duplex(4096));
    let (size, far_size) = watch::channel(None);
    let near = Near { stdin: Some(stdin), stdout, stderr, size };
    let far = Streams { stdin: Some(far_stdin), stdout: Some(far_stdout), stderr: Some(far_stderr), size: far_size };
    (near, far)
}

fn shell(script: &str, stdin: bool, terminal: bool) -> Command {
    Command { args: ["/bin/sh", "-c", script].map(str::to_owned).into(), stdin, terminal }
}

async fn sleeping(world: &World, uid: &str) {
    world.pod(uid).await.start(world.script("main-0", "sleep 60")).await.unwrap();
}

async fn begin(world: &World, uid: &str, command: Command) -> Process {
    world.runtime.exec(uid, "main-0", &command).await.unwrap()
}

pub(crate) async fn a_command_reads_its_input_and_its_output_is_told_from_its_errors(world: &World) {
    sleeping(world, "input").await;
    let process = begin(world, "input", shell("cat; echo bad >&2; exit 3", true, false)).await;
    let (mut near, far) = pair();
    let running = tokio::spawn(process.run(far));
    // More than any pipe holds.
    let sent = "0123456789".repeat(50_000);
    let mut stdin = near.stdin.take().unwrap();
    let feeding = async {
        stdin.write_all(sent.as_bytes()).await.unwrap();
        drop(stdin);
    };
    let ((), (output, errors)) = tokio::join!(feeding, near.all());
    assert!(output == sent && errors == "bad\n", "{} {errors:?}", output.len());
    assert_eq!(running.await.unwrap().unwrap(), 3);
    // Without input there is none.
    let process = begin(world, "input", shell("cat; echo done", false, false)).await;
    let (mut near, far) = pair();
    let running = tokio::spawn(process.run(far));
    assert_eq!(near.all().await.0, "done\n");
    assert_eq!(running.await.unwrap().unwrap(), 0);
}

pub(crate) async fn a_command_that_cannot_be_run_says_why_with_and_without_a_terminal(world: &World) {
    sleeping(world, "nope").await;
    for terminal in [false, true] {
        let command = Command { args: vec!["nope".to_owned()], terminal, ..Command::default() };
        let process = begin(world, "nope", command).await;
        let (_near, far) = pair();
        let error = process.run(far).await.unwrap_err().to_string();
        assert!(error.contains("executable file not found in $PATH"), "{error}");
    }
    let missing = world.runtime.exec("nope", "main-9", &shell("true", false, true)).await.unwrap_err().to_string();
    assert!(missing.contains("does not run"), "{missing}");
}

pub(crate) async fn a_command_on_a_terminal_sees_its_size_and_gets_what_is_typed(world: &World) {
    sleeping(world, "terminal").await;
    let script = "while [ \"$(stty size)\" = \"0 0\" ]; do sleep 0.01; done; stty size; echo $TERM; read line; echo got $line; exit 4";
    let process = begin(world, "terminal", shell(script, true, true)).await;
    let (mut near, far) = pair();
    near.size.send_replace(Some((101, 33)));
    let running = tokio::spawn(process.run(far));
    assert_eq!(near.until("xterm").await.trim_end(), "33 101\r\nxterm");
    near.send("hello\r").await;
    near.until("got hello").await;
    assert_eq!(running.await.unwrap().unwrap(), 4);
}

pub(crate) async fn a_command_without_its_client_is_ended(world: &World) {
    let pod = world.pod("gone").await;
    pod.start(world.script("main-0", "sleep 60")).await.unwrap();
    for (name, terminal) in [("plain", false), ("terminal", true)] {
        let script = format!("trap 'echo > /tmp/{name}; exit' HUP; echo ready; while :; do sleep 0.02; done");
        let process = begin(world, "gone", shell(&script, true, terminal)).await;
        let (mut near, far) = pair();
        let running = tokio::spawn(process.run(far));
        near.until("ready").await;
        running.abort();
        // The pattern does not find itself.
        let check = "n=0; while grep -q 't[r]ap .echo' /proc/[0-9]*/cmdline && [ $n -lt 300 ]; \
                     do sleep 0.02; n=$((n+1)); done; ls /tmp; [ $n -lt 300 ]";
        let args = ["/bin/sh", "-c", check].map(str::to_owned);
        let seen = pod.exec("main-0", &args, Duration::from_secs(20)).await.unwrap();
        let files = String::from_utf8(seen.output).unwrap();
        assert_eq!((seen.code, files.contains(name)), (0, terminal), "{name}: {files}");
    }
}

pub(crate) async fn a_command_that_leaves_others_behind_ends_all_the_same(world: &World) {
    sleeping(world, "behind").await;
    for terminal in [false, true] {
        let process = begin(world, "behind", shell("sleep 40 & echo begun; exit 5", false, terminal)).await;
        let (mut near, far) = pair();
        let running = tokio::spawn(process.run(far));
        near.until("begun").await;
        assert_eq!(tokio::time::timeout(Duration::from_secs(10), running).await.unwrap().unwrap().unwrap(), 5);
    }
}

pub(crate) async fn whoever_attaches_gets_the_output_from_then_on_and_may_feed_the_program(world: &World) {
    let pod = world.pod("attach").await;
    let script = "echo early; while read line; do echo out $line; echo err $line >&2; done; echo over";
    pod.start(ContainerSpec { stdin: true, ..world.script("main-0", script) }).await.unwrap();
    while !world.text("main-0", "stdout").contains("early") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A second one sees the same; the first one leaves, and the input stays open.
    let (mut one, far) = pair();
    let first = tokio::spawn(world.runtime.attach("attach", "main-0", true).await.unwrap().run(far));
    let (mut two, far) = pair();
    let second = tokio::spawn(world.runtime.attach("attach", "main-0", true).await.unwrap().run(far));
    one.send("a\n").await;
    assert_eq!(one.until("out a").await, "out a\n");
    assert_eq!(two.until("out a").await, "out a\n");
    drop(one.stdin.take());
    first.abort();
    two.send("b\n").await;
    assert_eq!(two.until("out b").await, "out b\n");
    pod.kill("main-0", 9).await.unwrap();
    assert_eq!(two.all().await, (String::new(), "err a\nerr b\n".to_owned()));
    second.await.unwrap().unwrap();
    exit(&pod, "main-0").await;
    assert_eq!(world.text("main-0", "stdout"), "early\nout a\nout b\n");
    let error = world.runtime.attach("attach", "main-0", true).await.unwrap_err().to_string();
    assert!(error.contains("does not run"), "{error}");
}

pub(crate) async fn input_that_is_wanted_once_ends_with_its_first_attachment(world: &World) {
    let pod = world.pod("once").await;
    let spec = ContainerSpec { stdin: true, stdin_once: true, ..world.script("main-0", "cat; exit 6") };
    pod.start(spec).await.unwrap();
    // Who only looks leaves the input as it is.
    let (looker, far) = pair();
    let looking = tokio::spawn(world.runtime.attach("once", "main-0", false).await.unwrap().run(far));
    drop(looker);
    looking.abort();
    drop(looking.await);
    let (mut near, far) = pair();
    let running = tokio::spawn(world.runtime.attach("once", "main-0", true).await.unwrap().run(far));
    let sent = "0123456789".repeat(40_000);
    let mut stdin = near.stdin.take().unwrap();
    let feeding = async {
        stdin.write_all(sent.as_bytes()).await.unwrap();
        drop(stdin);
    };
    let ((), (output, _)) = tokio::join!(feeding, near.all());
    assert_eq!(output.len(), sent.len());
    running.await.unwrap().unwrap();
    assert_eq!(code(&exit(&pod, "main-0").await), 6);
}

pub(crate) async fn a_container_with_a_terminal_is_attached_to_and_resized(world: &World) {
    let pod = world.pod("console").await;
    let script = "echo early; read line; stty size; echo got $line; exit 7";
    pod.start(ContainerSpec { stdin: true, terminal: true, ..world.script("main-0", script) }).await.unwrap();
    let (mut near, far) = pair();
    near.size.send_replace(Some((90, 30)));
    let running = tokio::spawn(world.runtime.attach("console", "main-0", true).await.unwrap().run(far));
    // The size goes first.
    tokio::time::sleep(Duration::from_millis(100)).await;
    near.send("hello\n").await;
    let text = near.until("got hello").await;
    assert!(text.contains("30 90"), "{text:?}");
    running.await.unwrap().unwrap();
    assert_eq!(code(&exit(&pod, "main-0").await), 7);
    // What is typed is echoed.
    assert_eq!(world.text("main-0", "stdout"), "early\nhello\n30 90\ngot hello\n");
}

pub(crate) async fn an_attachment_that_takes_nothing_holds_up_only_itself_once_it_is_gone(world: &World) {
    let pod = world.pod("slow").await;
    let script = "sleep 0.3; head -c 3000000 /dev/zero; echo; echo last; exit 0";
    pod.start(world.script("main-0", script)).await.unwrap();
    let (near, far) = pair();
    let stuck = tokio::spawn(world.runtime.attach("slow", "main-0", true).await.unwrap().run(far));
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(!world.text("main-0", "stdout").contains("last"), "the backlog has no bound");
    drop(near);
    drop(stuck.await);
    assert_eq!(code(&exit(&pod, "main-0").await), 0);
    assert!(world.text("main-0", "stdout").ends_with("last\n"));
}

pub(crate) async fn a_container_may_look_into_the_processes_of_another(world: &World) {
    let pod = world.pod("debug").await;
    pod.start(world.script("main-0", "sleep 61")).await.unwrap();
    let mut debugger = world.script("debugger-0", "cat /proc/1/cmdline; sleep 62 & exit 8");
    debugger.processes_of = Some("main-0".to_owned());
    pod.start(debugger).await.unwrap();
    assert_eq!(code(&exit(&pod, "debugger-0").await), 8);
    assert!(world.text("debugger-0", "stdout").contains("sleep 61"));
    let looking = ["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline"].map(str::to_owned);
    let seen = pod.exec("main-0", &looking, Duration::from_secs(9)).await.unwrap();
    let seen = String::from_utf8_lossy(&seen.output).replace('\0', " ");
    assert!(seen.contains("sleep 61") && !seen.contains("sleep 62"), "{seen}");
    let mut late = world.script("late-0", "exit");
    late.processes_of = Some("debugger-0".to_owned());
    let error = pod.start(late).await.unwrap_err().to_string();
    assert!(error.contains("does not run"), "{error}");
}
