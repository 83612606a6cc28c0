//! Connections: TLS, HTTP/1.1 and HTTP/2, who is at the other end, and a graceful end.
//!
//! Everything a stranger can make the server hold is bounded: connections, handshakes in time, headers in size and time.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::ApiServer;
use crate::access::Peer;
use crate::body::Body;
use crate::error::ApiError;
use crate::handle::answer;
use crate::identity::AUTHENTICATED;

/// At most so many connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 4096;
/// How long a client may take for the TLS handshake or for the head of a request.
const GREETING: Duration = Duration::from_secs(10);
/// How long requests in flight may take when the server stops.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long to wait when the process has no file descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// The largest request head, in bytes.
const HEAD: usize = 64 * 1024;
/// The most headers of a request.
const HEADERS: usize = 100;
/// The most requests in flight on one HTTP/2 connection.
const STREAMS: u32 = 1000;

/// Where a request comes from, among its extensions.
#[derive(Clone, Copy)]
pub(crate) struct PeerAddress(pub(crate) std::net::SocketAddr);

/// Serves until stopped, then lets requests in flight end.
pub(crate) async fn serve(
    server: ApiServer,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
            () = stop.cancelled() => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) if is_passing(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(EXHAUSTED).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        let connection = connection(server.clone(), acceptor.clone(), stream, stop.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, drained).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

/// Whether only one connection failed and not the listener.
fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}

async fn connection(server: ApiServer, acceptor: TlsAcceptor, stream: TcpStream, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without TCP_NODELAY");
    }
    let address = stream.peer_addr().ok();
    let stream = match tokio::time::timeout(GREETING, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = Arc::new(Peer::of(certificate.map(AsRef::as_ref)));
    let introduced = Arc::new(AtomicBool::new(!matches!(*peer, Peer::Stranger)));
    let service = service_fn(|request: Request<Incoming>| {
        let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let (server, stop, peer, introduced) = (server.clone(), stop.clone(), peer.clone(), introduced.clone());
        async move {
            if let Some(address) = address {
                request.extensions_mut().insert(PeerAddress(address));
            }
            let identity = peer.authenticate(&server, request.headers_mut()).await;
            if identity.as_ref().is_some_and(|identity| identity.is_in(AUTHENTICATED)) {
                introduced.store(true, Ordering::Relaxed);
            }
            Ok::<Response<Body>, Infallible>(answer(server, identity, request, stop).await)
        }
    });
    let builder = builder();
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Whoever shows no credential may ask a few questions, but not keep a connection.
    let overstayed = async {
        tokio::time::sleep(GREETING).await;
        if introduced.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = overstayed => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GREETING, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!("a connection without a credential was cut"),
            }
        }
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(GREETING).max_buf_size(HEAD).max_headers(HEADERS);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
    http2.max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX));
    http2.keep_alive_interval(Duration::from_secs(30)).keep_alive_timeout(Duration::from_secs(20));
    builder
}
