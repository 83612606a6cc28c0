//! Further nodes of this machine: `shipway node`. What somebody wants is written down; the engine makes it so, when it is told
//! that something was written and whenever it starts. What takes a node away needs no engine.

mod identity;
pub(crate) mod join;
mod machine;
mod process;
mod record;
mod renewal;
pub(crate) mod token;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use futures::future::{select_all, try_join_all};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use shipway_network::NetworkConfig;

use self::record::Further;
use crate::cli::{ListArgs, NodeCommand};
use crate::client::connect;
use crate::home::Home;
use crate::instance::Instance;
use crate::listings::{is_ready, node_name};
use crate::output::{print_list, write_out};

/// How long a node may take to become ready.
const PATIENCE: Duration = Duration::from_mins(1);

/// `shipway node ...`.
pub(crate) async fn node(home: &Home, command: NodeCommand) -> Result<()> {
    match command {
        NodeCommand::Add { names } => {
            for name in &names {
                add(home, name)?;
            }
            settle(home, &names).await?;
            tell(&names, "added")
        }
        NodeCommand::Remove { names } => {
            try_join_all(names.iter().map(|name| remove(home, name))).await?;
            tell(&names, "removed")
        }
        NodeCommand::Kill { names } => {
            try_join_all(names.iter().map(|name| kill(home, name))).await?;
            tell(&names, "killed")
        }
        NodeCommand::Cut { names } => {
            try_join_all(names.iter().map(|name| cut(home, name))).await?;
            tell(&names, "cut off")
        }
        NodeCommand::Heal { names } => {
            for name in &names {
                heal(home, name).await?;
            }
            settle(home, &names).await?;
            tell(&names, "healed")
        }
        NodeCommand::Ls(args) => list(home, &args).await,
        NodeCommand::Run { name } => {
            process::prepare();
            process::run(local(home, &record::find(home, &name)?)?).await
        }
        NodeCommand::Stay => join::stay(home).await,
        NodeCommand::Boot { .. } | NodeCommand::Init { .. } => unreachable!("handled before the runtime starts"),
    }
}

/// The parts of a machine, which must have one thread; false for every other command.
pub(crate) fn before_threads(home: &Home, command: &NodeCommand) -> Result<bool> {
    match command {
        NodeCommand::Boot { name } => machine::boot(home, &record::find(home, name)?).map(|()| true),
        NodeCommand::Init { name } => machine::init(home, &record::find(home, name)?).map(|()| true),
        _ => Ok(false),
    }
}

fn tell(names: &[String], what: &str) -> Result<()> {
    names.iter().try_for_each(|name| write_out(&format!("node {name} {what}\n")))
}

/// Whether this machine has further nodes.
pub(crate) fn any(home: &Home) -> Result<bool> {
    Ok(!record::all(home)?.is_empty())
}

/// Adds nodes until there are that many with the engine's, named by their numbers; gives the names of all further ones.
pub(crate) fn fill(home: &Home, count: u8) -> Result<Vec<String>> {
    for number in 2..=count {
        if record::all(home)?.len() + 1 < usize::from(count) {
            let name = format!("node-{number}");
            if record::find(home, &name).is_err() {
                add(home, &name)?;
            }
        }
    }
    Ok(record::all(home)?.into_iter().filter(Further::is_wanted).map(|node| node.name).collect())
}

fn add(home: &Home, name: &str) -> Result<()> {
    if home.path("instance.json").exists() && Instance::load(home)?.node_subnet.is_none() {
        bail!("this home is of an earlier version, whose one node has all addresses; begin with a new --home");
    }
    let _lock = record::lock(home)?;
    record::add(home, name).map(drop)
}

async fn kill(home: &Home, name: &str) -> Result<()> {
    let _lock = record::lock(home)?;
    let mut node = record::find(home, name)?;
    node.record.killed = true;
    node.save()?;
    machine::kill(&network(home)?, &node).await
}

async fn cut(home: &Home, name: &str) -> Result<()> {
    let _lock = record::lock(home)?;
    let mut node = record::find(home, name)?;
    node.record.cut = true;
    node.save()?;
    if machine::pid(&node)?.is_some() {
        shipway_network::cut(&network(home)?, node.record.index, true).await?;
    }
    Ok(())
}

async fn heal(home: &Home, name: &str) -> Result<()> {
    let _lock = record::lock(home)?;
    let mut node = record::find(home, name)?;
    (node.record.killed, node.record.cut) = (false, false);
    node.save()?;
    if machine::pid(&node)?.is_some() {
        shipway_network::cut(&network(home)?, node.record.index, false).await?;
    }
    Ok(())
}

async fn remove(home: &Home, name: &str) -> Result<()> {
    let _lock = record::lock(home)?;
    let node = record::find(home, name)?;
    machine::kill(&network(home)?, &node).await?;
    machine::sweep(home, &node).await?;
    if home.engine()?.is_some() {
        let nodes: Api<Node> = Api::all(connect(home).await?);
        match nodes.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(error)) if error.code == 404 => {}
            other => drop(other.with_context(|| format!("cannot remove the object of node {name}"))?),
        }
    }
    std::fs::remove_dir_all(&node.folder).with_context(|| format!("cannot remove {}", node.folder.display()))
}

fn network(home: &Home) -> Result<NetworkConfig> {
    Ok(Instance::load(home)?.network(home))
}

/// What the process of a further node has to know.
fn local(home: &Home, node: &Further) -> Result<process::Facts> {
    let instance = Instance::load(home)?;
    let network = instance.network(home);
    let places = network.node_address(node.record.index).zip(instance.api_for_nodes(home));
    let (address, api) = places.context("the instance has no network for further nodes")?;
    Ok(process::Facts {
        name: node.name.clone(),
        folder: node.folder.clone(),
        images: (home.path("content"), home.path("layers")),
        collects: None,
        layout: node.layout(home),
        network,
        api,
        address: address.into(),
    })
}

/// Lets a running engine make the nodes as they are wanted, and waits until these are ready. Without an engine, the next one
/// will.
pub(crate) async fn settle(home: &Home, names: &[String]) -> Result<()> {
    let Some(engine) = home.engine()?.and_then(Pid::from_raw) else { return Ok(()) };
    let nodes: Api<Node> = Api::all(connect(home).await?);
    kill_process(engine, Signal::HUP).context("cannot tell the engine of its nodes")?;
    let waiting = names.iter().map(|name| {
        let nodes = nodes.clone();
        async move {
            let ready = |node: Option<&Node>| node.is_some_and(is_ready);
            let waited = tokio::time::timeout(PATIENCE, await_condition(nodes, name, ready)).await;
            let log =
                || format!("node {name} is not ready after {PATIENCE:?}; see {}", home.nodes().join(name).display());
            waited.with_context(log)?.map(drop).map_err(anyhow::Error::from)
        }
    });
    try_join_all(waiting).await.map(drop)
}

/// Starts those nodes that are to run, as many as can be; the engine's part.
pub(crate) async fn start_all(home: &Home, network: &NetworkConfig) -> Result<()> {
    let lock = home.clone();
    let _lock = tokio::task::spawn_blocking(move || record::lock(&lock)).await??;
    let mut result = Ok(());
    for node in record::all(home)?.iter().filter(|node| !node.record.killed) {
        let started = machine::start(home, network, node).await;
        result = result.and(started.with_context(|| format!("cannot start node {}", node.name)));
    }
    result
}

/// Waits until one of the further nodes that run ends.
pub(crate) async fn any_ends(home: &Home) {
    let nodes = record::all(home).inspect_err(|error| tracing::warn!(%error, "nobody looks after further nodes"));
    let ends: Vec<_> = nodes.unwrap_or_default().iter().filter_map(machine::handle).collect();
    if ends.is_empty() {
        return std::future::pending().await;
    }
    drop(select_all(ends.iter().map(|machine| machine.readable().boxed())).await);
}

/// Ends all further nodes; they are remembered.
pub(crate) async fn stop_all(home: &Home, network: &NetworkConfig) -> Result<()> {
    let nodes = record::all(home)?;
    let _lock = if nodes.is_empty() { None } else { Some(record::lock(home)?) };
    for node in nodes {
        machine::kill(network, &node).await?;
        machine::sweep(home, &node).await?;
    }
    Ok(())
}

/// Where the pods of further nodes are.
pub(crate) fn layouts(home: &Home) -> Result<Vec<shipway_container::Layout>> {
    Ok(record::all(home)?.iter().map(|node| node.layout(home)).collect())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeRow {
    name: String,
    /// `running`, `killed`, `cut`, `stopped`, or `joined` from elsewhere.
    state: &'static str,
    ready: bool,
    address: Option<String>,
    pods: Option<String>,
}

async fn list(home: &Home, args: &ListArgs) -> Result<()> {
    let mut objects = match home.engine()? {
        Some(_) => Api::<Node>::all(connect(home).await?).list(&ListParams::default()).await?.items,
        None => Vec::new(),
    };
    let mut rows = Vec::new();
    for node in record::all(home)? {
        let state = match (&node.record, machine::pid(&node)?) {
            (record, _) if record.killed => "killed",
            (_, None) => "stopped",
            (record, _) if record.cut => "cut",
            _ => "running",
        };
        let at = objects.iter().position(|object| object.name_any() == node.name);
        rows.push(row(node.name, state, at.map(|at| objects.remove(at)).as_ref()));
    }
    let own = node_name();
    let other = |object: &Node| if object.name_any() == own { "running" } else { "joined" };
    rows.splice(0..0, objects.iter().map(|object| row(object.name_any(), other(object), Some(object))));
    print_list(args.output, &rows, &["NAME", "STATE", "READY", "ADDRESS", "PODS"], |row| {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![row.name.clone(), row.state.to_owned(), row.ready.to_string(), text(&row.address), text(&row.pods)]
    })
}

fn row(name: String, state: &'static str, object: Option<&Node>) -> NodeRow {
    let addresses = object.and_then(|node| node.status.as_ref()?.addresses.as_ref());
    let internal = addresses.into_iter().flatten().find(|address| address.type_ == "InternalIP");
    NodeRow {
        name,
        state,
        ready: object.is_some_and(is_ready),
        address: internal.map(|address| address.address.clone()),
        pods: object.and_then(|node| node.spec.as_ref()?.pod_cidr.clone()),
    }
}
