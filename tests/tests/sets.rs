//! Stateful sets and daemon sets of real containers, with the real kubectl.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shipway_tests::{Instance, free_port, wait_for};

/// An instance that can run the example, and its kubectl; none where this machine has no kubectl.
struct Cluster(Instance);

impl Cluster {
    fn up() -> Result<Option<Self>> {
        let instance = Instance::up()?;
        if instance.kubectl(&["version"]).is_none() {
            println!("skipped: this machine has no kubectl");
            return Ok(None);
        }
        // An image to run: the example, packed and removed again.
        let port = format!("{}:8080", free_port()?);
        instance.ok(&["run", "examples/hello/hello.py", "--name", "seed", "--detach", "--port", &port])?;
        instance.ok(&["rm", "seed"])?;
        Ok(Some(Self(instance)))
    }

    fn run(&self, line: &str) -> Result<String> {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        self.0.kubectl(&arguments).context("no kubectl")?
    }

    fn apply(&self, manifest: &str) -> Result<String> {
        self.0.kubectl_with_input(&["apply", "-f", "-"], manifest).context("no kubectl")?
    }

    /// The names of the pods that are there, in order.
    fn pods(&self, app: &str) -> Result<Vec<String>> {
        let names = self.run(&format!("get pods -l app={app} -o jsonpath={{.items[*].metadata.name}}"))?;
        Ok(names.split_whitespace().map(str::to_owned).collect())
    }

    fn colour(&self, pod: &str) -> Result<String> {
        let path = "{.spec.containers[0].env[?(@.name==\"COLOUR\")].value}";
        self.run(&format!("get {pod} -o jsonpath={path}"))
    }
}

fn manifest(kind: &str, name: &str, more: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: {kind}
metadata: {{name: {name}}}
spec:
  {more}
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      containers:
      - name: main
        image: shipway.local/seed:latest
        env: [{{name: COLOUR, value: red}}]
        readinessProbe:
          tcpSocket: {{port: 8080}}
          periodSeconds: 1
"
    )
}

#[test]
fn a_stateful_set_rolls_out_undoes_and_shrinks_in_order() -> Result<()> {
    let Some(cluster) = Cluster::up()? else { return Ok(()) };
    cluster
        .apply("apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: None, selector: {app: db}}\n")?;
    cluster.apply(&manifest("StatefulSet", "db", "replicas: 3\n  serviceName: db"))?;
    let told = cluster.run("rollout status statefulset/db --timeout=90s")?;
    ensure!(told.contains("roll out complete: 3 new pods have been updated"), "{told}");
    ensure!(cluster.pods("db")? == ["db-0", "db-1", "db-2"]);
    let host = cluster.run("get pod db-1 -o jsonpath={.spec.hostname}.{.spec.subdomain}")?;
    ensure!(host == "db-1.db", "{host}");

    cluster.run("set env statefulset/db COLOUR=blue")?;
    cluster.run("rollout status statefulset/db --timeout=90s")?;
    ensure!(cluster.colour("pod/db-0")? == "blue");
    let history = cluster.run("rollout history statefulset/db")?;
    ensure!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    let first = cluster.run("rollout history statefulset/db --revision=1")?;
    ensure!(first.contains("red"), "{first}");
    let undone = cluster.run("rollout undo statefulset/db")?;
    ensure!(undone.contains("rolled back"), "{undone}");
    cluster.run("rollout status statefulset/db --timeout=90s")?;
    ensure!(cluster.colour("pod/db-0")? == "red");
    let history = cluster.run("rollout history statefulset/db")?;
    ensure!(!history.contains("\n1 ") && history.contains("\n3 "), "{history}");

    cluster.run("scale statefulset/db --replicas=1")?;
    wait_for("one pod to be left", Duration::from_mins(1), || {
        let left = cluster.pods("db")?;
        ensure!(left.iter().enumerate().all(|(number, name)| *name == format!("db-{number}")), "{left:?}");
        Ok(left.len() == 1)
    })?;
    let events = cluster.run("get events --field-selector reason=SuccessfulDelete")?;
    ensure!(events.contains("delete Pod db-2 in StatefulSet db successful"), "{events}");
    Ok(())
}

#[test]
fn a_daemon_set_rolls_over_and_back() -> Result<()> {
    let Some(cluster) = Cluster::up()? else { return Ok(()) };
    cluster.apply(&manifest("DaemonSet", "agent", "minReadySeconds: 1"))?;
    let told = cluster.run("rollout status daemonset/agent --timeout=60s")?;
    ensure!(told.contains("successfully rolled out"), "{told}");
    let before = cluster.pods("agent")?;
    ensure!(before.len() == 1, "{before:?}");

    cluster.run("set env daemonset/agent COLOUR=blue")?;
    cluster.run("rollout status daemonset/agent --timeout=60s")?;
    let after = cluster.pods("agent")?;
    ensure!(after.len() == 1 && after != before, "{after:?}");
    ensure!(cluster.colour(&format!("pod/{}", after[0]))? == "blue");
    let undone = cluster.run("rollout undo daemonset/agent")?;
    ensure!(undone.contains("rolled back"), "{undone}");
    cluster.run("rollout status daemonset/agent --timeout=60s")?;
    let last = cluster.pods("agent")?;
    ensure!(last.len() == 1 && cluster.colour(&format!("pod/{}", last[0]))? == "red");

    // A label that no node has.
    cluster.run(r#"patch daemonset/agent -p={"spec":{"template":{"spec":{"nodeSelector":{"disk":"fast"}}}}}"#)?;
    wait_for("the pod to leave", Duration::from_mins(1), || Ok(cluster.pods("agent")?.is_empty()))?;
    let counts =
        cluster.run("get daemonset/agent -o jsonpath={.status.desiredNumberScheduled}{.status.numberReady}")?;
    ensure!(counts == "00", "{counts}");
    Ok(())
}
