//! `/metrics/resource`: the same counters in the text form that Prometheus reads, under a kubelet's names.

use std::fmt::Write;

use jiff::Timestamp;

use super::reading::{Reading, Sample};

/// What is counted: the node, a pod or a container.
struct Subject<'a> {
    scope: &'static str,
    labels: String,
    sample: &'a Sample,
    /// When a container began.
    since: Option<Timestamp>,
}

/// The end of a series' name, its type, its help, and its value where the subject has one.
type Measure = (&'static str, &'static str, &'static str, fn(&Subject<'_>) -> Option<String>);

const MEASURES: [Measure; 3] = [
    ("cpu_usage_seconds_total", "counter", "Processor time used, in seconds", |subject| {
        Some(seconds(subject.sample.usage.cpu))
    }),
    ("memory_working_set_bytes", "gauge", "Memory that could not be taken away, in bytes", |subject| {
        Some(subject.sample.usage.working_set().to_string())
    }),
    ("start_time_seconds", "gauge", "When it began, in seconds since 1970", |subject| {
        let since = u64::try_from(subject.since?.as_nanosecond()).ok()?;
        Some(seconds(since))
    }),
];

/// The text of a reading.
pub(crate) fn text(reading: &Reading) -> String {
    let subjects = subjects(reading);
    let mut text = String::new();
    for scope in ["container", "node", "pod"] {
        for (name, kind, help, value) in MEASURES {
            let own = subjects.iter().filter(|subject| subject.scope == scope);
            let lines: Vec<String> = own.filter_map(|subject| Some(line(name, subject, &value(subject)?))).collect();
            if !lines.is_empty() {
                family(&mut text, (&format!("{scope}_{name}"), kind, help), &lines.concat());
            }
        }
    }
    // The former of two names that mean the same is on its way out.
    for name in ["scrape_error", "resource_scrape_error"] {
        family(&mut text, (name, "gauge", "1 if not everything could be read, else 0"), &format!("{name} 0\n"));
    }
    text
}

fn subjects(reading: &Reading) -> Vec<Subject<'_>> {
    let own = Subject { scope: "node", labels: String::new(), sample: &reading.node.sample, since: None };
    let mut all = vec![own];
    for pod in reading.pods.values() {
        // Names of objects need no escape.
        let labels = format!("namespace=\"{}\",pod=\"{}\"", pod.pod.namespace, pod.pod.name);
        for (name, container) in &pod.containers {
            let labels = format!("container=\"{name}\",{labels}");
            let since = Some(container.since);
            all.push(Subject { scope: "container", labels, sample: &container.sample, since });
        }
        all.push(Subject { scope: "pod", labels, sample: &pod.sample, since: None });
    }
    all
}

fn family(text: &mut String, (name, kind, help): (&str, &str, &str), body: &str) {
    write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{body}").expect("a String takes any text");
}

fn line(name: &str, subject: &Subject<'_>, value: &str) -> String {
    let Subject { scope, labels, sample, .. } = subject;
    let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    format!("{scope}_{name}{labels} {value} {}\n", sample.at.as_millisecond())
}

fn seconds(nanoseconds: u64) -> String {
    format!("{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)
}
