//! What a container cannot do.

use std::fs;
use std::time::Duration;

use shipway_container::{
    ContainerSpec, ContainerState, FailureKind, Mount, MountSource, Resources, SandboxSpec, Seccomp, User,
};

use crate::world::{World, code, layer_with_link};

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(crate) async fn a_program_beyond_its_memory_limit_is_marked(world: &World) {
    let mut spec = world.script("greedy-0", "head -c 200000000 /dev/zero | tail; exit $?");
    spec.resources.memory_limit = Some(32 << 20);
    let (_, state) = world.run(spec).await;
    let ContainerState::Exited { code, out_of_memory, .. } = state else { panic!() };
    assert!(out_of_memory && code == 137, "code {code}, out of memory: {out_of_memory}");
}

pub(crate) async fn a_read_only_root_cannot_be_written(world: &World) {
    let mut spec = world.script("ro-0", "touch /x; touch /tmp/y; touch /scratch/z && echo scratch");
    spec.read_only_root = true;
    let source = MountSource::Tmpfs { size: Some(1 << 20), mode: 0o755 };
    spec.mounts = vec![Mount { destination: "/scratch".into(), source, read_only: false, follows_host: false }];
    let (output, _) = world.run(spec).await;
    assert_eq!(output.matches("Read-only file system").count(), 2, "{output}");
    assert!(output.contains("scratch"), "{output}");
}

pub(crate) async fn mount_destinations_do_not_escape_the_root(world: &World) {
    let (host, volume) = (world.folder.path().join("host"), world.folder.path().join("volume"));
    for folder in [&host, &volume] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(volume.join("file"), "inside\n").unwrap();
    // The folder exists on both sides: who follows the link outside lands in the host's.
    let link = layer_with_link(world, "link", "/tmp");
    let below = format!("escape-{}", std::process::id());
    let up = format!("/etc/../../../../../../..{}", host.display());
    let script = format!("cat /link/{below}/file /tmp/{below}/file; touch {}/file", host.display());
    let mut spec = world.script("mounts-0", &script);
    spec.lowers.push(link);
    let bind = |destination: String, read_only| Mount {
        destination: destination.into(),
        source: MountSource::Bind(volume.clone()),
        read_only,
        follows_host: false,
    };
    spec.mounts = vec![bind(format!("/link/{below}"), false), bind(up, true)];
    let (output, _) = world.run(spec.clone()).await;
    assert!(output.contains("inside\ninside\n") && output.contains("Read-only file system"), "{output}");
    assert!(!std::path::Path::new("/tmp").join(&below).exists(), "the host's /tmp was touched");

    // A link to what only the host has leads nowhere.
    std::os::unix::fs::symlink(&host, world.folder.path().join("link-layer/outside")).unwrap();
    spec.id = "mounts-1".into();
    spec.mounts = vec![bind("/outside/sub".to_owned(), false)];
    let error = world.pod("dangling").await.start(spec).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::CreateContainer);
    assert!(error.to_string().contains("/outside/sub") && !error.to_string().contains('\n'), "{error}");
    assert_eq!(fs::read_dir(&host).unwrap().count(), 0, "the host's folder was touched");
}

pub(crate) async fn the_default_seccomp_profile_is_in_force_without_no_new_privileges(world: &World) {
    let status =
        "grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status; unshare -U /bin/id; (echo ok | cat) & wait";
    let mut spec = world.script("strict-0", status);
    spec.seccomp = Seccomp::RuntimeDefault;
    let (output, state) = world.run(spec.clone()).await;
    assert_eq!(code(&state), 0, "{output}");
    assert!(output.contains("NoNewPrivs:\t0") && output.contains("Seccomp:\t2"), "{output}");
    assert!(output.contains("unshare failed: Operation not permitted") && output.contains("ok"), "{output}");
    // SYS_ADMIN, lent for the installation, is not among what is left.
    let effective = output.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    assert_eq!(u64::from_str_radix(effective, 16).unwrap() & (1 << 21), 0, "{effective}");

    spec.id = "local-0".into();
    spec.seccomp = Seccomp::Localhost("/profile.json".into());
    let error = world.pod("local").await.start(spec).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::CreateContainer);
    assert!(error.to_string().contains("/profile.json"), "{error}");
}

pub(crate) async fn a_profile_of_the_node_is_in_force_for_program_and_commands(world: &World) {
    let profile = world.folder.path().join("no-chmod.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    fs::write(&profile, text).unwrap();
    for (id, no_new_privileges) in [("filtered-0", false), ("filtered-1", true)] {
        let mut spec = world.script(id, "chmod 700 /tmp; grep Seccomp: /proc/self/status");
        spec.seccomp = Seccomp::Localhost(profile.clone());
        spec.no_new_privileges = no_new_privileges;
        let (output, _) = world.run(spec).await;
        assert!(output.contains("No space left on device") && output.contains("Seccomp:\t2"), "{output}");
    }
}

pub(crate) async fn a_user_has_only_the_capabilities_given(world: &World) {
    let script =
        "id; grep -E '^(Cap|NoNewPrivs)' /proc/self/status; echo $HOME; touch /etc/x; echo again > /dev/stdout";
    let mut spec = world.script("user-0", script);
    spec.user = User { uid: 1000, gid: 1000, additional: vec![2000] };
    spec.no_new_privileges = true;
    spec.capabilities = vec!["CAP_CHOWN".to_owned()];
    let (output, _) = world.run(spec).await;
    assert!(output.contains("uid=1000") && output.contains("groups=1000,2000"), "{output}");
    assert!(output.contains("CapBnd:\t0000000000000001") && output.contains("CapEff:\t0000000000000000"), "{output}");
    assert!(output.contains("CapInh:\t0000000000000000") && output.contains("NoNewPrivs:\t1"), "{output}");
    assert!(
        output.contains("/home/app") && output.contains("Permission denied") && output.contains("again"),
        "{output}"
    );
}

pub(crate) async fn commands_are_confined_like_the_first_process(world: &World) {
    let pod = world.pod("same-rights").await;
    let mut spec = world.script("main-0", "exec sleep 60");
    spec.user = User { uid: 1000, gid: 1000, additional: vec![] };
    spec.seccomp = Seccomp::RuntimeDefault;
    spec.capabilities = vec!["CAP_CHOWN".to_owned()];
    let started = pod.start(spec).await.unwrap();
    let script = "grep -E '^(Uid|Gid|Cap|Seccomp|NoNewPrivs)' /proc/self/status";
    let command = pod.exec("main-0", &words(&["sh", "-c", script]), Duration::from_secs(5)).await.unwrap();
    let command = String::from_utf8(command.output).unwrap();
    let first = fs::read_to_string(format!("/proc/{}/status", started.pid)).unwrap();
    let same = ["Uid", "Gid", "Cap", "Seccomp", "NoNewPrivs"];
    let first: Vec<_> = first.lines().filter(|line| same.iter().any(|name| line.starts_with(name))).collect();
    assert_eq!(command.lines().collect::<Vec<_>>(), first);
    let groups = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let both = words(&["cat", "/proc/self/cgroup", "/proc/1/cgroup"]);
    let seen = pod.exec("main-0", &both, Duration::from_secs(5)).await.unwrap();
    let seen = String::from_utf8(seen.output).unwrap();
    let (own, of_first) = seen.split_at(seen.len() / 2);
    assert_eq!(own, of_first);
    assert!(groups(&started.pid.to_string()).contains(&world.layout.cgroup));
    assert!(!groups(&pod.supervisor_pid().to_string()).contains(&world.layout.cgroup), "the supervisor was moved");
}

pub(crate) async fn only_the_usual_devices_work(world: &World) {
    // 1:1 is /dev/mem, 7:0 the first loop device.
    let script = "head -c 4 /dev/urandom > /dev/null && echo usual; cd /dev; mknod mem c 1 1; head -c 1 mem; \
                  mknod loop b 7 0; head -c 1 loop; mknod /tmp/null c 1 3; echo x > /tmp/null";
    let (output, _) = world.run(world.script("devices-0", script)).await;
    assert!(output.contains("usual"), "{output}");
    let refused = output.matches("Operation not permitted").count() + output.matches("Permission denied").count();
    assert!(refused >= 3, "{output}");
}

pub(crate) async fn limits_are_visible_inside_and_outside_nothing_is(world: &World) {
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max \
                  /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/pids/pids.max 2>/dev/null; \
                  mkdir /sys/fs/cgroup/memory/x /sys/fs/cgroup/x; ls /sys/fs/cgroup/memory | grep shipway; cat /proc/self/cgroup";
    let mut spec = world.script("view-0", script);
    spec.resources.memory_limit = Some(64 << 20);
    spec.resources.cpu_limit_milli = Some(500);
    spec.resources.pids_limit = Some(99);
    let (output, _) = world.run(spec).await;
    assert!(output.contains("67108864") && output.contains("50000\n") && output.contains("99\n"), "{output}");
    assert_eq!(output.matches("Read-only file system").count(), 2, "{output}");
    assert!(!output.contains("shipway"), "{output}");
}

pub(crate) async fn a_privileged_container_starts(world: &World) {
    let mut spec = ContainerSpec {
        privileged: true,
        ..world.script("mighty-0", "echo 1 > /proc/sys/net/ipv4/ip_forward && ls /dev/null")
    };
    spec.capabilities = vec!["CAP_SYS_ADMIN".to_owned(), "CAP_NET_ADMIN".to_owned(), "CAP_MKNOD".to_owned()];
    let (output, state) = world.run(spec).await;
    assert_eq!((code(&state), output.as_str()), (0, "/dev/null\n"));
}

const LIMITS: &str = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max \
                      /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null";

pub(crate) async fn limits_change_while_the_program_runs(world: &World) {
    let pod = world.pod("resized").await;
    let mut spec = world.script("main-0", "exec sleep 60");
    let resources = |memory: Option<u64>, cpu: Option<u64>| Resources {
        memory_limit: memory,
        cpu_limit_milli: cpu,
        pids_limit: Some(99),
        ..Resources::default()
    };
    spec.resources = resources(Some(64 << 20), Some(500));
    let started = pod.start(spec).await.unwrap();
    for (memory, cpu, seen) in
        [(Some(128 << 20), Some(800), ["134217728", "80000"]), (Some(32 << 20), Some(200), ["33554432", "20000"])]
    {
        pod.change("main-0", resources(memory, cpu)).await.unwrap();
        let shown = pod.exec("main-0", &words(&["sh", "-c", LIMITS]), Duration::from_secs(5)).await.unwrap();
        let shown = String::from_utf8(shown.output).unwrap();
        assert!(seen.iter().all(|one| shown.contains(one)), "{shown}");
    }
    pod.change("main-0", resources(None, None)).await.unwrap();
    let shown = pod.exec("main-0", &words(&["sh", "-c", LIMITS]), Duration::from_secs(5)).await.unwrap();
    let shown = String::from_utf8(shown.output).unwrap();
    assert!(!shown.contains("33554432") && !shown.contains("20000"), "{shown}");
    let state = pod.state().borrow().containers["main-0"].clone();
    assert!(matches!(state, ContainerState::Running { pid, .. } if pid == started.pid), "{state:?}");
    pod.change("none-0", resources(None, None)).await.unwrap_err();
}

pub(crate) async fn kernel_parameters_are_the_pods_own(world: &World) {
    let file = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let before = fs::read_to_string(file).unwrap();
    let sysctls = vec![("net.ipv4.ip_unprivileged_port_start".to_owned(), "77".to_owned())];
    let sandbox = SandboxSpec { uid: "tuned".to_owned(), sysctls, ..SandboxSpec::default() };
    let pod = world.runtime.create(sandbox).await.unwrap();
    pod.start(world.script("main-0", &format!("cat {file}"))).await.unwrap();
    crate::world::exit(&pod, "main-0").await;
    assert_eq!(world.text("main-0", "stdout"), "77\n");
    assert_eq!(fs::read_to_string(file).unwrap(), before, "the host's was changed");
    for name in ["net..x", "../../etc/passwd", "no.such.parameter"] {
        let sysctls = vec![(name.to_owned(), "1".to_owned())];
        let sandbox = SandboxSpec { uid: "bad".to_owned(), sysctls, ..SandboxSpec::default() };
        assert!(world.runtime.create(sandbox).await.is_err(), "{name} was taken");
    }
}

pub(crate) async fn entries_of_an_image_lead_nowhere_outside(world: &World) {
    let outside = world.folder.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("secret"), "of the host\n").unwrap();
    // Links to what only the host has, by an absolute path, upwards, and through the process's own entry.
    let layer = layer_with_link(world, "absolute", outside.to_str().unwrap());
    for (name, target) in [
        ("upwards", format!("../../../../../../../..{}", outside.display())),
        ("through", "/proc/self/root/../../..".to_owned()),
        ("passwd", "/etc/shadow".to_owned()),
    ] {
        std::os::unix::fs::symlink(target, layer.join(name)).unwrap();
    }
    let script = "cat /absolute/secret /upwards/secret /passwd; ls /through; echo x > /absolute/made; \
                  mkdir -p /upwards/made; ls /proc/1/root/absolute";
    let mut spec = world.script("links-0", script);
    spec.lowers.push(layer);
    "/absolute".clone_into(&mut spec.cwd);
    let pod = world.pod("links").await;
    match pod.start(spec.clone()).await {
        // A working folder behind a link is made inside the root, or refused; never outside.
        Ok(_) => {
            crate::world::exit(&pod, "links-0").await;
        }
        Err(error) => assert!(error.to_string().contains("working directory"), "{error}"),
    }
    "links-1".clone_into(&mut spec.id);
    spec.log = world.log_of("links-1");
    spec.cwd = String::new();
    let (output, _) = world.run(spec).await;
    assert!(!output.contains("of the host"), "{output}");
    let left: Vec<_> = fs::read_dir(&outside).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["secret"]);
}
