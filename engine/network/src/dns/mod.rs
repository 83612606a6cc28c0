//! The cluster's DNS server: answers for the cluster domain from memory and passes everything else to the host's
//! resolvers.
//!
//! Work is bounded: so many questions may wait for a resolver and so many TCP connections may be open; what comes beyond
//! that is told to fail, or is closed.

mod answer;
mod cache;
mod forward;
mod zone;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) use forward::resolvers;
pub use zone::{EndpointRecord, PortRecord, ServiceRecords, Zone};

use crate::NetworkError;
use answer::{Outcome, Transport, answer};
use cache::Cache;
use forward::Forwarder;

/// Questions that may wait for a resolver at once.
const MOST_FORWARDS: usize = 512;
/// TCP connections that may be open at once.
const MOST_CONNECTIONS: usize = 128;
/// A TCP connection with nothing to say is closed after this time.
const IDLE: Duration = Duration::from_secs(10);
/// Every asker takes answers of this size (RFC 1035, section 4.2.1).
const SAFE_DATAGRAM: usize = 512;
/// Longer questions are cut, and then malformed.
const LONGEST_QUESTION: usize = 4096;

/// What the server has seen since its start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packets that were no questions.
    pub malformed: AtomicU64,
    /// Questions answered from memory.
    pub answered: AtomicU64,
    /// Questions answered with what a resolver said before.
    pub remembered: AtomicU64,
    /// Questions passed to the host's resolvers.
    pub forwarded: AtomicU64,
    /// Questions and connections refused because too many were waiting, and answers that could not be sent.
    pub dropped: AtomicU64,
}

/// A server that listens but does not answer yet: questions wait until [`Server::run`].
#[derive(Debug)]
pub struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    zone: Arc<Zone>,
    forwarder: Forwarder,
    cache: Cache,
    forwards: Semaphore,
    counters: Arc<Counters>,
}

impl Server {
    /// Listens on port 53 of `address`, over UDP and TCP. Resolvers that only the host itself reaches are asked through
    /// `host`, where this is not the host.
    pub async fn listen(zone: Arc<Zone>, address: Ipv4Addr, host: Option<Ipv4Addr>) -> Result<Self, NetworkError> {
        Self::listen_on(zone, SocketAddr::from((address, 53)), host).await
    }

    async fn listen_on(zone: Arc<Zone>, address: SocketAddr, host: Option<Ipv4Addr>) -> Result<Self, NetworkError> {
        let failed = |source: io::Error| NetworkError::DnsListen { address, source };
        let own = match address {
            SocketAddr::V4(address) => *address.ip(),
            SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let udp = UdpSocket::bind(tcp.local_addr().map_err(failed)?).await.map_err(failed)?;
        let forwards = Semaphore::new(MOST_FORWARDS);
        let shared = Shared {
            zone,
            forwarder: Forwarder::new(own, host),
            cache: Cache::default(),
            forwards,
            counters: Arc::default(),
        };
        Ok(Self { udp, tcp, shared: Arc::new(shared) })
    }

    /// What the server has seen.
    pub fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// Answers until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let Self { udp, tcp, shared } = self;
        let serve = async { tokio::join!(serve_udp(&udp, &shared), serve_tcp(&tcp, &shared)) };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = serve => {}
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

async fn serve_udp(udp: &UdpSocket, shared: &Arc<Shared>) {
    let mut buffer = vec![0; LONGEST_QUESTION];
    let (answers, mut ready) = tokio::sync::mpsc::channel::<(Vec<u8>, SocketAddr)>(MOST_FORWARDS);
    let mut waiting = JoinSet::new();
    loop {
        tokio::select! {
            received = udp.recv_from(&mut buffer) => match received {
                Err(error) => tracing::debug!(%error, "a DNS packet could not be received"),
                Ok((length, asker)) => match answer(&shared.zone, &buffer[..length], Transport::Udp) {
                    Outcome::Malformed => count(&shared.counters.malformed),
                    Outcome::Reply(reply) => {
                        count(&shared.counters.answered);
                        send(udp, &reply, asker, shared).await;
                    }
                    Outcome::Forward(forward) if waiting.len() >= MOST_FORWARDS => {
                        count(&shared.counters.dropped);
                        send(udp, &forward.refuse(), asker, shared).await;
                    }
                    Outcome::Forward(forward) => {
                        let (shared, answers) = (shared.clone(), answers.clone());
                        waiting.spawn(async move {
                            let reply = shared.forward(*forward, Transport::Udp).await;
                            if answers.send((reply, asker)).await.is_err() {
                                tracing::debug!("the DNS server ended before an answer came");
                            }
                        });
                    }
                },
            },
            Some((reply, asker)) = ready.recv() => send(udp, &reply, asker, shared).await,
            Some(_) = waiting.join_next() => {}
        }
    }
}

async fn send(udp: &UdpSocket, reply: &[u8], asker: SocketAddr, shared: &Shared) {
    if let Err(error) = udp.send_to(reply, asker).await {
        count(&shared.counters.dropped);
        tracing::debug!(%error, %asker, "a DNS answer could not be sent");
    }
}

async fn serve_tcp(tcp: &TcpListener, shared: &Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = tcp.accept() => match accepted {
                Ok((stream, _)) if connections.len() < MOST_CONNECTIONS => {
                    connections.spawn(serve_connection(stream, shared.clone()));
                }
                Ok(_) => count(&shared.counters.dropped),
                Err(error) => {
                    tracing::debug!(%error, "a DNS connection could not be accepted");
                    // Out of descriptors: accepting at once again would only spin.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Ok(Ok(question)) = timeout(IDLE, read_question(&mut stream)).await {
        let reply = match answer(&shared.zone, &question, Transport::Tcp) {
            Outcome::Malformed => return count(&shared.counters.malformed),
            Outcome::Reply(reply) => {
                count(&shared.counters.answered);
                reply
            }
            Outcome::Forward(forward) => shared.forward(*forward, Transport::Tcp).await,
        };
        let length = u16::try_from(reply.len()).unwrap_or_default().to_be_bytes();
        let sent = timeout(IDLE, stream.write_all(&[&length[..], &reply].concat())).await;
        if !matches!(sent, Ok(Ok(()))) {
            return count(&shared.counters.dropped);
        }
    }
}

async fn read_question(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > LONGEST_QUESTION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut question = vec![0; length];
    stream.read_exact(&mut question).await?;
    Ok(question)
}

impl Shared {
    async fn forward(&self, forward: answer::Forward, transport: Transport) -> Vec<u8> {
        if let Some(answer) = self.cache.get(&forward.question).filter(|answer| fits(answer, transport)) {
            count(&self.counters.remembered);
            return forward.finish(Some(answer));
        }
        let Ok(_permit) = self.forwards.try_acquire() else {
            count(&self.counters.dropped);
            return forward.refuse();
        };
        count(&self.counters.forwarded);
        let answer = self.forwarder.ask(&forward.question, transport).await;
        if let Some(answer) = &answer {
            self.cache.put(&forward.question, answer);
        }
        forward.finish(answer)
    }
}

/// Whether an answer that came over TCP may go out over UDP.
fn fits(answer: &[u8], transport: Transport) -> bool {
    transport == Transport::Tcp || answer.len() <= SAFE_DATAGRAM
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, Query};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    fn question() -> Vec<u8> {
        let mut message = Message::query();
        let name: Name = "web.default.svc.cluster.local.".parse().unwrap();
        message.add_query(Query::query(name, RecordType::A));
        message.to_vec().unwrap()
    }

    #[tokio::test]
    async fn it_answers_over_udp_and_tcp_and_survives_noise() {
        let server =
            Server::listen_on(Arc::new(zone::tests::zone()), "127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let (address, counters, stop) = (server.udp.local_addr().unwrap(), server.counters(), CancellationToken::new());
        let running = tokio::spawn(server.run(stop.clone()));

        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"noise", address).await.unwrap();
        client.send_to(&question(), address).await.unwrap();
        let mut buffer = [0; 512];
        let length = timeout(IDLE, client.recv(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(Message::from_vec(&buffer[..length]).unwrap().answers.len(), 1);
        assert_eq!(counters.malformed.load(Ordering::Relaxed), 1);

        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            let bytes = question();
            stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut reply = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut reply).await.unwrap();
            assert_eq!(Message::from_vec(&reply).unwrap().answers.len(), 1);
        }
        stop.cancel();
        timeout(IDLE, running).await.unwrap().unwrap();
    }
}
