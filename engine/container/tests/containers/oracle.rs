//! Another runtime as the oracle: runc is given the bundle that this crate's containers are made from, and a program has to see
//! the same in both. `RUNC` names it; without, there is nothing to compare with. `cargo xtask oracle` fetches it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use shipway_container::{ContainerSpec, Mount, MountSource, User};

use crate::world::{World, code};

/// One line of what a program sees: what it is called, and what it is.
type Seen = BTreeMap<String, String>;

/// Tells what a program has of the kernel, `name=value` a line.
const LOOK: &str = r#"
for f in Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs SigIgn SigBlk; do
  echo "$f=$(grep "^$f:" /proc/self/status | cut -f2-)"
done
for n in pid mnt ipc uts net cgroup; do
  if test "$(readlink /proc/self/ns/$n)" = "$(cat /host-ns/$n)"; then echo "ns-$n=host"; else echo "ns-$n=own"; fi
done
grep ' - ' /proc/self/mountinfo | while read a b c d point options rest; do
  kind=${rest#*- }; echo "mount-$point=${kind%% *} $options"
done
for l in memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpu/cpu.shares memory.max pids.max cpu.max; do
  test -e /sys/fs/cgroup/$l && echo "limit-$l=$(cat /sys/fs/cgroup/$l)"
done
for d in /dev/*; do echo "device-$d=$(ls -ld $d | cut -c1-10)"; done
for f in /proc/kcore /proc/keys /proc/timer_list; do echo "masked-$f=$(head -c1 $f 2>/dev/null | grep -c .)"; done
for f in /proc/sys/kernel/hostname /proc/sysrq-trigger; do (: >> $f) 2>/dev/null && echo "open-$f=yes" || echo "open-$f=no"; done
echo "umask=$(umask)"; echo "cwd=$(pwd)"; echo "score=$(cat /proc/self/oom_score_adj)"; echo "hostname=$(cat /proc/sys/kernel/hostname)"
"#;

/// What both know to differ and why that is no harm.
fn is_own(name: &str, ours: Option<&str>, theirs: Option<&str>) -> bool {
    // The network belongs to the pod here, and to whoever calls the other.
    let of_pod = matches!(name, "ns-net" | "hostname" | "ns-ipc" | "ns-uts");
    // The roots are made differently: an overlay here, a folder there.
    let root = name == "mount-/" || name.starts_with("mount-/host-ns");
    // Whose views of control groups there are, and at which end of a link they lie.
    let groups = name.starts_with("mount-/sys/fs/cgroup");
    // Masked folders have names that differ with what the host has.
    let masked = name.starts_with("mount-/proc/") || name.starts_with("mount-/sys/") || name == "mount-/dev/mqueue";
    let same_kind = |one: Option<&str>, other: Option<&str>| {
        let kind = |text: Option<&str>| text.map(|text| text.split(' ').next().unwrap_or_default().to_owned());
        kind(one) == kind(other)
    };
    of_pod || root || groups || (masked && (ours.is_none() || theirs.is_none() || same_kind(ours, theirs)))
}

fn read(text: &str) -> Seen {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

pub(crate) async fn a_program_sees_what_it_sees_under_runc(world: &World) {
    let Ok(runc) = std::env::var("RUNC") else {
        println!("       skipped: RUNC names no other runtime");
        return;
    };
    // Both are told which namespaces are the host's.
    let names = world.folder.path().join("host-ns");
    fs::create_dir_all(&names).unwrap();
    for name in ["pid", "mnt", "ipc", "uts", "net", "cgroup"] {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        fs::write(names.join(name), link.to_str().unwrap()).unwrap();
    }
    let mut differ = Vec::new();
    for (id, change) in [("plain", plain as fn(&mut ContainerSpec)), ("confined", confined), ("failing", failing)] {
        let mut spec = world.script(&format!("{id}-0"), LOOK);
        spec.mounts = vec![Mount {
            destination: "/host-ns".into(),
            source: MountSource::Bind(names.clone()),
            read_only: true,
            follows_host: false,
        }];
        change(&mut spec);
        let theirs = under_runc(&runc, world, id, &spec);
        let (text, state) = world.run(spec).await;
        let ours = (read(&text), code(&state));
        if ours.1 != theirs.1 {
            differ.push(format!("{id}: exit code {} here, {} there", ours.1, theirs.1));
        }
        let all: std::collections::BTreeSet<_> = ours.0.keys().chain(theirs.0.keys()).collect();
        for name in all {
            let (here, there) = (ours.0.get(name).map(String::as_str), theirs.0.get(name).map(String::as_str));
            if here != there && !is_own(name, here, there) {
                differ.push(format!("{id}: {name} is {here:?} here, {there:?} there"));
            }
        }
        assert!(ours.0.len() > 30 || id == "failing", "{text}");
    }
    assert!(differ.is_empty(), "{} differences:\n{}", differ.len(), differ.join("\n"));
}

fn plain(spec: &mut ContainerSpec) {
    spec.resources.memory_limit = Some(64 << 20);
    spec.resources.cpu_limit_milli = Some(500);
    spec.resources.cpu_request_milli = Some(250);
    spec.resources.pids_limit = Some(99);
    spec.oom_score_adj = Some(300);
}

fn confined(spec: &mut ContainerSpec) {
    plain(spec);
    spec.user = User { uid: 1000, gid: 1000, additional: vec![2000] };
    spec.no_new_privileges = true;
    spec.read_only_root = true;
    spec.capabilities = vec!["CAP_CHOWN".to_owned()];
    "/tmp".clone_into(&mut spec.cwd);
}

fn failing(spec: &mut ContainerSpec) {
    spec.args = ["/bin/sh", "-c", "kill -9 $$"].map(str::to_owned).into();
}

/// What the program sees there, and its exit code.
fn under_runc(runc: &str, world: &World, id: &str, spec: &ContainerSpec) -> (Seen, i32) {
    let bundle = world.folder.path().join(format!("bundle-{id}"));
    let root = bundle.join("root");
    fs::create_dir_all(&root).unwrap();
    let copied = Command::new("cp").arg("-a").arg(format!("{}/.", world.lower.display())).arg(&root).status().unwrap();
    assert!(copied.success());
    for folder in ["dev", "proc", "sys", "host-ns"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(bundle.join("config.json"), bundle_of(spec, &root, &world.layout.cgroup, id).to_string()).unwrap();
    let state = world.folder.path().join("runc");
    let name = format!("{}-{id}", world.layout.cgroup);
    let mut command = Command::new(runc);
    command.arg("--root").arg(&state).args(["run", "--bundle"]).arg(&bundle).arg(&name).stdin(Stdio::null());
    let output = command.output().expect("it runs");
    let code = output.status.code().unwrap_or(-1);
    let parent = Path::new("/sys/fs/cgroup");
    for hierarchy in fs::read_dir(parent).into_iter().flatten().flatten() {
        // Nothing there, or on another kind of machine elsewhere: it is only swept.
        drop(fs::remove_dir(hierarchy.path().join(format!("{}-runc", world.layout.cgroup))));
    }
    (read(&String::from_utf8_lossy(&output.stdout)), code)
}

/// The specification in the words of the OCI.
fn bundle_of(spec: &ContainerSpec, root: &Path, cgroup: &str, id: &str) -> Value {
    let mounts = json!([
        { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
        { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
        { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
        { "destination": "/host-ns", "type": "bind", "source": host_names(spec), "options": ["rbind", "ro"] },
    ]);
    let capabilities = json!(spec.capabilities);
    let effective = if spec.user.uid == 0 { capabilities.clone() } else { json!([]) };
    let resources = &spec.resources;
    let devices = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "access": "m" }, { "allow": true, "type": "b", "access": "m" },
    ]);
    let limits = json!({
        "devices": devices,
        "memory": { "limit": resources.memory_limit },
        "cpu": { "shares": resources.cpu_request_milli.map_or(2, |milli| (milli * 1024 / 1000).max(2)),
                 "quota": resources.cpu_limit_milli.map(|milli| milli * 100), "period": 100_000 },
        "pids": { "limit": resources.pids_limit.unwrap_or(0) },
    });
    let own = ["pid", "mount", "ipc", "uts", "cgroup"].map(|kind| json!({ "type": kind }));
    let cwd = if spec.cwd.is_empty() { "/" } else { &spec.cwd };
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "args": spec.args, "cwd": cwd, "env": ["PATH=/bin", "HOME=/"],
            "user": { "uid": spec.user.uid, "gid": spec.user.gid, "additionalGids": spec.user.additional },
            "capabilities": { "bounding": capabilities, "effective": effective, "permitted": effective, "inheritable": [], "ambient": [] },
            "noNewPrivileges": spec.no_new_privileges, "oomScoreAdj": spec.oom_score_adj.unwrap_or(0),
        },
        "root": { "path": root, "readonly": spec.read_only_root },
        "hostname": id,
        "mounts": mounts,
        "linux": {
            "cgroupsPath": format!("/{cgroup}-runc/{id}"), "resources": limits, "namespaces": own,
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/sys/firmware", "/sys/devices/virtual/powercap"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn host_names(spec: &ContainerSpec) -> String {
    let mut sources = spec.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Bind(path) => Some(path.display().to_string()),
        MountSource::Tmpfs { .. } => None,
    });
    sources.next_back().unwrap_or_default()
}
