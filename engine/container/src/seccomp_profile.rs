//! A profile of the node: a file in the form of the OCI runtime specification
//! (https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp). What it asks for is enforced, or it is
//! refused; nothing in it is passed over but calls that this machine's kernel does not have.
//!
//! A program has one action for what matches, so a profile becomes several: the kernel runs all, and the strictest word
//! counts.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use serde::Deserialize;

use super::names;

/// No profile is larger.
const LARGEST: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    /// Programs of other architectures are killed in any case.
    #[serde(default, rename = "architectures")]
    _architectures: Vec<String>,
    #[serde(default, rename = "flags")]
    _flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Calls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Calls {
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default, rename = "comment")]
    _comment: String,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Conditions by call; a call without any matches always.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Reads a profile and builds its programs, in the order in which they are to be installed.
pub(super) fn compile(path: &Path) -> Result<Vec<BpfProgram>, String> {
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text));
    read.map_err(|error| error.to_string())?;
    if text.len() as u64 > LARGEST {
        return Err("it is larger than 1 MiB".to_owned());
    }
    parse(&text)
}

fn parse(text: &[u8]) -> Result<Vec<BpfProgram>, String> {
    let profile: Profile = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut by_action: Vec<(SeccompAction, Rules)> = Vec::new();
    let mut excepted = Rules::new();
    for calls in &profile.syscalls {
        let action = action(&calls.action, calls.errno_ret)?;
        if action == default {
            continue;
        }
        add(&mut excepted, calls)?;
        if action == SeccompAction::Allow {
            continue;
        }
        if let Some((_, rules)) = by_action.iter_mut().find(|(known, _)| *known == action) {
            add(rules, calls)?;
        } else {
            let mut rules = Rules::new();
            add(&mut rules, calls)?;
            by_action.push((action, rules));
        }
    }
    let mut programs = Vec::new();
    for (action, rules) in by_action {
        programs.push(program(rules, SeccompAction::Allow, action)?);
    }
    // Last, for it may refuse the installation of others.
    if default != SeccompAction::Allow {
        programs.push(program(excepted, default, SeccompAction::Allow)?);
    }
    Ok(programs)
}

fn program(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).map_err(|error| error.to_string())?;
    filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())
}

fn action(name: &str, errno: Option<u32>) -> Result<SeccompAction, String> {
    let errno_or = |usual: i32| errno.unwrap_or_else(|| u32::try_from(usual).expect("error numbers are positive"));
    Ok(match name {
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(errno_or(libc::EPERM)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_TRACE" => SeccompAction::Trace(errno_or(libc::EPERM)),
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        other => return Err(format!("action {other} is not supported")),
    })
}

/// Adds the calls that there are on this machine. Of several entries for one call any may match.
fn add(rules: &mut Rules, calls: &Calls) -> Result<(), String> {
    let alternatives = alternatives(calls.args.as_deref().unwrap_or_default())?;
    for call in calls.names.iter().filter_map(|name| names::number(name)) {
        let known = rules.get(&call).map(Vec::is_empty);
        if alternatives.is_empty() || known == Some(true) {
            rules.insert(call, Vec::new());
        } else {
            rules.entry(call).or_default().extend(alternatives.iter().cloned());
        }
    }
    Ok(())
}

/// All conditions together, unless two are about one argument: then each by itself, as runtimes read it.
fn alternatives(arguments: &[Argument]) -> Result<Vec<SeccompRule>, String> {
    let repeated =
        arguments.iter().enumerate().any(|(at, one)| arguments[..at].iter().any(|other| other.index == one.index));
    let groups: Vec<&[Argument]> = match arguments {
        [] => Vec::new(),
        all if repeated => all.chunks(1).collect(),
        all => vec![all],
    };
    let rule = |group: &[Argument]| {
        let conditions: Result<Vec<_>, String> = group.iter().map(condition).collect();
        SeccompRule::new(conditions?).map_err(|error| error.to_string())
    };
    groups.into_iter().map(rule).collect()
}

fn condition(argument: &Argument) -> Result<SeccompCondition, String> {
    let mut value = argument.value;
    let operator = match argument.op.as_str() {
        "SCMP_CMP_NE" => SeccompCmpOp::Ne,
        "SCMP_CMP_LT" => SeccompCmpOp::Lt,
        "SCMP_CMP_LE" => SeccompCmpOp::Le,
        "SCMP_CMP_EQ" => SeccompCmpOp::Eq,
        "SCMP_CMP_GE" => SeccompCmpOp::Ge,
        "SCMP_CMP_GT" => SeccompCmpOp::Gt,
        "SCMP_CMP_MASKED_EQ" => {
            value = argument.value_two;
            SeccompCmpOp::MaskedEq(argument.value)
        }
        other => return Err(format!("comparison {other} is not known")),
    };
    SeccompCondition::new(argument.index, SeccompCmpArgLen::Qword, operator, value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(text: &str) -> Result<usize, String> {
        parse(text.as_bytes()).map(|programs| programs.len())
    }

    #[test]
    fn a_profile_becomes_one_program_an_action() {
        assert_eq!(programs(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#), Ok(0));
        assert_eq!(programs(r#"{"defaultAction": "SCMP_ACT_LOG"}"#), Ok(1));
        let three = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {"names": ["read", "write", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["ptrace"], "action": "SCMP_ACT_KILL_PROCESS"},
                {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}
            ]}"#;
        assert_eq!(programs(three), Ok(3));
    }

    #[test]
    fn what_cannot_be_enforced_is_refused() {
        for refused in [
            "",
            "{}",
            r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/x"}"#,
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {}}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
        ] {
            assert!(programs(refused).is_err(), "{refused} was taken");
        }
    }

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(names::number("openat"), Some(libc::SYS_openat));
        assert_eq!(names::number("SYS_openat"), None);
        assert_eq!(names::number("fly"), None);
    }
}
