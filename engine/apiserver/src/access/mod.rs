//! Who asks: a client certificate, a token of a service account, a bootstrap token, or nobody.
//!
//! A credential that is shown and not valid is refused; only who shows none is anonymous. Credentials are never logged and
//! go no further than this module.

mod account;
mod bootstrap_token;
mod impersonation;
mod issue;
mod jwt;

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::ApiServer;
use crate::identity::Identity;

pub(crate) use account::Accounts;
pub(crate) use impersonation::impersonated;
pub(crate) use issue::{INJECTED, issue};
pub use jwt::TokenKey;
pub(crate) use jwt::{discovery, key_set};

/// Who issues tokens of service accounts, and whom they are for unless they say so.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Who is at the other end of a connection.
pub(crate) enum Peer {
    /// It showed no certificate.
    Stranger,
    /// Its certificate names it.
    Known(Arc<Identity>),
    /// Its certificate names nobody.
    Nameless,
}

impl Peer {
    pub(crate) fn of(certificate: Option<&[u8]>) -> Self {
        match certificate.map(Identity::from_certificate) {
            None => Self::Stranger,
            Some(Some(identity)) => Self::Known(Arc::new(identity.known())),
            Some(None) => Self::Nameless,
        }
    }

    /// The identity of a request; none when its credential is not valid. Takes the credential out of the headers.
    pub(crate) async fn authenticate(&self, server: &ApiServer, headers: &mut HeaderMap) -> Option<Arc<Identity>> {
        let credentials: Vec<_> = headers.get_all(AUTHORIZATION).iter().cloned().collect();
        headers.remove(AUTHORIZATION);
        match (self, credentials.as_slice()) {
            (Self::Known(identity), _) => Some(identity.clone()),
            (Self::Stranger, []) => Some(Arc::new(Identity::anonymous())),
            (Self::Stranger, [one]) => {
                let (scheme, token) = one.to_str().ok()?.trim().split_once(' ')?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return None;
                }
                bearer(server, token.trim(), &[]).await.map(|(identity, _)| identity)
            }
            _ => None,
        }
    }
}

/// The identity that a token stands for, and those of the asked audiences that it is for; none means this server.
pub(crate) async fn bearer(
    server: &ApiServer,
    token: &str,
    audiences: &[String],
) -> Option<(Arc<Identity>, Vec<String>)> {
    // What was acknowledged before holds: an account that is gone is gone.
    server.cache().catch_up().await.ok()?;
    if let Some((id, secret)) = bootstrap_token::parse(token) {
        let fits = audiences.is_empty() || audiences.iter().any(|own| own == ISSUER);
        let identity = bootstrap_token::check(server, id, secret).filter(|_| fits)?;
        return Some((Arc::new(identity.known()), vec![ISSUER.to_owned()]));
    }
    server.accounts().check(token, audiences)
}
