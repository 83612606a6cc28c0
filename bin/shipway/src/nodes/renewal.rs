//! Renews a node's certificate long before it ends, by the certificate itself.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use kube::Client;
use shipway_apiserver::pki::validity;
use tokio_util::sync::CancellationToken;

use super::identity::{self, Credentials};
use super::join;
use crate::output::one_line;

/// How soon a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_mins(1);
/// Of a certificate's time this much of ten passes before it is renewed, and up to one more, so that nodes do not all ask at once.
const USED: u32 = 7;

/// Waits until the certificate in that folder is due, and renews it. Ends then, with an error: what was begun with the old one
/// has to be begun anew.
pub(crate) async fn run(client: Client, name: String, folder: PathBuf, stop: CancellationToken) -> Result<()> {
    let Credentials { ca, pair } = Credentials::read(&folder)?;
    let (from, to) = validity(&pair.certificate)?;
    let wait = due(from, to, fastrand::f64()).duration_since(SystemTime::now()).unwrap_or_default();
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = tokio::time::sleep(wait) => {}
    }
    loop {
        match join::request(&client, &name).await {
            Ok(pair) => {
                identity::write(&folder, &ca, &pair)?;
                bail!("the node's certificate was renewed");
            }
            Err(error) => tracing::warn!(error = one_line(&error), "the node's certificate was not renewed yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

fn due(from: SystemTime, to: SystemTime, spread: f64) -> SystemTime {
    let tenth = to.duration_since(from).unwrap_or_default() / 10;
    from + tenth * USED + tenth.mul_f64(spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_when_most_of_its_time_has_passed() {
        let from = SystemTime::UNIX_EPOCH;
        let to = from + Duration::from_secs(1000);
        assert_eq!(due(from, to, 0.0), from + Duration::from_secs(700));
        assert_eq!(due(from, to, 1.0), from + Duration::from_secs(800));
        assert_eq!(due(to, from, 0.5), to);
    }
}
