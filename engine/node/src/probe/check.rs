//! One question to a container: a command in it, an HTTP request, a TCP connection, a gRPC health check; also what lifecycle hooks do.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use super::{grpc, http};
use crate::machine::Sandbox;

/// Success, or why not in words.
pub(super) type Outcome = Result<(), String>;

/// A question with its ports resolved.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Check {
    Exec(Vec<String>),
    Http(http::Get),
    Tcp { host: Option<String>, port: u16 },
    Grpc(grpc::Health),
    Sleep(Duration),
}

impl Check {
    /// The probe's question; an error says why it can never be asked.
    pub(super) fn of(probe: &Probe, container: &Container) -> Result<Self, String> {
        if let Some(exec) = &probe.exec {
            return Ok(Self::Exec(exec.command.clone().unwrap_or_default()));
        }
        if let Some(get) = &probe.http_get {
            return http_get(get, container);
        }
        if let Some(tcp) = &probe.tcp_socket {
            return Ok(Self::Tcp { host: tcp.host.clone(), port: port(&tcp.port, container)? });
        }
        if let Some(health) = &probe.grpc {
            let port = port(&IntOrString::Int(health.port), container)?;
            return Ok(Self::Grpc(grpc::Health { port, service: health.service.clone().unwrap_or_default() }));
        }
        Err("the probe names no exec, httpGet, tcpSocket or grpc".to_owned())
    }

    fn of_handler(handler: &LifecycleHandler, container: &Container) -> Result<Self, String> {
        if let Some(exec) = &handler.exec {
            return Ok(Self::Exec(exec.command.clone().unwrap_or_default()));
        }
        if let Some(get) = &handler.http_get {
            return http_get(get, container);
        }
        if let Some(sleep) = &handler.sleep {
            return Ok(Self::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))));
        }
        Err("the hook names no exec, httpGet or sleep".to_owned())
    }
}

fn http_get(get: &HTTPGetAction, container: &Container) -> Result<Check, String> {
    let headers = get.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone()));
    Ok(Check::Http(http::Get {
        host: get.host.clone().filter(|host| !host.is_empty()),
        port: port(&get.port, container)?,
        path: get.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned()),
        tls: get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        headers: headers.collect(),
    }))
}

/// A port by number or by the name that the container gives it.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|each| each.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
    number.ok_or_else(|| {
        format!(
            "the container has no port {}",
            match port {
                IntOrString::Int(number) => number.to_string(),
                IntOrString::String(name) => format!("\"{name}\""),
            }
        )
    })
}

/// Whom the questions go to.
#[derive(Clone, Debug)]
pub(crate) struct Target<S> {
    pub(crate) sandbox: S,
    /// The runtime's name of the run.
    pub(crate) run: String,
    /// Where the pod answers.
    pub(crate) address: IpAddr,
}

impl<S: Sandbox> Target<S> {
    pub(super) async fn ask(&self, check: &Check, timeout: Duration) -> Outcome {
        match check {
            Check::Exec(command) => self.exec(command, timeout).await,
            Check::Http(get) => {
                let asked = tokio::time::timeout(timeout, get.ask(self.address)).await;
                asked
                    .unwrap_or_else(|_| Err(format!("Get \"{}\": no answer within {timeout:?}", get.url(self.address))))
            }
            Check::Tcp { host, port } => {
                let host = host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| self.address.to_string());
                let connected = tokio::time::timeout(timeout, TcpStream::connect((host.as_str(), *port))).await;
                match connected {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(format!("dial tcp {host}:{port}: {error}")),
                    Err(_) => Err(format!("dial tcp {host}:{port}: no answer within {timeout:?}")),
                }
            }
            Check::Grpc(health) => {
                let asked = tokio::time::timeout(timeout, health.ask(self.address)).await;
                let late = || {
                    let to = std::net::SocketAddr::new(self.address, health.port);
                    format!("timeout: failed to connect service \"{to}\" within {timeout:?}: context deadline exceeded")
                };
                asked.unwrap_or_else(|_| Err(late()))
            }
            Check::Sleep(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
        }
    }

    async fn exec(&self, command: &[String], timeout: Duration) -> Outcome {
        let asked = self.sandbox.exec(&self.run, command, timeout);
        // The runtime ends the command at the timeout; it gets a moment to say so.
        match tokio::time::timeout(timeout + Duration::from_secs(1), asked).await {
            Ok(Ok((0, _))) => Ok(()),
            Ok(Ok((code, output))) => {
                let text = String::from_utf8_lossy(&output).trim().to_owned();
                Err(if text.is_empty() { format!("command exited with code {code}") } else { text })
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("command timed out after {timeout:?}")),
        }
    }
}

/// Runs a lifecycle hook once.
pub(crate) async fn hook<S: Sandbox>(
    target: &Target<S>,
    handler: &LifecycleHandler,
    container: &Container,
    timeout: Duration,
) -> Result<(), String> {
    let check = Check::of_handler(handler, container)?;
    target.ask(&check, timeout).await
}
