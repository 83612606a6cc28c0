//! Whom a container runs as: names of the image's own /etc/passwd and /etc/group, numbers, and what the pod demands.

use std::io::Read;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use shipway_container::User;

/// No account file is larger than this.
const LARGEST: u64 = 1 << 20;

/// The account files of an image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads them from an image's layers, the highest one that has each.
    pub(crate) fn of(lowers: &[PathBuf]) -> Self {
        let find = |path: &str| lowers.iter().rev().find_map(|layer| read_inside(layer, path)).unwrap_or_default();
        Self { passwd: find("etc/passwd"), group: find("etc/group") }
    }

    /// uid, gid and name of a user given by name or number.
    fn user(&self, user: &str) -> Option<(u32, u32, String)> {
        self.passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, ..] = fields[..] else { return None };
            (name == user || uid == user).then(|| Some((uid.parse().ok()?, gid.parse().ok()?, name.to_owned())))?
        })
    }

    fn group(&self, group: &str) -> Option<u32> {
        self.group.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, gid) = (fields.next()?, fields.nth(1)?);
            (name == group).then(|| gid.parse().ok())?
        })
    }

    /// The groups that list `user` as a member.
    fn memberships(&self, user: &str) -> Vec<u32> {
        let of = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            let [_, _, gid, members, ..] = fields[..] else { return None };
            members.split(',').any(|member| member.trim() == user).then(|| gid.parse().ok())?
        };
        self.group.lines().filter_map(of).collect()
    }
}

/// The content of a file inside a layer, following links only within the layer.
fn read_inside(layer: &Path, path: &str) -> Option<String> {
    let root = rustix::fs::open(layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file =
        rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
    let file = std::fs::File::from(file.ok()?);
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Decides whom `container` runs as; an error says why it may not run.
pub(crate) fn user(pod: &Pod, container: &Container, image_user: &str, lowers: &[PathBuf]) -> Result<User, String> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let asked = own.run_as_user.or(of_pod.run_as_user);
    let (image_user, image_group) = image_user.split_once(':').unwrap_or((image_user, ""));
    let wanted = asked.map_or_else(|| image_user.to_owned(), |uid| uid.to_string());
    let accounts = if wanted.is_empty() || wanted == "0" { Accounts::default() } else { Accounts::of(lowers) };
    let known = accounts.user(&wanted);
    let uid = match &known {
        Some((uid, ..)) => *uid,
        None if wanted.is_empty() => 0,
        None => {
            wanted.parse().map_err(|_| format!("unable to find user {wanted}: no matching entries in passwd file"))?
        }
    };
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) && uid == 0 {
        return Err("container has runAsNonRoot and image will run as root".to_owned());
    }
    let gid = match own.run_as_group.or(of_pod.run_as_group) {
        Some(group) => u32::try_from(group).map_err(|_| format!("runAsGroup {group} is no group"))?,
        None if !image_group.is_empty() && asked.is_none() => group_number(&accounts, image_group)?,
        None => known.as_ref().map_or(0, |(_, gid, _)| *gid),
    };
    let strict = of_pod.supplemental_groups_policy.as_deref() == Some("Strict");
    let member = known.iter().filter(|_| !strict).flat_map(|(_, _, name)| accounts.memberships(name));
    let extra = of_pod.supplemental_groups.iter().flatten().chain(&of_pod.fs_group);
    let mut additional: Vec<u32> = member.chain(extra.filter_map(|group| u32::try_from(*group).ok())).collect();
    additional.sort_unstable();
    additional.dedup();
    Ok(User { uid, gid, additional })
}

/// The user that the pod demands for every one of its containers.
pub(crate) fn of_all(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut users = containers.map(|it| it.security_context.as_ref().and_then(|own| own.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

fn group_number(accounts: &Accounts, group: &str) -> Result<u32, String> {
    accounts
        .group(group)
        .or_else(|| group.parse().ok())
        .ok_or_else(|| format!("unable to find group {group}: no matching entries in group file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn layers() -> (tempfile::TempDir, Vec<PathBuf>) {
        let home = tempfile::tempdir().expect("a folder");
        let layer = home.path().join("layer");
        std::fs::create_dir_all(layer.join("etc")).expect("made");
        std::fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1001:1002::/:/bin/sh\n")
            .expect("written");
        std::fs::write(layer.join("etc/group"), "root:x:0:\nweb:x:33:app,other\nstaff:x:50:\n").expect("written");
        let empty = home.path().join("empty");
        std::fs::create_dir(&empty).expect("made");
        (home, vec![layer, empty])
    }

    fn decide(pod: Value, own: Value, image_user: &str) -> Result<User, String> {
        let (_home, lowers) = layers();
        let container: Container =
            serde_json::from_value(json!({"name": "c", "securityContext": own})).expect("a container");
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": [], "securityContext": pod}})).expect("a pod");
        user(&pod, &container, image_user, &lowers)
    }

    fn numbers(user: User) -> (u32, u32, Vec<u32>) {
        (user.uid, user.gid, user.additional)
    }

    #[test]
    fn names_of_the_image_become_numbers() {
        let of = |image_user| decide(json!({}), json!({}), image_user).map(numbers);
        assert_eq!(of(""), Ok((0, 0, vec![])));
        assert_eq!(of("app"), Ok((1001, 1002, vec![33])));
        assert_eq!(of("app:staff"), Ok((1001, 50, vec![33])));
        assert_eq!(of("7:8"), Ok((7, 8, vec![])));
        assert!(of("nobody").is_err());
    }

    #[test]
    fn the_container_wins_over_the_pod_and_the_pod_over_the_image() {
        let pod = json!({"runAsUser": 5, "runAsGroup": 6, "fsGroup": 7, "supplementalGroups": [9, 8]});
        assert_eq!(decide(pod.clone(), json!({}), "app").map(numbers), Ok((5, 6, vec![7, 8, 9])));
        assert_eq!(decide(pod, json!({"runAsUser": 1001}), "").map(numbers), Ok((1001, 6, vec![7, 8, 9, 33])));
    }

    #[test]
    fn a_container_that_may_not_be_root_is_not() {
        let error = decide(json!({"runAsNonRoot": true}), json!({}), "").expect_err("it would be root");
        assert_eq!(error, "container has runAsNonRoot and image will run as root");
        decide(json!({"runAsNonRoot": true}), json!({}), "app").expect("it is not root");
    }

    #[test]
    fn a_user_of_all_containers_is_one_that_each_of_them_has() {
        let of = |pod: Value, one: Value, other: Value| {
            let containers = [one, other].map(|own| json!({"name": "c", "securityContext": own}));
            let spec =
                json!({"securityContext": pod, "containers": [containers[0]], "initContainers": [containers[1]]});
            of_all(&serde_json::from_value(json!({"spec": spec})).expect("a pod"))
        };
        let user = |uid: i64| json!({"runAsUser": uid});
        assert_eq!(of(user(5), json!({}), json!({})), Some(5));
        assert_eq!(of(user(5), user(7), user(7)), Some(7));
        assert_eq!(of(user(5), user(7), json!({})), None);
        assert_eq!(of(json!({}), user(7), json!({})), None);
        assert_eq!(of_all(&Pod::default()), None);
    }

    #[test]
    fn account_files_are_not_read_through_links_out_of_the_layer() {
        let home = tempfile::tempdir().expect("a folder");
        let layer = home.path().join("layer");
        std::fs::create_dir_all(layer.join("etc")).expect("made");
        std::os::unix::fs::symlink("/etc/passwd", layer.join("etc/passwd")).expect("linked");
        assert!(Accounts::of(&[layer]).user("root").is_none());
    }
}
