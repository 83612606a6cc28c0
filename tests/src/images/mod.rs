//! Images under the public names that tests ask for, made from what the machine has: no registry of images is needed.
//!
//! `busybox` comes from Debian's static busybox, `nginx` from Debian's nginx and the libraries it is linked with, `python`
//! from the interpreter of this machine. The same inputs give the same bytes; what was made is kept below the target
//! folder. Package files are fetched and unpacked there, never installed.

mod archive;
mod closure;
mod package;
mod recipe;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::{Instance, target};
use package::Unavailable;
use recipe::Recipe;

/// Part of the name of every archive; changes with what the recipes make.
const FORMAT: u32 = 1;

/// An image that can be made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// A shell and some 250 small tools; also stands for `alpine`.
    Busybox,
    /// A web server on port 80 that welcomes.
    Nginx,
    /// Python with its standard library, and the tools of busybox.
    Python,
}

impl Image {
    /// Every image there is.
    pub const ALL: [Self; 3] = [Self::Busybox, Self::Nginx, Self::Python];

    /// The names that the image has after it was loaded.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Busybox => &["busybox:latest", "busybox:stable", "busybox:1.28", "busybox:1.36", "alpine:latest"],
            Self::Nginx => &["nginx:latest", "nginx:1.14.2", "nginx:1.15.4", "nginx:1.27", "clux/blog:0.1.0"],
            Self::Python => &["python:latest", "python:3", "python:3.11"],
        }
    }

    /// The archive of the image, as `docker save` would write it; made when it is not there yet.
    pub fn archive(self) -> Result<PathBuf> {
        let folder = target().join("images");
        let path = folder.join(format!("{}-{FORMAT}.tar", format!("{self:?}").to_lowercase()));
        if path.exists() {
            return Ok(path);
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let lock = File::create(folder.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive).context("cannot lock the folder of images")?;
        if path.exists() {
            return Ok(path);
        }
        let recipe = self.recipe(&folder).with_context(|| format!("cannot make the image {self:?}"))?;
        archive::write(&recipe, self.names(), &path)?;
        Ok(path)
    }

    /// Why the image cannot be made on this machine, if what it consists of cannot be fetched.
    pub fn unavailable(self) -> Option<String> {
        let error = self.archive().err()?;
        error.chain().any(<dyn std::error::Error + 'static>::is::<Unavailable>).then(|| format!("{error:#}"))
    }

    fn recipe(self, folder: &Path) -> Result<Recipe> {
        match self {
            Self::Busybox => recipe::busybox(folder),
            Self::Nginx => recipe::nginx(folder),
            Self::Python => recipe::python(folder),
        }
    }
}

impl Instance {
    /// Takes the image into the store of this instance, whether its engine runs or not.
    pub fn load(&self, image: Image) -> Result<()> {
        let archive = image.archive()?;
        let said = self.ok(&["images", "load", &archive.display().to_string()])?;
        for name in image.names() {
            ensure!(said.contains(&format!("Loaded image: {name}\n")), "{name} was not loaded:\n{said}");
        }
        Ok(())
    }
}
