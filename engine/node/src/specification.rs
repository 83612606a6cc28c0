//! From a container of a pod, its image and its variables to what the runtime is told. Pure but for looking up the image's
//! account files.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use shipway_container::{ContainerSpec, Mount, MountSource};

use crate::amount::{self, Allocatable};
use crate::environment::Variables;
use crate::image::Image;
use crate::observed::run_id;
use crate::volume::{PodMount, Volumes};
use crate::{security, users};

/// No container needs more processes; a fork bomb needs fewer to end a machine.
pub(crate) const PIDS_LIMIT: i64 = 4096;
/// A log file grows to this before it is rotated.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// All that a container is made from.
pub(crate) struct Plan<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    pub(crate) image: &'a Image,
    pub(crate) variables: Variables,
    pub(crate) volumes: &'a Volumes,
    /// The node's own files and their places.
    pub(crate) files: &'a [(PathBuf, &'static str)],
    /// The file that takes the container's last words.
    pub(crate) last_words: &'a Path,
    pub(crate) log: PathBuf,
    /// The run of the pod whose processes it is to see.
    pub(crate) processes_of: Option<String>,
    pub(crate) allocatable: &'a Allocatable,
    /// The folder of the node's own seccomp profiles.
    pub(crate) profiles: &'a Path,
}

impl Plan<'_> {
    /// The runtime's instructions, and the mounts to be made inside the pod before.
    pub(crate) fn specification(self) -> Result<(ContainerSpec, Vec<PodMount>), String> {
        let (mounts, first) = self.mounts()?;
        let container = self.container;
        let working_dir = container.working_dir.as_deref().filter(|folder| !folder.is_empty());
        let cwd = working_dir.unwrap_or(&self.image.working_dir);
        let specification = ContainerSpec {
            id: run_id(&container.name, self.attempt),
            lowers: self.image.lowers.clone(),
            read_only_root: security::read_only_root(container),
            args: self.args()?,
            cwd: if cwd.is_empty() { "/".to_owned() } else { self.variables.expand(cwd) },
            user: users::user(self.pod, container, &self.image.user, &self.image.lowers)?,
            mounts,
            resources: amount::resources(container, PIDS_LIMIT),
            privileged: security::privileged(container),
            capabilities: security::capabilities(container)?,
            no_new_privileges: security::no_new_privileges(container),
            seccomp: security::seccomp(self.pod, container, self.profiles)?,
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            terminal: container.tty == Some(true),
            processes_of: self.processes_of,
            log: self.log,
            log_limit: LOG_LIMIT,
            oom_score_adj: Some(amount::oom_score(self.pod, container, self.allocatable)),
            env: self.variables.into_pairs(),
        };
        Ok((specification, first))
    }

    fn args(&self) -> Result<Vec<String>, String> {
        let expand = |list: &[String]| list.iter().map(|word| self.variables.expand(word)).collect::<Vec<_>>();
        let command = self.container.command.as_deref().filter(|command| !command.is_empty());
        let args = self.container.args.as_deref().filter(|args| !args.is_empty());
        let all = match (command, args) {
            (Some(command), args) => [expand(command), expand(args.unwrap_or_default())].concat(),
            (None, Some(args)) => [self.image.entrypoint.clone(), expand(args)].concat(),
            (None, None) => [self.image.entrypoint.clone(), self.image.cmd.clone()].concat(),
        };
        if all.is_empty() {
            Err("no command specified: neither the container nor its image names one".to_owned())
        } else {
            Ok(all)
        }
    }

    fn mounts(&self) -> Result<(Vec<Mount>, Vec<PodMount>), String> {
        let wanted = self.container.volume_mounts.as_deref().unwrap_or_default();
        let mut mounts = Vec::new();
        let mut first = Vec::new();
        for (position, mount) in wanted.iter().enumerate() {
            let expression = mount.sub_path_expr.as_ref().map(|expression| self.variables.expand(expression));
            let sub_path = mount.sub_path.clone().or(expression);
            let own = (self.container.name.as_str(), position);
            let source = self.volumes.source(self.pod, mount, sub_path.as_deref(), own)?;
            let bound = bind(Path::new(&mount.mount_path), source.path, source.read_only);
            mounts.push(Mount { follows_host: follows_host(mount)?, ..bound });
            first.extend(source.first);
        }
        let last_words = self.container.termination_message_path.as_deref().filter(|path| !path.is_empty());
        let last_words = (self.last_words.to_owned(), last_words.unwrap_or(TERMINATION_MESSAGE_PATH));
        for (path, place) in self.files.iter().cloned().chain([last_words]) {
            if mounts.iter().all(|mount| mount.destination != Path::new(place)) {
                mounts.push(bind(Path::new(place), path, false));
            }
        }
        // What is mounted inside another mount comes after it.
        mounts.sort_by_key(|mount| mount.destination.components().count());
        Ok((mounts, first))
    }
}

fn bind(destination: &Path, source: PathBuf, read_only: bool) -> Mount {
    Mount { destination: destination.to_owned(), source: MountSource::Bind(source), read_only, follows_host: false }
}

/// Whether a mount follows those of the host. A pod's own mounts never leave it.
fn follows_host(mount: &VolumeMount) -> Result<bool, String> {
    match mount.mount_propagation.as_deref() {
        Some("Bidirectional") => {
            Err(format!("mount propagation Bidirectional of {} is not supported by this node", mount.mount_path))
        }
        other => Ok(other == Some("HostToContainer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const HERE: Allocatable = Allocatable { cpu_milli: 1000, memory: 1 << 30, storage: 0 };

    fn plan(container: Value) -> Result<(ContainerSpec, Vec<PodMount>), String> {
        let container: Container = serde_json::from_value(container).expect("a container");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"containers": [], "volumes": [
                {"name": "data", "emptyDir": {}}, {"name": "conf", "configMap": {"name": "c"}}
            ]}
        }))
        .expect("a pod");
        let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect();
        let image = Image { entrypoint: words(&["/run"]), cmd: words(&["fast"]), ..Image::default() };
        let mut variables = Variables::default();
        variables.set("WHO", "me");
        Plan {
            pod: &pod,
            container: &container,
            attempt: 2,
            image: &image,
            variables,
            volumes: &Volumes::new(Path::new("/home/pods/u")),
            files: &[(PathBuf::from("/home/pods/u/etc/hosts"), "/etc/hosts")],
            last_words: Path::new("/home/pods/u/etc/words"),
            log: PathBuf::from("/logs/2.log"),
            processes_of: None,
            allocatable: &HERE,
            profiles: Path::new("/home/seccomp"),
        }
        .specification()
    }

    #[test]
    fn command_and_args_replace_what_the_image_says() {
        let args = |container: Value| plan(container).expect("a specification").0.args;
        assert_eq!(args(json!({"name": "c"})), ["/run", "fast"]);
        assert_eq!(args(json!({"name": "c", "args": ["for", "$(WHO)"]})), ["/run", "for", "me"]);
        assert_eq!(args(json!({"name": "c", "command": ["/bin/$(WHO)"]})), ["/bin/me"]);
        assert_eq!(args(json!({"name": "c", "command": ["/a"], "args": ["b"]})), ["/a", "b"]);
    }

    #[test]
    fn mounts_come_outer_first_and_shown_objects_are_read_only() {
        let mounts = json!([{"name": "data", "mountPath": "/srv/deep/er"}, {"name": "conf", "mountPath": "/srv"}]);
        let (specification, first) = plan(json!({"name": "c", "volumeMounts": mounts})).expect("a specification");
        let places: Vec<(&str, bool)> = specification
            .mounts
            .iter()
            .map(|mount| (mount.destination.to_str().expect("text"), mount.read_only))
            .collect();
        assert_eq!(
            places,
            [("/srv", true), ("/etc/hosts", false), ("/dev/termination-log", false), ("/srv/deep/er", false)]
        );
        assert!(first.is_empty());
        assert_eq!(specification.id, "c-2");
    }

    #[test]
    fn a_sub_path_is_pinned_inside_the_pod_first() {
        let mounts = json!([{"name": "data", "mountPath": "/x", "subPathExpr": "of/$(WHO)"}]);
        let (specification, first) = plan(json!({"name": "c", "volumeMounts": mounts})).expect("a specification");
        let onto = PathBuf::from("/home/pods/u/subpaths/c/0");
        let volume = PathBuf::from("/home/pods/u/volumes/data");
        assert_eq!(first, [PodMount::SubPath { volume, sub: "of/me".to_owned(), onto: onto.clone() }]);
        assert!(specification.mounts.iter().any(|mount| mount.source == MountSource::Bind(onto.clone())));
    }

    #[test]
    fn a_mount_of_an_unknown_volume_is_refused() {
        plan(json!({"name": "c", "volumeMounts": [{"name": "none", "mountPath": "/x"}]})).expect_err("no such volume");
    }
}
