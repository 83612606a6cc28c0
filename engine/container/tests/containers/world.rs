//! One instance in folders of its own, an image made of the host's programs, and the proof that nothing is left of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shipway_container::{ContainerSpec, ContainerState, Layout, Pod, Runtime, SandboxSpec};
use tempfile::TempDir;

const PROGRAMS: [&str; 15] = [
    "cat", "chmod", "dd", "grep", "head", "id", "ls", "mkdir", "mknod", "sleep", "tail", "touch", "hostname",
    "unshare", "stty",
];
/// What container runtimes give by custom.
pub(crate) const USUAL: [&str; 5] = ["CAP_CHOWN", "CAP_MKNOD", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"];

static INSTANCES: AtomicU32 = AtomicU32::new(0);

/// A folder with one image layer: a shell, some programs, their libraries.
pub(crate) fn images() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let layer = folder.path().join("base");
    for sub in ["bin", "etc", "tmp"] {
        fs::create_dir_all(layer.join(sub)).expect("a folder");
    }
    fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
        .expect("passwd");
    copy(&layer, Path::new("/bin/dash"), "bin/sh");
    for program in PROGRAMS {
        let found = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(program)).into_iter().find(|p| p.exists());
        if let Some(found) = found {
            copy(&layer, &found, &format!("bin/{program}"));
        }
    }
    folder
}

fn copy(layer: &Path, program: &Path, name: &str) {
    fs::copy(program, layer.join(name)).expect("a program");
    let libraries = Command::new("ldd").arg(program).output().expect("ldd").stdout;
    for word in String::from_utf8_lossy(&libraries).split_whitespace().filter(|word| word.starts_with('/')) {
        let target = layer.join(&word[1..]);
        fs::create_dir_all(target.parent().expect("a parent")).expect("a folder");
        fs::copy(word, target).expect("a library");
    }
}

pub(crate) struct World {
    pub(crate) layout: Layout,
    pub(crate) runtime: Runtime,
    pub(crate) folder: TempDir,
    pub(crate) lower: PathBuf,
    /// Further instances of the test, checked like the first one.
    more: std::cell::RefCell<Vec<Layout>>,
}

impl World {
    pub(crate) fn new(images: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = layout(folder.path());
        let runtime = Runtime::new(layout.clone()).expect("a runtime");
        Self { layout, runtime, folder, lower: images.join("base"), more: Vec::new().into() }
    }

    /// Another instance.
    pub(crate) fn neighbour(&self) -> Runtime {
        let other = self.folder.path().join("neighbour");
        let layout = layout(&other);
        self.more.borrow_mut().push(layout.clone());
        Runtime::new(layout).expect("a runtime")
    }

    pub(crate) async fn pod(&self, uid: &str) -> Pod {
        let sandbox = SandboxSpec { uid: uid.to_owned(), hostname: uid.to_owned(), ..SandboxSpec::default() };
        self.runtime.create(sandbox).await.expect("a pod")
    }

    /// A container that runs a shell script.
    pub(crate) fn script(&self, id: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            id: id.to_owned(),
            lowers: vec![self.lower.clone()],
            args: ["/bin/sh", "-c", script].map(str::to_owned).into(),
            capabilities: USUAL.map(str::to_owned).into(),
            log: self.log_of(id),
            ..ContainerSpec::default()
        }
    }

    pub(crate) fn log_of(&self, id: &str) -> PathBuf {
        self.folder.path().join("logs").join(format!("{id}.log"))
    }

    /// The text of a log's lines, of one stream, without their prefix.
    pub(crate) fn text(&self, id: &str, stream: &str) -> String {
        let log = fs::read_to_string(self.log_of(id)).expect("a log");
        let fields = log.lines().map(|line| line.splitn(4, ' ').collect::<Vec<_>>());
        fields.filter(|fields| fields[1] == stream).flat_map(|fields| [fields[3], "\n"]).collect()
    }

    /// Runs a script to its end; its output and state.
    pub(crate) async fn run(&self, spec: ContainerSpec) -> (String, ContainerState) {
        let pod = self.pod(&format!("pod-{}", spec.id)).await;
        let id = spec.id.clone();
        pod.start(spec).await.expect("a start");
        let state = exit(&pod, &id).await;
        (self.text(&id, "stdout") + &self.text(&id, "stderr"), state)
    }

    /// Tears down, and looks for anything left.
    pub(crate) async fn end(&self) {
        let layouts = self.more.take().into_iter().chain([self.layout.clone()]);
        for layout in layouts {
            Runtime::new(layout.clone()).expect("a runtime").teardown().await.expect("a teardown");
            assert_gone(&layout).await;
        }
    }
}

fn layout(folder: &Path) -> Layout {
    let number = INSTANCES.fetch_add(1, Ordering::Relaxed);
    let cgroup = format!("shipway-test-{}-{number}", std::process::id());
    Layout { state: folder.join("pods"), run: folder.join("run"), cgroup, executable: "/proc/self/exe".into() }
}

/// Waits for a container's end.
pub(crate) async fn exit(pod: &Pod, id: &str) -> ContainerState {
    let ended =
        |state: &shipway_container::PodState| matches!(state.containers.get(id), Some(ContainerState::Exited { .. }));
    let mut states = pod.state();
    let waiting = states.wait_for(ended);
    let state = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("an end in time").expect("a state");
    state.containers[id].clone()
}

pub(crate) fn code(state: &ContainerState) -> i32 {
    match state {
        ContainerState::Exited { code, .. } => *code,
        other => panic!("not exited: {other:?}"),
    }
}

/// Every place where a cgroup or a process of the instance would be.
pub(crate) fn cgroup_folders(cgroup: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let of_cgroups = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let points = of_cgroups.filter_map(|line| line.split(' ').nth(4)).map(|point| Path::new(point).join(cgroup));
    points.filter(|folder| folder.exists()).collect()
}

async fn assert_gone(layout: &Layout) {
    assert_eq!(cgroup_folders(&layout.cgroup), Vec::<PathBuf>::new(), "control groups");
    let state = layout.state.to_string_lossy().into_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&state), "mounts of {state}");
    for folder in [&layout.state, &layout.run] {
        let left: Vec<_> = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "left: {left:?}");
    }
    // A dead supervisor is reaped by a task of its own.
    for _ in 0..100 {
        if processes(&layout.cgroup).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("processes left: {:?}", processes(&layout.cgroup));
}

/// Processes whose arguments or control groups name the instance.
pub(crate) fn processes(cgroup: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let mut all = Vec::new();
    for process in entries.map(|entry| entry.path()).filter(|path| path.join("cmdline").exists()) {
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        if arguments.contains(&format!("{cgroup}/")) || groups.contains(&format!("/{cgroup}/")) {
            all.push(format!("{}: {arguments}", process.display()));
        }
    }
    all
}

/// A symbolic link in a layer of its own, to be put above the base.
pub(crate) fn layer_with_link(world: &World, name: &str, target: &str) -> PathBuf {
    let layer = world.folder.path().join("link-layer");
    fs::create_dir_all(&layer).expect("a folder");
    symlink(target, layer.join(name)).expect("a link");
    layer
}
