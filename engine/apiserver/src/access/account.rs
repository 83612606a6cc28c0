//! Tokens of service accounts, on the way in: signed by us, of this time, for the audience, and everything they are bound
//! to still there.
//!
//! Only that a signature was good is remembered; whether account, pod, node and secret still are is looked up each time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use shipway_schema::Registry;

use super::ISSUER;
use super::jwt::{Claims, Reference, TokenKey};
use crate::cache::{Cache, Table};
use crate::clock;
use crate::identity::{CREDENTIAL, Identity};
use crate::object::Object;

/// Tokens remembered in one generation; there are two.
const REMEMBERED: usize = 1024;
/// How far a clock may be behind the one that made the token, in seconds.
const SKEW: i64 = 60;

/// Checks tokens against the objects they speak of.
pub(crate) struct Accounts {
    key: Arc<TokenKey>,
    own: Arc<Table>,
    pods: Arc<Table>,
    secrets: Arc<Table>,
    nodes: Arc<Table>,
    recent: Mutex<Recent>,
}

/// A token whose signature was good.
struct Known {
    claims: Claims,
    identity: Arc<Identity>,
}

type Digest = [u8; 32];

/// The tokens seen of late: what is in neither generation is checked again.
#[derive(Default)]
struct Recent {
    young: HashMap<Digest, Arc<Known>>,
    old: HashMap<Digest, Arc<Known>>,
}

impl Recent {
    fn get(&mut self, digest: &Digest) -> Option<Arc<Known>> {
        if let Some(known) = self.young.get(digest) {
            return Some(known.clone());
        }
        let known = self.old.remove(digest)?;
        self.put(*digest, known.clone());
        Some(known)
    }

    fn put(&mut self, digest: Digest, known: Arc<Known>) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, known);
    }
}

impl Accounts {
    pub(crate) fn new(key: Arc<TokenKey>, registry: &Registry, cache: &Cache) -> Option<Self> {
        let table = |plural| registry.find("", "v1", plural).map(|resource| cache.table(&resource));
        let (accounts, pods) = (table("serviceaccounts")?, table("pods")?);
        let (secrets, nodes) = (table("secrets")?, table("nodes")?);
        Some(Self { key, own: accounts, pods, secrets, nodes, recent: Mutex::default() })
    }

    pub(crate) fn key(&self) -> &TokenKey {
        &self.key
    }

    pub(crate) fn secret(&self, key: &str) -> Option<Arc<Object>> {
        self.secrets.get(key)
    }

    pub(crate) fn account(&self, key: &str) -> Option<Arc<Object>> {
        self.own.get(key)
    }

    pub(crate) fn pod(&self, key: &str) -> Option<Arc<Object>> {
        self.pods.get(key)
    }

    pub(crate) fn node(&self, key: &str) -> Option<Arc<Object>> {
        self.nodes.get(key)
    }

    /// Who a token stands for, and those of the audiences that it is for.
    pub(crate) fn check(&self, token: &str, audiences: &[String]) -> Option<(Arc<Identity>, Vec<String>)> {
        let known = self.known(token)?;
        let claims = &known.claims;
        let now = clock::now().as_second();
        if now >= claims.exp || now + SKEW < claims.nbf || !self.is_live(claims) {
            return None;
        }
        let ours = [ISSUER.to_owned()];
        let asked = if audiences.is_empty() { &ours } else { audiences };
        let shared: Vec<String> = asked.iter().filter(|one| claims.aud.contains(one)).cloned().collect();
        (!shared.is_empty()).then(|| (known.identity.clone(), shared))
    }

    fn known(&self, token: &str) -> Option<Arc<Known>> {
        let digest: Digest = digest(&SHA256, token.as_bytes()).as_ref().try_into().ok()?;
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = recent().get(&digest) {
            return Some(known);
        }
        let claims = self.key.open_token(token)?;
        let identity = identity(&claims)?;
        let known = Arc::new(Known { claims, identity: Arc::new(identity) });
        recent().put(digest, known.clone());
        Some(known)
    }

    /// Whether everything that the token is bound to is what it was.
    fn is_live(&self, claims: &Claims) -> bool {
        let bound = &claims.bound;
        let same = |table: &Table, namespace: Option<&str>, reference: &Reference| {
            let key = namespace.map(|namespace| format!("{namespace}/{}", reference.name));
            let live = table.get(key.as_deref().unwrap_or(&reference.name));
            live.is_some_and(|live| *live.uid == *reference.uid)
        };
        let own = Some(bound.namespace.as_str());
        let node = bound.node.as_ref().filter(|_| bound.pod.is_none());
        same(&self.own, own, &bound.serviceaccount)
            && bound.pod.as_ref().is_none_or(|pod| same(&self.pods, own, pod))
            && bound.secret.as_ref().is_none_or(|secret| same(&self.secrets, own, secret))
            && node.is_none_or(|node| same(&self.nodes, None, node))
    }
}

/// Who the claims are about; none when they do not agree with themselves.
fn identity(claims: &Claims) -> Option<Identity> {
    let bound = &claims.bound;
    let mut identity = Identity::account(&bound.namespace, &bound.serviceaccount.name).known();
    if claims.iss != ISSUER || claims.sub != identity.user {
        return None;
    }
    identity.uid.clone_from(&bound.serviceaccount.uid);
    identity.extra.insert(CREDENTIAL.into(), vec![format!("JTI={}", claims.jti)]);
    for (what, reference) in [("pod", &bound.pod), ("node", &bound.node)] {
        let Some(reference) = reference else { continue };
        for (field, value) in [("name", &reference.name), ("uid", &reference.uid)] {
            identity.extra.insert(format!("authentication.kubernetes.io/{what}-{field}"), vec![value.clone()]);
        }
    }
    Some(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_used_stays() {
        let mut recent = Recent::default();
        let known = Arc::new(Known { claims: Claims::default(), identity: Arc::default() });
        let digest = |number: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            digest
        };
        for number in 0..10 * REMEMBERED {
            recent.put(digest(number), known.clone());
            assert!(recent.get(&digest(0)).is_some());
        }
        assert!(recent.young.len() + recent.old.len() <= 2 * REMEMBERED);
        assert!(recent.get(&digest(1)).is_none());
    }
}
