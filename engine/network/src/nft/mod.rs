//! nftables without the `nft` program: a small encoder for netlink batches, the fixed part of an instance's table, and
//! the part that each service has in it.
//!
//! Only the instance's own table is ever named; nothing here can flush somebody else's rules.

mod attribute;
mod base;
mod batch;
mod commands;
mod conntrack;
mod expression;
mod filter;
mod held;
mod plan;
mod sleepers;
mod socket;
mod table;

use std::io;

pub(crate) use conntrack::{forget_udp, has_open};
pub(crate) use filter::Filter;
pub(crate) use held::{Held, HeldPackets};
pub(crate) use plan::{ElementKey, Plan, destination, destinations};
pub(crate) use sleepers::{Care, Entry, Sleepers};
pub(crate) use table::Table;

use attribute::find_text;
use batch::Kind;
use socket::FilterSocket;

/// What is left of instances in the packet filter of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// The names of our tables, of any instance.
    pub tables: Vec<String>,
}

/// Lists the tables of all instances.
pub fn remains() -> io::Result<Remains> {
    let mut tables = Vec::new();
    FilterSocket::open()?.dump(
        Kind::GetTable,
        |_| {},
        |table| tables.extend(find_text(table, 1).filter(|name| name.starts_with("shipway-")).map(str::to_owned)),
    )?;
    Ok(Remains { tables })
}
