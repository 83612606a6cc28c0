//! Nodes in processes of their own: what is asked of a node is sent to where its object says it listens, over TLS that only
//! the node by that name can answer. To the rest of the server they are nodes like those in this process.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use http::{HeaderMap, Request};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;

use crate::ApiServer;
use crate::body::Body;
use crate::pki::NodeCaller;
use crate::proxy::{Connection, Passing};
use crate::reply;
use crate::service::NodeService;

/// The node as its object says it is reached; none where that says nothing.
pub(crate) fn node(server: &ApiServer, caller: &Arc<NodeCaller>, name: &str) -> Option<NodeService> {
    let resource = server.registry().find("", "v1", "nodes")?;
    let object = server.cache().table(&resource).get(name)?;
    Some(service(caller.clone(), name.to_owned(), door(&object.value())?, server.closing()))
}

/// Where a node listens for the API server.
fn door(node: &Value) -> Option<SocketAddr> {
    let port = u16::try_from(node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64()?).ok()?;
    let addresses = node["status"]["addresses"].as_array()?;
    let mut internal = addresses.iter().filter(|address| address["type"] == "InternalIP");
    let address: IpAddr = internal.find_map(|address| address["address"].as_str()?.parse().ok())?;
    (port != 0).then_some(SocketAddr::new(address, port))
}

fn service(caller: Arc<NodeCaller>, name: String, address: SocketAddr, stop: CancellationToken) -> NodeService {
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Body>| {
        let (caller, name, stop) = (caller.clone(), name.clone(), stop.clone());
        let answered = async move {
            let connecting = connect(&caller, &name, address);
            let host = address.to_string();
            let passing = Passing { host: &host, told: HeaderMap::new(), stop };
            Ok::<_, Infallible>(passing.send(request, connecting).await.unwrap_or_else(|error| reply::failure(&error)))
        };
        answered.boxed()
    }))
}

async fn connect(caller: &NodeCaller, name: &str, address: SocketAddr) -> Result<Connection, String> {
    let config = Arc::new(caller.config(name)?);
    let stream = TcpStream::connect(address).await.map_err(|error| format!("dial tcp {address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(config).connect(ServerName::IpAddress(address.ip().into()), stream).await;
    Ok(Box::new(stream.map_err(|error| format!("tls to node {name} at {address}: {error}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_listens_where_its_status_says() {
        let node = |port: u32, address: &str| {
            let addresses = json!([{"type": "Hostname", "address": "a"}, {"type": "InternalIP", "address": address}]);
            json!({"status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}})
        };
        assert_eq!(door(&node(10250, "10.0.0.1")), Some("10.0.0.1:10250".parse().unwrap()));
        for (port, address) in [(0, "10.0.0.1"), (70_000, "10.0.0.1"), (10250, "a")] {
            assert_eq!(door(&node(port, address)), None);
        }
        assert_eq!(door(&json!({"status": {}})), None);
    }
}
