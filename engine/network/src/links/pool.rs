//! Which pod has which address and which link. Addresses are given out in turn, so that one that was just given back is
//! not given out again at once.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::host::PodLink;
use crate::NetworkError;
use crate::config::{Subnet, mask};

/// A pod's place in the network. `busy` is held while its link is made or mended.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) address: Ipv4Addr,
    pub(crate) link: String,
    pub(crate) busy: tokio::sync::Mutex<()>,
}

/// All pods of the instance.
#[derive(Debug)]
pub(crate) struct Pods {
    subnet: Subnet,
    bridge: String,
    claims: HashMap<String, Arc<Claim>>,
    addresses: HashSet<Ipv4Addr>,
    links: HashSet<String>,
    last: u32,
}

impl Pods {
    /// Takes up the pods whose links are there.
    pub(crate) fn new(subnet: Subnet, bridge: String, found: &[PodLink]) -> Self {
        let last = found.iter().map(|pod| u32::from(pod.address)).max().unwrap_or(u32::from(subnet.0));
        let mut pods =
            Self { subnet, bridge, claims: HashMap::new(), addresses: HashSet::new(), links: HashSet::new(), last };
        for pod in found {
            pods.insert(&pod.uid, pod.address, pod.name.clone());
        }
        pods
    }

    /// The place of that pod, if it has one.
    pub(crate) fn get(&self, uid: &str) -> Option<Arc<Claim>> {
        self.claims.get(uid).cloned()
    }

    /// The pods that have a place.
    pub(crate) fn identifiers(&self) -> Vec<String> {
        self.claims.keys().cloned().collect()
    }

    /// The place of that pod; a new one unless it has one. The second value says whether it is new.
    pub(crate) fn claim(&mut self, uid: &str) -> Result<(Arc<Claim>, bool), NetworkError> {
        if let Some(claim) = self.get(uid) {
            return Ok((claim, false));
        }
        let address = self.free_address()?;
        let link = self.free_link(uid);
        Ok((self.insert(uid, address, link), true))
    }

    /// Forgets the pod, but keeps its address and its link's name taken until [`Self::release`].
    pub(crate) fn leave(&mut self, uid: &str) -> Option<Arc<Claim>> {
        self.claims.remove(uid)
    }

    /// Makes address and link name free again.
    pub(crate) fn release(&mut self, claim: &Claim) {
        self.addresses.remove(&claim.address);
        self.links.remove(&claim.link);
    }

    fn insert(&mut self, uid: &str, address: Ipv4Addr, link: String) -> Arc<Claim> {
        self.addresses.insert(address);
        self.links.insert(link.clone());
        let claim = Arc::new(Claim { address, link, busy: tokio::sync::Mutex::new(()) });
        self.claims.insert(uid.to_owned(), claim.clone());
        claim
    }

    fn free_address(&mut self) -> Result<Ipv4Addr, NetworkError> {
        let (address, prefix) = self.subnet;
        let first = u32::from(address) & mask(prefix);
        // Without the network's own address and its broadcast address.
        let usable = (!mask(prefix)).saturating_sub(1);
        let start = self.last.wrapping_sub(first).min(usable);
        for step in 0..usable {
            let candidate = Ipv4Addr::from(first + 1 + (start + step) % usable);
            if !self.addresses.contains(&candidate) {
                self.last = u32::from(candidate);
                return Ok(candidate);
            }
        }
        Err(NetworkError::AddressesExhausted { address, prefix })
    }

    fn free_link(&self, uid: &str) -> String {
        (0..=u32::MAX)
            .map(|attempt| link_name(&self.bridge, uid, attempt))
            .find(|name| !self.links.contains(name))
            .expect("fewer links exist than names")
    }
}

/// The name of a pod's link: the bridge's name and six characters that follow from the pod and the attempt.
fn link_name(bridge: &str, uid: &str, attempt: u32) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut hash = fnv(uid.as_bytes().iter().copied().chain(attempt.to_le_bytes()));
    let suffix = (0..6).map(|_| {
        let digit = DIGITS[usize::try_from(hash % 36).expect("below 36")];
        hash /= 36;
        char::from(digit)
    });
    bridge.chars().chain(suffix).collect()
}

/// FNV-1a: the names must be the same in every version of this program, which the standard hasher does not promise.
fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(prefix: u8) -> Pods {
        Pods::new((Ipv4Addr::new(10, 73, 0, 0), prefix), "sw0a1b2c".to_owned(), &[])
    }

    #[test]
    fn every_pod_has_an_address_of_its_own_until_none_is_left() {
        let mut pods = pods(28);
        let given: HashSet<_> = (0..14).map(|at| pods.claim(&at.to_string()).unwrap().0.address).collect();
        assert_eq!(given.len(), 14);
        assert!(!given.contains(&Ipv4Addr::new(10, 73, 0, 0)) && !given.contains(&Ipv4Addr::new(10, 73, 0, 15)));
        assert!(matches!(pods.claim("15"), Err(NetworkError::AddressesExhausted { .. })));
        let gone = pods.leave("3").unwrap();
        assert!(pods.claim("15").is_err());
        pods.release(&gone);
        assert_eq!(pods.claim("15").unwrap().0.address, gone.address);
    }

    #[test]
    fn an_address_is_not_given_out_again_at_once() {
        let mut pods = pods(24);
        let first = pods.claim("a").unwrap().0;
        pods.leave("a");
        pods.release(&first);
        assert_ne!(pods.claim("a").unwrap().0.address, first.address);
    }

    #[test]
    fn the_same_pod_keeps_its_place() {
        let mut pods = pods(24);
        let (first, new) = pods.claim("a").unwrap();
        assert!(new && first.link.len() == 14);
        let (again, new) = pods.claim("a").unwrap();
        assert!(!new && again.address == first.address && again.link == first.link);
    }

    #[test]
    fn a_taken_link_name_leads_to_another() {
        let mut pods = pods(24);
        pods.links.insert(link_name("sw0a1b2c", "a", 0));
        assert_eq!(pods.claim("a").unwrap().0.link, link_name("sw0a1b2c", "a", 1));
    }

    #[test]
    fn found_pods_are_taken_up() {
        let found =
            [PodLink { uid: "a".to_owned(), address: Ipv4Addr::new(10, 73, 0, 1), name: "sw0a1b2cxxxxxx".to_owned() }];
        let mut pods = Pods::new((Ipv4Addr::new(10, 73, 0, 0), 24), "sw0a1b2c".to_owned(), &found);
        assert_eq!(pods.get("a").unwrap().address, Ipv4Addr::new(10, 73, 0, 1));
        assert_eq!(pods.claim("b").unwrap().0.address, Ipv4Addr::new(10, 73, 0, 2));
    }
}
