//! The last steps before a program runs in a container: who it is, what it may do, which limits it inherits.
//!
//! Shared by the first process and by commands run later, so that neither can do more than the other.

use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::capability::Capabilities;
use crate::error::{Context, Failure, FailureKind};
use crate::seccomp::{self, Filters};
use crate::spec::{ContainerSpec, User};

/// Enough for servers; more than the hard limit is never asked for.
const OPEN_FILES: u64 = 1_048_576;

/// All that is given up, decided and checked before anything is started.
#[derive(Clone, Debug)]
pub(crate) struct Confinement {
    user: User,
    capabilities: Capabilities,
    no_new_privileges: bool,
    filters: Filters,
}

impl Confinement {
    /// `available`: what the machine has to give; the capabilities asked for beyond it are returned as missing.
    pub(crate) fn new(spec: &ContainerSpec, available: Capabilities) -> Result<(Self, Vec<&'static str>), Failure> {
        let wanted = Capabilities::parse(&spec.capabilities).map_err(Failure::create)?;
        let capabilities = wanted.and(available);
        let filters = seccomp::compile(&spec.seccomp, capabilities).map_err(Failure::create)?;
        let no_new_privileges = spec.no_new_privileges;
        let confined = Self { user: spec.user.clone(), capabilities, no_new_privileges, filters };
        Ok((confined, wanted.without(available).names()))
    }

    /// Enters confinement. After a success this process is no more than the container's program may be.
    pub(crate) fn enter(&self) -> Result<(), Failure> {
        let tried = |what: &'static str| move || what.to_owned();
        reset_signals().or_fail(FailureKind::Start, tried("reset signals"))?;
        raise_open_files().or_fail(FailureKind::Start, tried("set the limit of open files"))?;
        self.capabilities.bound().or_fail(FailureKind::Start, tried("bound capabilities"))?;
        prctl::set_keepcaps(true).or_fail(FailureKind::Start, tried("keep capabilities over the change of user"))?;
        self.become_user().or_fail(FailureKind::Start, || format!("become user {}", self.user.uid))?;
        if self.no_new_privileges {
            prctl::set_no_new_privs().or_fail(FailureKind::Start, tried("set no_new_privs"))?;
        }
        if self.no_new_privileges {
            // Nothing but the program's own start is left to be filtered.
            self.capabilities.assume().or_fail(FailureKind::Start, tried("give up capabilities"))?;
            return self.filters.install().or_fail(FailureKind::Start, tried("install the seccomp filter"));
        }
        // The kernel lets only SYS_ADMIN install filters without no_new_privs; it is given up right after, and before
        // any byte of the container's is run.
        let admin = Capabilities::named("SYS_ADMIN").expect("a name of the table");
        self.capabilities.with(admin).assume().or_fail(FailureKind::Start, tried("set capabilities"))?;
        self.filters.install().or_fail(FailureKind::Start, tried("install the seccomp filter"))?;
        self.capabilities.assume().or_fail(FailureKind::Start, tried("give up capabilities"))
    }

    fn become_user(&self) -> nix::Result<()> {
        let groups: Vec<Gid> = self.user.additional.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        setgroups(&groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)
    }
}

/// Rust's start-up ignores SIGPIPE and the supervisor blocks signals; programs expect neither.
#[expect(unsafe_code, reason = "sigaction(2) can install handlers")]
fn reset_signals() -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: setting the default action installs no handler.
        unsafe { sigaction(signal, &default) }?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

fn raise_open_files() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = hard.min(OPEN_FILES);
    Ok(setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?)
}
