//! Pod addresses, services in the kernel, and DNS.
//!
//! Links and routes are made over rtnetlink, services over our own small nftables encoder: no `ip`, `nft` or `iptables`
//! program is needed, and none but this instance's own table and links are ever touched. What was programmed goes on
//! working without the process that programmed it; [`Network::open`] takes it up again.
//!
//! This crate knows no containers (a pod is an identifier and a network namespace) and no images.

mod config;
mod error;
mod hostports;
mod links;
mod network;
mod nft;
mod overlay;
mod policy;
mod ports;
mod proxy;
mod records;
mod rules;
mod services;
mod sleep;
mod subnets;
mod underlay;

pub mod dns;

pub use config::{NetworkConfig, Subnet};
pub use error::NetworkError;
pub use links::host_address;
pub use network::Network;
pub use nft::{Remains, remains};
pub use overlay::{overlay, parse_subnet};
pub use ports::{PortConflict, PortHolder};
pub use proxy::{Proxying, Role, answer_nodes, proxy};
pub use rules::{Protocol, ServicePort, ServiceRules};
pub use subnets::free_subnets;
pub use underlay::{cut, lay_underlay, plug, unplug};
