//! Suites that nobody here wrote, run against an instance: what clients expect, judged by their own tests.
//!
//! Nothing of theirs is in this tree. The Rust client's tests come with the published crates; the others are named on the
//! command line or fetched by name from their package registry into the target folder. What cannot be fetched is said, and
//! fails the whole only where `SHIPWAY_ALL` is `true`. So does always a failure that is not listed in `tests/known-failures.txt`
//! with its reason.

mod kube;
mod own;
mod python;
mod tools;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use shipway_tests::{Image, Instance, Known};

use crate::needs_all;

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// A checkout's folder of the Rust client's examples.
    kube_examples: Option<PathBuf>,
    /// A checkout's folder of the Python client's end-to-end tests.
    python_suite: Option<PathBuf>,
    /// Only these suites; all when empty.
    only: Vec<String>,
}

impl Options {
    /// Reads `--kube-examples DIR`, `--python-suite DIR` and names of suites.
    fn parse(words: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut folder = || -> Result<Option<PathBuf>> {
                let given = words.next().with_context(|| format!("{word} wants a folder"))?;
                Ok(Some(std::fs::canonicalize(given).with_context(|| format!("there is no folder {given}"))?))
            };
            match word.as_str() {
                "--kube-examples" => options.kube_examples = folder()?,
                "--python-suite" => options.python_suite = folder()?,
                name if SUITES.iter().any(|(suite, _)| *suite == name) => options.only.push(name.to_owned()),
                other => bail!("{other:?} is neither an option nor a suite; suites: {}", suites()),
            }
        }
        Ok(options)
    }
}

fn suites() -> String {
    SUITES.map(|(name, _)| name).join(" ")
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    /// It failed, and it told itself why that is known.
    Known(String),
    Skipped(String),
}

/// A test and how it ended.
pub(crate) type Judged = (String, Verdict);

/// A suite: its tests against an instance of its own, or why none of it ran.
type Suite = fn(&Options) -> Result<Ran>;

/// What became of a suite.
pub(crate) enum Ran {
    Tests(Vec<Judged>),
    /// The command line does not name what it needs.
    NotRun(String),
    /// What it needs could not be fetched.
    Unavailable(String),
}

const SUITES: [(&str, Suite); 6] = [
    ("kube-tests", kube::tests),
    ("kube-examples", kube::examples),
    ("python", python::tests),
    ("kubectl-1.33", own::kubectl_1_33),
    ("kubectl-1.36", own::kubectl_1_36),
    ("helm", own::helm),
];

/// Runs the suites, prints a table, and fails on news.
pub(crate) fn clients(words: &[String]) -> Result<()> {
    let options = Options::parse(words)?;
    let known = Known::read()?;
    let mut table = vec![["suite", "passed", "failed", "known", "skipped"].map(str::to_owned)];
    let mut news = Vec::new();
    let missing = Image::ALL.into_iter().find_map(Image::unavailable);
    for (name, suite) in SUITES {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        match missing.clone().map_or_else(|| suite(&options), |why| Ok(Ran::Unavailable(why))) {
            Ok(Ran::Tests(judged)) => table.push(tally(name, &judged, &known, &mut news)),
            Ok(Ran::Unavailable(why)) if needs_all() => {
                news.push(format!("{name}: cannot be run: {why}"));
                table.push([name, "-", "all", "-", "-"].map(str::to_owned));
            }
            Ok(Ran::NotRun(why) | Ran::Unavailable(why)) => {
                println!("{name}: not run: {why}");
                table.push([name, "-", "-", "-", "all"].map(str::to_owned));
            }
            Err(error) => {
                news.push(format!("{name}: cannot be run: {error:#}"));
                table.push([name, "-", "all", "-", "-"].map(str::to_owned));
            }
        }
    }
    for [suite, passed, failed, known, skipped] in &table {
        println!("{suite:<16}{passed:>8}{failed:>8}{known:>8}{skipped:>9}");
    }
    for line in &news {
        println!("{line}");
    }
    ensure!(news.is_empty(), "{} tests failed that are not in tests/known-failures.txt", news.len());
    Ok(())
}

fn tally(suite: &str, judged: &[Judged], known: &Known, news: &mut Vec<String>) -> [String; 5] {
    let (mut passed, mut failed, mut expected, mut skipped) = (0, 0, 0, 0);
    for (test, verdict) in judged {
        match (verdict, known.reason(suite, test)) {
            (Verdict::Passed, reason) => {
                passed += 1;
                if reason.is_some() {
                    println!("{suite}: {test} passes; take it off the list of known failures");
                }
            }
            (Verdict::Failed(why), Some(reason)) => {
                expected += 1;
                println!("{suite}: {test} is known to fail: {reason}: {why}");
            }
            (Verdict::Known(why), _) => {
                expected += 1;
                println!("{suite}: {test} is known to fail: {why}");
            }
            (Verdict::Failed(why), None) => {
                failed += 1;
                news.push(format!("{suite}: {test}: {why}"));
            }
            (Verdict::Skipped(why), _) => {
                skipped += 1;
                println!("{suite}: {test} skipped: {why}");
            }
        }
    }
    [suite.to_owned(), passed.to_string(), failed.to_string(), expected.to_string(), skipped.to_string()]
}

/// An instance with the images that suites ask for.
pub(crate) fn cluster() -> Result<Instance> {
    let instance = Instance::new()?;
    for image in Image::ALL {
        instance.load(image)?;
    }
    instance.ok(&["up", "--api-port", "0"])?;
    Ok(instance)
}

/// The folder in which suites work.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder = shipway_tests::target().join("clients");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_name_folders_and_suites() {
        let parse = |line: &str| Options::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let options = parse("--python-suite / helm").unwrap();
        assert_eq!((options.python_suite, options.only), (Some(PathBuf::from("/")), vec!["helm".to_owned()]));
        assert!(parse("--python-suite").is_err());
        assert!(parse("nonsense").is_err());
    }

    #[test]
    fn only_an_unknown_failure_is_news() {
        let mut news = Vec::new();
        let judged = [
            ("a".to_owned(), Verdict::Passed),
            ("b".to_owned(), Verdict::Failed("why".to_owned())),
            ("c".to_owned(), Verdict::Skipped("why".to_owned())),
            ("d".to_owned(), Verdict::Known("why".to_owned())),
        ];
        let row = tally("s", &judged, &Known::default(), &mut news);
        assert_eq!(row, ["s", "1", "1", "1", "1"]);
        assert_eq!(news, ["s: b: why"]);
    }
}
