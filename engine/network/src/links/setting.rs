//! Kernel settings under `/proc/sys`, of the network namespace that the calling thread is in.

use std::fs;
use std::io;
use std::path::Path;

use crate::NetworkError;

/// Writes one setting.
pub(crate) fn write(setting: &str, value: &str) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys").join(setting);
    fs::write(&path, value).map_err(|source| NetworkError::Setting { path, source })
}

/// Writes one setting of a part that the kernel may have been built without.
pub(crate) fn write_if_there(setting: &str, value: &str) -> Result<(), NetworkError> {
    match write(setting, value) {
        Err(NetworkError::Setting { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Lets the host forward packets. Already on: nothing is written, since writing resets other settings.
pub(crate) fn forward_packets() -> Result<(), NetworkError> {
    const SETTING: &str = "net/ipv4/ip_forward";
    let path = Path::new("/proc/sys").join(SETTING);
    let now = fs::read_to_string(&path).map_err(|source| NetworkError::Setting { path, source })?;
    if now.trim() == "1" { Ok(()) } else { write(SETTING, "1") }
}

/// What the host end of a pod's link needs: replies to 127.0.0.1 are routed (for node ports; the table's `raw` chain
/// keeps pods from using that), and a packet must come from where its sender is routed.
pub(crate) fn prepare_host_end(link: &str) -> Result<(), NetworkError> {
    write(&format!("net/ipv4/conf/{link}/route_localnet"), "1")?;
    write(&format!("net/ipv4/conf/{link}/rp_filter"), "1")?;
    write_if_there(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1")
}
