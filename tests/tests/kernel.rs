//! A kernel without a feature that pods need: a seccomp filter answers as such a kernel does.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use shipway_tests::{Instance, Residue, binary};

/// Answers one system call, where its arguments are those given, with an error number; then runs a program.
const WITHOUT: &str = r#"
import ctypes, os, struct, sys

call, error, conditions, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
tests = [(0, call)] + [(16 + 8 * int(index), int(value)) for index, value in
                       (pair.split("=") for pair in conditions.split(",") if pair)]
LOAD, JUMP_IF_EQUAL, RETURN, ERROR, ALLOW = 0x20, 0x15, 0x06, 0x00050000, 0x7fff0000
code = b""
for place, (offset, value) in enumerate(tests):
    code += struct.pack("HBBI", LOAD, 0, 0, offset)
    code += struct.pack("HBBI", JUMP_IF_EQUAL, 0, 2 * (len(tests) - place) - 1, value)
code += struct.pack("HBBI", RETURN, 0, 0, ERROR | error) + struct.pack("HBBI", RETURN, 0, 0, ALLOW)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, FILTER, ctypes.byref(Filter(len(code) // 8, code)), 0, 0) == 0, ctypes.get_errno()
os.execv(program[0], program)
"#;

const SOCKET: &str = if cfg!(target_arch = "aarch64") { "198" } else { "41" };
const FSOPEN: &str = "430";
const ENODEV: &str = "19";
const EPROTONOSUPPORT: &str = "93";

fn up_without(instance: &Instance, call: &str, error: &str, conditions: &str) -> Result<Output> {
    Command::new("python3")
        .args(["-c", WITHOUT, call, error, conditions])
        .arg(binary())
        .args(["up", "--api-port", "0", "--home"])
        .arg(instance.home())
        .output()
        .context("cannot run python3")
}

fn is_told(instance: &Instance, output: &Output, feature: &str, option: &str) -> Result<()> {
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && error.contains(feature) && error.contains(option), "{error}");
    ensure!(error.lines().count() == 1, "{error}");
    // The instance keeps its name; nothing else was made.
    let residue = Residue { runtime: Vec::new(), ..Residue::of(instance.home(), &instance.id()?)? };
    ensure!(residue == Residue::default(), "{residue:?}");
    Ok(())
}

#[test]
fn without_overlayfs_the_engine_says_so_and_ends() -> Result<()> {
    let instance = Instance::new()?;
    let output = up_without(&instance, FSOPEN, ENODEV, "")?;
    is_told(&instance, &output, "no overlayfs", "CONFIG_OVERLAY_FS")
}

#[test]
fn without_nftables_the_engine_says_so_and_ends() -> Result<()> {
    let instance = Instance::new()?;
    // AF_NETLINK and NETLINK_NETFILTER.
    let output = up_without(&instance, SOCKET, EPROTONOSUPPORT, "0=16,2=12")?;
    is_told(&instance, &output, "no nftables", "CONFIG_NF_TABLES")
}

#[test]
fn the_same_filter_on_another_feature_changes_nothing() -> Result<()> {
    let instance = Instance::new()?;
    // A protocol of netlink that there is not.
    let output = up_without(&instance, SOCKET, EPROTONOSUPPORT, "0=16,2=31")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    instance.engine().map(drop)
}
