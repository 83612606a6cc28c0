//! A script, its interpreter and, for shell scripts, the commands that it plainly names.
//!
//! Which commands a script runs cannot be known without running it; the scan takes the words that stand where commands
//! stand. What it misses is missing in the image too, and the shell says so by name.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use crate::PackError;
use crate::cache::Cache;
use crate::folder;
use crate::image::Plan;
use crate::libraries::{Linker, Place};
use crate::program::{APP, Program, Shebang, find_command};
use crate::progress::Progress;
use crate::system;
use crate::tree::Tree;

/// Bound on the commands of one script.
const COMMANDS: usize = 300;
/// Shells, whose scripts are scanned for commands.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"];
/// Words before which a command may stand: they take another command as their argument.
const PREFIXES: [&str; 22] = [
    "if", "then", "else", "elif", "while", "until", "do", "!", "{", "time", "exec", "command", "builtin", "nohup",
    "xargs", "sudo", "nice", "env", "timeout", "setsid", "stdbuf", "coproc",
];
/// Words after which something else than a command stands.
const SILENT: [&str; 6] = ["for", "case", "select", "function", "in", "[["];

pub(crate) fn plan(program: &Program, cache: &Cache, progress: &dyn Progress) -> Result<Plan, PackError> {
    let shebang = program.shebang.clone().unwrap_or_else(|| Shebang {
        interpreter: "/bin/sh".into(),
        arguments: Vec::new(),
        variables: Vec::new(),
    });
    let interpreter = find_command(&shebang.interpreter).ok_or_else(|| PackError::InterpreterMissing {
        path: program.path.clone(),
        interpreter: shebang.interpreter.clone(),
    })?;
    let mut base = Tree::default();
    system::add_base(&mut base);
    let purpose = program.path.to_string_lossy();
    let mut linker = Linker::open(cache, &purpose);
    add_command(&interpreter, &mut linker, &mut base)?;
    if is_shell(&interpreter) {
        let text = fs::read(&program.path).map_err(|e| PackError::io("read", &program.path, e))?;
        let named = commands(&String::from_utf8_lossy(&text));
        for command in named.iter().filter_map(|name| find_command(name)) {
            add_command(&command, &mut linker, &mut base)?;
        }
    } else {
        progress.note(&format!("of {} the program itself is packed, not its modules", interpreter.display()));
    }
    linker.close(cache, &purpose)?;
    let mut env = system::environment(system::PATH);
    env.extend(system::add_authorities(&mut base)?);
    env.extend(shebang.variables);
    let mut app = Tree::default();
    folder::add(program, &BTreeSet::new(), &mut app, progress)?;
    let command = std::iter::once(interpreter.to_string_lossy().into_owned())
        .chain(shebang.arguments)
        .chain([program.target.to_string_lossy().into_owned()]);
    Ok(Plan {
        layers: vec![("system", base), ("program", app)],
        env,
        entrypoint: system::entrypoint(command),
        workdir: APP.to_owned(),
    })
}

fn is_shell(interpreter: &Path) -> bool {
    interpreter.file_name().is_some_and(|name| SHELLS.iter().any(|shell| name == *shell))
}

/// Adds a command with its libraries, or with its interpreter if it is a script itself. A command that cannot run here
/// either is left out.
pub(crate) fn add_command(path: &Path, linker: &mut Linker, tree: &mut Tree) -> Result<(), PackError> {
    let mut pending = VecDeque::from([path.to_owned()]);
    let mut seen = BTreeSet::new();
    while let Some(path) = pending.pop_front() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let Ok(real) = path.canonicalize() else { continue };
        let closure = linker.closure(&Place::same(&real), None)?;
        if !closure.missing.is_empty() {
            continue;
        }
        tree.host(&path)?;
        closure.add_to(tree)?;
        if linker.object(&real)?.is_none() {
            pending.extend(interpreters(&real));
        }
    }
    Ok(())
}

/// The programs that a script's first line needs, `env` among them.
fn interpreters(script: &Path) -> Vec<PathBuf> {
    let Ok(text) = fs::read(script) else { return Vec::new() };
    let Some(shebang) = Shebang::parse(&text[..text.len().min(512)]) else { return Vec::new() };
    let through = (!shebang.interpreter.contains('/')).then_some("/usr/bin/env");
    [Some(shebang.interpreter.as_str()), through].into_iter().flatten().filter_map(find_command).collect()
}

/// The words at command position of a shell script, without what is quoted or computed.
pub(crate) fn commands(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut here: Option<String> = None;
    for line in text.lines() {
        if let Some(end) = &here {
            if line.trim() == end {
                here = None;
            }
            continue;
        }
        here = here_document(line);
        scan_line(line, &mut found);
        if found.len() >= COMMANDS {
            break;
        }
    }
    found
}

/// The word that ends a here document which begins in this line.
fn here_document(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("<<")?;
    if rest.starts_with('<') {
        return None;
    }
    let word = rest.trim_start_matches('-').trim_start();
    let word: String = word.chars().take_while(|c| !c.is_whitespace() && !";|&<>)".contains(*c)).collect();
    let word = word.trim_matches(['\'', '"', '\\']).to_owned();
    word.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_').then_some(word)
}

fn scan_line(line: &str, found: &mut BTreeSet<String>) {
    let mut at_command = true;
    for word in words(line) {
        match word {
            Word::Break => at_command = true,
            Word::Text(word) if at_command => {
                at_command = takes_command(&word);
                if is_literal(&word) && !SILENT.contains(&word.as_str()) {
                    found.insert(word);
                }
            }
            Word::Text(_) => {}
        }
    }
}

/// Whether a command may follow this word.
fn takes_command(word: &str) -> bool {
    let assignment = word
        .split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_'));
    // Options and numbers after `xargs -n 1`, `timeout 5` and the like.
    let option = word.starts_with('-') || word.chars().all(|c| c.is_ascii_digit() || ".smh".contains(c));
    assignment || option || PREFIXES.contains(&word)
}

fn is_literal(word: &str) -> bool {
    word.chars().any(char::is_alphabetic) && word.chars().all(|c| c.is_ascii_alphanumeric() || "_./+-[".contains(c))
        || word == "["
}

enum Word {
    Text(String),
    /// After this a command may stand.
    Break,
}

/// Splits a line; quoted text is one opaque word, but what is substituted inside double quotes is looked into.
fn words(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut characters = line.chars().peekable();
    let mut quoted = false;
    let end = |word: &mut String, words: &mut Vec<Word>| {
        if !word.is_empty() {
            words.push(Word::Text(std::mem::take(word)));
        }
    };
    while let Some(c) = characters.next() {
        match c {
            '\\' => {
                characters.next();
                word.push('\\');
            }
            '\'' if !quoted => {
                characters.by_ref().find(|&c| c == '\'');
                word.push('\'');
            }
            '"' => {
                quoted = !quoted;
                word.push('"');
            }
            '$' if characters.peek() == Some(&'(') => {
                characters.next();
                end(&mut word, &mut words);
                words.push(Word::Break);
            }
            '`' => {
                end(&mut word, &mut words);
                words.push(Word::Break);
            }
            ')' if quoted => end(&mut word, &mut words),
            _ if quoted && !c.is_whitespace() => word.push(c),
            '#' if word.is_empty() && !quoted => break,
            ';' | '|' | '&' | '(' | ')' if !quoted => {
                end(&mut word, &mut words);
                words.push(Word::Break);
            }
            c if c.is_whitespace() => end(&mut word, &mut words),
            c => word.push(c),
        }
    }
    end(&mut word, &mut words);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_where_they_stand() {
        let text = r#"#!/bin/sh
# comment: rm
set -e
A=1 date | sed 's/x; rm/y/' && if test -f x; then cat "$(dirname "$0")/f"; fi
for file in alpha beta; do grep -c x < "$file"; done
xargs -n 1 basename; timeout 5 sleep 1
`uname` ; "$computed" ; "quoted rm"
cat <<EOF
notacommand here
EOF
/bin/echo done \
"#;
        let found = commands(text);
        for expected in ["date", "sed", "test", "cat", "dirname", "grep", "basename", "sleep", "uname", "/bin/echo"] {
            assert!(found.contains(expected), "{expected} in {found:?}");
        }
        for other in ["rm", "alpha", "notacommand", "comment", "x", "f"] {
            assert!(!found.contains(other), "{other} in {found:?}");
        }
    }
}
