//! `shipway run`: pack, deploy, expose, show; and on Ctrl-C take away what was made.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use shipway_deploy::{App, Exposed, Ports, Snapshot};
use shipway_oci::{Reference, Store};
use shipway_package::{Packed, Request};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::{RunArgs, UpArgs};
use crate::client::{NAMESPACE, connect};
use crate::home::Home;
use crate::output::{LogLines, Steps, bytes, tell};
use crate::up;

/// The last pause before a new service is believed to answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn run(home: &Home, args: RunArgs) -> Result<()> {
    let name = app_name(&args)?;
    if !args.program.is_file() {
        bail!("{} is not a file; give the path of a Python program, a script or a binary", args.program.display());
    }
    let steps = Arc::new(Steps::new());
    let interrupts = Interrupts::listen()?;
    let result = start(home, &args, &name, &steps, &interrupts).await;
    steps.finish();
    let Some(started) = result? else { return Ok(()) };
    let client = connect(home).await?;
    let lines = LogLines::new();
    let follow = shipway_deploy::follow(&client, NAMESPACE, &name, true, |pod, text| lines.line(pod, text));
    tokio::select! {
        () = follow => {}
        () = interrupts.once.cancelled() => {}
    }
    tell(&format!("removing {name}"));
    started.undo(&client, &interrupts).await
}

/// What `run` made and may have to take away again.
struct Started {
    app: App,
}

impl Started {
    async fn undo(&self, client: &kube::Client, interrupts: &Interrupts) -> Result<()> {
        tokio::select! {
            removed = shipway_deploy::remove(client, NAMESPACE, &self.app.name) => Ok(removed?),
            () = interrupts.twice.cancelled() => bail!("interrupted while removing {}; `shipway rm {0}` goes on", self.app.name),
        }
    }
}

/// Brings the app up; gives nothing where it shall be left alone.
async fn start(
    home: &Home,
    args: &RunArgs,
    name: &str,
    steps: &Arc<Steps>,
    interrupts: &Interrupts,
) -> Result<Option<Started>> {
    let store = Store::open(&home.path("content"))?;
    let usual = UpArgs::default();
    let (engine, packed) = tokio::join!(up::ensure(home, &usual), pack(home, &store, args, name, steps));
    let packed = packed?;
    steps.done(&describe(&packed));
    if engine? {
        steps.done("engine: started");
    }
    let client = connect(home).await?;
    let app = app(args, name, &packed);
    let before = shipway_deploy::snapshot(&client, &app).await?;
    let exposed = tokio::select! {
        exposed = deploy(&client, &app, steps) => exposed,
        () = interrupts.once.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    let exposed = match exposed {
        Ok(exposed) => exposed,
        Err(error) => return Err(give_up(&client, &app, before, error, interrupts).await),
    };
    answers(&exposed).await;
    steps.done(&reached(&app, &exposed));
    if args.publish {
        tokio::select! {
            () = publish(&store, &packed, steps) => {}
            () = interrupts.once.cancelled() => steps.done("warning: not published, interrupted"),
        }
    }
    Ok((!args.detach).then_some(Started { app }))
}

async fn pack(home: &Home, store: &Store, args: &RunArgs, name: &str, steps: &Arc<Steps>) -> Result<Packed> {
    let prefix = args.repository.as_deref().unwrap_or("shipway.local").trim_end_matches('/');
    let reference: Reference = format!("{prefix}/{name}:latest").parse()?;
    let request = Request {
        program: args.program.clone(),
        arguments: args.arguments.clone(),
        reference: Some(reference),
        interpreter: args.interpreter.clone(),
        cache: home.path("cache"),
    };
    let (store, steps) = (store.clone(), steps.clone());
    let packed = tokio::task::spawn_blocking(move || shipway_package::pack(&store, &request, &*steps));
    Ok(packed.await.context("packing was interrupted")??)
}

async fn deploy(client: &kube::Client, app: &App, steps: &Steps) -> Result<Exposed> {
    shipway_deploy::roll_out(client, app, steps).await?;
    Ok(shipway_deploy::expose(client, app).await?)
}

/// Leaves nothing half-made: what was there before comes back, what was not goes.
async fn give_up(
    client: &kube::Client,
    app: &App,
    before: Snapshot,
    error: anyhow::Error,
    interrupts: &Interrupts,
) -> anyhow::Error {
    let existed = before.existed();
    let restored = tokio::select! {
        restored = shipway_deploy::restore(client, app, before) => restored.map_err(anyhow::Error::from),
        () = interrupts.twice.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    match restored {
        Ok(()) if existed => error.context(format!("{} was not updated, its former version goes on", app.name)),
        Ok(()) => error,
        Err(failed) => error.context(format!("{} could not be taken back: {failed}", app.name)),
    }
}

/// Pushes the image; a failure is told with its remedy and does not touch the running app.
async fn publish(store: &Store, packed: &Packed, steps: &Steps) {
    steps.now(format!("publishing {}", packed.reference));
    match shipway_oci::push(store, &packed.reference, None).await {
        Ok(()) => steps.done(&format!("published {}", packed.reference)),
        Err(error) => steps.done(&format!("warning: not published, the app runs on: {error}")),
    }
}

fn app(args: &RunArgs, name: &str, packed: &Packed) -> App {
    App {
        name: name.to_owned(),
        namespace: NAMESPACE.to_owned(),
        image: format!("{}@{}", packed.reference, packed.digest),
        env: args.environment.clone(),
        ports: if args.ports.is_empty() { Ports::Discover } else { Ports::Fixed(args.ports.clone()) },
        replicas: args.replicas,
        cpu: args.cpu.clone(),
        memory: args.memory.clone(),
    }
}

fn describe(packed: &Packed) -> String {
    let again = if packed.unchanged { ", unchanged" } else { "" };
    format!("packed {} files, {}{again}: {}@{}", packed.files, bytes(packed.bytes), packed.reference, packed.digest)
}

fn reached(app: &App, exposed: &Exposed) -> String {
    match exposed.ports.as_slice() {
        [] => format!("{} runs; it listens on no port, so it has no URL", app.name),
        ports => {
            let urls: Vec<String> = ports.iter().map(|port| format!("http://127.0.0.1:{}", port.published)).collect();
            format!("{} answers at {}", app.name, urls.join(" "))
        }
    }
}

/// Waits until the first port takes a connection: the kernel learns of a new service a moment after the API does.
async fn answers(exposed: &Exposed) {
    let Some(port) = exposed.ports.first() else { return };
    let mut pause = Duration::from_millis(2);
    while pause < LONGEST_PAUSE {
        if tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port.published)).await.is_ok() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// The name that was given, else the program's own as a DNS label.
fn app_name(args: &RunArgs) -> Result<String> {
    if let Some(name) = &args.name {
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty()
            || name.len() > 63
            || !name.chars().all(valid)
            || name.starts_with('-')
            || name.ends_with('-')
        {
            bail!("--name {name:?} is not a DNS label: at most 63 lower-case letters, digits and '-'");
        }
        return Ok(name.clone());
    }
    Ok(label_of(&args.program))
}

fn label_of(program: &Path) -> String {
    let stem = program.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let label: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "app".to_owned() } else { label.to_owned() }
}

/// What the user or the system asked for: once to end, twice to end at once. Heard from the beginning, so that no
/// signal falls between two steps.
#[derive(Clone)]
struct Interrupts {
    once: CancellationToken,
    twice: CancellationToken,
}

impl Interrupts {
    fn listen() -> Result<Self> {
        let interrupts = Self { once: CancellationToken::new(), twice: CancellationToken::new() };
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let heard = interrupts.clone();
        tokio::spawn(async move {
            for asked in [heard.once, heard.twice] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                asked.cancel();
            }
        });
        Ok(interrupts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_lends_its_name_to_the_app() {
        assert_eq!(label_of(Path::new("/x/My_Server.py")), "my-server");
        assert_eq!(label_of(Path::new("./___")), "app");
        assert_eq!(label_of(&Path::new("a").with_file_name("b".repeat(99))).len(), 63);
    }
}
