//! The way from a command to the engine: the administrator's kubeconfig.

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::home::Home;
use crate::nodes::join::Joined;

/// The namespace of apps.
pub(crate) const NAMESPACE: &str = "default";

/// A client of the engine that runs on `home`.
pub(crate) async fn connect(home: &Home) -> Result<kube::Client> {
    if Joined::load(home)?.is_some() {
        bail!("{} is the home of a node that joined a cluster; ask where the cluster is", home.root().display());
    }
    if home.engine()?.is_none() {
        bail!("no engine runs on {}; start it with `shipway up`", home.root().display());
    }
    let path = home.path("kubeconfig");
    let kubeconfig = Kubeconfig::read_from(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}
