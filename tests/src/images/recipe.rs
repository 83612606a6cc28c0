//! What goes into each image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::closure::libraries;
use super::package::{libraries_of, unpacked};

/// One file of an image.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A file of this machine.
    Copy(PathBuf),
    /// A text.
    Text(String),
    /// A symbolic link to that path.
    Link(String),
    /// An empty folder with that mode.
    Folder(u32),
}

/// An image: its files by path, and what it runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Recipe {
    pub(super) nodes: BTreeMap<PathBuf, Node>,
    pub(super) command: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) stop_signal: Option<&'static str>,
    pub(super) port: Option<u16>,
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUPS: &str = "root:x:0:\nnogroup:x:65534:\n";
const SERVER: &str = "\
daemon off;
user nobody nogroup;
worker_processes 1;
error_log /dev/stderr notice;
pid /run/nginx.pid;
events {}
http {
  access_log /dev/stdout;
  default_type text/html;
  server { listen 80; root /usr/share/nginx/html; }
}
";
const WELCOME: &str = "<!DOCTYPE html>\n<title>Welcome to nginx!</title>\n<h1>Welcome to nginx!</h1>\n";
/// Folders of the standard library that no test needs.
const LEFT_OUT: [&str; 7] = ["site-packages", "__pycache__", "test", "idlelib", "tkinter", "ensurepip", "lib2to3"];

impl Recipe {
    fn put(&mut self, path: impl Into<PathBuf>, node: Node) {
        self.nodes.insert(path.into(), node);
    }

    fn copy(&mut self, path: impl Into<PathBuf>, from: impl Into<PathBuf>) {
        self.put(path, Node::Copy(from.into()));
    }

    /// A program together with the libraries it is linked with.
    fn program(&mut self, path: &str, from: &Path, roots: &[PathBuf]) -> Result<()> {
        self.copy(path, from);
        for (place, found) in libraries(from, roots)? {
            self.copy(place, found);
        }
        Ok(())
    }
}

/// Debian's static busybox under the name of each of its tools.
pub(super) fn busybox(cache: &Path) -> Result<Recipe> {
    let program = unpacked("busybox-static", cache)?.join("bin/busybox");
    let mut recipe = Recipe { command: vec!["sh".to_owned()], env: vec![PATH.to_owned()], ..Recipe::default() };
    let output = Command::new(&program).arg("--list-full").output().context("cannot run busybox")?;
    for tool in String::from_utf8(output.stdout)?.lines() {
        recipe.put(Path::new("/").join(tool), Node::Link("/bin/busybox".to_owned()));
    }
    ensure!(recipe.nodes.contains_key(Path::new("/bin/sh")), "this busybox has no shell");
    recipe.copy("/bin/busybox", program);
    recipe.put("/etc/passwd", Node::Text(USERS.to_owned()));
    recipe.put("/etc/group", Node::Text(GROUPS.to_owned()));
    recipe.put("/tmp", Node::Folder(0o1777));
    recipe.put("/root", Node::Folder(0o700));
    Ok(recipe)
}

/// Debian's nginx with a configuration and a page of ours.
pub(super) fn nginx(cache: &Path) -> Result<Recipe> {
    let mut roots = vec![unpacked("nginx", cache)?];
    for library in libraries_of("nginx")? {
        roots.push(unpacked(&library, cache)?);
    }
    let mut recipe = busybox(cache)?;
    recipe.program("/usr/sbin/nginx", &roots[0].join("usr/sbin/nginx"), &roots[1..])?;
    recipe.put("/etc/nginx/nginx.conf", Node::Text(SERVER.to_owned()));
    recipe.put("/usr/share/nginx/html/index.html", Node::Text(WELCOME.to_owned()));
    for folder in ["/var/log/nginx", "/var/lib/nginx", "/run"] {
        recipe.put(folder, Node::Folder(0o755));
    }
    recipe.command = ["nginx", "-c", "/etc/nginx/nginx.conf"].map(str::to_owned).to_vec();
    recipe.stop_signal = Some("SIGQUIT");
    recipe.port = Some(80);
    Ok(recipe)
}

/// The interpreter of this machine with its standard library, at their own paths.
pub(super) fn python(cache: &Path) -> Result<Recipe> {
    let ask =
        "import os, sys, sysconfig; print(os.path.realpath(sys.executable), sysconfig.get_path('stdlib'), sep='\\n')";
    let output = Command::new("python3").args(["-c", ask]).output().context("cannot run python3")?;
    ensure!(output.status.success(), "python3 cannot say where it is");
    let said = String::from_utf8(output.stdout)?;
    let (program, library) = said.trim().split_once('\n').context("python3 did not say where it is")?;
    let mut recipe = busybox(cache)?;
    recipe.program(program, Path::new(program), &[])?;
    for name in ["python", "python3"] {
        recipe.put(Path::new("/usr/local/bin").join(name), Node::Link(program.to_owned()));
    }
    tree(&mut recipe, Path::new(library))?;
    recipe.command = vec!["python3".to_owned()];
    Ok(recipe)
}

/// A folder of the standard library, and the libraries of the modules in it.
fn tree(recipe: &mut Recipe, folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if LEFT_OUT.contains(&name.as_ref()) || name.starts_with("config-") {
            continue;
        }
        if entry.metadata()?.is_dir() {
            tree(recipe, &path)?;
        } else if name.contains(".so") {
            recipe.program(&path.display().to_string(), &path, &[])?;
        } else if name.ends_with(".py") {
            recipe.copy(path.clone(), path);
        }
    }
    Ok(())
}
