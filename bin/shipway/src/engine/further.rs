//! The engine's part in further nodes: it starts those that are wanted, and lets nodes in other processes come to it. Nothing of
//! this runs before there is one.

use std::time::Duration;

use anyhow::{Context, Result};
use shipway_apiserver::Identity;
use shipway_apiserver::pki::{Authority, NodeCaller};
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;

use super::Engine;
use crate::listings::node_name;
use crate::nodes;
use crate::output::one_line;

/// How soon a further node is started again that ended by itself.
const BREATH: Duration = Duration::from_secs(1);

impl Engine {
    /// Makes the further nodes as they are wanted, now and whenever it is told that something has changed or one ends.
    pub(super) async fn keep_nodes(&mut self, told: &mut Signal) {
        loop {
            if let Err(error) = self.start_nodes().await {
                tracing::error!(error = one_line(&error), "not all further nodes are as they should be");
            }
            let home = self.home.clone();
            tokio::select! {
                Some(()) = told.recv() => {}
                // Nobody wanted that, or it would not be started again.
                () = nodes::any_ends(&home) => tokio::time::sleep(BREATH).await,
            }
        }
    }

    async fn start_nodes(&mut self) -> Result<()> {
        let any = nodes::any(&self.home)?;
        if any || self.instance.listen.is_some() {
            self.open_to_nodes()?;
        }
        if !any {
            return Ok(());
        }
        let network = self.instance.network(&self.home);
        if !self.laid {
            shipway_network::lay_underlay(&network).await.context("cannot lay the network between the nodes")?;
            let address = self.instance.api_for_nodes(&self.home).context("this home is of an earlier version")?;
            let listener = TcpListener::bind(address).await;
            self.answer(listener.context("cannot listen on the network between the nodes")?);
            self.spawn("DNS for nodes", shipway_network::answer_nodes(self.network.clone(), self.stop.clone()));
            self.laid = true;
        }
        nodes::start_all(&self.home, &network).await
    }

    /// From here on nodes in other processes are reached and can come.
    fn open_to_nodes(&mut self) -> Result<()> {
        if !self.open {
            let authority = Authority::open(&self.home.path("pki")).context("cannot open the certificate authority")?;
            self.api.call_nodes(NodeCaller::new(authority)?);
            let client = self.client(Identity::controller("node-controller"));
            let (own, network, stop) = (node_name(), self.network.clone(), self.stop.clone());
            let overlay = async move { shipway_network::overlay(client, network, &own, true, stop).await };
            self.spawn("overlay", overlay);
            self.open = true;
        }
        Ok(())
    }
}
