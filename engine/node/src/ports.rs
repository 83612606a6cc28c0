//! Finding the TCP ports that a pod listens on, for pods that ask for it by `shipway.dev/ports: discover`.
//!
//! It works as a startup probe: the kernel's table of sockets is read at growing intervals for at most three seconds after
//! a container has started, then never again.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use crate::pod;

/// By which a pod asks for discovery.
pub const ASK: &str = "shipway.dev/ports";
/// Where the ports found are written: `8080,9090`.
pub const FOUND: &str = "shipway.dev/listening";

const BOUND: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);
/// The kernel's number for a socket that listens.
const LISTEN: &str = "0A";

/// Whether the pod's ports are to be found, and tell when it is ready.
pub(crate) fn wanted(pod: &Pod) -> bool {
    pod::annotation(pod, ASK) == Some("discover") && !pod::host_network(pod)
}

/// The ports that can be reached from outside the pod.
pub(crate) fn listening(process: i32) -> BTreeSet<u16> {
    let folder = Path::new("/proc").join(process.to_string()).join("net");
    let table = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    parse(&table("tcp")).chain(parse(&table("tcp6"))).collect::<BTreeSet<u16>>()
}

fn parse(table: &str) -> impl Iterator<Item = u16> {
    let rows = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let (address, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        (state == LISTEN && !is_loopback(address)).then_some(port)
    });
    rows.collect::<Vec<u16>>().into_iter()
}

/// Addresses are groups of four bytes, each group in this machine's byte order.
fn is_loopback(address: &str) -> bool {
    let group =
        |at: usize| address.get(at..at + 8).and_then(|group| u32::from_str_radix(group, 16).ok()).map(u32::to_ne_bytes);
    let loopback_v4 = |bytes: [u8; 4]| bytes[0] == 127;
    match address.len() {
        8 => group(0).is_some_and(loopback_v4),
        32 if address.starts_with("0000000000000000") => match (group(16), group(24)) {
            (Some([0, 0, 0xff, 0xff]), Some(v4)) => loopback_v4(v4),
            (Some([0, 0, 0, 0]), Some(last)) => last == [0, 0, 0, 1],
            _ => false,
        },
        _ => false,
    }
}

/// A search that is under way.
pub(crate) struct Discovery<F> {
    look: F,
    known: BTreeSet<u16>,
    end: Instant,
    next: Instant,
    pause: Duration,
}

impl<F: Fn() -> BTreeSet<u16>> Discovery<F> {
    /// Begins now; `look` says which ports are listened on.
    pub(crate) fn begin(look: F) -> Self {
        let now = Instant::now();
        Self { look, known: BTreeSet::new(), end: now + BOUND, next: now, pause: FIRST_PAUSE }
    }

    /// The ports, each time they have changed; `None` when the time is over.
    pub(crate) async fn next(&mut self) -> Option<BTreeSet<u16>> {
        while self.next <= self.end {
            tokio::time::sleep_until(self.next).await;
            self.next = Instant::now() + self.pause;
            self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
            let found = (self.look)();
            if !found.is_empty() && found != self.known {
                self.known.clone_from(&found);
                return Some(found);
            }
        }
        None
    }
}

/// The annotation's form.
pub(crate) fn format(ports: &BTreeSet<u16>) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[test]
    fn only_listening_sockets_that_can_be_reached_count() {
        let row =
            |local: &str, state: &str| format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000\n");
        let table = [
            row("00000000:1F90", "0A"),
            row("0100007F:1F91", "0A"),
            row("0700490A:1F92", "01"),
            row("00000000000000000000000000000000:0050", "0A"),
            row("00000000000000000000000001000000:0051", "0A"),
            row("0000000000000000FFFF00000100007F:0052", "0A"),
        ];
        let ports: Vec<u16> = parse(&(HEAD.to_owned() + &table.concat())).collect();
        assert_eq!(ports, [8080, 80]);
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let socket = std::net::TcpListener::bind("0.0.0.0:0").expect("bound");
        let port = socket.local_addr().expect("an address").port();
        let own = i32::try_from(std::process::id()).expect("a process number");
        assert!(listening(own).contains(&port));
    }

    #[tokio::test(start_paused = true)]
    async fn discovery_tells_of_changes_and_ends_within_its_bound() {
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            match looks.get() {
                1..=3 => BTreeSet::new(),
                4..=6 => BTreeSet::from([80]),
                _ => BTreeSet::from([80, 90]),
            }
        };
        let mut told = Vec::new();
        let begun = Instant::now();
        let mut discovery = Discovery::begin(look);
        while let Some(ports) = discovery.next().await {
            told.push(format(&ports));
        }
        assert_eq!(told, ["80", "80,90"]);
        assert!(begun.elapsed() <= BOUND);
        assert!(looks.get() < 30, "{} looks", looks.get());
    }
}
