//! Several nodes on one machine: pods reach each other wherever they are, a node may be lost, and nothing runs twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as Moment};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shipway_network::{Network, NetworkConfig, lay_underlay, plug};
use shipway_tests::{Held, Instance, Residue, Signal, command_line, free_port, get, kill, pids, wait_for};

/// How long nodes and pods may take to be as they should be where no promise is about that.
const PATIENCE: Duration = Duration::from_mins(1);
/// By when the pods of a lost node run elsewhere.
const REPLACED: Duration = Duration::from_secs(10);
/// Asks each of its arguments and tells of those that do not answer.
const ASKER: &str = "
import ssl, sys, urllib.request
anybody = ssl._create_unverified_context()
for url in sys.argv[1:]:
    try:
        urllib.request.urlopen(url, timeout=10, context=anybody).read()
    except Exception as error:
        print(url, error)
";

/// Three nodes with six replicas of the example behind a service.
struct Cluster {
    instance: Instance,
    port: u16,
}

impl Cluster {
    fn start() -> Result<Self> {
        let instance = Instance::new()?;
        instance.ok(&["up", "--nodes", "3", "--api-port", "0"])?;
        let port = free_port()?;
        let published = format!("{port}:8080");
        instance.ok(&["run", "examples/hello/hello.py", "--replicas", "6", "--port", &published, "--detach"])?;
        Ok(Self { instance, port })
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.instance.kubectl(arguments).context("this machine has no kubectl")?
    }

    fn get(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let text = self.kubectl(&[&["get", "--output", "json"], arguments].concat())?;
        let mut list: Value = serde_json::from_str(&text)?;
        Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    fn pods(&self, app: &str) -> Result<Vec<Value>> {
        self.get(&["pods", "--selector", &format!("app={app}")])
    }

    /// The name of the engine's own node.
    fn own(&self) -> Result<String> {
        let nodes = self.get(&["nodes"])?;
        let mut names = nodes.iter().map(|node| text(&node["metadata"]["name"]));
        names.find(|name| !name.starts_with("node-")).context("the engine has no node")
    }

    /// A stateful set of the example's image, one pod a node.
    fn add_set(&self) -> Result<()> {
        let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "db"}}}]);
        let container = json!({"name": "c", "image": "shipway.local/hello:latest"});
        let pod =
            json!({"terminationGracePeriodSeconds": 1, "containers": [container], "topologySpreadConstraints": spread});
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
            "spec": {
                "replicas": 3, "serviceName": "db", "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod},
            },
        });
        let applied = self.instance.kubectl_with_input(&["apply", "--filename", "-"], &set.to_string());
        applied.context("this machine has no kubectl")??;
        self.wait_ready("db", 3, PATIENCE)
    }

    /// Waits until that many pods of an app are ready on nodes that are.
    fn wait_ready(&self, app: &str, count: usize, patience: Duration) -> Result<()> {
        wait_for(&format!("{count} pods of {app}"), patience, || {
            let lost: BTreeSet<String> = self.get(&["nodes"])?.iter().filter(|it| !ready(it)).map(name).collect();
            let pods = self.pods(app)?;
            let there = pods.iter().filter(|pod| ready(pod) && !lost.contains(&node_of(pod))).count();
            ensure!(there >= count && pods.iter().filter(|pod| ready(pod)).count() >= count, "only {there} are ready");
            Ok(true)
        })
    }

    fn wait_nodes(&self) -> Result<()> {
        wait_for("all nodes", PATIENCE, || {
            Ok(self
                .get(&["nodes"])?
                .iter()
                .all(|node| ready(node) && node["spec"]["taints"].as_array().is_none_or(Vec::is_empty)))
        })
    }

    /// Fails unless every pod of the example reaches every other one by its address, the service by its name, and the API.
    fn all_reach_all(&self) -> Result<()> {
        let pods: Vec<Value> = self.pods("hello")?.into_iter().filter(ready).collect();
        let addresses = pods.iter().map(|pod| format!("http://{}:8080/", text(&pod["status"]["podIP"])));
        let service = format!("http://hello.default.svc.cluster.local:{}/", self.port);
        let others = [service, "https://kubernetes.default/version".to_owned()];
        let all: Vec<String> = addresses.chain(others).collect();
        for pod in &pods {
            let mut words =
                vec!["exec", pod["metadata"]["name"].as_str().unwrap_or_default(), "--", "python3", "-c", ASKER];
            words.extend(all.iter().map(String::as_str));
            let missed = self.kubectl(&words)?;
            ensure!(missed.is_empty(), "{} on {} does not reach {missed}", name(pod), node_of(pod));
        }
        Ok(())
    }

    /// Fails unless each node's namespace holds the routes that follow from the API: to its peers, and to its own pods.
    fn as_the_api_says(&self) -> Result<()> {
        let (nodes, pods) = (self.get(&["nodes"])?, self.get(&["pods", "--all-namespaces"])?);
        for node in &nodes {
            let name = name(node);
            let others = nodes.iter().filter(|other| other["metadata"]["name"] != *name);
            let peers: BTreeSet<String> = others.map(|other| text(&other["spec"]["podCIDR"])).collect();
            let own = pods.iter().filter(|pod| node_of(pod) == name);
            let own: BTreeSet<String> = own.map(|pod| format!("{}/32", text(&pod["status"]["podIP"]))).collect();
            let process = if name == self.own()? { std::process::id() } else { self.instance.machine(&name)? };
            let held = Held::of(process, &self.instance.id()?)?;
            ensure!(
                held == Held { peers: peers.clone(), pods: own.clone() },
                "{name}: {held:?}, not {peers:?} {own:?}"
            );
        }
        Ok(())
    }

    fn leaves_nothing(self) -> Result<()> {
        let id = self.instance.id()?;
        self.instance.ok(&["down"])?;
        let residue = Residue::of(self.instance.home(), &id)?;
        ensure!(residue == Residue::default(), "{residue:?}");
        Ok(())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn name(object: &Value) -> String {
    text(&object["metadata"]["name"])
}

fn node_of(pod: &Value) -> String {
    text(&pod["spec"]["nodeName"])
}

fn ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
    object["metadata"]["deletionTimestamp"].is_null() && ready.any(|condition| condition["status"] == "True")
}

/// The processes of the example of the instance with that id, on all its nodes, by the host names of their pods.
fn processes(id: &str, of: &str) -> Result<BTreeMap<String, Vec<u32>>> {
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let group = format!("/shipway-{id}");
    let ours = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|it| it.contains(&group));
    for pid in pids()?.into_iter().filter(|pid| command_line(*pid).contains("/app/hello.py") && ours(*pid)) {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let host = environment.split('\0').find_map(|it| it.strip_prefix("HOSTNAME="));
        if let Some(host) = host.filter(|host| host.starts_with(of) && !command_line(pid).starts_with("/.shipway")) {
            found.entry(host.to_owned()).or_default().push(pid);
        }
    }
    Ok(found)
}

/// Looks again and again whether a pod of a set runs twice.
struct Guard {
    stop: Arc<AtomicBool>,
    looking: std::thread::JoinHandle<Result<()>>,
}

impl Guard {
    fn start(id: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let looking = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                for (host, twice) in processes(&id, "db-")?.into_iter().filter(|(_, pids)| pids.len() > 1) {
                    // One of them may have been about to become something else.
                    let still = processes(&id, "db-")?.remove(&host).unwrap_or_default();
                    ensure!(still.len() < 2, "{host} runs as {twice:?}");
                }
                std::thread::sleep(Duration::from_millis(30));
            }
            Ok(())
        });
        Self { stop, looking }
    }

    fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.looking.join().map_err(|_| anyhow::anyhow!("the guard panicked"))?
    }
}

#[test]
fn three_nodes_come_up_and_a_pod_reaches_every_other_one_wherever_it_runs() -> Result<()> {
    let cluster = Cluster::start()?;
    let nodes = cluster.get(&["nodes"])?;
    ensure!(nodes.len() == 3 && nodes.iter().all(ready), "{nodes:?}");
    let subnets: BTreeSet<String> = nodes.iter().map(|node| text(&node["spec"]["podCIDR"])).collect();
    ensure!(subnets.len() == 3, "{subnets:?}");
    let on: BTreeSet<String> = cluster.pods("hello")?.iter().map(node_of).collect();
    ensure!(on.len() == 3, "all six pods are on {on:?}");
    cluster.all_reach_all()?;
    cluster.as_the_api_says()?;

    let services = cluster.get(&["services"])?;
    let node_port =
        services.iter().find(|it| name(it) == "hello").and_then(|it| it["spec"]["ports"][0]["nodePort"].as_u64());
    let node_port = u16::try_from(node_port.context("no node port")?)?;
    for node in &nodes {
        let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
        let mut internal = addresses.filter(|it| it["type"] == "InternalIP").map(|it| text(&it["address"]));
        let address = internal.next_back().context("a node without an address")?;
        let place = SocketAddr::new(address.parse()?, node_port);
        // As often as there are pods: each node sends to those of others too.
        for _ in 0..6 {
            ensure!(get(place, "/")?.starts_with("Hello"), "{place}");
        }
    }

    let far = cluster.pods("hello")?.into_iter().find(|pod| node_of(pod) == "node-3").context("no pod on node-3")?;
    let far = name(&far);
    ensure!(cluster.kubectl(&["logs", &far])?.contains("listening on port"), "no log");
    ensure!(cluster.kubectl(&["exec", &far, "--", "python3", "-c", "print(6 * 7)"])?.trim() == "42", "no output");
    ensure!(cluster.kubectl(&["top", "pods"])?.contains(&far), "no figures");
    cluster.instance.ok(&["node", "remove", "node-3"])?;
    ensure!(cluster.get(&["nodes"])?.len() == 2, "it is still there");
    cluster.wait_ready("hello", 6, PATIENCE)?;
    cluster.leaves_nothing()
}

#[test]
fn pods_of_a_lost_node_run_elsewhere_within_ten_seconds_and_those_of_a_set_never_twice() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.add_set()?;
    let guard = Guard::start(cluster.instance.id()?);
    for (verb, node) in [("kill", "node-2"), ("cut", "node-3")] {
        let lost = Moment::now();
        cluster.instance.ok(&["node", verb, node])?;
        wait_for("the node to be missed", REPLACED, || {
            Ok(cluster.get(&["nodes"])?.iter().any(|it| name(it) == node && !ready(it)))
        })?;
        for (app, count) in [("db", 3), ("hello", 6)] {
            cluster.wait_ready(app, count, REPLACED.saturating_sub(lost.elapsed()))?;
        }
        let elsewhere = |pod: &Value| !ready(pod) || node_of(pod) != node;
        ensure!(cluster.pods("hello")?.iter().all(elsewhere), "a pod of {node} counts as ready");
        cluster.instance.ok(&["node", "heal", node])?;
        cluster.wait_nodes()?;
        wait_for("pods that were given away to be gone", PATIENCE, || {
            Ok(cluster.pods("hello")?.len() == 6 && processes(&cluster.instance.id()?, "hello-")?.len() >= 6)
        })?;
    }
    cluster.wait_ready("db", 3, PATIENCE)?;
    guard.end()?;

    cluster.kubectl(&["drain", "node-2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"])?;
    let left: Vec<String> = cluster.get(&["pods"])?.iter().filter(|pod| node_of(pod) == "node-2").map(name).collect();
    ensure!(left.is_empty(), "{left:?}");
    cluster.kubectl(&["uncordon", "node-2"])?;
    cluster.wait_ready("hello", 6, PATIENCE)?;
    cluster.all_reach_all()?;
    cluster.as_the_api_says()?;
    cluster.leaves_nothing()
}

#[test]
fn containers_go_on_when_the_engine_or_a_nodes_process_is_killed() -> Result<()> {
    let cluster = Cluster::start()?;
    let before = processes(&cluster.instance.id()?, "hello-")?;
    cluster.instance.kill_engine()?;
    kill(cluster.instance.node_process("node-2")?, Signal::KILL)?;
    cluster.instance.ok(&["up"])?;
    cluster.wait_ready("hello", 6, PATIENCE)?;
    let own: BTreeSet<String> = cluster.pods("hello")?.iter().map(name).collect();
    let after = processes(&cluster.instance.id()?, "hello-")?;
    for pod in &own {
        ensure!(after.get(pod) == before.get(pod), "{pod}: {:?} became {:?}", before.get(pod), after.get(pod));
    }
    cluster.all_reach_all()?;
    cluster.as_the_api_says()?;
    // A node whose power flickers is started again by the engine.
    let machine = cluster.instance.machine("node-3")?;
    kill(machine, Signal::KILL)?;
    wait_for("the node to be started again", PATIENCE, || Ok(cluster.instance.machine("node-3")? != machine))?;
    cluster.wait_ready("hello", 6, PATIENCE)?;
    // What was there comes back after everything was stopped, too.
    cluster.instance.ok(&["down"])?;
    cluster.instance.ok(&["up"])?;
    ensure!(cluster.get(&["nodes"])?.len() == 3, "nodes were forgotten");
    cluster.wait_ready("hello", 6, PATIENCE)
}

/// Another machine, as far as networks, mounts and names are concerned, with one cable to this one.
struct Elsewhere {
    holder: std::process::Child,
    cable: NetworkConfig,
}

impl Elsewhere {
    fn new() -> Result<Self> {
        let mut command = Command::new("unshare");
        let script = "hostname elsewhere && echo ready && exec sleep 1000";
        command.args(["--net", "--mount", "--uts", "sh", "-c", script]).stdout(Stdio::piped());
        let mut holder = command.spawn().context("cannot run unshare")?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("it is piped")?).read_line(&mut line)?;
        let byte = fastrand::u8(1..250);
        let subnet = |second: u8| (Ipv4Addr::new(198, second, byte, 0), 24);
        let cable = NetworkConfig {
            instance: format!("{:06x}", fastrand::u32(..) & 0x00ff_ffff),
            pod_subnet: subnet(19),
            cluster_subnet: subnet(19),
            underlay: Some(subnet(18)),
            overlay: 0,
            api_endpoint: None,
            service_subnet: subnet(17),
            dns_address: Ipv4Addr::new(198, 17, byte, 1),
            api_address: Ipv4Addr::new(198, 17, byte, 2),
            cluster_domain: "test".to_owned(),
        };
        let elsewhere = Self { holder, cable };
        let namespace = format!("/proc/{}/ns/net", elsewhere.holder.id());
        runtime()?.block_on(async {
            lay_underlay(&elsewhere.cable).await?;
            plug(&elsewhere.cable, 2, namespace.as_ref()).await
        })?;
        Ok(elsewhere)
    }

    /// The address of this machine as seen from there.
    fn here(&self) -> Result<String> {
        Ok(self.cable.node_address(1).context("the cable has no addresses")?.to_string())
    }

    /// Runs a command there.
    fn run(&self, command: &mut Command) -> Result<String> {
        let mut there = Command::new("nsenter");
        there.args(["--target", &self.holder.id().to_string(), "--net", "--mount", "--uts", "--"]);
        there.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            value.map(|value| there.env(name, value));
        }
        let output = there.output().context("cannot run nsenter")?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{command:?} there: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.holder.kill().and_then(|()| self.holder.wait()));
        if let Ok(runtime) = runtime() {
            drop(runtime.block_on(Network::teardown(&self.cable)));
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

#[test]
fn another_machine_joins_with_a_token_and_nobody_does_without_a_good_one() -> Result<()> {
    let elsewhere = Elsewhere::new()?;
    let instance = Instance::new()?;
    let refused = instance.fails(&["token", "create"])?;
    ensure!(refused.contains("shipway up"), "{refused}");
    instance.ok(&["up", "--api-port", "0", "--listen", &elsewhere.here()?])?;
    let port = free_port()?;
    let command = instance.ok(&["token", "create", "--ttl", "1h"])?;
    let words: Vec<&str> = command.split_whitespace().skip(1).collect();
    ensure!(words.len() == 6 && words[0] == "join", "{command}");

    let other = Instance::new()?;
    let join = |change: &dyn Fn(usize, &str) -> String| {
        let words: Vec<String> = words.iter().enumerate().map(|(at, word)| change(at, word)).collect();
        elsewhere.run(&mut other.command(&words.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let wrong = join(&|at, word| if at == 3 { format!("{}aaaa", &word[..word.len() - 4]) } else { word.to_owned() });
    ensure!(wrong.is_err_and(|error| error.to_string().contains("token")), "a wrong token was taken");
    let digest = format!("sha256:{}", "0".repeat(64));
    let forged = join(&|at, word| if at == 5 { digest.clone() } else { word.to_owned() });
    ensure!(forged.is_err_and(|error| error.to_string().contains("somebody else")), "a wrong authority was taken");
    join(&|_, word| word.to_owned())?;

    let cluster = Cluster { instance, port };
    let nodes = cluster.get(&["nodes"])?;
    let joined = nodes.iter().find(|node| name(node) == "elsewhere").context("it has not joined")?;
    ensure!(ready(joined) && nodes.len() == 2, "{nodes:?}");
    // The other machine has images of its own: there is no registry here, so it is handed a copy before it gets pods.
    cluster.kubectl(&["cordon", "elsewhere"])?;
    let published = format!("{port}:8080");
    let run = ["run", "examples/hello/hello.py", "--replicas", "1", "--port", &published, "--detach"];
    cluster.instance.ok(&run)?;
    let images = format!("{}/.", cluster.instance.home().join("content").display());
    elsewhere.run(Command::new("cp").arg("-a").arg(images).arg(other.home().join("content")))?;
    cluster.kubectl(&["uncordon", "elsewhere"])?;
    cluster.kubectl(&["scale", "deployment", "hello", "--replicas=4"])?;
    cluster.wait_ready("hello", 4, PATIENCE)?;
    let on: BTreeSet<String> = cluster.pods("hello")?.iter().map(node_of).collect();
    ensure!(on.contains("elsewhere") && on.len() == 2, "{on:?}");
    cluster.all_reach_all()?;
    let far = cluster.pods("hello")?.into_iter().find(|pod| node_of(pod) == "elsewhere").context("no pod there")?;
    ensure!(cluster.kubectl(&["logs", &name(&far)])?.contains("listening on port"), "no log");

    let id = other.id()?;
    elsewhere.run(&mut other.command(&["down"]))?;
    let residue = Residue::of(other.home(), &id)?;
    ensure!(residue == Residue::default(), "{residue:?}");
    cluster.leaves_nothing()
}

/// How many steps are taken: `SHIPWAY_STORM_STEPS`.
const STEPS: usize = 6;

#[test]
fn after_a_storm_of_lost_and_restarted_nodes_everything_is_as_the_api_says() -> Result<()> {
    let told = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let steps = told("SHIPWAY_STORM_STEPS").map_or(Ok(STEPS), usize::try_from)?;
    let seed = told("SHIPWAY_STORM_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}, {steps} steps");
    let mut random = fastrand::Rng::with_seed(seed);
    let cluster = Cluster::start()?;
    cluster.add_set()?;
    let guard = Guard::start(cluster.instance.id()?);
    for step in 0..steps {
        let node = ["node-2", "node-3"][random.usize(..2)];
        let verb = ["kill", "cut", "heal", "restart", "restart the engine", "flicker"][random.usize(..6)];
        println!("{step}: {verb} {node}");
        match verb {
            "restart" => drop(cluster.instance.node_process(node).and_then(|pid| kill(pid, Signal::KILL))),
            // Its power is gone and back, and nobody wanted that.
            "flicker" => drop(cluster.instance.machine(node).and_then(|pid| kill(pid, Signal::KILL))),
            "restart the engine" => {
                cluster.instance.kill_engine()?;
                cluster.instance.command(&["up"]).spawn()?.wait()?;
            }
            "heal" => drop(cluster.instance.output(&["node", "heal", node])?),
            _ => drop(cluster.instance.ok(&["node", verb, node])?),
        }
        std::thread::sleep(Duration::from_millis(random.u64(..3000)));
    }
    cluster.instance.ok(&["up"])?;
    cluster.instance.ok(&["node", "heal", "node-2", "node-3"])?;
    cluster.wait_nodes()?;
    wait_for("all pods to be whole", PATIENCE, || {
        let pods = cluster.get(&["pods"])?;
        ensure!(pods.len() == 9 && pods.iter().all(ready), "{} pods", pods.len());
        Ok(true)
    })?;
    guard.end()?;
    cluster.all_reach_all()?;
    wait_for("what nodes hold to be what the API says", PATIENCE, || cluster.as_the_api_says().map(|()| true))?;
    cluster.leaves_nothing()
}
