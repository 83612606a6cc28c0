//! What a program is: found by its first bytes and its name, without running it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::PackError;

/// Where the program's folder is in the image.
pub(crate) const APP: &str = "/app";
/// Bound on a name of ours: Kubernetes adds up to 17 characters for the names of pods, of 63 in all.
const NAME_LIMIT: usize = 40;

/// The kinds of program that can be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// Python source.
    Python,
    /// A binary.
    Elf,
    /// A script of another interpreter.
    Script,
}

/// A program, looked at.
#[derive(Debug)]
pub(crate) struct Program {
    /// Where it really is, all links resolved.
    pub(crate) path: PathBuf,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Its path in the image.
    pub(crate) target: PathBuf,
    pub(crate) name: String,
    pub(crate) kind: ProgramKind,
    pub(crate) shebang: Option<Shebang>,
}

/// The first line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shebang {
    /// The interpreter as written: a path, or a bare name if the line goes through `env`.
    pub(crate) interpreter: String,
    /// What the line passes to it.
    pub(crate) arguments: Vec<String>,
    /// What the line sets through `env`.
    pub(crate) variables: Vec<(String, String)>,
}

impl Program {
    pub(crate) fn open(given: &Path) -> Result<Self, PackError> {
        let path = given.canonicalize().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => PackError::Missing(given.to_owned()),
            io::ErrorKind::PermissionDenied => PackError::Unreadable(given.to_owned()),
            _ => PackError::io("read", given, e),
        })?;
        let data = fs::metadata(&path).map_err(|e| PackError::io("read", given, e))?;
        if data.is_dir() {
            return Err(PackError::Directory(given.to_owned()));
        }
        if !data.is_file() {
            return Err(PackError::NotAFile(given.to_owned()));
        }
        let head = head(&path).map_err(|e| PackError::io("read", given, e))?;
        let shebang = Shebang::parse(&head);
        let kind = kind(given, &head, shebang.as_ref())?;
        if kind == ProgramKind::Elf && data.permissions().mode() & 0o111 == 0 {
            return Err(PackError::NotExecutable(given.to_owned()));
        }
        let folder = path.parent().expect("a file has a folder").to_owned();
        let target = Path::new(APP).join(path.file_name().expect("a file has a name"));
        Ok(Self { path, folder, target, name: name(given), kind, shebang })
    }
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(512).read_to_end(&mut head)?;
    Ok(head)
}

fn kind(path: &Path, head: &[u8], shebang: Option<&Shebang>) -> Result<ProgramKind, PackError> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if head.starts_with(b"\x7fELF") {
        return Ok(ProgramKind::Elf);
    }
    match (extension, shebang) {
        _ if head.is_empty() => Err(PackError::Empty(path.to_owned())),
        (_, Some(shebang)) if shebang.is_python() => Ok(ProgramKind::Python),
        ("py" | "pyw", _) => Ok(ProgramKind::Python),
        (_, Some(_)) | ("sh" | "bash", None) => Ok(ProgramKind::Script),
        _ => Err(PackError::Unknown(path.to_owned())),
    }
}

/// The file's stem in the characters that Kubernetes allows in names.
fn name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let clean: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let words: Vec<&str> = clean.split('-').filter(|word| !word.is_empty()).collect();
    let mut name = words.join("-");
    name.truncate(NAME_LIMIT);
    let name = name.trim_end_matches('-');
    match name.chars().next() {
        None => "app".to_owned(),
        // A Service's name must begin with a letter.
        Some(first) if first.is_ascii_digit() => format!("app-{name}"),
        Some(_) => name.to_owned(),
    }
}

impl Shebang {
    /// Reads the first line; understands `env`, also with `-S` and variables.
    pub(crate) fn parse(head: &[u8]) -> Option<Self> {
        let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
        let line = String::from_utf8_lossy(line);
        let mut words = line.split_whitespace().map(str::to_owned).peekable();
        let interpreter = words.next()?;
        if Path::new(&interpreter).file_name()? != "env" {
            return Some(Self { interpreter, arguments: words.collect(), variables: Vec::new() });
        }
        let mut variables = Vec::new();
        while let Some(word) = words.next_if(|word| word.starts_with('-') || word.contains('=')) {
            if let Some((name, value)) = word.split_once('=').filter(|_| !word.starts_with('-')) {
                variables.push((name.to_owned(), value.to_owned()));
            }
        }
        let interpreter = words.next()?;
        Some(Self { interpreter, arguments: words.collect(), variables })
    }

    pub(crate) fn is_python(&self) -> bool {
        let name = Path::new(&self.interpreter).file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix("python").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
    }
}

/// The file that a command means: along PATH if it has no slash.
pub(crate) fn find_command(command: &str) -> Option<PathBuf> {
    let executable =
        |path: &Path| fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
    if command.contains('/') {
        return Some(PathBuf::from(command)).filter(|path| path.is_absolute() && executable(path));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(command)).find(|p| executable(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shebang(line: &str) -> Shebang {
        Shebang::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn first_lines_are_read_in_all_their_forms() {
        assert_eq!(shebang("#!/bin/sh -e\nx").arguments, ["-e"]);
        assert_eq!(shebang("#! /usr/bin/env bash\n").interpreter, "bash");
        let long = shebang("#!/usr/bin/env -S A=b python3.11 -u\r\n");
        assert_eq!((long.interpreter.as_str(), long.arguments.as_slice()), ("python3.11", &["-u".to_owned()][..]));
        assert_eq!(long.variables, [("A".to_owned(), "b".to_owned())]);
        assert!(long.is_python() && shebang("#!/usr/bin/python").is_python());
        assert!(!shebang("#!/usr/bin/pythonic").is_python());
        assert_eq!(Shebang::parse(b"#!"), None);
        assert_eq!(Shebang::parse(b"print()"), None);
    }

    #[test]
    fn names_are_fit_for_kubernetes() {
        for (path, expected) in [
            ("hello.py", "hello"),
            ("My_App v2.py", "my-app-v2"),
            ("/x/--.sh", "app"),
            ("9lives", "app-9lives"),
            (&"a".repeat(60), &"a".repeat(40)),
        ] {
            assert_eq!(name(Path::new(path)), expected);
        }
    }

    #[test]
    fn what_cannot_be_packed_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            Program::open(&path)
        };
        assert!(matches!(Program::open(Path::new("/no/such")), Err(PackError::Missing(_))));
        assert!(matches!(Program::open(dir.path()), Err(PackError::Directory(_))));
        assert!(matches!(Program::open(Path::new("/dev/null")), Err(PackError::NotAFile(_))));
        assert!(matches!(open("text", b"just text"), Err(PackError::Unknown(_))));
        assert!(matches!(open("empty.py", b""), Err(PackError::Empty(_))));
        assert!(matches!(open("elf", b"\x7fELF"), Err(PackError::NotExecutable(_))));
        assert_eq!(open("a.py", b"pass").unwrap().kind, ProgramKind::Python);
        assert_eq!(open("b", b"#!/usr/bin/env python3\n").unwrap().kind, ProgramKind::Python);
        assert_eq!(open("c.sh", b"ls").unwrap().kind, ProgramKind::Script);
    }
}
