//! Plugging the further nodes of this machine together. Each function does one thing, whoever calls it and whatever is there
//! already: the engine when it starts, and the commands that add nodes, cut them off and take them away.

use std::fs::File;
use std::path::Path;

use crate::NetworkError;
use crate::config::NetworkConfig;
use crate::links::{Links, Namespace, apart, configure_uplink};

/// Makes the bridge that the nodes of this machine are plugged into.
pub async fn lay_underlay(config: &NetworkConfig) -> Result<(), NetworkError> {
    let config = config.clone();
    apart(None, move |handle| async move { Links::new(handle).lay_underlay(&config).await }).await
}

/// Gives a network namespace an uplink, with the address that belongs to the index, and the host as the way to everywhere.
pub async fn plug(config: &NetworkConfig, index: u8, namespace: &Path) -> Result<(), NetworkError> {
    let missing = || NetworkError::Config(format!("no node of this machine can have the index {index}"));
    let (gateway, address) = config.node_address(1).zip(config.node_address(index)).ok_or_else(missing)?;
    let opened = File::open(namespace);
    let file = opened.map_err(|source| NetworkError::Namespace { path: namespace.to_owned(), source })?;
    let node = Namespace { file, path: namespace.to_owned() };
    let (config, end) = (config.clone(), node.try_clone()?);
    apart(None, move |handle| async move { Links::new(handle).plug(&config, index, &end).await }).await?;
    configure_uplink(node, address, gateway).await
}

/// Takes a node's uplink away; it may be gone already.
pub async fn unplug(config: &NetworkConfig, index: u8) -> Result<(), NetworkError> {
    let name = config.uplink(index);
    apart(None, move |handle| async move { Links::new(handle).unplug(&name).await }).await
}

/// Cuts a node off, or connects it again.
pub async fn cut(config: &NetworkConfig, index: u8, off: bool) -> Result<(), NetworkError> {
    let name = config.uplink(index);
    apart(None, move |handle| async move { Links::new(handle).set_carrying(&name, !off).await }).await
}
