//! Commands and attachments: from a request to a program's streams.

use http::{Request, Response, StatusCode};
use shipway_container::{Command, ContainerError};
use shipway_stream::{CommandDialect, Outcome, Refusal, RemoteCommand, Size, Wanted};
use tokio::sync::watch;

use super::{Streams, Target, refuse, switched};
use crate::log::parameters;
use crate::service::Body;

/// The longest command, in bytes; the kernel's own limit is not much more.
const COMMAND_MAX: usize = 96 * 1024;

/// What a request asks for.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    wanted: Wanted,
    command: Vec<String>,
}

impl Asked {
    fn parse(query: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for (name, value) in parameters(query) {
            let flag = || match value.as_str() {
                "" | "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(format!("invalid value \"{value}\" for {name}")),
            };
            match name {
                "stdin" => asked.wanted.stdin = flag()?,
                "stdout" => asked.wanted.stdout = flag()?,
                "stderr" => asked.wanted.stderr = flag()?,
                "tty" => asked.wanted.tty = flag()?,
                "command" => asked.command.push(value),
                _ => {}
            }
        }
        let Wanted { stdin, stdout, stderr, .. } = asked.wanted;
        if !(stdin || stdout || stderr) {
            return Err("you must specify at least 1 of stdin, stdout, stderr".to_owned());
        }
        if asked.command.iter().map(String::len).sum::<usize>() > COMMAND_MAX {
            return Err(format!("the command is longer than {COMMAND_MAX} bytes"));
        }
        Ok(asked)
    }

    fn of(request: &Request<Body>) -> Result<Self, Refusal> {
        let query = request.uri().query().unwrap_or_default();
        Self::parse(query).map_err(|message| refuse(StatusCode::BAD_REQUEST, message))
    }
}

impl Streams {
    /// `/exec/<namespace>/<pod>/<container>?command=…`
    pub(crate) fn exec(&self, mut request: Request<Body>, path: [&str; 3]) -> Result<Response<Body>, Refusal> {
        let Asked { wanted, command } = Asked::of(&request)?;
        if command.is_empty() {
            let message = "you must specify at least one command for the container".to_owned();
            return Err(refuse(StatusCode::BAD_REQUEST, message));
        }
        let target = self.target(path[0], path[1], path[2])?;
        let (dialect, reply) = CommandDialect::negotiate(request.headers())?;
        let (switch, runtime) = (self.switch(&mut request)?, self.runtime.clone());
        let command = Command { args: command, stdin: wanted.stdin, terminal: wanted.tty };
        self.spawn(switch, move |io| async move {
            dialect.serve(io, wanted, |remote| async move { run(&runtime, &target, &command, remote).await }).await
        });
        Ok(switched(reply))
    }

    /// `/attach/<namespace>/<pod>/<container>`
    pub(crate) fn attach(&self, mut request: Request<Body>, path: [&str; 3]) -> Result<Response<Body>, Refusal> {
        let Asked { wanted, .. } = Asked::of(&request)?;
        let target = self.target(path[0], path[1], path[2])?;
        let (dialect, reply) = CommandDialect::negotiate(request.headers())?;
        let (switch, runtime) = (self.switch(&mut request)?, self.runtime.clone());
        self.spawn(switch, move |io| async move {
            dialect
                .serve(io, wanted, |remote| async move { attach(&runtime, &target, wanted.stdin, remote).await })
                .await
        });
        Ok(switched(reply))
    }
}

async fn run(
    runtime: &shipway_container::Runtime,
    target: &Target,
    command: &Command,
    remote: RemoteCommand,
) -> Outcome {
    let ran = async {
        let process = runtime.exec(&target.uid, &target.run, command).await?;
        with_sizes(remote, |streams| process.run(streams)).await
    };
    outcome(ran.await, "executing command in")
}

async fn attach(runtime: &shipway_container::Runtime, target: &Target, stdin: bool, remote: RemoteCommand) -> Outcome {
    let attached = async {
        let attachment = runtime.attach(&target.uid, &target.run, stdin).await?;
        with_sizes(remote, |streams| attachment.run(streams)).await.map(|()| 0)
    };
    outcome(attached.await, "attaching to")
}

fn outcome(result: Result<i32, ContainerError>, tried: &str) -> Outcome {
    match result {
        Ok(0) => Outcome::Success,
        Ok(code) => Outcome::Exited(code),
        Err(error) => Outcome::Failed(format!("error {tried} container: {error}")),
    }
}

type Far = shipway_container::Streams<shipway_stream::Incoming, shipway_stream::Outgoing>;

/// Runs something on the client's streams, with the terminal's size in the runtime's form.
async fn with_sizes<T, F: Future<Output = T>>(remote: RemoteCommand, run: impl FnOnce(Far) -> F) -> T {
    let RemoteCommand { stdin, stdout, stderr, size: told } = remote;
    let (tell, size) = watch::channel(None);
    tokio::select! {
        done = run(Far { stdin, stdout, stderr, size }) => done,
        never = tell_sizes(told, tell) => match never {},
    }
}

async fn tell_sizes(
    mut told: watch::Receiver<Option<Size>>,
    tell: watch::Sender<Option<(u16, u16)>>,
) -> std::convert::Infallible {
    loop {
        let newest = *told.borrow_and_update();
        tell.send_replace(newest.map(|size| (size.columns, size.rows)));
        if told.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_streams_and_the_words_of_the_command() {
        let asked =
            Asked::parse("command=sh&command=-c&command=echo+%22a%26b%22&stdin=true&stdout=1&tty=false").unwrap();
        assert_eq!(asked.command, ["sh", "-c", "echo \"a&b\""]);
        assert_eq!(asked.wanted, Wanted { stdin: true, stdout: true, ..Wanted::default() });
    }

    #[test]
    fn a_query_that_makes_no_sense_is_refused() {
        assert!(Asked::parse("command=sh").unwrap_err().contains("at least 1 of"));
        assert!(Asked::parse("stdout=maybe").unwrap_err().contains("invalid value \"maybe\" for stdout"));
        assert!(Asked::parse(&format!("stdout=1&command={}", "x".repeat(COMMAND_MAX + 1))).is_err());
    }
}
