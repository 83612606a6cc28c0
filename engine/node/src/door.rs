//! Where a node in a process of its own is asked by the API server: the node's service over TLS, HTTP/1.1, connections
//! bounded in number and in the time that a greeting may take. Who may ask is the TLS configuration's to say.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::service::{Body, NodeService};

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 1024;
/// How long a handshake, or the head of a request, may take.
const GREETING: Duration = Duration::from_secs(10);
/// How long to wait when nothing can be accepted.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Answers until stopped.
pub async fn serve(
    service: NodeService,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return Ok(()),
        };
        match accepted {
            Ok((stream, _)) => {
                let answered = connection(service.clone(), TlsAcceptor::from(tls.clone()), stream);
                connections.spawn(async move {
                    answered.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(service: NodeService, acceptor: TlsAcceptor, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(GREETING, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let answer = service_fn(move |request: Request<Incoming>| {
        ask(service.clone(), request.map(|body| body.map_err(Into::into).boxed_unsync()))
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(GREETING);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).with_upgrades().await {
        tracing::debug!(%error, "a connection of the API server broke off");
    }
}

/// Boxed where the types are known, so that callers need not work out that it can be sent.
fn ask(service: NodeService, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
    service.oneshot(request).boxed()
}
