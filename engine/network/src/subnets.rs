//! Choosing the subnets of a new instance so that they hide no network that the host can reach today.

use std::net::Ipv4Addr;

use crate::NetworkError;
use crate::config::{Subnet, overlap};
use crate::dns::resolvers;
use crate::links::{Links, apart};

/// The second bytes to try: 10.73.0.0/16 first, the rest of 10.0.0.0/8 after it.
fn candidates() -> impl Iterator<Item = u8> {
    (73..=254).chain(1..73)
}

/// A pod subnet and a service subnet that collide with no route of the host, no resolver that it asks and none of
/// `taken` (the subnets of other instances, running or not). Nothing is reserved: callers hold a lock until they have
/// written down what they took.
pub async fn free_subnets(taken: &[Subnet]) -> Result<(Subnet, Subnet), NetworkError> {
    let mut used = apart(None, |handle| async move { Links::new(handle).routes().await }).await?;
    used.extend(taken);
    let named = resolvers().into_iter().filter_map(|resolver| match resolver.ip() {
        std::net::IpAddr::V4(address) => Some((address, 32)),
        std::net::IpAddr::V6(_) => None,
    });
    used.extend(named);
    choose(&used).ok_or(NetworkError::NoFreeSubnet)
}

/// A route of everything, or of all of 10.0.0.0/8, leaves no room beside it: then a more special one must do.
fn choose(used: &[Subnet]) -> Option<(Subnet, Subnet)> {
    let beside = |shortest: u8| {
        candidates().find(|byte| {
            let candidate = (Ipv4Addr::new(10, *byte, 0, 0), 16);
            !used.iter().any(|route| route.1 >= shortest && overlap(*route, candidate))
        })
    };
    let byte = beside(1).or_else(|| beside(9))?;
    Some(((Ipv4Addr::new(10, byte, 0, 0), 17), (Ipv4Addr::new(10, byte, 128, 0), 17)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(used: &[(&str, u8)]) -> Option<Ipv4Addr> {
        let used: Vec<Subnet> = used.iter().map(|(address, prefix)| (address.parse().unwrap(), *prefix)).collect();
        choose(&used).map(|(pods, _)| pods.0)
    }

    #[test]
    fn what_is_routed_is_not_chosen() {
        assert_eq!(chosen(&[]), Some(Ipv4Addr::new(10, 73, 0, 0)));
        assert_eq!(chosen(&[("10.73.5.0", 24), ("10.74.0.0", 15)]), Some(Ipv4Addr::new(10, 76, 0, 0)));
        assert_eq!(chosen(&[("10.73.200.9", 32)]), Some(Ipv4Addr::new(10, 74, 0, 0)));
    }

    #[test]
    fn a_route_of_everything_leaves_room_beside_special_ones() {
        assert_eq!(chosen(&[("10.0.0.0", 8), ("10.73.0.0", 16)]), Some(Ipv4Addr::new(10, 74, 0, 0)));
        assert_eq!(chosen(&[("10.0.0.0", 9), ("10.128.0.0", 9)]), None);
    }
}
