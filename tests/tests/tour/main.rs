//! A tour through kubectl: what people type, and what they must see. Each command is one step with its own verdict; a
//! step that fails does not hide the next. `$KUBECTL` names the kubectl; `cargo xtask clients` sets it.

mod access;
mod kinds;
mod machine;
mod objects;
mod pods;
mod step;
mod streams;
mod workloads;

use anyhow::{Context, Result, ensure};
use shipway_tests::{Image, Instance, Known};
use step::{Step, run};

/// The stops of the tour: each in a namespace of its own.
const STOPS: [(&str, &[Step]); 7] = [
    ("objects", objects::STEPS),
    ("output", objects::OUTPUT),
    ("workloads", workloads::STEPS),
    ("pods", pods::STEPS),
    ("kinds", kinds::STEPS),
    ("access", access::STEPS),
    ("machine", machine::STEPS),
];

/// What was seen on the way.
#[derive(Default)]
struct Tour {
    taken: usize,
    news: Vec<String>,
    known: Known,
}

impl Tour {
    fn note(&mut self, stop: &str, line: &str, verdict: &Result<()>) {
        self.taken += 1;
        let name = format!("{stop}: {line}");
        match (verdict, self.known.reason("tour", &name)) {
            (Ok(()), None) => println!("step {name} ... ok"),
            (Ok(()), Some(_)) => println!("step {name} ... ok, though it is listed as failing"),
            (Err(error), Some(reason)) => println!("step {name} ... known: {reason}: {}", in_one_line(error)),
            (Err(error), None) => {
                println!("step {name} ... FAILED: {}", in_one_line(error));
                self.news.push(name);
            }
        }
    }
}

fn in_one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', " / ").chars().take(600).collect()
}

#[test]
fn kubectl_does_what_people_type() -> Result<()> {
    let instance = Instance::new()?;
    if std::env::var_os("KUBECTL").is_none() {
        println!("skipped: KUBECTL names no kubectl");
        return Ok(());
    }
    instance.load(Image::Busybox)?;
    instance.load(Image::Nginx)?;
    instance.ok(&["up", "--api-port", "0"])?;
    files(&instance)?;
    let mut tour = Tour { known: Known::read()?, ..Tour::default() };
    for (stop, steps) in STOPS {
        run_in(&instance, stop)?;
        for step in steps {
            tour.note(stop, step.line, &step.take(&instance, stop));
        }
    }
    for (name, stream) in streams::ALL {
        tour.note("streams", name, &stream(&instance, "pods"));
    }
    println!("{} steps taken", tour.taken);
    ensure!(tour.news.is_empty(), "{} of {} steps failed:\n{}", tour.news.len(), tour.taken, tour.news.join("\n"));
    Ok(())
}

fn run_in(instance: &Instance, namespace: &str) -> Result<()> {
    let made = instance.kubectl(&["create", "namespace", namespace]).context("no kubectl")??;
    ensure!(made == format!("namespace/{namespace} created\n"), "{made}");
    run("wait --for=create serviceaccount/default --timeout=20s").take(instance, namespace)
}

/// Files that steps name, in the folder in which they run.
fn files(instance: &Instance) -> Result<()> {
    for (name, text) in objects::FILES.iter().chain(access::FILES) {
        let path = instance.home().join(name);
        std::fs::create_dir_all(path.parent().context("a file has a folder")?)?;
        std::fs::write(path, text)?;
    }
    // A certificate and its key that are at hand: the administrator's own.
    for (name, field) in [("door.crt", "client-certificate-data"), ("door.key", "client-key-data")] {
        let template = format!("go-template={{{{index (index .users 0).user \"{field}\" | base64decode}}}}");
        let text = instance.kubectl(&["config", "view", "--raw", "--output", &template]).context("no kubectl")??;
        std::fs::write(instance.home().join(name), text)?;
    }
    Ok(())
}
