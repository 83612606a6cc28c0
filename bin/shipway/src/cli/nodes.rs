//! What can be said about nodes: further ones of this machine, and other machines that join.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::ListArgs;

#[derive(Subcommand)]
pub(crate) enum NodeCommand {
    /// Adds nodes, and waits until they are ready.
    #[command(after_help = "Example:\n  shipway node add node-2 node-3")]
    Add {
        /// Names of the nodes.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Removes nodes, with all that they keep; `kubectl drain` moves their pods away before.
    #[command(after_help = "Example:\n  shipway node remove node-3")]
    Remove {
        /// Names of the nodes.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Ends all processes of nodes at once, as a loss of power does.
    #[command(after_help = "Example:\n  shipway node kill node-2")]
    Kill {
        /// Names of the nodes.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Cuts nodes off the network.
    #[command(after_help = "Example:\n  shipway node cut node-2")]
    Cut {
        /// Names of the nodes.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Undoes `kill` and `cut`, and waits until the nodes are ready.
    #[command(after_help = "Example:\n  shipway node heal node-2")]
    Heal {
        /// Names of the nodes.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Lists the nodes.
    #[command(after_help = "Example:\n  shipway node ls --output json")]
    Ls(ListArgs),
    /// Makes the namespaces of a node and starts what lives in them.
    #[command(hide = true)]
    Boot {
        /// Name of the node.
        name: String,
    },
    /// The first process of a node.
    #[command(hide = true)]
    Init {
        /// Name of the node.
        name: String,
    },
    /// The node itself.
    #[command(hide = true)]
    Run {
        /// Name of the node.
        name: String,
    },
    /// The node of a home that has joined a cluster.
    #[command(hide = true)]
    Stay,
}

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Makes a token and prints the command with which another machine joins.
    #[command(after_help = "Example:\n  shipway token create --ttl 1h")]
    Create {
        /// For how long the token is good, such as 30m, 24h or 7d.
        #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = duration)]
        ttl: Duration,
    },
}

#[derive(Args)]
pub(crate) struct JoinArgs {
    /// Where the cluster's API answers: https://HOST:PORT.
    pub(crate) server: String,
    /// The token.
    #[arg(long)]
    pub(crate) token: String,
    /// By which the cluster's authority is known.
    #[arg(long, value_name = "sha256:DIGEST")]
    pub(crate) ca_cert_hash: String,
    /// Name of the node [default: this machine's name].
    #[arg(long)]
    pub(crate) name: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("write a number and s, m, h or d".to_owned()),
    };
    let number: u32 = number.parse().map_err(|_| "write a number and s, m, h or d".to_owned())?;
    if number == 0 {
        return Err("it would be over at once".to_owned());
    }
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("30m"), Ok(Duration::from_mins(30)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(7 * 24)));
        for wrong in ["", "1", "h", "0h", "-1h", "1w", "1h ", "99999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
