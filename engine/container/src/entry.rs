//! The door for the other processes that this crate runs from the same executable.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::layout::PodPaths;
use crate::{creator, exec, supervisor};

pub(crate) const SUPERVISE: &str = "@supervise";
pub(crate) const CREATE: &str = "@create";
pub(crate) const EXEC: &str = "@exec";

/// To be called first in `main`, before any thread exists: when the arguments say that this process is a supervisor, a
/// creator or an exec helper, it is one until it ends, and its exit code is returned. Else `None`, at once.
pub fn entry() -> Option<i32> {
    let mut args = std::env::args_os().skip(1);
    let role = args.next()?;
    match role.to_str()? {
        SUPERVISE => Some(pod(&mut args).map_or(2, supervisor::run)),
        CREATE => Some(pod(&mut args).zip(text(&mut args)).map_or(2, |(pod, id)| creator::run(&pod, &id))),
        EXEC => Some(exec::helper()),
        _ => None,
    }
}

/// uid, folder, socket, cgroup.
fn pod(args: &mut impl Iterator<Item = OsString>) -> Option<PodPaths> {
    let uid = text(args)?;
    let (folder, socket) = (PathBuf::from(args.next()?), PathBuf::from(args.next()?));
    Some(PodPaths { uid, folder, socket, cgroup: text(args)? })
}

fn text(args: &mut impl Iterator<Item = OsString>) -> Option<String> {
    args.next()?.into_string().ok()
}
