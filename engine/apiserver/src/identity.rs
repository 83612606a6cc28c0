//! Who is asking: a user name and groups, taken from a verified credential or given by the caller in process.
//!
//! It decides nothing; what an identity may do is `authorize.rs`.

use std::collections::BTreeMap;
use std::fmt::Write;

use x509_parser::prelude::{FromDer, X509Certificate};

/// The group whose members may do everything.
pub(crate) const MASTERS: &str = "system:masters";
/// The group of every node.
pub(crate) const NODES: &str = "system:nodes";
/// The group of the engine's own control loops.
pub(crate) const CONTROLLERS: &str = "system:controllers";
/// The group of everybody whose identity is known.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user name of a caller without a credential.
pub(crate) const ANONYMOUS: &str = "system:anonymous";
/// Where an identity says which credential it comes from.
pub(crate) const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";
const ACCOUNT: &str = "system:serviceaccount:";

/// A user, the groups it is in, and what else its credential says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user name, such as `admin` or `system:node:alpha`.
    pub user: String,
    /// The groups. `system:authenticated` is added where a credential is taken.
    pub groups: Vec<String>,
    /// What tells the user from others of the same name at other times.
    pub uid: String,
    /// Further facts, by qualified names.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// A user in groups.
    pub fn new(user: impl Into<String>, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        Self { user: user.into(), groups, ..Self::default() }
    }

    /// The administrator of the instance: a member of `system:masters`.
    pub fn admin() -> Self {
        Self::new("admin", &[MASTERS])
    }

    /// A control loop of the engine, under the name that upstream's has: the service account of that name in
    /// `kube-system`, and in `system:controllers` besides. What it may do is the role `system:controller:<name>`.
    pub fn controller(name: &str) -> Self {
        let mut identity = Self::account("kube-system", name);
        identity.groups.push(CONTROLLERS.to_owned());
        identity
    }

    /// A node: `system:node:<name>` in `system:nodes`.
    pub fn node(name: &str) -> Self {
        Self::new(format!("system:node:{name}"), &[NODES])
    }

    /// The scheduler.
    pub fn scheduler() -> Self {
        Self::new("system:kube-scheduler", &[])
    }

    /// A service account, in the groups that all of them are in.
    pub(crate) fn account(namespace: &str, name: &str) -> Self {
        let own = format!("system:serviceaccounts:{namespace}");
        Self::new(format!("{ACCOUNT}{namespace}:{name}"), &["system:serviceaccounts", &own])
    }

    pub(crate) fn anonymous() -> Self {
        Self::new(ANONYMOUS, &[UNAUTHENTICATED])
    }

    /// The identity with the group of everybody whose identity is known.
    #[must_use]
    pub(crate) fn known(mut self) -> Self {
        if self.user != ANONYMOUS && !self.is_in(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    /// Reads common name and organisations of a certificate in DER form that has been verified already.
    pub(crate) fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
        let mut id = "X509SHA256=".to_owned();
        for byte in ring::digest::digest(&ring::digest::SHA256, der).as_ref() {
            write!(id, "{byte:02x}").expect("a String takes any text");
        }
        let extra = BTreeMap::from([(CREDENTIAL.to_owned(), vec![id])]);
        (!user.is_empty()).then_some(Self { user, groups, uid: String::new(), extra })
    }

    /// Whether the identity is in the group.
    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The node's name when the identity is one.
    pub(crate) fn as_node(&self) -> Option<&str> {
        self.user.strip_prefix("system:node:").filter(|_| self.is_in(NODES))
    }

    /// Namespace and name when the user is a service account.
    pub(crate) fn as_account(user: &str) -> Option<(&str, &str)> {
        let (namespace, name) = user.strip_prefix(ACCOUNT)?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
    }

    /// Whether it is a part that the cluster does not work without.
    pub(crate) fn is_system(&self) -> bool {
        [MASTERS, NODES, CONTROLLERS].iter().any(|group| self.is_in(group)) || self.user == "system:kube-scheduler"
    }

    /// As `userInfo` of reviews and audit events.
    pub(crate) fn info(&self) -> serde_json::Value {
        let mut info = serde_json::json!({"username": self.user, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = self.uid.as_str().into();
        }
        if !self.extra.is_empty() {
            info["extra"] = serde_json::json!(self.extra);
        }
        info
    }
}
