//! Measures what a pod costs: time to make it and start a container, time to end it, memory of its supervisor.
//!
//! `latency [rounds] [lower...]`: needs root; without a layer it makes one of the host's `sleep`. Prints milliseconds
//! at p50 and p99, one pod after the other, and the supervisors' proportional memory when all run side by side.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use shipway_container::{ContainerSpec, Layout, Pod, Runtime, SandboxSpec};

fn main() -> ExitCode {
    if let Some(code) = shipway_container::entry() {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    let mut args = std::env::args().skip(1);
    let rounds = args.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(30);
    let folder = std::env::temp_dir().join(format!("shipway-latency-{}", std::process::id()));
    let lowers: Vec<PathBuf> = args.map(Into::into).collect();
    let lowers = if lowers.is_empty() { vec![layer(&folder.join("layer"))] } else { lowers };
    let layout = Layout {
        state: folder.join("pods"),
        run: folder.join("run"),
        cgroup: format!("shipway-latency-{}", std::process::id()),
        executable: "/proc/self/exe".into(),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let pods = Runtime::new(layout).expect("root");
    let measured = runtime.block_on(async {
        let task = tokio::spawn(measure(pods.clone(), rounds, folder.clone(), lowers));
        let measured = task.await;
        // Also after a panic.
        pods.teardown().await.expect("a teardown");
        measured
    });
    std::fs::remove_dir_all(folder).expect("the folder");
    if measured.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure(runtime: Runtime, rounds: usize, folder: PathBuf, lowers: Vec<PathBuf>) {
    for pause in [Duration::ZERO, Duration::from_millis(100)] {
        let (mut created, mut started, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            tokio::time::sleep(pause).await;
            let begun = Instant::now();
            let pod = create(&runtime, round).await;
            created.push(begun.elapsed());
            start(&pod, &folder, &lowers).await;
            started.push(begun.elapsed());
            let begun = Instant::now();
            pod.destroy().await.expect("an end");
            ended.push(begun.elapsed());
        }
        println!("{rounds} pods one after the other, {pause:?} between them:");
        report("  pod ready", created);
        report("  pod ready + container started", started);
        report("  running pod destroyed", ended);
    }
    let mut pods = Vec::new();
    let begun = Instant::now();
    for round in 0..rounds {
        let pod = create(&runtime, round).await;
        start(&pod, &folder, &lowers).await;
        pods.push(pod);
    }
    println!("{rounds} pods side by side in {:?}", begun.elapsed());
    let memory: Vec<u64> = pods.iter().map(|pod| proportional_kib(pod.supervisor_pid())).collect();
    println!("  supervisor: {} KiB PSS on average", memory.iter().sum::<u64>() / rounds as u64);
    let begun = Instant::now();
    runtime.teardown().await.expect("a teardown");
    println!("  all torn down in {:?}", begun.elapsed());
}

async fn create(runtime: &Runtime, number: usize) -> Pod {
    let spec = SandboxSpec { uid: format!("pod-{number}"), hostname: "pod".to_owned(), ..SandboxSpec::default() };
    runtime.create(spec).await.expect("a pod")
}

async fn start(pod: &Pod, folder: &Path, lowers: &[PathBuf]) {
    let spec = ContainerSpec {
        id: "main-0".to_owned(),
        lowers: lowers.to_vec(),
        args: vec!["/bin/sleep".to_owned(), "1000".to_owned()],
        log: folder.join("logs").join(pod.uid()),
        ..ContainerSpec::default()
    };
    pod.start(spec).await.expect("a container");
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    println!("{what}: p50 {:.1} ms, p99 {:.1} ms", at(50), at(99));
}

fn proportional_kib(pid: i32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}

/// The host's `sleep` with its libraries.
fn layer(folder: &Path) -> PathBuf {
    let libraries = Command::new("ldd").arg("/bin/sleep").output().expect("ldd").stdout;
    let libraries = String::from_utf8_lossy(&libraries).into_owned();
    let files = libraries.split_whitespace().filter(|word| word.starts_with('/')).chain(["/bin/sleep"]);
    for file in files {
        let target = folder.join(&file[1..]);
        std::fs::create_dir_all(target.parent().expect("a parent")).expect("a folder");
        std::fs::copy(file, target).expect("a file");
    }
    folder.to_owned()
}
