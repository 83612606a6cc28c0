//! How images come (https://kubernetes.io/docs/concepts/containers/images/).

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::world::{World, sh, waits, with};

fn of(image: &str, policy: &str) -> Value {
    json!({ "containers": [with(sh("true"), json!({ "image": image, "imagePullPolicy": policy }))] })
}

pub(crate) async fn an_image_that_must_be_here_is_not_asked_for(world: &World) -> Result<()> {
    world.create("never", of("localhost:1/none:1", "Never")).await?;
    world.until("never", |pod| waits(pod, "c") == "ErrImageNeverPull").await?;
    world.delete("never").await
}

pub(crate) async fn a_name_that_is_none_is_said(world: &World) -> Result<()> {
    world.create("no-name", of("NOT AN IMAGE", "Always")).await?;
    world.until("no-name", |pod| waits(pod, "c") == "InvalidImageName").await?;
    world.delete("no-name").await
}

pub(crate) async fn a_registry_that_does_not_answer_is_asked_again_later(world: &World) -> Result<()> {
    world.create("silent", of("localhost:1/none:1", "IfNotPresent")).await?;
    world.until("silent", |pod| waits(pod, "c") == "ErrImagePull").await?;
    world.until("silent", |pod| waits(pod, "c") == "ImagePullBackOff").await?;
    ensure!(world.event("silent", "BackOff").await?.contains("Back-off pulling image \"localhost:1/none:1\""));
    world.delete("silent").await
}

/// A registry that lets nobody in, and tells who knocked.
fn registry() -> Result<(u16, mpsc::Receiver<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let Ok(reading) = stream.try_clone() else { return };
            let lines = BufReader::new(reading).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let credentials = lines.filter(|line| line.to_lowercase().starts_with("authorization: ")).last();
            if let Some(line) = credentials
                && tell.send(line).is_err()
            {
                return;
            }
            let reply = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"closed\"\r\n\
                         content-length: 0\r\nconnection: close\r\n\r\n";
            // Whoever hangs up has been told enough.
            drop(stream.write_all(reply.as_bytes()));
        }
    });
    Ok((port, told))
}

pub(crate) async fn a_registry_is_shown_the_pods_credentials(world: &World) -> Result<()> {
    let (port, told) = registry()?;
    let auths = json!({ "auths": { format!("localhost:{port}"): { "username": "jane", "password": "sesame" } } });
    world
        .make::<Secret>(json!({
            "metadata": { "name": "regcred" }, "type": "kubernetes.io/dockerconfigjson",
            "stringData": { ".dockerconfigjson": auths.to_string() },
        }))
        .await?;
    let secrets = json!({ "imagePullSecrets": [{ "name": "regcred" }, { "name": "missing" }] });
    world.create("asks", with(of(&format!("localhost:{port}/app:1"), "Always"), secrets)).await?;
    let expected = base64::engine::general_purpose::STANDARD.encode("jane:sesame");
    let seen = tokio::task::spawn_blocking(move || {
        std::iter::from_fn(|| told.recv_timeout(Duration::from_secs(20)).ok()).find(|line| line.ends_with(&expected))
    });
    seen.await?.context("nobody came with the credentials")?;
    let warned = world.event("asks", "FailedToRetrieveImagePullSecret").await?;
    ensure!(warned.contains("(missing)"), "{warned}");
    world.delete("asks").await
}
