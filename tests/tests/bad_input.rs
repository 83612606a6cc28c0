//! What a user may do wrong: one clear line each, a failing exit, and nothing half-made left behind.

use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shipway_tests::{Instance, binary, free_port, root};

fn no_apps(instance: &Instance) -> Result<()> {
    let apps: Value = serde_json::from_str(&instance.ok(&["ps", "--output", "json"])?)?;
    ensure!(apps == Value::Array(Vec::new()), "left behind: {apps}");
    Ok(())
}

fn program(text: &str) -> Result<(tempfile::TempDir, String)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("program.py");
    std::fs::write(&path, text)?;
    let path = path.display().to_string();
    Ok((folder, path))
}

#[test]
fn a_missing_file_is_named() -> Result<()> {
    let error = Instance::new()?.fails(&["run", "no-such-file.py"])?;
    ensure!(error.contains("no-such-file.py") && error.lines().count() == 1, "{error}");
    Ok(())
}

#[test]
fn a_program_that_ends_at_once_shows_its_code_and_its_last_lines() -> Result<()> {
    let instance = Instance::up()?;
    let (_folder, path) = program("import sys\nprint('about to fail')\nsys.exit(3)\n")?;
    let error = instance.fails(&["run", &path])?;
    ensure!(error.contains("exited with code 3") && error.contains("about to fail"), "{error}");
    no_apps(&instance)
}

#[test]
fn a_port_that_another_program_has_is_named_with_a_way_out() -> Result<()> {
    let instance = Instance::up()?;
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let port = listener.local_addr()?.port();
    let published = format!("{port}:8080");
    let error = instance.fails(&["run", "examples/hello/hello.py", "--port", &published])?;
    ensure!(error.contains(&format!("port {port} is already taken")) && error.contains("--port"), "{error}");
    no_apps(&instance)
}

#[test]
fn a_taken_api_port_is_named() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let error = Instance::new()?.fails(&["up", "--api-port", &port])?;
    ensure!(error.contains(&format!("port {port} is already taken")), "{error}");
    Ok(())
}

#[test]
fn a_second_engine_on_the_same_home_is_refused_and_up_is_idempotent() -> Result<()> {
    let instance = Instance::up()?;
    let pid = instance.engine()?;
    let error = instance.fails(&["engine"])?;
    ensure!(error.contains(&format!("an engine (process {pid}) already runs")), "{error}");
    instance.ok(&["up"])?;
    ensure!(instance.engine()? == pid);
    Ok(())
}

#[test]
fn somebody_who_is_not_root_is_told_so() -> Result<()> {
    let (_folder, copy) = readable_copy()?;
    let setpriv = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(copy)
        .args(["up", "--home", "never-made"])
        .output()
        .context("setpriv is part of every Debian")?;
    let error = String::from_utf8_lossy(&setpriv.stderr).into_owned();
    ensure!(!setpriv.status.success() && error.contains("must run as root"), "{error}");
    Ok(())
}

/// The checkout may be in a folder that only root may enter.
fn readable_copy() -> Result<(tempfile::TempDir, std::path::PathBuf)> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("shipway");
    std::fs::copy(binary(), &copy)?;
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open.clone())?;
    std::fs::set_permissions(&copy, open)?;
    Ok((folder, copy))
}

#[test]
fn a_broken_manifest_names_the_field() -> Result<()> {
    let instance = Instance::up()?;
    let broken = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, imag: x}]}\n";
    let Some(result) = instance.kubectl_with_input(&["apply", "-f", "-"], broken) else {
        println!("skipped: this machine has no kubectl");
        return Ok(());
    };
    let error = format!("{:#}", result.err().context("it was accepted")?);
    ensure!(error.contains("spec.containers[0].imag"), "{error}");
    Ok(())
}

#[test]
fn commands_without_an_engine_say_how_to_start_one() -> Result<()> {
    let instance = Instance::new()?;
    for arguments in [&["ps"][..], &["logs", "x"], &["status"], &["kubeconfig"], &["rm", "x"]] {
        let error = instance.fails(arguments)?;
        ensure!(error.contains("shipway up"), "{arguments:?}: {error}");
    }
    ensure!(free_port()? > 0);
    Ok(())
}

#[test]
fn a_full_disk_is_named_and_nothing_half_made_is_left() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let small = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
        .arg(folder.path())
        .status()?;
    ensure!(small.success(), "a small file system cannot be mounted");
    let home = folder.path().join("home").display().to_string();
    let shipway = |arguments: &[&str]| {
        std::process::Command::new(binary()).args(arguments).args(["--home", &home]).current_dir(root()).output()
    };
    let result = (|| -> Result<()> {
        let output = shipway(&["run", "examples/hello/hello.py", "--detach"])?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && error.contains("no space left"), "{error}");
        let apps = shipway(&["ps", "--output", "json"])?;
        let apps = String::from_utf8_lossy(&apps.stdout).into_owned();
        ensure!(apps.trim().is_empty() || apps.trim() == "[]", "left behind: {apps}");
        Ok(())
    })();
    drop(shipway(&["down"])?);
    ensure!(std::process::Command::new("umount").arg(folder.path()).status()?.success());
    result
}
