//! Jobs in real containers, with the real kubectl.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shipway_tests::{Instance, wait_for};

const INDEXED: &str = r#"
apiVersion: batch/v1
kind: Job
metadata:
  name: numbers
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: main
        image: shipway.local/tools:latest
        command: [/bin/sh, -c, 'read host < /proc/sys/kernel/hostname; echo "$JOB_COMPLETION_INDEX $host"']
"#;

const FAILING: &str = r"
apiVersion: batch/v1
kind: Job
metadata:
  name: hopeless
spec:
  backoffLimit: 3
  podReplacementPolicy: Failed
  podFailurePolicy:
    rules:
    - action: FailJob
      onExitCodes: {operator: In, values: [42]}
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: main
        image: shipway.local/tools:latest
        command: [/bin/sh, -c, exit 42]
";

const RETRIED: &str = r"
apiVersion: batch/v1
kind: Job
metadata:
  name: stubborn
spec:
  template:
    spec:
      restartPolicy: OnFailure
      volumes: [{name: notes, emptyDir: {}}]
      containers:
      - name: main
        image: shipway.local/tools:latest
        command: [/bin/sh, -c, 'if test -e /notes/tried; then exit 0; fi; : > /notes/tried; exit 1']
        volumeMounts: [{name: notes, mountPath: /notes}]
";

/// kubectl on an instance that has an image with a shell.
struct Kubectl(Instance);

impl Kubectl {
    /// Nothing where this machine has no kubectl.
    fn start() -> Result<Option<Self>> {
        let instance = Instance::up()?;
        if instance.kubectl(&["version"]).is_none() {
            println!("skipped: this machine has no kubectl");
            return Ok(None);
        }
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("tools.sh");
        std::fs::write(&script, "#!/bin/sh\ntest -e /\nsleep 1000\n")?;
        instance.ok(&["run", &script.display().to_string(), "--detach"])?;
        instance.ok(&["rm", "tools"])?;
        Ok(Some(Self(instance)))
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        self.0.kubectl(arguments).context("no kubectl")?
    }

    fn say(&self, line: &str) -> Result<String> {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    fn apply(&self, text: &str) -> Result<String> {
        self.0.kubectl_with_input(&["apply", "-f", "-"], text).context("no kubectl")?
    }

    /// One field of an object.
    fn field(&self, object: &str, path: &str) -> Result<String> {
        self.run(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
    }
}

#[test]
fn jobs_run_to_their_ends() -> Result<()> {
    let Some(kubectl) = Kubectl::start()? else { return Ok(()) };
    for job in [INDEXED, FAILING, RETRIED] {
        kubectl.apply(job)?;
    }
    kubectl.say("wait --for=condition=complete job/numbers --timeout=60s")?;
    ensure!(kubectl.field("job/numbers", ".status.completedIndexes")? == "0-2");
    for index in 0..3 {
        let log = kubectl.run(&["logs", "-l", &format!("batch.kubernetes.io/job-completion-index={index}")])?;
        ensure!(log.trim() == format!("{index} numbers-{index}"), "{log}");
    }
    let shown = kubectl.say("get job numbers")?;
    ensure!(shown.contains("Complete") && shown.contains("3/3"), "{shown}");
    kubectl.say("wait --for=condition=failed job/hopeless --timeout=60s")?;
    let reason = kubectl.field("job/hopeless", ".status.conditions[?(@.type==\"Failed\")].reason")?;
    ensure!(reason == "PodFailurePolicy", "{reason}");
    kubectl.say("wait --for=condition=complete job/stubborn --timeout=60s")?;
    ensure!(kubectl.field("job/stubborn", ".status.succeeded")? == "1");
    let described = kubectl.say("describe job numbers")?;
    ensure!(described.contains("SuccessfulCreate") && described.contains("Completed"), "{described}");
    kubectl.say("delete job numbers hopeless stubborn")?;
    wait_for("all pods to be gone", Duration::from_secs(20), || Ok(kubectl.say("get pods -o name")?.is_empty()))
}

#[test]
fn a_cron_job_is_tried_by_hand_and_started_by_the_clock() -> Result<()> {
    let Some(kubectl) = Kubectl::start()? else { return Ok(()) };
    let image = "--image=shipway.local/tools:latest";
    kubectl.run(&["create", "cronjob", "nightly", image, "--schedule=0 3 * * *", "--", "/bin/sh", "-c", "exit 0"])?;
    kubectl.say("create job by-hand --from=cronjob/nightly")?;
    kubectl.say("wait --for=condition=complete job/by-hand --timeout=60s")?;
    kubectl.run(&["create", "cronjob", "often", image, "--schedule=@every 2s", "--", "/bin/sh", "-c", "exit 0"])?;
    wait_for("a job to be started by the clock and done", Duration::from_secs(30), || {
        let jobs = kubectl.say("get jobs -o name")?;
        let done = kubectl.field("cronjob/often", ".status.lastSuccessfulTime")?;
        Ok(jobs.contains("job.batch/often-") && !done.is_empty())
    })?;
    kubectl.say("delete cronjob nightly often")?;
    wait_for("their jobs and pods to be gone", Duration::from_secs(20), || {
        Ok(kubectl.say("get jobs,pods -o name")?.is_empty())
    })
}
