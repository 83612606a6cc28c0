//! Asking the host's own resolvers, one after the other, each for a limited time.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::answer::Transport;

const DNS_PORT: u16 = 53;
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long one resolver may take before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// More resolvers than this are not asked, as the C library does.
const MOST_RESOLVERS: usize = 3;
const HEADER: usize = 12;

/// The resolvers that the host asks.
pub(crate) fn resolvers() -> Vec<SocketAddr> {
    read(Path::new(RESOLV_CONF))
}

/// Passes questions on.
#[derive(Debug)]
pub(super) struct Forwarder {
    path: PathBuf,
    own: Ipv4Addr,
    /// Who asks the resolvers that only the host itself reaches; none where that is us.
    host: Option<Ipv4Addr>,
    known: Mutex<(Option<SystemTime>, Vec<SocketAddr>)>,
}

impl Forwarder {
    /// Asks the resolvers of the host, but never ourselves at `own`; those on the host's loopback through `host`, if we are
    /// elsewhere.
    pub(super) fn new(own: Ipv4Addr, host: Option<Ipv4Addr>) -> Self {
        Self { host, ..Self::reading(Path::new(RESOLV_CONF), own) }
    }

    fn reading(path: &Path, own: Ipv4Addr) -> Self {
        Self { path: path.to_owned(), own, host: None, known: Mutex::default() }
    }

    /// The first answer that a resolver gives, with the question's own id.
    pub(super) async fn ask(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        if question.len() < HEADER {
            return None;
        }
        for resolver in self.resolvers() {
            let asked = match transport {
                Transport::Udp => timeout(PATIENCE, over_udp(resolver, question)).await,
                Transport::Tcp => timeout(PATIENCE, over_tcp(resolver, question)).await,
            };
            match asked {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%resolver, %error, "a resolver failed"),
                Err(_) => tracing::debug!(%resolver, "a resolver did not answer in time"),
            }
        }
        None
    }

    /// Reads the file again only when it was changed.
    fn resolvers(&self) -> Vec<SocketAddr> {
        let changed = fs::metadata(&self.path).and_then(|data| data.modified()).ok();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != changed || changed.is_none() {
            let others = read(&self.path).into_iter().filter(|resolver| resolver.ip() != IpAddr::V4(self.own));
            let reached = |resolver: SocketAddr| match self.host {
                Some(host) if resolver.ip().is_loopback() => SocketAddr::from((host, DNS_PORT)),
                _ => resolver,
            };
            let mut others: Vec<SocketAddr> = others.map(reached).collect();
            others.dedup();
            *known = (changed, others);
        }
        known.1.clone()
    }
}

fn read(path: &Path) -> Vec<SocketAddr> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut resolvers = parse(&text);
    if resolvers.is_empty() {
        // What the C library does without a configuration.
        resolvers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT)));
    }
    resolvers
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    named.take(MOST_RESOLVERS).map(|address| SocketAddr::new(address, DNS_PORT)).collect()
}

/// A fresh socket, so a fresh port, and a fresh id for every question: answers are hard to forge.
async fn over_udp(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match resolver {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    let (question, id) = with_fresh_id(question);
    socket.send(&question).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = accept(&buffer[..length], id, &question) {
            return Ok(restore_id(answer, id));
        }
    }
}

async fn over_tcp(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let (question, id) = with_fresh_id(question);
    let length = u16::try_from(question.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    stream.write_all(&[&length.to_be_bytes()[..], &question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    let answer = accept(&answer, id, &question).ok_or(io::ErrorKind::InvalidData)?;
    Ok(restore_id(answer, id))
}

/// The id that we send, and the one that the asker chose.
#[derive(Clone, Copy)]
struct Ids {
    sent: [u8; 2],
    asked: [u8; 2],
}

fn with_fresh_id(question: &[u8]) -> (Vec<u8>, Ids) {
    let ids = Ids { sent: fastrand::u16(..).to_be_bytes(), asked: [question[0], question[1]] };
    let mut question = question.to_vec();
    question[..2].copy_from_slice(&ids.sent);
    (question, ids)
}

/// The answer if it is one to our question: the id, the response bit, and the question itself, whatever the case of its
/// letters.
fn accept<'a>(answer: &'a [u8], ids: Ids, question: &[u8]) -> Option<&'a [u8]> {
    let header = answer.get(..HEADER)?;
    let same = || asked(answer)?.eq_ignore_ascii_case(asked(question)?).then_some(answer);
    (header[..2] == ids.sent && header[2] & 0x80 != 0 && header[4..6] == question[4..6]).then(same).flatten()
}

/// The first question of a message: a name in labels, a type and a class (RFC 1035, section 4.1.2).
fn asked(message: &[u8]) -> Option<&[u8]> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => return message.get(HEADER..at + 5),
            length @ 1..=63 => at += 1 + length,
            // A question is the first to name anything: there is nothing that it could refer to.
            _ => return None,
        }
    }
}

fn restore_id(answer: &[u8], ids: Ids) -> Vec<u8> {
    [&ids.asked[..], &answer[2..]].concat()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_hosts_resolvers_are_read_as_the_c_library_reads_them() {
        let text =
            "# x\nnameserver 127.0.0.53\nsearch a\nnameserver\t2001:db8::1\nnameserver fe80::1%eth0\nnameserver x";
        assert_eq!(parse(text), ["127.0.0.53:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()]);
        assert_eq!(read(Path::new("/does/not/exist")), ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn the_hosts_own_resolver_is_asked_through_the_host() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 127.0.0.53\nnameserver 127.0.0.1\nnameserver 192.0.2.1\n").unwrap();
        let host = Some(Ipv4Addr::new(10, 73, 127, 1));
        let far = Forwarder { host, ..Forwarder::reading(file.path(), Ipv4Addr::new(10, 73, 128, 10)) };
        let expected: Vec<SocketAddr> = vec!["10.73.127.1:53".parse().unwrap(), "192.0.2.1:53".parse().unwrap()];
        assert_eq!(far.resolvers(), expected);
    }

    #[test]
    fn our_own_address_is_never_asked_and_changes_are_seen() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "nameserver 10.73.128.10\nnameserver 192.0.2.1").unwrap();
        let forwarder = Forwarder::reading(file.path(), Ipv4Addr::new(10, 73, 128, 10));
        assert_eq!(forwarder.resolvers(), ["192.0.2.1:53".parse().unwrap()]);
        writeln!(file, "nameserver 192.0.2.2").unwrap();
        file.as_file().set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
        assert_eq!(forwarder.resolvers().len(), 2);
    }

    #[test]
    fn only_an_answer_to_our_question_is_taken() {
        let asked = b"\x07\x08\x01\0\0\x01\0\0\0\0\0\0\x01a\x03org\0\0\x01\0\x01";
        let (question, ids) = with_fresh_id(asked);
        let mut answer = question.clone();
        assert!(accept(&answer, ids, &question).is_none());
        answer[2] |= 0x80;
        let taken = accept(&answer, ids, &question).unwrap();
        assert_eq!(restore_id(taken, ids)[..2], [7, 8]);
        answer[HEADER + 1] = b'A';
        assert!(accept(&answer, ids, &question).is_some(), "letters may come back in another case");
        answer[HEADER + 1] = b'b';
        assert!(accept(&answer, ids, &question).is_none(), "another name");
        answer[HEADER] = 0xc0;
        assert!(accept(&answer, ids, &question).is_none());
        answer[HEADER..HEADER + 2].copy_from_slice(b"\x01a");
        answer[0] ^= 1;
        assert!(accept(&answer, ids, &question).is_none());
        assert!(accept(&answer[..5], ids, &question).is_none());
    }
}
