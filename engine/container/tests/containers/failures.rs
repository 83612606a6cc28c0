//! What goes wrong, is said in one line, and leaves nothing.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use shipway_container::{ContainerError, ContainerState, FailureKind, Mount, MountSource, SandboxSpec};

use crate::world::{World, cgroup_folders, layer_with_link, processes};

fn nothing_of(world: &World, uid: &str, id: &str) {
    assert!(!world.layout.state.join(uid).join("containers").join(id).exists(), "the folder of {id} is left");
    let folders = cgroup_folders(&format!("{}/{uid}/{id}", world.layout.cgroup));
    assert_eq!(folders, Vec::<PathBuf>::new(), "control groups of {id} are left");
}

pub(crate) async fn a_missing_executable_is_one_clear_line(world: &World) {
    let pod = world.pod("missing").await;
    let mut spec = world.script("main-0", "");
    spec.args = vec!["nope".to_owned()];
    spec.env = vec![("PATH".to_owned(), "/bin:/sbin".to_owned())];
    let error = pod.start(spec).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::RunContainer);
    assert_eq!(error.to_string(), "exec: \"nope\": executable file not found in $PATH (/bin:/sbin)");
    nothing_of(world, "missing", "main-0");

    let mut layer = world.script("main-0", "");
    let folder = world.folder.path().join("scripts");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("broken"), "#!/no/such/interpreter\n").unwrap();
    fs::write(folder.join("plain"), "data").unwrap();
    fs::set_permissions(folder.join("broken"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    layer.lowers.push(folder);
    for (name, kind, words) in [
        ("/broken", FailureKind::Start, "interpreter is missing"),
        ("/plain", FailureKind::RunContainer, "not executable"),
        ("/tmp", FailureKind::RunContainer, "is a directory"),
    ] {
        layer.args = vec![name.to_owned()];
        let error = pod.start(layer.clone()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words) && error.to_string().contains(name), "{error}");
        nothing_of(world, "missing", "main-0");
    }
    assert!(pod.state().borrow().containers.values().all(|state| *state == ContainerState::Created));
}

pub(crate) async fn what_cannot_be_created_is_said_and_leaves_nothing(world: &World) {
    let pod = world.pod("refused").await;
    let good = world.script("main-0", "exit 0");
    let mut no_layer = good.clone();
    no_layer.lowers = vec!["/no/such/layer".into()];
    let mut bad_cwd = good.clone();
    bad_cwd.cwd = "/bin/sh".into();
    let mut bad_source = good.clone();
    let source = MountSource::Bind("/no/such/volume".into());
    bad_source.mounts =
        vec![Mount { destination: "/v".into(), source: source.clone(), read_only: false, follows_host: false }];
    let mut bad_destination = good.clone();
    bad_destination.mounts =
        vec![Mount { destination: "relative".into(), source, read_only: false, follows_host: false }];
    let mut bad_capability = good.clone();
    bad_capability.capabilities.push("CAP_FLY".to_owned());
    for (spec, kind, words) in [
        (no_layer, FailureKind::CreateContainer, "/no/such/layer"),
        (bad_cwd, FailureKind::RunContainer, "working directory \"/bin/sh\""),
        (bad_source, FailureKind::CreateContainer, "/no/such/volume"),
        (bad_destination, FailureKind::CreateContainer, "\"relative\" is not an absolute path"),
        (bad_capability, FailureKind::CreateContainer, "unknown capability \"CAP_FLY\""),
    ] {
        let error = pod.start(spec).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words) && !error.to_string().contains('\n'), "{error}");
        nothing_of(world, "refused", "main-0");
    }
    pod.start(good).await.unwrap();
    let mut named = world.script("../escape", "exit 0");
    assert!(matches!(pod.start(named.clone()).await, Err(ContainerError::Name { .. })));
    named.id = "main-0".into();
    assert_eq!(pod.start(named).await.unwrap_err().kind(), FailureKind::Exists);
}

pub(crate) async fn an_image_that_links_its_dev_folder_away_is_refused(world: &World) {
    let target = world.folder.path().join("target");
    fs::create_dir_all(&target).unwrap();
    let mut spec = world.script("main-0", "exit 0");
    spec.lowers.push(layer_with_link(world, "dev", target.to_str().unwrap()));
    let error = world.pod("links").await.start(spec).await.unwrap_err();
    assert!(error.to_string().contains("the image's /dev is not a folder"), "{error}");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "the host's folder was touched");
}

pub(crate) async fn a_lost_supervisor_is_seen_and_its_containers_are_destroyed(world: &World) {
    let pod = world.pod("lost").await;
    let started = pod.start(world.script("main-0", "sleep 60")).await.unwrap();
    let supervisor = rustix::process::Pid::from_raw(pod.supervisor_pid()).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    let mut state = pod.state();
    let lost = state.wait_for(|state| state.lost);
    tokio::time::timeout(Duration::from_secs(5), lost).await.expect("in time").expect("a state");
    let refused = pod.start(world.script("more-0", "exit 0")).await.unwrap_err();
    assert!(matches!(refused, ContainerError::Lost { .. }), "{refused}");
    let found = world.runtime.adopt().await.unwrap();
    assert!(found.len() == 1 && found[0].state().borrow().lost);
    let written = found[0].state().borrow().containers["main-0"].clone();
    assert_eq!(written, ContainerState::Running { pid: started.pid, started_at: started.started_at });
    pod.destroy().await.unwrap();
    assert!(processes(&world.layout.cgroup).iter().all(|process| !process.contains("sleep")));
    assert!(world.runtime.adopt().await.unwrap().is_empty());
}

pub(crate) async fn creators_killed_at_any_moment_leave_nothing(world: &World) {
    let pod = world.pod("doomed").await;
    let supervisor = pod.supervisor_pid();
    let (mut failed, mut started) = (0, 0);
    for round in 0..40u64 {
        let id = format!("c-{round}");
        let killer = tokio::task::spawn_blocking(move || kill_creator(supervisor, Duration::from_micros(round * 400)));
        match pod.start(world.script(&id, "sleep 60")).await {
            Ok(_) => {
                started += 1;
                pod.remove_container(&id).await.unwrap();
            }
            Err(error) => {
                failed += 1;
                assert!(!error.to_string().contains("clean up"), "{error}");
            }
        }
        killer.await.unwrap();
        nothing_of(world, "doomed", &id);
    }
    let left = processes(&world.layout.cgroup);
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(failed > 0, "no creator was hit; {started} started");
}

/// Waits for a child of the supervisor, gives it some time, and kills it.
fn kill_creator(supervisor: i32, delay: Duration) {
    let children = format!("/proc/{supervisor}/task/{supervisor}/children");
    for _ in 0..20_000 {
        let first = fs::read_to_string(&children).ok().and_then(|list| list.split(' ').next()?.parse().ok());
        if let Some(pid) = first.and_then(rustix::process::Pid::from_raw) {
            std::thread::sleep(delay);
            // It may have ended by itself.
            let gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            return assert!(matches!(gone, Ok(()) | Err(rustix::io::Errno::SRCH)));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

pub(crate) async fn a_pod_is_not_made_twice_and_destroyed_twice_without_harm(world: &World) {
    let pod = world.pod("once").await;
    let spec = SandboxSpec { uid: "once".to_owned(), ..SandboxSpec::default() };
    let error = world.runtime.create(spec.clone()).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Exists);
    pod.start(world.script("main-0", "sleep 60")).await.unwrap();
    // What others keep in the pod's folder is theirs.
    let volume = world.layout.state.join("once/volumes/data");
    fs::create_dir_all(&volume).unwrap();
    pod.destroy().await.unwrap();
    pod.destroy().await.unwrap();
    assert!(volume.exists());
    fs::remove_dir_all(world.layout.state.join("once")).unwrap();
    assert!(matches!(
        world.runtime.create(SandboxSpec { uid: "../x".to_owned(), ..spec }).await,
        Err(ContainerError::Name { .. })
    ));
}

pub(crate) async fn limits_that_the_host_refuses_are_said(world: &World) {
    let pod = world.pod("refusing").await;
    let mut spec = world.script("main-0", "sleep 60");
    spec.resources.memory_limit = Some(64 << 20);
    spec.oom_score_adj = Some(-998);
    spec.capabilities.push("CAP_SYS_RESOURCE".to_owned());
    let started = pod.start(spec).await.unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).unwrap();
    let has_resource = u64::from_str_radix(permitted, 16).unwrap() & (1 << 24) != 0;
    let said = started.warnings.join("\n");
    assert_eq!(said.contains("oom_score_adj -998") && said.contains("SYS_RESOURCE"), !has_resource, "{said}");
}
