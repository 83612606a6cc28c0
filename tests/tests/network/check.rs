//! One thing that must be so: a command in a pod or on the host, and what comes of it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use shipway_tests::{Instance, with_input};

const PATIENCE: Duration = Duration::from_secs(15);

/// What must come of a command.
#[derive(Clone, Copy)]
enum Outcome {
    /// It prints this, among other things.
    Says(&'static str),
    /// It prints anything but this.
    Lacks(&'static str),
    Fails,
}

/// A named check.
#[derive(Clone, Copy)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// `pod` or `namespace/pod`; none for the host.
    place: Option<&'static str>,
    command: &'static str,
    outcome: Outcome,
}

/// In a pod.
pub(crate) const fn inside(name: &'static str, pod: &'static str, command: &'static str) -> Check {
    Check { name, place: Some(pod), command, outcome: Outcome::Says("") }
}

/// On the host.
pub(crate) const fn outside(name: &'static str, command: &'static str) -> Check {
    Check { name, place: None, command, outcome: Outcome::Says("") }
}

impl Check {
    pub(crate) const fn says(mut self, text: &'static str) -> Self {
        self.outcome = Outcome::Says(text);
        self
    }

    pub(crate) const fn lacks(mut self, text: &'static str) -> Self {
        self.outcome = Outcome::Lacks(text);
        self
    }

    pub(crate) const fn fails(mut self) -> Self {
        self.outcome = Outcome::Fails;
        self
    }

    /// Tries until it is so: what was applied becomes true a moment later.
    pub(crate) fn take(&self, instance: &Instance) -> Result<()> {
        let start = Instant::now();
        loop {
            let (succeeded, said) = self.run(instance)?;
            let so = match self.outcome {
                Outcome::Says(text) => succeeded && said.contains(text),
                Outcome::Lacks(text) => !said.contains(text),
                Outcome::Fails => !succeeded,
            };
            if so {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("{:?} {} and said {said:?}", self.command, if succeeded { "succeeded" } else { "failed" });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn run(&self, instance: &Instance) -> Result<(bool, String)> {
        let mut command = match self.place {
            None => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(self.command).env("KUBECONFIG", instance.kubeconfig());
                shell
            }
            Some(place) => {
                let (namespace, pod) = place.split_once('/').unwrap_or(("default", place));
                let mut kubectl = instance.kubectl_command().context("no kubectl")?;
                kubectl.args(["exec", "--namespace", namespace, pod, "--", "sh", "-c", self.command]);
                kubectl
            }
        };
        let output = with_input(&mut command, "")?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }
}
