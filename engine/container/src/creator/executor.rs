//! The last steps inside the new container, in place of libcontainer's: find the program, confine, run it.
//!
//! Runs in the container's first process, with the rights of the creator until [`Confinement::enter`]. What goes
//! wrong is written into a pipe that the kernel closes when the program takes over: no news is good news.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::unistd::execve;
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{MoveMountFlags, move_mount};

use super::{CGROUPS, Shared};
use crate::confine::Confinement;
use crate::error::{Context, Failure, FailureKind};
use crate::handover;
use crate::program;
use crate::sealed;
use crate::spec::ContainerSpec;
use crate::terminal;

/// The container's program and what it needs to become it.
#[derive(Clone)]
pub(super) struct Program {
    spec: Shared<ContainerSpec>,
    confinement: Shared<Confinement>,
    report: Shared<OwnedFd>,
    cgroups: Shared<Vec<(String, OwnedFd)>>,
}

impl Program {
    pub(super) fn new(
        spec: ContainerSpec,
        confinement: Confinement,
        report: OwnedFd,
        cgroups: Vec<(String, OwnedFd)>,
    ) -> Self {
        Self { spec: spec.into(), confinement: confinement.into(), report: report.into(), cgroups: cgroups.into() }
    }

    /// All that can be told to be wrong before the container counts as made.
    fn prepare(&self) -> Result<PathBuf, Failure> {
        attach(&self.cgroups)?;
        program::enter(&self.spec.cwd, true)?;
        program::find(self.name(), &self.spec.env)
    }

    fn name(&self) -> &str {
        self.spec.args.first().map_or("", String::as_str)
    }

    fn run(&self) -> Result<Infallible, Failure> {
        let path = program::find(self.name(), &self.spec.env)?;
        let arguments = program::arguments(&self.spec.args)?;
        let environment = program::environment(&self.spec.env, self.spec.user.uid, self.spec.terminal)?;
        if self.spec.terminal {
            let (ours, theirs) = terminal::make(&self.spec.user)?;
            // The standard input is the supervisor's socket until then.
            handover::send(std::io::stdin(), Some(ours.as_fd())).or_internal(|| "hand over the terminal".into())?;
            terminal::take(&theirs)?;
        }
        self.confinement.enter()?;
        become_program(&path, &arguments, &environment)
    }

    fn report(&self, failure: &Failure) -> String {
        let text = serde_json::to_vec(failure).expect("a failure is two strings");
        let sent = self.report.try_clone().and_then(|pipe| File::from(pipe).write_all(&text));
        // Without the pipe the message still goes back through libcontainer's own channel.
        sent.map_or_else(|error| format!("{failure} (report: {error})"), |()| failure.message.clone())
    }
}

/// Replaces this process; returns only to say why it could not.
pub(crate) fn become_program(path: &Path, args: &[CString], env: &[CString]) -> Result<Infallible, Failure> {
    let shown = path.display();
    let path = program::c_string(&path.to_string_lossy())?;
    execve(&path, args, env).map_err(|error| {
        Failure::start(match error {
            nix::errno::Errno::ENOENT => {
                format!("exec {shown}: its interpreter is missing (script's #! or ELF's loader)")
            }
            nix::errno::Errno::ENOEXEC => {
                format!("exec {shown}: exec format error: neither a script nor for this machine")
            }
            other => format!("exec {shown}: {other}"),
        })
    })
}

/// Puts the views of the container's own groups where programs look for them.
fn attach(views: &[(String, OwnedFd)]) -> Result<(), Failure> {
    for (name, view) in views {
        let place = Path::new(CGROUPS).join(name);
        attach_one(name, &place, view)
            .or_fail(FailureKind::CreateContainer, || format!("mount {}", place.display()))?;
    }
    if views.iter().any(|(name, _)| name.is_empty()) {
        return Ok(());
    }
    let sealing = || {
        let folder = open(CGROUPS, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        sealed::make_read_only(&folder)
    };
    sealing().or_fail(FailureKind::CreateContainer, || format!("make {CGROUPS} read-only"))
}

fn attach_one(name: &str, place: &Path, view: &OwnedFd) -> std::io::Result<()> {
    if !name.is_empty() {
        fs::create_dir(place)?;
        // Controllers mounted together are looked for under each of their names.
        for one in name.split(',').filter(|one| *one != name) {
            symlink(name, Path::new(CGROUPS).join(one))?;
        }
    }
    Ok(move_mount(view.as_fd(), "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

impl Executor for Program {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        let checked = self.prepare();
        checked.map(drop).map_err(|failure| ExecutorValidationError::ArgValidationError(self.report(&failure)))
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let Err(failure) = self.run();
        Err(ExecutorError::Other(self.report(&failure)))
    }
}
