//! Images from archives: loaded under their names, run, listed and forgotten.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shipway_tests::{Image, Instance, wait_for};

#[test]
fn a_loaded_image_runs_under_its_public_name_and_is_forgotten() -> Result<()> {
    if let Some(why) = Image::Busybox.unavailable() {
        println!("skipped: {why}");
        return Ok(());
    }
    let instance = Instance::new()?;
    // Into the store of an instance that does not run yet, and again into that of one that does.
    instance.load(Image::Busybox)?;
    instance.ok(&["up", "--api-port", "0"])?;
    instance.load(Image::Busybox)?;
    let listed = instance.ok(&["images"])?;
    ensure!(listed.contains("docker.io/library/busybox:stable"), "{listed}");
    if instance.kubectl(&["version"]).is_none() {
        println!("skipped the pod: this machine has no kubectl");
        return Ok(());
    }
    let kubectl = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        instance.kubectl(&words).context("no kubectl")?
    };
    kubectl("run greeter --image=busybox:stable --restart=Never -- echo made here")?;
    wait_for("the word", Duration::from_secs(20), || Ok(kubectl("logs greeter")? == "made here\n"))?;
    let said = instance.ok(&["images", "rm", "busybox:1.28", "busybox"])?;
    ensure!(said == "Untagged: busybox:1.28\nUntagged: busybox:latest\n", "{said}");
    let again = instance.fails(&["images", "rm", "busybox:1.28"])?;
    ensure!(again.contains("no image docker.io/library/busybox:1.28 in the store"), "{again}");
    ensure!(!instance.ok(&["images"])?.contains("busybox:latest"), "it is still listed");
    Ok(())
}

#[test]
fn an_archive_comes_from_the_standard_input_and_a_bad_one_is_refused() -> Result<()> {
    if let Some(why) = Image::Busybox.unavailable() {
        println!("skipped: {why}");
        return Ok(());
    }
    let instance = Instance::new()?;
    let archive = std::fs::read(Image::Busybox.archive()?)?;
    let load = |bytes: &[u8]| -> Result<(bool, String)> {
        let input = tempfile::NamedTempFile::new()?;
        std::fs::write(input.path(), bytes)?;
        let mut command: Command = instance.command(&["images", "load", "-"]);
        let output = command.stdin(input.reopen()?).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    let (loaded, said) = load(&archive)?;
    ensure!(loaded && said.contains("Loaded image: busybox:stable\n"), "{said}");
    for (bad, reason) in [(&archive[..archive.len() / 2], "tar archive"), (b"hello".as_slice(), "tar archive")] {
        let (loaded, said) = load(bad)?;
        ensure!(!loaded && said.contains(reason), "{said}");
    }
    let missing = instance.fails(&["images", "load", "/nowhere.tar"])?;
    ensure!(missing.contains("cannot open /nowhere.tar"), "{missing}");
    Ok(())
}
