//! Forwarded ports: connections made inside a pod's network namespace, to its loopback address and nowhere else.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use nix::sched::{CloneFlags, setns};
use shipway_container::Runtime;
use shipway_stream::{Forward, ForwardDialect, Refusal};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::{Streams, refuse, switched};
use crate::log::parameters;
use crate::service::Body;

/// How long a connection may take to be made; within a machine it is made at once or never.
const PATIENCE: Duration = Duration::from_secs(5);

impl Streams {
    /// `/portForward/<namespace>/<pod>?ports=…`
    pub(crate) fn forward(&self, mut request: Request<Body>, path: [&str; 2]) -> Result<Response<Body>, Refusal> {
        let ports = ports(request.uri().query().unwrap_or_default());
        let ports = ports.map_err(|message| refuse(StatusCode::BAD_REQUEST, message))?;
        let (uid, pod) = (self.uid(path[0], path[1])?, path[1].to_owned());
        let (dialect, reply) = ForwardDialect::negotiate(request.headers())?;
        if dialect == ForwardDialect::Channels && ports.is_empty() {
            return Err(refuse(StatusCode::BAD_REQUEST, "query parameter \"ports\" is required".to_owned()));
        }
        let (switch, runtime) = (self.switch(&mut request)?, self.runtime.clone());
        self.spawn(switch, move |io| async move {
            dialect.serve(io, &ports, |connection| forward(&runtime, &uid, &pod, connection)).await
        });
        Ok(switched(reply))
    }
}

/// `ports=80&ports=443` or `ports=80,443`.
fn ports(query: &str) -> Result<Vec<u16>, String> {
    let all = parameters(query).filter(|(name, _)| *name == "ports").map(|(_, value)| value);
    let words: Vec<String> = all.flat_map(|value| value.split(',').map(str::to_owned).collect::<Vec<_>>()).collect();
    let read = |word: &String| {
        word.parse().ok().filter(|port| *port > 0).ok_or(format!("unable to parse \"{word}\" as a port"))
    };
    words.iter().map(read).collect()
}

/// Carries one connection. Its end is the end of what the pod sends; clients wait for the end of the stream of errors.
async fn forward(runtime: &Runtime, uid: &str, pod: &str, connection: Forward) {
    let Forward { port, input, mut output, mut error } = connection;
    let carried = match connect(runtime, uid, port).await {
        Ok(stream) => carry(stream, input, &mut output).await,
        Err(failure) => {
            let text = format!("error forwarding port {port} to pod {pod}, uid {uid}: {failure}");
            error.write_all(text.as_bytes()).await
        }
    };
    let ended = async {
        output.shutdown().await?;
        error.shutdown().await
    };
    if let Err(error) = carried.and(ended.await) {
        tracing::debug!(pod, port, %error, "a forwarded connection broke off");
    }
}

async fn carry(
    mut stream: TcpStream,
    mut input: shipway_stream::Incoming,
    output: &mut shipway_stream::Outgoing,
) -> io::Result<()> {
    let (mut from, mut to) = stream.split();
    let there = async {
        // What the pod does not take any more, it ends by itself.
        if tokio::io::copy(&mut input, &mut to).await.is_ok() && to.shutdown().await.is_ok() {
            tracing::trace!("a client has said all on a forwarded connection");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = tokio::io::copy(&mut from, output) => done.map(drop),
        () = there => Ok(()),
    }
}

async fn connect(runtime: &Runtime, uid: &str, port: u16) -> Result<TcpStream, String> {
    let namespace = runtime.network_namespace(uid).map_err(|error| error.to_string())?;
    let (answer, answered) = oneshot::channel();
    let work = move || {
        if answer.send(enter_and_connect(&namespace, port)).is_err() {
            tracing::debug!(port, "a forwarded connection is not waited for any more");
        }
    };
    // Entering a network namespace changes a thread for good, so each connection gets one that ends with it.
    std::thread::Builder::new().name("port-forward".to_owned()).spawn(work).map_err(|error| error.to_string())?;
    let connected = answered.await.map_err(|_| "the connecting thread ended early".to_owned())?;
    let stream = connected.map_err(|error| format!("failed to connect to localhost:{port} inside the pod: {error}"))?;
    stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)).map_err(|error| error.to_string())
}

fn enter_and_connect(namespace: &Path, port: u16) -> io::Result<std::net::TcpStream> {
    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
    let to = |address: IpAddr| std::net::TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE);
    let stream = to(Ipv4Addr::LOCALHOST.into()).or_else(|error| to(Ipv6Addr::LOCALHOST.into()).map_err(|_| error))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_listed_or_repeated() {
        assert_eq!(ports("ports=80&ports=443,8080"), Ok(vec![80, 443, 8080]));
        assert_eq!(ports(""), Ok(Vec::new()));
        for query in ["ports=0", "ports=x", "ports=70000", "ports="] {
            assert!(ports(query).is_err(), "{query}");
        }
    }
}
