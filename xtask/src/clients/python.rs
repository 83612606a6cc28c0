//! The Python client's end-to-end tests, out of a checkout that the command line names: the published package leaves them
//! out. They find the server by the kubeconfig.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::own::last_lines;
use super::{Judged, Options, Ran, Verdict, cluster, tools};

/// What the environment holds: the client at the version whose tests these are, and the runner.
const PACKAGES: [&str; 3] = ["kubernetes==37.0.2", "pytest", "pytest-timeout"];

/// Runs every test of the folder.
pub(crate) fn tests(options: &Options) -> Result<Ran> {
    let Some(suite) = &options.python_suite else {
        let why = "name a checkout's kubernetes/e2e_test with --python-suite DIR; the published package has no tests";
        return Ok(Ran::NotRun(why.to_owned()));
    };
    let python = match tools::python(&PACKAGES) {
        Ok(python) => python,
        Err(error) => return Ok(Ran::Unavailable(format!("{error:#}"))),
    };
    // The tests import each other through the package and name their files from beside it, so they go where it is.
    let ask = "import kubernetes, os; print(os.path.dirname(os.path.dirname(kubernetes.__file__)))";
    let asked = Command::new(&python).args(["-c", ask]).output().context("cannot run python")?;
    let beside = PathBuf::from(String::from_utf8(asked.stdout)?.trim());
    let place = beside.join("kubernetes/e2e_test");
    tools::run(Command::new("rm").arg("-rf").arg(&place))?;
    tools::run(Command::new("cp").arg("-r").arg(suite).arg(&place))?;
    let instance = cluster()?;
    let mut pytest = Command::new(&python);
    pytest.args([
        "-m",
        "pytest",
        "-rA",
        "--tb=line",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "--timeout=90",
        "kubernetes/e2e_test",
    ]);
    // The reasons of failures are cut at the width of the terminal.
    pytest.current_dir(&beside).env("KUBECONFIG", instance.kubeconfig()).env("COLUMNS", "600");
    let output = pytest.output().context("cannot run pytest")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let summary = text.split_once("short test summary info").map_or("", |(_, summary)| summary);
    let mut judged: Vec<Judged> = summary.lines().filter_map(line).collect();
    if judged.is_empty() {
        judged.push(("the run as a whole".to_owned(), Verdict::Failed(last_lines(&text))));
    }
    Ok(Ran::Tests(judged))
}

/// A line of pytest's summary: `PASSED file::test`, `FAILED file::test - why`, `SKIPPED [1] file:line: why`.
fn line(text: &str) -> Option<Judged> {
    let (word, rest) = text.split_once(' ')?;
    let (place, why) = rest.split_once(" - ").unwrap_or((rest, "no reason given"));
    let name = place.rsplit('/').next().unwrap_or(place).to_owned();
    match word {
        "PASSED" => Some((name, Verdict::Passed)),
        "FAILED" | "ERROR" => Some((name, Verdict::Failed(why.to_owned()))),
        "SKIPPED" => Some((name, Verdict::Skipped(rest.to_owned()))),
        _ => None,
    }
}

#[test]
fn the_summary_of_pytest_is_read() {
    assert_eq!(line("PASSED a/b.py::T::x"), Some(("b.py::T::x".to_owned(), Verdict::Passed)));
    assert_eq!(line("FAILED b.py::y - no"), Some(("b.py::y".to_owned(), Verdict::Failed("no".to_owned()))));
    assert_eq!(line("=== 3 passed ==="), None);
}
