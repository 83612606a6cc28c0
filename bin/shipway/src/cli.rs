//! The command line: what can be said, with an example each. Nothing is done here.

mod nodes;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use shipway_apiserver::AuditConfig;
use shipway_deploy::Port;

pub(crate) use nodes::{JoinArgs, NodeCommand, TokenCommand};

/// Runs programs as scaled, reachable, self-healing services; carries the cluster they run on.
#[derive(Parser)]
#[command(name = "shipway", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Example:\n  shipway run hello.py --replicas 3\n  shipway ps\n  shipway rm hello")]
pub(crate) struct Cli {
    /// Folder that holds everything of one instance.
    #[arg(long, global = true, env = "SHIPWAY_HOME", default_value = "/var/lib/shipway", value_name = "DIR")]
    pub(crate) home: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Packs a program, deploys it, prints its URL and follows its logs; starts the engine if none runs.
    #[command(
        after_help = "Examples:\n  shipway run hello.py --replicas 3\n  shipway run ./server --port 80:8080 --detach\n  \
                            shipway run job.sh -- first second"
    )]
    Run(RunArgs),
    /// Starts the engine and waits until its node is ready; does nothing if it runs.
    #[command(after_help = "Examples:\n  shipway up\n  shipway up --nodes 3")]
    Up(UpArgs),
    /// Stops the engine and everything that runs on it; what was deployed comes back with the next `up`.
    #[command(after_help = "Example:\n  shipway down")]
    Down,
    /// Says whether the engine runs, and where its API answers.
    #[command(after_help = "Example:\n  shipway status --output json")]
    Status(ListArgs),
    /// Lists the apps.
    #[command(after_help = "Example:\n  shipway ps")]
    Ps(ListArgs),
    /// Shows what an app's replicas wrote.
    #[command(after_help = "Example:\n  shipway logs hello --follow")]
    Logs(LogsArgs),
    /// Sets how many replicas an app has.
    #[command(after_help = "Example:\n  shipway scale hello 5")]
    Scale {
        /// Name of the app.
        name: String,
        /// How many replicas.
        replicas: u32,
    },
    /// Removes apps.
    #[command(after_help = "Example:\n  shipway rm hello")]
    Rm {
        /// Names of the apps.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Lists the images in the instance's store; takes some in, forgets some.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  shipway images\n  shipway images load busybox.tar\n  shipway images rm busybox"
    )]
    Images(ImagesArgs),
    /// Further nodes of this machine: adds and removes them, and lets them fail.
    #[command(
        after_help = "Examples:\n  shipway node add node-2\n  shipway node kill node-2 && shipway node heal node-2"
    )]
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Tokens by which other machines join.
    #[command(after_help = "Example:\n  shipway token create --ttl 1h")]
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Makes this machine a node of a cluster elsewhere; `shipway token create` there prints the whole command.
    #[command(
        after_help = "Example:\n  shipway join https://192.0.2.1:6443 --token abcdef.0123456789abcdef --ca-cert-hash sha256:..."
    )]
    Join(JoinArgs),
    /// Prints the administrator's kubeconfig.
    #[command(after_help = "Example:\n  shipway kubeconfig > ~/.kube/config\n  kubectl get pods")]
    Kubeconfig,
    /// Prints the version.
    #[command(after_help = "Example:\n  shipway version --output json")]
    Version(ListArgs),
    /// Prints a completion script for a shell.
    #[command(after_help = "Example:\n  shipway completion bash > /etc/bash_completion.d/shipway")]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// The engine itself, in the foreground.
    #[command(hide = true)]
    Engine(UpArgs),
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// A Python program, a script or a binary.
    pub(crate) program: PathBuf,
    /// Arguments of the program, after `--`.
    #[arg(last = true)]
    pub(crate) arguments: Vec<String>,
    /// Name of the app [default: the program's name].
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Port that the program listens on, or PUBLISHED:TARGET; found out by looking when not given.
    #[arg(long = "port", short, value_name = "PORT")]
    pub(crate) ports: Vec<Port>,
    /// Environment variable.
    #[arg(long = "env", short, value_name = "KEY=VALUE", value_parser = environment)]
    pub(crate) environment: Vec<(String, String)>,
    /// How many copies run.
    #[arg(long, default_value_t = 1)]
    pub(crate) replicas: u32,
    /// Processor limit a replica, such as 500m.
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) cpu: Option<String>,
    /// Memory limit a replica, such as 128Mi.
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) memory: Option<String>,
    /// Leave the app running and return when it is ready.
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Prefix of the image's name, such as docker.io/me.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) repository: Option<String>,
    /// Also push the image to its registry.
    #[arg(long, requires = "repository")]
    pub(crate) publish: bool,
    /// The interpreter to pack and run the program with [default: the one it names].
    #[arg(long, value_name = "PATH")]
    pub(crate) interpreter: Option<PathBuf>,
}

#[derive(Args, Clone, Default)]
pub(crate) struct UpArgs {
    /// How many nodes this machine is to have; the further ones are added, and remembered.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=63))]
    pub(crate) nodes: Option<u8>,
    /// Port of the Kubernetes API on loopback; 0 takes a free one [default: the one before, else 6443 or a free one].
    #[arg(long, value_name = "PORT")]
    pub(crate) api_port: Option<u16>,
    /// Where the API answers other machines as well, which may then join; remembered. `127.0.0.1` takes it back.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<Ipv4Addr>,
    /// Which requests are written down, and how much of them: an audit.k8s.io/v1 Policy.
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    pub(crate) audit_policy_file: Option<PathBuf>,
    /// Where requests are written down, one JSON line an event.
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub(crate) audit_log_path: Option<PathBuf>,
}

impl UpArgs {
    /// The audit log that was asked for.
    pub(crate) fn audit(&self) -> Option<AuditConfig> {
        Some(AuditConfig::new(self.audit_policy_file.clone()?, self.audit_log_path.clone()?))
    }
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// How to print.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Args)]
pub(crate) struct ImagesArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    #[command(subcommand)]
    pub(crate) command: Option<ImagesCommand>,
}

#[derive(Subcommand)]
pub(crate) enum ImagesCommand {
    /// Takes in the images of an archive (an OCI layout, or what `docker save` writes) and prints their names.
    #[command(
        after_help = "Examples:\n  shipway images load busybox.tar\n  docker save busybox | shipway images load -"
    )]
    Load {
        /// A tar archive, plain or compressed with gzip or zstd; `-` reads the standard input.
        file: PathBuf,
    },
    /// Forgets names of images. What runs goes on.
    #[command(after_help = "Example:\n  shipway images rm busybox:latest")]
    Rm {
        /// Names of the images.
        #[arg(required = true, value_name = "REFERENCE")]
        references: Vec<String>,
    },
    /// Removes content that no name leads to any more. What runs goes on; an engine does the same from time to time.
    #[command(after_help = "Example:\n  shipway images rm busybox:latest && shipway images prune")]
    Prune,
}

#[derive(Args)]
pub(crate) struct LogsArgs {
    /// Name of the app.
    pub(crate) name: String,
    /// Go on as more is written.
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns for people.
    Table,
    /// JSON for programs.
    Json,
}

fn environment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_command_shows_an_example() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        shows_examples(&command);
    }

    fn shows_examples(command: &clap::Command) {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{} has no example", sub.get_name());
            shows_examples(sub);
        }
    }

    #[test]
    fn images_lists_unless_it_is_told_to_load_or_remove() {
        let parsed = |line: &[&str]| match Cli::parse_from([&["shipway", "images"], line].concat()).command {
            Command::Images(images) => images,
            _ => panic!("not images"),
        };
        assert!(parsed(&["-o", "json"]).command.is_none());
        assert!(
            matches!(parsed(&["load", "-"]).command, Some(ImagesCommand::Load { file }) if file.as_os_str() == "-")
        );
        assert!(matches!(parsed(&["prune"]).command, Some(ImagesCommand::Prune)));
        assert!(
            matches!(parsed(&["rm", "a", "b"]).command, Some(ImagesCommand::Rm { references }) if references.len() == 2)
        );
    }

    #[test]
    fn options_may_follow_the_program_and_its_arguments_come_after_two_dashes() {
        let cli = Cli::parse_from(["shipway", "run", "a.py", "--replicas", "3", "-e", "A=b=c", "--", "--x", "y"]);
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!((run.replicas, run.arguments), (3, vec!["--x".to_owned(), "y".to_owned()]));
        assert_eq!(run.environment, [("A".to_owned(), "b=c".to_owned())]);
    }
}
