//! The failure cases of this crate.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// What can go wrong between a pod and its network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refused to make or change a link, an address or a route.
    #[error("cannot {what}: {source}")]
    Link {
        /// What was tried, on which link.
        what: String,
        /// The kernel's answer.
        #[source]
        source: rtnetlink::Error,
    },
    /// A socket or thread for talking to the kernel could not be made.
    #[error("cannot {what}: {source}")]
    Kernel {
        /// What was tried.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a change of the packet filter.
    #[error("cannot {what} in the nftables table {table}: {source}")]
    Filter {
        /// What was tried.
        what: &'static str,
        /// The table of this instance.
        table: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel has no packet filter that services could be made of.
    #[error(
        "this kernel has no nftables, which services are made of: use one built with CONFIG_NF_TABLES, or load the module nf_tables"
    )]
    NoFilter,
    /// A network namespace could not be entered.
    #[error("cannot enter the network namespace {}: {source}", path.display())]
    Namespace {
        /// The namespace file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A kernel setting could not be written.
    #[error("cannot write the kernel setting {}: {source}", path.display())]
    Setting {
        /// The file under `/proc/sys`.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The pod identifier cannot be kept in the kernel.
    #[error("pod identifier {uid:?} is empty, too long or contains a blank")]
    BadIdentifier {
        /// The identifier as given.
        uid: String,
    },
    /// The policies about a pod were not in the kernel in time.
    #[error("the network policies about the pod {uid} could not be enforced in time; it is tried again")]
    Unguarded {
        /// The pod's identifier.
        uid: String,
    },
    /// The configuration contradicts itself.
    #[error("network configuration: {0}")]
    Config(String),
    /// Every address of the pod subnet is in use.
    #[error("no free pod address is left in {address}/{prefix}")]
    AddressesExhausted {
        /// The pod subnet.
        address: Ipv4Addr,
        /// Its prefix length.
        prefix: u8,
    },
    /// No subnet is left that collides with nothing.
    #[error("every subnet of 10.0.0.0/8 is in use on this host; free one route in it")]
    NoFreeSubnet,
    /// The DNS server cannot listen.
    #[error("cannot serve DNS on {address}: {source}")]
    DnsListen {
        /// The cluster's DNS address.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The Kubernetes API refused or failed.
    #[error("kubernetes API: {0}")]
    Api(#[source] Box<kube::Error>),
}

impl NetworkError {
    /// Wraps an rtnetlink error; for `map_err`.
    pub(crate) fn link(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let what = what.into();
        move |source| Self::Link { what, source }
    }

    /// Wraps a system error; for `map_err`.
    pub(crate) fn kernel(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Kernel { what, source }
    }

    /// The error number, when the kernel gave one.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Link { source: rtnetlink::Error::NetlinkError(message), .. } => Some(-message.raw_code()),
            Self::Kernel { source, .. } | Self::Filter { source, .. } | Self::Namespace { source, .. } => {
                source.raw_os_error()
            }
            _ => None,
        }
    }
}

impl From<kube::Error> for NetworkError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}
