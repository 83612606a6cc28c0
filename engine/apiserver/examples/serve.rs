//! An API server alone: no node, no controllers. For trying clients against.
//!
//! `cargo run -p shipway-apiserver --example serve -- <folder> [port]` keeps its state in the folder, writes a
//! `kubeconfig` there, and serves until it is interrupted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use shipway_apiserver::pki::{Authority, FrontProxy, TokenKey};
use shipway_apiserver::{ApiServer, Config, Identity};
use shipway_store::{Log, Options};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: serve <folder> [port]")?);
    let port = arguments.next().map_or(Ok(6443), |port| port.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let address = listener.local_addr()?;
    let mut config = Config::new((Ipv4Addr::new(10, 73, 128, 0), 17), address, 30000..=32767);
    config.token_key = Some(Arc::new(TokenKey::open(&dir.join("pki"))?));
    config.front_proxy = Some(Arc::new(FrontProxy::open(&dir.join("pki"))?));
    let server = ApiServer::open(Log::open(&dir.join("store"), Options::default())?, config).await?;
    let authority = Authority::open(&dir.join("pki"))?;
    let pair = authority.issue_server(&["localhost".into()], &[IpAddr::V4(Ipv4Addr::LOCALHOST)])?;
    let kubeconfig = write_kubeconfig(&dir, &authority, address)?;
    println!("serving on {address}; export KUBECONFIG={}", kubeconfig.display());
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    let signal = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    server.serve(listener, authority.server_config(&pair)?, stop).await?;
    signal.await?;
    Ok(())
}

fn write_kubeconfig(dir: &Path, authority: &Authority, address: SocketAddr) -> Result<PathBuf> {
    let admin = authority.issue_client(&Identity::admin())?;
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    let document = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "shipway", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority-data": encode(authority.ca_pem()),
        }}],
        "users": [{"name": "admin", "user": {
            "client-certificate-data": encode(&admin.certificate),
            "client-key-data": encode(&admin.key),
        }}],
        "contexts": [{"name": "shipway", "context": {"cluster": "shipway", "user": "admin"}}],
        "current-context": "shipway",
    });
    let path = dir.join("kubeconfig");
    std::fs::write(&path, serde_json::to_vec_pretty(&document)?)?;
    Ok(path)
}
