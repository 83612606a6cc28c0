//! Our own system call filter: what ordinary programs need is allowed, what stands for a capability needs it, the rest
//! does not exist.
//!
//! Three groups instead of one list, so that programs meet the error they can handle: known and refused calls fail with
//! EPERM, calls this list has never heard of with ENOSYS, as on an older kernel. A filter that cannot be put in force
//! is an error, never a container without it. Programs of another architecture (32 bit) are killed by the filter.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::capability::Capabilities;
use crate::spec::Seccomp;

#[path = "seccomp_calls.rs"]
mod calls;
#[path = "seccomp_names.rs"]
mod names;
#[path = "seccomp_profile.rs"]
mod profile;

/// Namespace flags of clone(2); bit 7 (`CLONE_NEWTIME`) is part of the exit signal there.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWCGROUP,
];
/// Harmless personalities: Linux, 32-bit Linux, both with the short `uname`, and the question which one it is.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Virtual machine sockets reach the hypervisor, whatever the network namespace.
const AF_VSOCK: u64 = 40;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Programs ready to be installed, in this order; none for an unconfined container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(Vec<BpfProgram>);

/// Builds the filters, or says why the profile cannot be enforced.
pub(crate) fn compile(profile: &Seccomp, capabilities: Capabilities) -> Result<Filters, String> {
    match profile {
        Seccomp::Unconfined => Ok(Filters::default()),
        Seccomp::RuntimeDefault => default_profile(capabilities).map_err(|error| format!("seccomp profile: {error}")),
        Seccomp::Localhost(path) => {
            profile::compile(path).map(Filters).map_err(|error| format!("seccomp profile {}: {error}", path.display()))
        }
    }
}

fn default_profile(capabilities: Capabilities) -> Result<Filters, String> {
    let (granted, refused) = calls::gated(capabilities);
    let admin = capabilities.contains(Capabilities::named("SYS_ADMIN").expect("a name of the table"));
    let mut known = Rules::new();
    let every = calls::ORDINARY.iter().chain(calls::OF_THIS_MACHINE).chain(&granted).chain(&refused);
    known.extend(every.map(|call| (*call, Vec::new())));
    let mut denied = Rules::new();
    denied.extend(refused.iter().map(|call| (*call, Vec::new())));
    denied.insert(libc::SYS_personality, vec![unlike(&PERSONALITIES)?]);
    denied.insert(libc::SYS_socket, vec![rule(vec![condition(0, SeccompCmpOp::Eq, AF_VSOCK)?])?]);
    if admin {
        known.insert(libc::SYS_clone3, Vec::new());
    } else {
        // clone3 hides its flags behind a pointer; as an unknown call, libraries fall back to clone.
        denied.insert(libc::SYS_clone, NAMESPACES.into_iter().map(with_flag).collect::<Result<_, _>>()?);
    }
    let missing = SeccompAction::Errno(u32::try_from(libc::ENOSYS).expect("error numbers are small"));
    let forbidden = SeccompAction::Errno(u32::try_from(libc::EPERM).expect("error numbers are small"));
    Ok(Filters(vec![program(known, missing, SeccompAction::Allow)?, program(denied, SeccompAction::Allow, forbidden)?]))
}

fn program(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).map_err(|error| error.to_string())?;
    filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())
}

fn with_flag(flag: i32) -> Result<SeccompRule, String> {
    let flag = u64::try_from(flag).expect("clone flags are positive");
    rule(vec![condition(0, SeccompCmpOp::MaskedEq(flag), flag)?])
}

fn unlike(values: &[u64]) -> Result<SeccompRule, String> {
    let all: Result<Vec<_>, String> = values.iter().map(|value| condition(0, SeccompCmpOp::Ne, *value)).collect();
    rule(all?)
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).map_err(|error| error.to_string())
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions).map_err(|error| error.to_string())
}

impl Filters {
    #[expect(unsafe_code, reason = "the crate's own call would set no-new-privileges as well")]
    /// Puts all filters in force for this thread and what it becomes. Needs `SYS_ADMIN` or no-new-privileges.
    pub(crate) fn install(&self) -> io::Result<()> {
        for program in &self.0 {
            let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            let header = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
            // SAFETY: the header describes `program`, whose entries have the kernel's layout of `sock_filter`, and
            // which outlives the call; the kernel copies it and writes nothing.
            let result =
                unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const header) };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_that_cannot_be_read_is_named() {
        let error = compile(&Seccomp::Localhost("/p.json".into()), Capabilities::default()).unwrap_err();
        assert!(error.contains("/p.json") && error.contains("No such file"), "{error}");
    }

    #[test]
    fn the_default_profile_fits_into_the_kernels_limit_with_and_without_capabilities() {
        for capabilities in [Capabilities::default(), Capabilities::named("SYS_ADMIN").unwrap()] {
            let filters = compile(&Seccomp::RuntimeDefault, capabilities).unwrap();
            assert_eq!(filters.0.len(), 2);
        }
    }

    #[test]
    fn no_call_is_both_ordinary_and_gated() {
        let (granted, refused) = calls::gated(Capabilities::default());
        assert!(granted.is_empty());
        for call in refused {
            assert!(!calls::ORDINARY.contains(&call) && !calls::OF_THIS_MACHINE.contains(&call), "call {call}");
        }
    }
}
