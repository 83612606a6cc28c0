//! The program of a container, looked at from inside its root: where it is, where it starts, where its user is at home.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::Failure;

/// For images that set no PATH.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The last value of a variable.
pub(crate) fn variable<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The executable that `name` means.
pub(crate) fn find(name: &str, env: &[(String, String)]) -> Result<PathBuf, Failure> {
    if name.is_empty() {
        return Err(Failure::run("no command given: the container's command is empty"));
    }
    if name.contains('/') {
        return usable(Path::new(name))
            .map(|()| name.into())
            .map_err(|why| Failure::run(format!("exec: \"{name}\": {why}")));
    }
    let path = variable(env, "PATH").unwrap_or(PATH);
    let mut denied = None;
    for folder in path.split(':').filter(|folder| !folder.is_empty()) {
        let candidate = Path::new(folder).join(name);
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => denied = denied.or(Some(error)),
        }
    }
    let why = denied.map_or_else(|| format!("executable file not found in $PATH ({path})"), |error| error.to_string());
    Err(Failure::run(format!("exec: \"{name}\": {why}")))
}

fn usable(path: &Path) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if found.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "permission denied: not executable"));
    }
    // Running the runtime's own binary inside the container would lend it to the container (CVE-2019-5736).
    let own = fs::metadata("/proc/self/exe")?;
    if (own.dev(), own.ino()) == (found.dev(), found.ino()) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "is the container runtime itself"));
    }
    Ok(())
}

/// Enters the working directory, making it first if need be, and makes sure that it lies inside the root.
pub(crate) fn enter(folder: &str, make: bool) -> Result<(), Failure> {
    let folder = if folder.is_empty() { "/" } else { folder };
    let fail = |error: io::Error| Failure::run(format!("cannot use working directory \"{folder}\": {error}"));
    if !folder.starts_with('/') {
        return Err(Failure::run(format!("cannot use working directory \"{folder}\": not an absolute path")));
    }
    if make {
        fs::create_dir_all(folder).map_err(fail)?;
    }
    std::env::set_current_dir(folder).map_err(fail)?;
    // A path through a leaked descriptor can lead outside (CVE-2024-21626); getcwd then has no absolute answer.
    let inside = std::env::current_dir().map_err(fail)?;
    if inside.is_absolute() { Ok(()) } else { Err(fail(io::Error::other("it lies outside the container"))) }
}

/// The environment as execve(2) takes it: the last of duplicates, with PATH and HOME added where missing, and TERM on a
/// terminal.
pub(crate) fn environment(env: &[(String, String)], uid: u32, terminal: bool) -> Result<Vec<CString>, Failure> {
    let mut all: Vec<(&str, String)> = Vec::with_capacity(env.len() + 3);
    for (key, value) in env {
        all.retain(|(known, _)| known != key);
        all.push((key, value.clone()));
    }
    if variable(env, "PATH").is_none() {
        all.push(("PATH", PATH.to_owned()));
    }
    if terminal && variable(env, "TERM").is_none() {
        all.push(("TERM", "xterm".to_owned()));
    }
    if variable(env, "HOME").is_none_or(str::is_empty) {
        all.retain(|(known, _)| *known != "HOME");
        all.push(("HOME", home(uid)));
    }
    all.iter().map(|(key, value)| c_string(&format!("{key}={value}"))).collect()
}

pub(crate) fn arguments(args: &[String]) -> Result<Vec<CString>, Failure> {
    args.iter().map(|argument| c_string(argument)).collect()
}

pub(crate) fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::run(format!("{text:?} holds a zero byte")))
}

/// From the root's own /etc/passwd (passwd(5)).
fn home(uid: u32) -> String {
    let uid = uid.to_string();
    let found = fs::read_to_string("/etc/passwd").ok().and_then(|accounts| {
        let mut lines = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
        lines.find(|fields| fields.get(2) == Some(&uid.as_str())).and_then(|fields| fields.get(5).map(|s| (*s).into()))
    });
    found.unwrap_or_else(|| "/".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_missing_executable_is_named_with_the_path_that_was_searched() {
        let failure = find("nope", &env(&[("PATH", "/no-such")])).unwrap_err();
        assert_eq!(failure, Failure::run("exec: \"nope\": executable file not found in $PATH (/no-such)"));
        assert!(find("/no/such", &[]).unwrap_err().message.contains("No such file"));
        assert!(find("/etc", &[]).unwrap_err().message.contains("is a directory"));
        assert!(find("", &[]).is_err());
    }

    #[test]
    fn the_runtime_does_not_run_itself() {
        assert!(find("/proc/self/exe", &[]).unwrap_err().message.contains("runtime itself"));
    }

    #[test]
    fn of_duplicate_variables_the_last_one_counts() {
        let all =
            environment(&env(&[("A", "1"), ("B", "2"), ("A", "3"), ("HOME", "/h"), ("PATH", "/p")]), 0, false).unwrap();
        let all: Vec<_> = all.iter().map(|entry| entry.to_str().unwrap()).collect();
        assert_eq!(all, ["B=2", "A=3", "HOME=/h", "PATH=/p"]);
    }

    #[test]
    fn a_terminal_has_a_kind_unless_told_another() {
        let has = |pairs: &[(&str, &str)], terminal| {
            let all = environment(&env(pairs), 0, terminal).unwrap();
            all.iter().filter_map(|entry| entry.to_str().unwrap().strip_prefix("TERM=")).collect::<Vec<_>>().join(",")
        };
        assert_eq!(has(&[], true), "xterm");
        assert_eq!(has(&[("TERM", "vt100")], true), "vt100");
        assert_eq!(has(&[], false), "");
    }
}
