//! Programs that carry Metaparticle's decorator run as they are printed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shipway_tests::{Instance, Signal, binary, free_port, get, kill, root, wait_for};

/// Runs a decorated program with the Python SDK until it answers, then interrupts it.
fn runs(instance: &Instance, program: &Path, port: u16, expected: &str) -> Result<()> {
    let sdk = root().join("sdk/python/src");
    let mut running = Command::new("python3")
        .arg(program)
        .env("PYTHONPATH", sdk)
        .env("SHIPWAY_BIN", binary())
        .env("SHIPWAY_HOME", instance.home())
        .current_dir(program.parent().context("a program is in a folder")?)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let answered =
        wait_for("the program to answer", Duration::from_secs(40), || Ok(get(address, "/path")?.contains(expected)));
    kill(running.id(), Signal::INT)?;
    running.wait()?;
    answered
}

#[test]
fn the_seed_form_and_metaparticles_own_form_run() -> Result<()> {
    let instance = Instance::up()?;
    let text = std::fs::read_to_string(root().join("examples/hello/hello.py"))?;
    let forms = [
        (
            "from metaparticle import containerize",
            "@containerize('docker.io/user', options={'name': 'one', 'ports': [PORT]})",
        ),
        (
            "from metaparticle_pkg import Containerize",
            "@Containerize(package={'repository': 'user', 'name': 'two'}, runtime={'replicas': 2, 'ports': [PORT]})",
        ),
    ];
    for (import, decorator) in forms {
        let port = free_port()?;
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("program.py");
        let text = text
            .replace("from metaparticle import containerize", import)
            .replace(r#"@containerize(options={"name": "hello", "replicas": 3})"#, decorator)
            .replace("PORT = 8080", &format!("PORT = {port}"));
        ensure!(text.contains(import) && text.contains(decorator));
        std::fs::write(&program, text)?;
        runs(&instance, &program, port, "Hello from")?;
    }
    Ok(())
}
