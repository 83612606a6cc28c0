//! Secrets that hold a token of a service account.

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use serde_json::json;
use shipway_sim::Cluster;

use super::seconds;

async fn keys(cluster: &Cluster, name: &str) -> Vec<String> {
    let secret: Option<Secret> = cluster.get(name).await;
    secret.and_then(|secret| secret.data).unwrap_or_default().into_keys().collect()
}

#[test]
fn a_secret_for_an_account_is_filled_and_goes_with_the_account() {
    Cluster::builder().run(async |cluster| {
        let secret = |account: &str| {
            let metadata = json!({"name": "token", "annotations": {"kubernetes.io/service-account.name": account}});
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/service-account-token"})
        };
        cluster.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot"}})).await;
        cluster.apply(secret("bot")).await;
        let filled = async |cluster: &Cluster| keys(cluster, "token").await == ["ca.crt", "namespace", "token"];
        cluster.until("it is filled", seconds(5), filled).await;
        let token = cluster.get::<Secret>("token").await.unwrap().data.unwrap()["token"].0.clone();
        assert_eq!(token.split(|byte| *byte == b'.').count(), 3, "three parts");
        cluster.delete::<ServiceAccount>("bot").await;
        let gone = async |cluster: &Cluster| cluster.get::<Secret>("token").await.is_none();
        cluster.until("it goes", seconds(5), gone).await;
    });
}

#[test]
fn a_secret_for_nobody_does_not_stay() {
    Cluster::builder().run(async |cluster| {
        let metadata = json!({"name": "token", "annotations": {"kubernetes.io/service-account.name": "nobody"}});
        let kind = "kubernetes.io/service-account-token";
        cluster.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind})).await;
        let gone = async |cluster: &Cluster| cluster.get::<Secret>("token").await.is_none();
        cluster.until("it goes", seconds(5), gone).await;
    });
}
