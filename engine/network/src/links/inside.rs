//! The inside of a pod's network namespace: loopback, `eth0` with the pod's address, one route to everywhere.

use std::net::Ipv4Addr;

use nix::net::if_::if_nametoindex;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::setting::write_if_there;
use super::{GATEWAY, apart::Namespace};
use crate::NetworkError;

/// What the pod's end of its link is called.
pub(crate) const POD_LINK: &str = "eth0";
const LOOPBACK_INDEX: u32 = 1;

/// Brings up loopback and `eth0`, with its address and the default route. Returns false, having changed nothing, when
/// the namespace has no `eth0`.
pub(crate) async fn configure(namespace: Namespace, address: Ipv4Addr) -> Result<bool, NetworkError> {
    super::apart(Some(namespace), move |handle| within(handle, address)).await
}

async fn within(handle: Handle, address: Ipv4Addr) -> Result<bool, NetworkError> {
    let Ok(index) = if_nametoindex(POD_LINK) else { return Ok(false) };
    let up = |index| LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up(LOOPBACK_INDEX)).execute().await.map_err(NetworkError::link("bring up a pod's loopback"))?;
    write_if_there(&format!("net/ipv6/conf/{POD_LINK}/disable_ipv6"), "1")?;
    let given = handle.address().add(index, address.into(), 32).replace();
    given.execute().await.map_err(NetworkError::link(format!("give {address} to a pod")))?;
    handle.link().set(up(index)).execute().await.map_err(NetworkError::link("bring up a pod's link"))?;
    let everywhere = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).output_interface(index).onlink().build();
    handle
        .route()
        .add(everywhere)
        .replace()
        .execute()
        .await
        .map_err(NetworkError::link(format!("route the traffic of the pod {address}")))?;
    Ok(true)
}
