//! Starting, ending, logging, adopting, running commands.

use std::time::Duration;

use shipway_container::{ContainerError, ContainerState, FailureKind, PodState, Runtime, SandboxSpec};

use crate::world::{World, code, exit};

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(crate) async fn a_program_answers_its_exit_code(world: &World) {
    let pod = world.pod("exit").await;
    let started = pod.start(world.script("main-0", "exit 7")).await.unwrap();
    assert!(started.pid > 1 && started.warnings.is_empty(), "{started:?}");
    let state = exit(&pod, "main-0").await;
    let ContainerState::Exited { code, signal, out_of_memory, started_at, finished_at } = state else { panic!() };
    assert_eq!((code, signal, out_of_memory), (7, None, false));
    assert!(finished_at >= started_at && started_at == started.started_at);
}

pub(crate) async fn a_killed_program_answers_137_and_one_that_heeds_term_its_own_code(world: &World) {
    let pod = world.pod("kill").await;
    pod.start(world.script("deaf-0", "sleep 60")).await.unwrap();
    let heeds = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    pod.start(world.script("polite-0", heeds)).await.unwrap();
    pod.kill("deaf-0", 9).await.unwrap();
    let ContainerState::Exited { code: killed, signal, .. } = exit(&pod, "deaf-0").await else { panic!() };
    assert_eq!((killed, signal), (137, Some(9)));
    while !world.text("polite-0", "stdout").contains("ready") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    pod.kill("polite-0", 15).await.unwrap();
    assert_eq!(code(&exit(&pod, "polite-0").await), 3);
    assert_eq!(pod.kill("polite-0", 15).await.unwrap_err().kind(), FailureKind::NotFound);
    assert_eq!(pod.kill("nobody-0", 15).await.unwrap_err().kind(), FailureKind::NotFound);
}

pub(crate) async fn log_lines_of_both_streams_come_in_order_and_an_unfinished_one_is_a_part(world: &World) {
    let script = "for n in 1 2 3; do echo out $n; echo err $n >&2; done; printf unfinished";
    world.run(world.script("log-0", script)).await;
    assert_eq!(world.text("log-0", "stdout"), "out 1\nout 2\nout 3\nunfinished\n");
    assert_eq!(world.text("log-0", "stderr"), "err 1\nerr 2\nerr 3\n");
    let log = std::fs::read_to_string(world.log_of("log-0")).unwrap();
    for line in log.lines() {
        let fields: Vec<_> = line.splitn(4, ' ').collect();
        assert!(fields[0].len() == 30 && fields[0].ends_with('Z'), "{line}");
        assert_eq!(fields[2], if fields[3] == "unfinished" { "P" } else { "F" }, "{line}");
    }
}

pub(crate) async fn a_full_log_is_rotated(world: &World) {
    let mut spec =
        world.script("loud-0", "n=0; while [ $n -lt 2000 ]; do echo line $n; n=$((n+1)); done; sleep 0.05; echo last");
    spec.log_limit = 20_000;
    world.run(spec).await;
    assert!(std::fs::metadata(world.log_of("loud-0")).unwrap().len() <= 20_000);
    assert!(world.text("loud-0", "stdout").ends_with("last\n"));
    assert!(world.log_of("loud-0").with_extension("log.1").exists());
    assert!(!world.log_of("loud-0").with_extension("log.5").exists());
}

pub(crate) async fn a_new_engine_adopts_the_same_process_and_hears_its_end(world: &World) {
    let script = "echo before; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo after; exit 5";
    let pod = world.pod("adopted").await;
    let started = pod.start(world.script("main-0", script)).await.unwrap();
    pod.start(world.script("done-0", "exit 1")).await.unwrap();
    exit(&pod, "done-0").await;
    let supervisor = pod.supervisor_pid();
    drop(pod);

    let engine = Runtime::new(world.layout.clone()).unwrap();
    let pods = engine.adopt().await.unwrap();
    let [pod] = &pods[..] else { panic!("{} pods", pods.len()) };
    assert_eq!((pod.uid(), pod.supervisor_pid()), ("adopted", supervisor));
    let PodState { containers, lost } = pod.state().borrow().clone();
    assert!(!lost);
    assert_eq!(containers["main-0"], ContainerState::Running { pid: started.pid, started_at: started.started_at });
    assert_eq!(code(&containers["done-0"]), 1);
    pod.exec("main-0", &words(&["touch", "/tmp/go"]), Duration::from_secs(5)).await.unwrap();
    assert_eq!(code(&exit(pod, "main-0").await), 5);
    assert_eq!(world.text("main-0", "stdout"), "before\nafter\n");
}

pub(crate) async fn a_command_returns_its_code_and_output(world: &World) {
    let pod = world.pod("exec").await;
    let mut spec = world.script("main-0", "sleep 60");
    spec.env = vec![("GREETING".to_owned(), "hello".to_owned())];
    spec.cwd = "/made/for/it".into();
    pod.start(spec).await.unwrap();
    let limit = Duration::from_secs(10);
    let script = "echo $GREETING $HOME; pwd >&2; hostname; exit 9";
    let output = pod.exec("main-0", &words(&["sh", "-c", script]), limit).await.unwrap();
    assert_eq!(
        (output.code, String::from_utf8(output.output).unwrap().as_str()),
        (9, "hello /root\n/made/for/it\nexec\n")
    );
    let killed = pod.exec("main-0", &words(&["sh", "-c", "kill -9 $$"]), limit).await.unwrap();
    assert_eq!(killed.code, 137);
    let much = pod.exec("main-0", &words(&["head", "-c", "1000000", "/dev/zero"]), limit).await.unwrap();
    assert_eq!((much.code, much.output.len()), (0, 64 * 1024));
    let missing = pod.exec("main-0", &words(&["nope"]), limit).await.unwrap_err();
    assert_eq!(missing.kind(), FailureKind::RunContainer);
    assert!(missing.to_string().contains("\"nope\": executable file not found"), "{missing}");
    let nobody = pod.exec("other-0", &words(&["id"]), limit).await.unwrap_err();
    assert_eq!(nobody.kind(), FailureKind::NotFound);
}

pub(crate) async fn a_command_that_takes_too_long_is_killed(world: &World) {
    let pod = world.pod("slow").await;
    pod.start(world.script("main-0", "sleep 60")).await.unwrap();
    let limit = Duration::from_millis(150);
    let begun = std::time::Instant::now();
    let error = pod.exec("main-0", &words(&["sh", "-c", "sleep 30; echo never"]), limit).await.unwrap_err();
    assert!(matches!(error, ContainerError::ExecTimeout(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let left =
        pod.exec("main-0", &words(&["sh", "-c", "cat /proc/[0-9]*/cmdline"]), Duration::from_secs(5)).await.unwrap();
    let left = String::from_utf8_lossy(&left.output).replace('\0', " ");
    assert!(!left.contains("sleep 30"), "{left}");
}

pub(crate) async fn containers_of_a_pod_share_network_names_memory_and_if_asked_processes(world: &World) {
    let sandbox = SandboxSpec {
        uid: "shared".to_owned(),
        hostname: "twins".to_owned(),
        share_processes: true,
        ..SandboxSpec::default()
    };
    let pod = world.runtime.create(sandbox).await.unwrap();
    let first = pod.start(world.script("one-0", "echo here > /dev/shm/note; exec sleep 7777")).await.unwrap();
    let second = pod.start(world.script("two-0", "exec sleep 60")).await.unwrap();
    let link = |pid: i32, name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    for name in ["net", "ipc", "uts", "pid"] {
        assert_eq!(link(first.pid, name), link(second.pid, name), "{name}");
    }
    assert_ne!(link(first.pid, "mnt"), link(second.pid, "mnt"));
    assert_eq!(link(first.pid, "net"), std::fs::read_link(pod.network_namespace()).unwrap());
    assert_ne!(link(first.pid, "net"), std::fs::read_link("/proc/self/ns/net").unwrap());
    let look = "cat /dev/shm/note; hostname; cat /sys/class/net/lo/flags; cat /proc/[0-9]*/cmdline";
    let seen = pod.exec("two-0", &words(&["sh", "-c", look]), Duration::from_secs(5)).await.unwrap();
    let seen = String::from_utf8_lossy(&seen.output).replace('\0', " ");
    assert!(seen.starts_with("here\ntwins\n0x9\n") && seen.contains("sleep 7777"), "{seen}");
    pod.kill("one-0", 9).await.unwrap();
    assert_eq!(code(&exit(&pod, "one-0").await), 137);
    assert!(matches!(pod.state().borrow().containers["two-0"], ContainerState::Running { .. }));
}

pub(crate) async fn a_container_can_be_removed_while_it_runs(world: &World) {
    let pod = world.pod("removed").await;
    pod.start(world.script("main-0", "sleep 60")).await.unwrap();
    pod.remove_container("main-0").await.unwrap();
    pod.remove_container("main-0").await.unwrap();
    assert!(!world.layout.state.join("removed/containers/main-0").exists());
    let group = format!("{}/removed/main-0", world.layout.cgroup);
    assert!(crate::world::cgroup_folders(&group).is_empty());
    pod.start(world.script("main-0", "exit 0")).await.unwrap();
    assert_eq!(code(&exit(&pod, "main-0").await), 0);
}

pub(crate) async fn the_layers_under_containers_are_known_as_long_as_these_are_there(world: &World) {
    assert!(world.runtime.layers_in_use(&[]).await.unwrap().is_empty());
    let pod = world.pod("layers").await;
    let spec = world.script("main-0", "exit 0");
    let lowers = spec.lowers.iter().cloned().collect();
    pod.start(spec).await.unwrap();
    exit(&pod, "main-0").await;
    assert_eq!(world.runtime.layers_in_use(&[]).await.unwrap(), lowers, "it could be looked into still");
    pod.remove_container("main-0").await.unwrap();
    assert!(world.runtime.layers_in_use(&[]).await.unwrap().is_empty());
}

pub(crate) async fn two_instances_do_not_touch_each_other(world: &World) {
    let neighbour = world.neighbour();
    let sandbox = SandboxSpec { uid: "same".to_owned(), hostname: "b".to_owned(), ..SandboxSpec::default() };
    let theirs = neighbour.create(sandbox).await.unwrap();
    let ours = world.pod("same").await;
    let mut spec = world.script("main-0", "sleep 60");
    ours.start(spec.clone()).await.unwrap();
    spec.log = world.log_of("neighbour");
    theirs.start(spec).await.unwrap();
    world.runtime.teardown().await.unwrap();
    assert_eq!(neighbour.adopt().await.unwrap().len(), 1);
    assert!(matches!(theirs.state().borrow().containers["main-0"], ContainerState::Running { .. }));
    let alive = theirs.exec("main-0", &words(&["id", "-u"]), Duration::from_secs(5)).await.unwrap();
    assert_eq!(alive.output, b"0\n");
    assert!(ours.state().borrow().lost);
}

pub(crate) async fn a_pod_on_the_hosts_network_sees_it(world: &World) {
    let sandbox = SandboxSpec { uid: "host".to_owned(), host_network: true, host_pid: true, ..SandboxSpec::default() };
    let pod = world.runtime.create(sandbox).await.unwrap();
    let started = pod.start(world.script("main-0", "sleep 60 & sleep 60")).await.unwrap();
    let link = |pid: &str, name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    for name in ["net", "pid", "uts"] {
        assert_eq!(link(&started.pid.to_string(), name), link("self", name), "{name}");
    }
    pod.kill("main-0", 9).await.unwrap();
    exit(&pod, "main-0").await;
    // Without a process namespace of its own, what it started is swept by its control group.
    assert!(crate::world::processes(&world.layout.cgroup).iter().all(|process| process.contains("@supervise")));
}

pub(crate) async fn an_image_may_have_five_hundred_layers(world: &World) {
    let mut spec = world.script("deep-0", "cat /layer-1 /layer-499 /same; ls / | grep -c layer-");
    for number in 1..500 {
        let layer = world.folder.path().join(format!("layers/{number}"));
        std::fs::create_dir_all(&layer).unwrap();
        for name in [format!("layer-{number}"), "same".to_owned()] {
            std::fs::write(layer.join(name), format!("{number}\n")).unwrap();
        }
        spec.lowers.push(layer);
    }
    let (output, state) = world.run(spec).await;
    assert_eq!((code(&state), output.as_str()), (0, "1\n499\n499\n499\n"));
}
