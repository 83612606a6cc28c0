//! One command of the tour: what is typed, what is read, and what must be seen.

use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shipway_tests::{Instance, with_input};

/// Stands for the name of the node.
const NODE: &str = "{node}";

/// A command line and what it must answer.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) line: &'static str,
    input: &'static str,
    says: &'static [&'static str],
    lacks: &'static [&'static str],
    exactly: Option<&'static str>,
    fails: bool,
    patience: Duration,
}

/// A command that must succeed.
pub(crate) const fn run(line: &'static str) -> Step {
    Step { line, input: "", says: &[], lacks: &[], exactly: None, fails: false, patience: Duration::ZERO }
}

impl Step {
    /// It reads this.
    pub(crate) const fn reads(mut self, input: &'static str) -> Self {
        self.input = input;
        self
    }

    /// It prints each of these, on either output.
    pub(crate) const fn says(mut self, says: &'static [&'static str]) -> Self {
        self.says = says;
        self
    }

    /// It prints none of these.
    pub(crate) const fn lacks(mut self, lacks: &'static [&'static str]) -> Self {
        self.lacks = lacks;
        self
    }

    /// Its standard output is this and nothing else.
    pub(crate) const fn prints(mut self, text: &'static str) -> Self {
        self.exactly = Some(text);
        self
    }

    /// It must fail.
    pub(crate) const fn fails(mut self) -> Self {
        self.fails = true;
        self
    }

    /// It is tried again until it answers so, for up to half a minute.
    pub(crate) const fn soon(mut self) -> Self {
        self.patience = Duration::from_secs(30);
        self
    }

    /// Runs the command in a namespace and judges it.
    pub(crate) fn take(&self, instance: &Instance, namespace: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            let judged = self.judge(&self.output(instance, namespace)?);
            if judged.is_ok() || start.elapsed() >= self.patience {
                return judged;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn output(&self, instance: &Instance, namespace: &str) -> Result<Output> {
        let mut command = instance.kubectl_command().context("no kubectl")?;
        let line = if self.line.contains(NODE) {
            let asked = instance.kubectl(&["get", "nodes", "--output=jsonpath={.items[0].metadata.name}"]);
            self.line.replace(NODE, &asked.context("no kubectl")??)
        } else {
            self.line.to_owned()
        };
        command.args(["--namespace", namespace]).args(words(&line)).current_dir(instance.home());
        // `edit` changes what stands in the file, as a person would.
        command.env("KUBE_EDITOR", "sed -i s/blue/green/");
        with_input(&mut command, self.input)
    }

    fn judge(&self, output: &Output) -> Result<()> {
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let all = format!("{printed}{}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success() != self.fails, "ended with {}: {all}", output.status);
        for word in self.says {
            ensure!(all.contains(word), "does not say {word:?}: {all}");
        }
        for word in self.lacks {
            ensure!(!all.contains(word), "says {word:?}: {all}");
        }
        ensure!(self.exactly.is_none_or(|text| text == printed), "prints not {:?}: {all}", self.exactly);
        Ok(())
    }
}

/// The words of a line; what stands between single quotes is one.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut any) = (String::new(), false, false);
    for letter in line.chars() {
        match letter {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            letter => {
                word.push(letter);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

#[test]
fn quotes_hold_words_together() {
    assert_eq!(words("a 'b c' d='e f'  ''"), ["a", "b c", "d=e f", ""]);
}
