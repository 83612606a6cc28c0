//! The commands that only look.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::json;

use crate::cli::{ListArgs, LogsArgs, Output};
use crate::client::{NAMESPACE, connect};
use crate::home::Home;
use crate::instance::Instance;
use crate::nodes::join::Joined;
use crate::output::{LogLines, age, print_json, print_list, write_out};

/// The name of this machine's node.
pub(crate) fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

/// `shipway version`.
pub(crate) fn version(list: &ListArgs) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    match list.output {
        Output::Json => print_json(&json!({ "version": version, "kubernetes": "v1.36" })),
        Output::Table => write_out(&format!("shipway {version}, Kubernetes API v1.36\n")),
    }
}

/// `shipway kubeconfig`.
pub(crate) fn kubeconfig(home: &Home) -> Result<()> {
    let path = home.path("kubeconfig");
    let text = std::fs::read_to_string(&path);
    write_out(
        &text.with_context(|| format!("no kubeconfig at {}; start the engine with `shipway up`", path.display()))?,
    )
}

/// `shipway ps`.
pub(crate) async fn apps(home: &Home, list: &ListArgs) -> Result<()> {
    let apps = shipway_deploy::list(&connect(home).await?).await?;
    print_list(list.output, &apps, &["NAME", "READY", "PORTS", "IMAGE", "AGE"], |app| {
        let ports: Vec<String> = app.ports.iter().map(ToString::to_string).collect();
        let image = app.image.split('@').next().unwrap_or_default().to_owned();
        let ready = format!("{}/{}", app.ready, app.replicas);
        vec![app.name.clone(), ready, ports.join(","), image, age(app.created.as_deref())]
    })
}

/// `shipway logs`.
pub(crate) async fn logs(home: &Home, args: &LogsArgs) -> Result<()> {
    let client = connect(home).await?;
    if !shipway_deploy::list(&client).await?.iter().any(|app| app.name == args.name) {
        return Err(shipway_deploy::DeployError::NoSuchApp { name: args.name.clone() }.into());
    }
    let lines = LogLines::new();
    shipway_deploy::follow(&client, NAMESPACE, &args.name, args.follow, |pod, text| lines.line(pod, text)).await;
    Ok(())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    running: bool,
    pid: Option<i32>,
    home: String,
    api: Option<String>,
    nodes: Vec<NodeRow>,
}

#[derive(Serialize)]
struct NodeRow {
    name: String,
    ready: bool,
}

/// `shipway status`; fails where no engine runs, so that scripts can ask.
pub(crate) async fn status(home: &Home, list: &ListArgs) -> Result<()> {
    let pid = home.engine()?;
    let mut status =
        Status { running: pid.is_some(), pid, home: home.root().display().to_string(), api: None, nodes: Vec::new() };
    if let Some(joined) = Joined::load(home)? {
        status.api = Some(joined.server());
    } else if status.running {
        status.api = Some(format!("https://127.0.0.1:{}", Instance::load(home)?.api_port));
        let nodes = kube::Api::<Node>::all(connect(home).await?).list(&kube::api::ListParams::default()).await?;
        status.nodes = nodes.iter().map(|node| NodeRow { name: node.name_any(), ready: is_ready(node) }).collect();
    }
    match list.output {
        Output::Json => print_json(&status)?,
        Output::Table => write_out(&describe(&status))?,
    }
    if status.running { Ok(()) } else { anyhow::bail!("no engine runs; start it with `shipway up`") }
}

fn describe(status: &Status) -> String {
    let mut lines = vec![format!("home     {}", status.home)];
    lines.extend(status.pid.map(|pid| format!("engine   running, process {pid}")));
    lines.extend(status.api.as_ref().map(|api| format!("api      {api}")));
    let ready = |node: &NodeRow| if node.ready { "Ready" } else { "NotReady" };
    lines.extend(status.nodes.iter().map(|node| format!("node     {} {}", node.name, ready(node))));
    lines.join("\n") + "\n"
}

/// Whether the node says so itself.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
