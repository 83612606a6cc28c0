//! The network of services as pods and the host experience it: addresses, names, and who may speak to whom. One engine,
//! many checks; each has a name, and one that fails does not hide the next.

mod check;
mod names;
mod policies;
mod services;
mod sleep;

use anyhow::{Context, Result, ensure};
use shipway_tests::{Image, Instance};

use check::Check;

/// Every group: what is applied before it, and what must then be so.
const GROUPS: [(&str, &str, &[Check]); 11] = [
    ("services", services::OBJECTS, services::CHECKS),
    ("names", names::OBJECTS, names::CHECKS),
    ("without a policy", policies::PEERS, policies::OPEN),
    ("default deny", policies::CLOSED, policies::SHUT),
    ("chosen peers", policies::CHOSEN, policies::LET_IN),
    ("ports", policies::PORTS, policies::AT_PORTS),
    ("addresses", policies::BLOCKS, policies::BY_ADDRESS),
    ("egress", policies::LEAVING, policies::LET_OUT),
    ("local traffic", services::LOCAL, services::STAYS),
    ("pods that end", services::ENDING, services::GONE),
    ("sleep", sleep::OBJECTS, sleep::CHECKS),
];

/// Makes a small client in a pod: fetches an address with the C library's resolver, for three seconds at most.
const FETCH: &str = r"printf '%s\\n' '#!/usr/bin/env python3' 'import sys, urllib.request as u' \
      'print(u.urlopen(sys.argv[1], timeout=3).read().decode(), end=str())' > /bin/fetch; chmod +x /bin/fetch;";

#[test]
fn services_names_and_policies_do_what_is_documented() -> Result<()> {
    let instance = Instance::new()?;
    if instance.kubectl_command().is_none() {
        println!("skipped: this machine has no kubectl");
        return Ok(());
    }
    instance.load(Image::Python)?;
    instance.ok(&["up", "--api-port", "0"])?;
    kubectl(&instance, &["wait", "--for=create", "serviceaccount/default", "--timeout=20s"])?;
    let (mut taken, mut failed) = (0, Vec::new());
    for (group, objects, checks) in GROUPS {
        for document in objects.split("\n---\n").filter(|text| !text.trim().is_empty()) {
            let made = instance
                .kubectl_with_input(&["apply", "--filename=-"], &document.replace("FETCH", FETCH))
                .context("no kubectl")?;
            made.with_context(|| format!("cannot set up {group}"))?;
        }
        for namespace in ["default", "away"] {
            let ready = ["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s", "--namespace", namespace];
            kubectl(&instance, &ready).or_else(|error| {
                if format!("{error:#}").contains("no matching resources") { Ok(String::new()) } else { Err(error) }
            })?;
        }
        for check in checks {
            taken += 1;
            match check.take(&instance) {
                Ok(()) => println!("check {group}: {} ... ok", check.name),
                Err(error) => {
                    println!("check {group}: {} ... FAILED: {error:#}", check.name);
                    failed.push(check.name);
                }
            }
        }
    }
    println!("{taken} checks");
    ensure!(failed.is_empty(), "{} of {taken} checks failed:\n{}", failed.len(), failed.join("\n"));
    Ok(())
}

fn kubectl(instance: &Instance, arguments: &[&str]) -> Result<String> {
    instance.kubectl(arguments).context("no kubectl")?
}
