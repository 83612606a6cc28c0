//! What every image has: the init program, a root folder as programs expect it, and the few files that the C library
//! reads.

use std::path::Path;

use crate::PackError;
use crate::tree::Tree;

/// The first process of every container.
pub(crate) const INIT: &str = "/.shipway/init";
/// The search path for commands.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where programs look for the authorities that sign certificates, and the variable that says so to OpenSSL.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
const AUTHORITIES_VARIABLE: &str = "SSL_CERT_FILE";
/// Where other systems keep that file.
const AUTHORITY_FILES: [&str; 4] =
    [AUTHORITIES, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// The folders that everybody may write in, and their mode.
pub(crate) const OPEN_FOLDERS: [&str; 2] = ["/tmp", "/var/tmp"];
pub(crate) const OPEN_MODE: u32 = 0o1777;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n\
                        protocols: files\nservices: files\nethers: files\nrpc: files\n";

static INIT_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// Adds the base of every image.
pub(crate) fn add_base(tree: &mut Tree) {
    tree.bytes(INIT, INIT_PROGRAM, 0o755);
    for (path, mode) in [
        ("/tmp", OPEN_MODE),
        ("/var/tmp", OPEN_MODE),
        ("/root", 0o755),
        ("/run", 0o755),
        ("/proc", 0o555),
        ("/sys", 0o555),
        ("/dev", 0o755),
        ("/etc", 0o755),
    ] {
        tree.directory(path, mode);
    }
    tree.bytes("/etc/passwd", PASSWD.as_bytes(), 0o644);
    tree.bytes("/etc/group", GROUP.as_bytes(), 0o644);
    tree.bytes("/etc/nsswitch.conf", NSSWITCH.as_bytes(), 0o644);
}

/// Adds the authorities that sign certificates, if this machine has them; gives the variable that names them.
pub(crate) fn add_authorities(tree: &mut Tree) -> Result<Option<(String, String)>, PackError> {
    let Some(file) = AUTHORITY_FILES.map(Path::new).into_iter().find(|path| path.is_file()) else { return Ok(None) };
    tree.copy(AUTHORITIES, file)?;
    Ok(Some((AUTHORITIES_VARIABLE.to_owned(), AUTHORITIES.to_owned())))
}

/// The environment of every image.
pub(crate) fn environment(path: &str) -> Vec<(String, String)> {
    vec![("PATH".to_owned(), path.to_owned()), ("LANG".to_owned(), "C.UTF-8".to_owned())]
}

/// The start of an entry point.
pub(crate) fn entrypoint(command: impl IntoIterator<Item = String>) -> Vec<String> {
    [INIT.to_owned(), "--".to_owned()].into_iter().chain(command).collect()
}
