//! As whom this server comes to the servers behind it: a certificate of an authority of its own, whose bearer is believed
//! when it says in headers who is asking.

use std::path::Path;

use crate::error::ApiError;
use crate::identity::Identity;
use crate::pki::{Authority, KeyPairPem};

const AUTHORITY: &str = "shipway-front-proxy-ca";
/// The name in the certificate, which servers behind this one may insist on.
pub(super) const CLIENT: &str = "front-proxy-client";

/// What the server shows to the servers behind it, and what it tells them to check callers by.
pub struct FrontProxy {
    /// The authority that vouches for this server.
    pub(super) authority: String,
    /// What this server shows.
    pub(super) client: KeyPairPem,
    /// The authority of the clients' own certificates.
    pub(super) client_authority: String,
}

impl std::fmt::Debug for FrontProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrontProxy").field("client", &self.client).finish_non_exhaustive()
    }
}

impl FrontProxy {
    /// Opens the folder that [`Authority::open`] opens; the authority of the front proxy is in `front-proxy` below it and
    /// is made when it is not there.
    pub fn open(dir: &Path) -> Result<Self, ApiError> {
        let clients = Authority::open(dir)?;
        let own = Authority::named(&dir.join("front-proxy"), AUTHORITY)?;
        let client = own.issue_client(&Identity::new(CLIENT, &[]))?;
        let client_authority = clients.ca_pem().to_owned();
        Ok(Self { authority: own.ca_pem().to_owned(), client, client_authority })
    }
}
