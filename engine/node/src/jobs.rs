//! The longer pieces of work in a pod's life, each run as a task of the pod's worker: making its surroundings, starting a
//! container, taking all away. They change nothing but this machine and report what came of it.

mod images;
mod volumes;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, HostIP, Pod, PodIP, Service};
use kube::runtime::reflector::Store;
use shipway_container::SandboxSpec;
use shipway_driver::{EventKind, Recorder};
use tokio::sync::watch;

use crate::admit;
use crate::amount::{self, Allocatable};
use crate::backoff::Backoff;
use crate::environment::Source;
use crate::evict::Order;
use crate::files::{self, Names};
use crate::followed::Followed;
use crate::image::Image;
use crate::leash::{self, Leash};
use crate::log;
use crate::logs::Runs;
use crate::machine::{Machine, Sandbox};
use crate::observed::{Happened, StartFailure, run_id};
use crate::probe::{self, Target};
use crate::publish;
use crate::references::{self, Contents};
use crate::resize::Room;
use crate::specification::Plan;
use crate::tokens::Tokens;
use crate::{pod, runtime};
use volumes::Shown;

/// What all pods of the node share.
pub(crate) struct Shared<M> {
    pub(crate) machine: M,
    pub(crate) client: kube::Client,
    pub(crate) recorder: Recorder,
    pub(crate) followed: Followed,
    pub(crate) home: PathBuf,
    pub(crate) names: Names,
    pub(crate) host: IpAddr,
    pub(crate) allocatable: Allocatable,
    pub(crate) room: Room,
    /// By which pods hear that they are to go.
    pub(crate) orders: watch::Sender<Order>,
    pub(crate) services: Store<Service>,
    pub(crate) runs: Runs,
    /// What holds pods to the node's lease, where other nodes may get them.
    pub(crate) leash: Option<Arc<Leash>>,
    /// Where other nodes keep their things that use the same images; none where images are not ours to remove.
    pub(crate) collects: Option<PathBuf>,
}

impl<M: Machine> Shared<M> {
    pub(crate) fn pod_folder(&self, pod: &Pod) -> PathBuf {
        self.home.join("pods").join(pod::uid(pod))
    }

    pub(crate) fn tell(&self, pod: &Pod, container: Option<&str>, kind: EventKind, reason: &str, message: &str) {
        self.recorder.event(&pod::reference(pod, container), kind, reason, message);
    }

    pub(crate) fn tell_of_resize(&self, pod: &Pod, container: &str, reason: &str, what: &str) {
        let kind = if reason == "ResizeError" { EventKind::Warning } else { EventKind::Normal };
        self.tell(pod, Some(container), kind, reason, &format!("Container {container} {what}"));
    }

    /// The leash that a pod is to be on.
    pub(crate) fn leash_of(&self, pod: &Pod) -> Option<&Arc<Leash>> {
        self.leash.as_ref().filter(|_| leash::is_wanted(pod))
    }

    fn warn(&self, pod: &Pod, container: Option<&str>, reason: &str, message: &str) {
        self.tell(pod, container, EventKind::Warning, reason, message);
    }

    /// Sandbox, network and volumes, all at once; after a failure neither sandbox nor address is left.
    pub(crate) async fn prepare(&self, pod: &Pod, tokens: &Tokens) -> Result<(M::Sandbox, Option<Ipv4Addr>), String> {
        if let Some(leash) = self.leash_of(pod) {
            leash.held().await;
            // What was decided while the node was silent may not have come here yet.
            publish::is_wanted(&self.client, pod).await?;
        }
        let (place, volumes) = tokio::join!(self.make_place(pod), self.make_volumes(pod, tokens));
        let (sandbox, address) = place.inspect_err(|error| {
            self.warn(pod, None, "FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {error}"));
        })?;
        let furnished = match volumes {
            Ok(shown) => self.furnish(pod, &sandbox, address, shown).await,
            Err(error) => Err(error),
        };
        match furnished {
            Ok(()) => Ok((sandbox, address)),
            Err(error) => {
                self.warn(pod, None, "FailedMount", &error);
                self.take_down(pod, Some(&sandbox)).await;
                // The pod may never get as far as being dismantled.
                self.detach(pod).await;
                Err(error)
            }
        }
    }

    async fn make_place(&self, pod: &Pod) -> Result<(M::Sandbox, Option<Ipv4Addr>), String> {
        let spec = pod.spec.as_ref();
        if spec.is_some_and(|spec| spec.host_users == Some(false)) {
            return Err("user namespaces (hostUsers: false) are not supported by this node".to_owned());
        }
        let is_set = |field: Option<bool>| field == Some(true);
        let wanted = SandboxSpec {
            uid: pod::uid(pod).to_owned(),
            hostname: pod::kernel_hostname(pod, &self.names.node, &self.names.cluster_domain)?,
            resources: amount::of_pod(pod),
            sysctls: admit::sysctls(pod),
            host_network: pod::host_network(pod),
            host_pid: is_set(spec.and_then(|spec| spec.host_pid)),
            host_ipc: is_set(spec.and_then(|spec| spec.host_ipc)),
            share_processes: is_set(spec.and_then(|spec| spec.share_process_namespace)),
            leash: self.leash_of(pod).map(|leash| leash.file().to_owned()),
        };
        let sandbox = self.machine.create(wanted).await.map_err(|error| error.to_string())?;
        if pod::host_network(pod) {
            return Ok((sandbox, None));
        }
        match self.machine.attach(pod::uid(pod), &sandbox.network_namespace()).await {
            Ok(address) => Ok((sandbox, Some(address))),
            Err(error) => {
                self.take_down(pod, Some(&sandbox)).await;
                Err(error.to_string())
            }
        }
    }

    /// The node's files, the memory volumes and what volumes show, which need the address and the namespaces.
    async fn furnish(
        &self,
        pod: &Pod,
        sandbox: &M::Sandbox,
        address: Option<Ipv4Addr>,
        shown: Option<Shown>,
    ) -> Result<(), String> {
        let folder = self.pod_folder(pod).join("etc");
        files::write(&folder, pod, address, &self.names)
            .map_err(|error| format!("write {}: {error}", folder.display()))?;
        let mounts = [self.volumes(pod).memory(pod), self.image_mounts(pod).await?].concat();
        self.machine.mount(sandbox.supervisor(), mounts).await?;
        self.fill_volumes(shown, sandbox).await
    }

    /// Takes the sandbox away; tries until it is done. The volumes stay: the pod may get another sandbox.
    pub(crate) async fn take_down(&self, pod: &Pod, sandbox: Option<&M::Sandbox>) {
        let mut backoff = Backoff::short();
        if let Some(sandbox) = sandbox {
            while let Err(error) = sandbox.destroy().await {
                tracing::warn!(pod = pod::name(pod), %error, "could not take down the sandbox, trying again");
                tokio::time::sleep(backoff.wait()).await;
            }
        }
    }

    /// Gives the pod's address back; slow, and nobody waits for it.
    pub(crate) async fn detach(&self, pod: &Pod) {
        if pod::host_network(pod) {
            return;
        }
        if let Err(error) = self.machine.detach(pod::uid(pod)).await {
            tracing::warn!(pod = pod::name(pod), %error, "could not detach the pod from the network");
        }
    }

    /// Starts a run, up to and including its postStart hook.
    pub(crate) async fn start(&self, start: Start<M::Sandbox>) -> Happened {
        let result = self.try_start(&start).await;
        if let Err(failure) = &result {
            let (StartFailure::Config(message) | StartFailure::Create(message) | StartFailure::Run(message)) = failure
            else {
                return Happened::Started { container: start.container.name, result };
            };
            self.warn(&start.pod, Some(&start.container.name), "Failed", &format!("Error: {message}"));
        }
        Happened::Started { container: start.container.name, result }
    }

    async fn try_start(&self, start: &Start<M::Sandbox>) -> Result<(i32, Timestamp), StartFailure> {
        let Start { pod, container, attempt, sandbox, .. } = start;
        let (specification, first) = self.plan(start).await?;
        self.machine.mount(sandbox.supervisor(), first).await.map_err(StartFailure::Create)?;
        let begun = sandbox.start(specification).await?;
        let name = container.name.as_str();
        for warning in &begun.warnings {
            self.warn(pod, Some(name), "Clamped", warning);
        }
        self.tell(pod, Some(name), EventKind::Normal, "Created", &format!("Container created: {name}"));
        self.tell(pod, Some(name), EventKind::Normal, "Started", &format!("Container started: {name}"));
        self.forget_older(pod, name, *attempt, sandbox).await;
        self.post_start(start, (begun.pid, begun.since)).await
    }

    async fn plan(
        &self,
        start: &Start<M::Sandbox>,
    ) -> Result<(shipway_container::ContainerSpec, Vec<crate::volume::PodMount>), StartFailure> {
        let Start { pod, container, attempt, image, address, .. } = start;
        let told = self.with_addresses(pod, *address);
        let wanted = references::of_environment(container);
        let contents = Contents::read(&self.client, pod::namespace(pod), wanted).await;
        let mut contents = contents.map_err(|error| StartFailure::Config(error.to_string()))?;
        contents.insert_files(self.read_files(pod, container, &start.sandbox).await.map_err(StartFailure::Config)?);
        let services = self.services.state();
        let hostname = pod::kernel_hostname(pod, &self.names.node, &self.names.cluster_domain);
        let hostname = hostname.map_err(StartFailure::Config)?;
        let source = Source {
            pod: &told,
            container,
            image_env: &image.env,
            contents: &contents,
            services: &services,
            hostname: &hostname,
            allocatable: &self.allocatable,
        };
        let variables = source.variables().map_err(StartFailure::Config)?;
        let etc = self.pod_folder(pod).join("etc");
        let files = [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];
        let files: Vec<(PathBuf, &str)> = files.into_iter().map(|(name, place)| (etc.join(name), place)).collect();
        let last_words = runtime::last_words_file(&self.pod_folder(pod), &run_id(&container.name, *attempt));
        let log = log::file(&self.home, pod, &container.name, *attempt);
        make_files(&last_words, &log).map_err(|error| StartFailure::Create(error.to_string()))?;
        let plan = Plan {
            pod,
            container,
            attempt: *attempt,
            image,
            variables,
            volumes: &self.volumes(pod),
            files: &files,
            last_words: &last_words,
            log,
            processes_of: start.processes_of.clone(),
            allocatable: &self.allocatable,
            profiles: &self.home.join("seccomp"),
        };
        plan.specification().map_err(StartFailure::Config)
    }

    /// The pod as its own containers are told of it: with addresses that the API may not know yet.
    fn with_addresses(&self, pod: &Pod, address: Option<Ipv4Addr>) -> Pod {
        let mut pod = pod.clone();
        let status = pod.status.get_or_insert_default();
        let host = self.host.to_string();
        let own = address.map_or_else(|| host.clone(), |address| address.to_string());
        status.host_ips = Some(vec![HostIP { ip: host.clone() }]);
        status.host_ip = Some(host);
        status.pod_ips = Some(vec![PodIP { ip: own.clone() }]);
        status.pod_ip = Some(own);
        pod
    }

    /// Only the run before the present one is kept.
    async fn forget_older(&self, pod: &Pod, name: &str, attempt: u32, sandbox: &M::Sandbox) {
        let Some(before) = attempt.checked_sub(1) else { return };
        if let Err(error) = sandbox.forget(&run_id(name, before)).await {
            tracing::debug!(pod = pod::name(pod), %error, "an earlier run was not there to be removed");
        }
        if let Err(error) = log::forget_before(&self.home, pod, name, before) {
            tracing::debug!(pod = pod::name(pod), %error, "logs of earlier runs were not removed");
        }
    }

    async fn post_start(
        &self,
        start: &Start<M::Sandbox>,
        (pid, since): (i32, Timestamp),
    ) -> Result<(i32, Timestamp), StartFailure> {
        let hook = start.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(hook) = hook else { return Ok((pid, since)) };
        let target = self.target(&start.sandbox, start.address, run_id(&start.container.name, start.attempt));
        match probe::hook(&target, hook, &start.container, Duration::from_mins(10)).await {
            Ok(()) => Ok((pid, since)),
            Err(error) => {
                let name = start.container.name.as_str();
                self.warn(&start.pod, Some(name), "FailedPostStartHook", &format!("PostStartHook failed: {error}"));
                Err(StartFailure::Hook { pid, since, grace: start.grace })
            }
        }
    }

    /// The preStop hook, for at most `timeout`.
    pub(crate) async fn pre_stop(
        &self,
        pod: &Pod,
        container: &Container,
        target: &Target<M::Sandbox>,
        timeout: Duration,
    ) {
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let Some(hook) = hook else { return };
        let ran = tokio::time::timeout(timeout, probe::hook(target, hook, container, timeout)).await;
        let error = match ran {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => format!("it did not end within {timeout:?}"),
        };
        self.warn(pod, Some(&container.name), "FailedPreStopHook", &format!("PreStopHook failed: {error}"));
    }

    /// Where a run is asked and where its pod answers.
    pub(crate) fn target(&self, sandbox: &M::Sandbox, address: Option<Ipv4Addr>, run: String) -> Target<M::Sandbox> {
        Target { sandbox: sandbox.clone(), run, address: address.map_or(self.host, IpAddr::V4) }
    }

    /// Removes what the pod leaves on disk when its object is gone.
    pub(crate) async fn forget(&self, pod: &Pod) {
        self.runs.remove(pod);
        let folders = [log::pod_folder(&self.home, pod), self.pod_folder(pod)];
        let removed = tokio::task::spawn_blocking(move || folders.iter().try_for_each(remove_folder)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(pod = pod::name(pod), %error, "could not remove all of the pod's files");
        }
    }
}

/// A run to be started.
pub(crate) struct Start<S> {
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) attempt: u32,
    pub(crate) image: Arc<Image>,
    pub(crate) sandbox: S,
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) grace: Duration,
    /// The run whose processes it is to see.
    pub(crate) processes_of: Option<String>,
}

fn make_files(last_words: &std::path::Path, log: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for path in [last_words, log] {
        std::fs::create_dir_all(path.parent().expect("it lies in the pod's folder"))?;
    }
    let file = std::fs::File::create(last_words)?;
    // Whatever user the container runs as, it may leave its last words.
    file.set_permissions(std::fs::Permissions::from_mode(0o666))
}

fn remove_folder(folder: &PathBuf) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
