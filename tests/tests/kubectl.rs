//! The commands that people type, with the real kubectl.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shipway_tests::{Instance, wait_for};

const DEPLOYMENT: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: IMAGE
        ports: [{containerPort: 8080}]
        readinessProbe:
          tcpSocket: {port: 8080}
          periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

/// kubectl on an instance.
struct Kubectl<'a>(&'a Instance);

impl Kubectl<'_> {
    fn run(&self, line: &str) -> Result<String> {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        self.0.kubectl(&arguments).context("no kubectl")?
    }

    fn apply(&self, extra: &[&str], text: &str) -> Result<String> {
        let arguments = [&["apply", "-f", "-"], extra].concat();
        self.0.kubectl_with_input(&arguments, text).context("no kubectl")?
    }
}

#[test]
fn kubectl_does_its_work() -> Result<()> {
    let instance = Instance::up()?;
    if instance.kubectl(&["version"]).is_none() {
        println!("skipped: this machine has no kubectl");
        return Ok(());
    }
    let kubectl = Kubectl(&instance);
    // An image to run: the example, packed and removed again.
    instance.ok(&["run", "examples/hello/hello.py", "--name", "seed", "--detach", "--port", &free()?])?;
    instance.ok(&["rm", "seed"])?;
    let manifest = DEPLOYMENT.replace("IMAGE", "shipway.local/seed:latest");

    let applied = kubectl.apply(&[], &manifest)?;
    ensure!(applied.contains("deployment.apps/web created") && applied.contains("service/web created"), "{applied}");
    ensure!(kubectl.apply(&[], &manifest)?.contains("deployment.apps/web unchanged"));
    ensure!(kubectl.run("rollout status deployment/web --timeout=60s")?.contains("successfully rolled out"));
    ensure!(kubectl.run("wait --for=condition=Available deployment/web --timeout=30s")?.contains("condition met"));

    let pods = kubectl.run("get pods -l app=web -o wide")?;
    ensure!(pods.lines().count() == 3 && pods.matches("Running").count() == 2, "{pods}");
    let addresses = kubectl.run("get pods -l app=web -o jsonpath={.items[*].status.podIP}")?;
    let addresses: Vec<&str> = addresses.split_whitespace().collect();
    ensure!(addresses.len() == 2 && addresses[0] != addresses[1], "{addresses:?}");
    let described = kubectl.run("describe pod -l app=web")?;
    ensure!(described.contains("Scheduled") && described.contains("Started"), "{described}");
    ensure!(kubectl.run("logs deployment/web")?.contains("listening on port 8080"));

    kubectl.run("scale deployment/web --replicas=3")?;
    ensure!(kubectl.run("rollout status deployment/web --timeout=60s")?.contains("successfully rolled out"));
    kubectl.run("label deployment/web tier=front")?;
    ensure!(kubectl.run("get deploy -l tier=front -o name")?.trim() == "deployment.apps/web");
    kubectl.run("annotate deployment/web note=one")?;
    kubectl.run("set env deployment/web COLOUR=blue")?;
    ensure!(kubectl.run("rollout status deployment/web --timeout=60s")?.contains("successfully rolled out"));
    ensure!(kubectl.run("get deployment/web -o yaml")?.contains("COLOUR"));

    let explained = kubectl.run("explain deployment.spec.strategy")?;
    ensure!(explained.contains("rollingUpdate"), "{explained}");
    let resources = kubectl.run("api-resources")?;
    for kind in ["deployments", "endpointslices", "leases", "configmaps", "nodes"] {
        ensure!(resources.contains(kind), "{kind} is missing in\n{resources}");
    }
    edits_and_server_side(&kubectl)?;
    recreate_and_relabel(&kubectl)?;

    kubectl.run("delete deployment/web service/web")?;
    wait_for("the pods to be gone", Duration::from_secs(20), || {
        Ok(kubectl.run("get pods -l app=web -o name")?.trim().is_empty())
    })
}

/// create, edit, apply --server-side with its conflict, namespaces.
fn edits_and_server_side(kubectl: &Kubectl) -> Result<()> {
    kubectl.run("create configmap settings --from-literal=colour=red")?;
    let server_side = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: blue}\n";
    let conflict = kubectl.apply(&["--server-side"], server_side);
    let conflict = format!("{:#}", conflict.err().context("no conflict")?);
    ensure!(conflict.contains("conflict") && conflict.contains(".data.colour"), "{conflict}");
    kubectl.apply(&["--server-side", "--force-conflicts"], server_side)?;
    ensure!(kubectl.run("get configmap settings -o jsonpath={.data.colour}")? == "blue");

    kubectl.run("create namespace scratch")?;
    kubectl.run("create configmap x -n scratch --from-literal=a=b")?;
    kubectl.run("delete namespace scratch --timeout=30s")?;
    ensure!(kubectl.run("get namespace scratch").is_err(), "the namespace is still there");
    Ok(())
}

/// A recreated deployment goes on as soon as the old pods are gone; a relabelled pod leaves its service; an orphaned
/// replica set is taken over.
fn recreate_and_relabel(kubectl: &Kubectl) -> Result<()> {
    let strategy = r#"-p={"spec":{"strategy":{"type":"Recreate","rollingUpdate":null}}}"#;
    kubectl.run(&format!("patch deployment/web {strategy}"))?;
    kubectl.run("rollout restart deployment/web")?;
    ensure!(kubectl.run("rollout status deployment/web --timeout=20s")?.contains("successfully rolled out"));

    let pod = kubectl.run("get pods -l app=web -o name")?.lines().next().context("no pod")?.to_owned();
    let address = kubectl.run(&format!("get {pod} -o jsonpath={{.status.podIP}}"))?;
    kubectl.run(&format!("label {pod} app=quarantine --overwrite"))?;
    wait_for("the service to leave the relabelled pod", Duration::from_secs(10), || {
        let slices = kubectl.run("get endpointslices -l kubernetes.io/service-name=web -o yaml")?;
        Ok(!slices.contains(&format!("- {address}\n")))
    })?;
    kubectl.run(&format!("delete {pod} --wait=false"))?;

    let manifest = kubectl.run("get deployment/web -o json")?;
    let sets = kubectl.run("get replicasets -l app=web -o name")?;
    kubectl.run("delete deployment/web --cascade=orphan")?;
    ensure!(kubectl.run("get replicasets -l app=web -o name")? == sets, "the replica sets are gone");
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest)?;
    manifest["metadata"] = serde_json::json!({ "name": "web", "labels": { "app": "web" } });
    kubectl.apply(&[], &manifest.to_string())?;
    ensure!(kubectl.run("rollout status deployment/web --timeout=20s")?.contains("successfully rolled out"));
    Ok(())
}

fn free() -> Result<String> {
    Ok(format!("{}:8080", shipway_tests::free_port()?))
}
