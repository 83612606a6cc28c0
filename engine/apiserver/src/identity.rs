//! Who is asking: a user name and groups, taken from a verified client certificate or given by the caller in process.
//!
//! It decides nothing; what an identity may do is `authorize.rs`.

use x509_parser::prelude::{FromDer, X509Certificate};

/// The group whose members may do everything.
pub(crate) const MASTERS: &str = "system:masters";
/// The group of every node.
pub(crate) const NODES: &str = "system:nodes";
/// The group of everybody whose identity is known.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// The user name of a caller without a credential.
pub(crate) const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// A user and the groups it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user name, such as `admin` or `system:node:alpha`.
    pub user: String,
    /// The groups, without the implied `system:authenticated`.
    pub groups: Vec<String>,
}

impl Identity {
    fn of(user: impl Into<String>, groups: &[&str]) -> Self {
        Self { user: user.into(), groups: groups.iter().map(|&group| group.to_owned()).collect() }
    }

    /// The administrator of the instance: a member of `system:masters`.
    pub fn admin() -> Self {
        Self::of("admin", &[MASTERS])
    }

    /// A control loop of the engine: `system:controller:<name>`.
    pub fn controller(name: &str) -> Self {
        Self::of(format!("system:controller:{name}"), &[])
    }

    /// A node: `system:node:<name>` in `system:nodes`.
    pub fn node(name: &str) -> Self {
        Self::of(format!("system:node:{name}"), &[NODES])
    }

    /// The scheduler.
    pub fn scheduler() -> Self {
        Self::of("system:kube-scheduler", &[])
    }

    pub(crate) fn anonymous() -> Self {
        Self::of(ANONYMOUS, &[UNAUTHENTICATED])
    }

    /// Reads common name and organisations of a certificate in DER form that has been verified already.
    pub(crate) fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
        (!user.is_empty()).then_some(Self { user, groups })
    }

    /// Whether the identity is in the group, implied ones included.
    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group) || (group == AUTHENTICATED && self.user != ANONYMOUS)
    }

    /// The node's name when the identity is one.
    pub(crate) fn as_node(&self) -> Option<&str> {
        self.user.strip_prefix("system:node:").filter(|_| self.is_in(NODES))
    }

    /// All groups, implied ones included.
    pub(crate) fn all_groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = self.groups.iter().map(String::as_str).collect();
        if self.user != ANONYMOUS && !groups.contains(&AUTHENTICATED) {
            groups.push(AUTHENTICATED);
        }
        groups
    }
}
