//! What is decided about a write beyond its own fields, through the public door: plugins, quotas, webhooks, policies.
#![allow(clippy::unwrap_used)]

mod common;

#[path = "admission/evictions.rs"]
mod evictions;
#[path = "admission/hook.rs"]
mod hook;
#[path = "admission/mutations.rs"]
mod mutations;
#[path = "admission/notes.rs"]
mod notes;
#[path = "admission/plugins.rs"]
mod plugins;
#[path = "admission/policies.rs"]
mod policies;
#[path = "admission/quotas.rs"]
mod quotas;
#[path = "admission/streams.rs"]
mod streams;
#[path = "admission/webhooks.rs"]
mod webhooks;

use common::{CONFIG_MAPS, Cluster, config_map};
use serde_json::json;
use std::time::Instant;

/// What a create costs; run with `--ignored --nocapture` and compare.
#[tokio::test]
#[ignore = "a measurement"]
async fn the_cost_of_a_create() {
    let cluster = Cluster::new().await;
    for round in 0..6 {
        let start = Instant::now();
        for at in 0..2000 {
            cluster
                .post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map(&format!("m{at}"), &json!({}), "1"))
                .await
                .ok();
        }
        println!("round {round}: {:?} a create", start.elapsed() / 2000);
    }
}
