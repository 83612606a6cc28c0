//! The one binary: command line, wiring, signals. The only crate that knows both halves, the engine and the platform.

mod cli;
mod client;
mod down;
mod engine;
mod home;
mod images;
mod instance;
mod listings;
mod nodes;
mod output;
mod run;
mod up;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command};
use crate::home::Home;

fn main() -> ExitCode {
    // A supervisor or a container's creator is this binary too, and must stay single-threaded.
    if let Some(code) = shipway_container::entry() {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    let cli = Cli::parse();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::tell(&format!("error: {}", output::one_line(&error)));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> Result<()> {
    if let Command::Completion { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "shipway", &mut std::io::stdout());
        return Ok(());
    }
    if let Command::Version(list) = cli.command {
        return listings::version(&list);
    }
    let home = Home::open(&cli.home)?;
    if let Command::Node { command } = &cli.command
        && nodes::before_threads(&home, command)?
    {
        return Ok(());
    }
    // kube and the image library both take the process-wide provider.
    rustls::crypto::ring::default_provider().install_default().ok().context("a TLS provider is installed already")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(dispatch(home, cli.command))
}

async fn dispatch(home: Home, command: Command) -> Result<()> {
    match command {
        Command::Run(args) => run::run(&home, args).await,
        Command::Up(args) => up::up(&home, &args).await,
        Command::Down => down::down(&home).await,
        Command::Engine(args) => engine::engine(home, &args).await,
        Command::Status(list) => listings::status(&home, &list).await,
        Command::Ps(list) => listings::apps(&home, &list).await,
        Command::Images(args) => images::images(&home, &args),
        Command::Logs(args) => listings::logs(&home, &args).await,
        Command::Scale { name, replicas } => {
            let client = client::connect(&home).await?;
            Ok(shipway_deploy::scale(&client, client::NAMESPACE, &name, replicas).await?)
        }
        Command::Rm { names } => {
            let client = client::connect(&home).await?;
            for name in names {
                shipway_deploy::remove(&client, client::NAMESPACE, &name).await?;
                output::write_out(&format!("{name} removed\n"))?;
            }
            Ok(())
        }
        Command::Node { command } => nodes::node(&home, command).await,
        Command::Token { command } => nodes::token::token(&home, &command).await,
        Command::Join(args) => nodes::join::join(&home, &args).await,
        Command::Kubeconfig => listings::kubeconfig(&home),
        Command::Completion { .. } | Command::Version(_) => unreachable!("handled before the runtime starts"),
    }
}
