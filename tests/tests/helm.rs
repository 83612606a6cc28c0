//! Helm on an instance: a chart with a custom resource, hooks, a test and notes, from its installation to its removal.
//! `$HELM` names the program.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use shipway_tests::{Image, Instance, root};

/// Helm and kubectl on one instance.
struct Ship {
    instance: Instance,
    helm: String,
}

impl Ship {
    fn helm(&self, line: &str) -> Result<String> {
        let mut command = Command::new(&self.helm);
        command.args(line.split(' ')).current_dir(root().join("tests/fixtures"));
        command.env("KUBECONFIG", self.instance.kubeconfig());
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(variable, self.instance.home().join("helm").join(folder));
        }
        let output = command.output().context("cannot run helm")?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(output.status.success(), "helm {line} ended with {}: {said}", output.status);
        Ok(said)
    }

    fn kubectl(&self, line: &str) -> Result<String> {
        self.instance.kubectl(&line.split(' ').collect::<Vec<_>>()).context("no kubectl")?
    }

    fn label(&self) -> Result<String> {
        self.kubectl("get configmap jam-label -o jsonpath={.data.label}/{.data.revision}")
    }
}

type Step = fn(&Ship) -> Result<()>;

/// The life of a release; each step builds on those before it.
const LIFE: [(&str, Step); 9] = [
    ("install", install),
    ("install again is refused", install_again),
    ("list, status and get", look),
    ("test", check),
    ("upgrade", upgrade),
    ("upgrade with a mistake is taken back", upgrade_wrongly),
    ("history and rollback", rollback),
    ("template and dry run", dry),
    ("uninstall", uninstall),
];

#[test]
fn a_chart_lives_its_life() -> Result<()> {
    let Ok(helm) = std::env::var("HELM") else {
        println!("skipped: HELM names no helm");
        return Ok(());
    };
    let instance = Instance::new()?;
    instance.load(Image::Busybox)?;
    instance.load(Image::Nginx)?;
    instance.ok(&["up", "--api-port", "0"])?;
    let ship = Ship { instance, helm };
    let mut failed = Vec::new();
    for (name, step) in LIFE {
        match step(&ship) {
            Ok(()) => println!("step {name} ... ok"),
            Err(error) => {
                println!("step {name} ... FAILED: {}", format!("{error:#}").replace('\n', " / "));
                failed.push(name);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn install(ship: &Ship) -> Result<()> {
    let said = ship.helm("install jam ./chart --wait --timeout 60s")?;
    ensure!(said.contains("STATUS: deployed") && said.contains("REVISION: 1"), "{said}");
    ensure!(said.contains("The shelf holds strawberry in 1 place(s)."), "{said}");
    ensure!(ship.kubectl("logs jam-before")? == "pre-install of jam, revision 1\n", "the hook did not run");
    ensure!(ship.kubectl("get jar jam -o jsonpath={.spec.label}")? == "strawberry");
    ensure!(ship.kubectl("get deployment jam-shelf -o jsonpath={.status.readyReplicas}")? == "1", "it did not wait");
    let owner =
        ship.kubectl("get service jam-shelf -o jsonpath={.metadata.annotations.meta\\.helm\\.sh/release-name}")?;
    ensure!(owner == "jam", "{owner}");
    Ok(())
}

fn install_again(ship: &Ship) -> Result<()> {
    let error = ship.helm("install jam ./chart").err().context("it was installed twice")?.to_string();
    ensure!(error.contains("cannot reuse a name that is still in use") || error.contains("in use"), "{error}");
    Ok(())
}

fn look(ship: &Ship) -> Result<()> {
    let listed = ship.helm("list --output json")?;
    ensure!(listed.contains("\"name\":\"jam\"") && listed.contains("\"chart\":\"pantry-0.2.0\""), "{listed}");
    ensure!(ship.helm("status jam")?.contains("STATUS: deployed"));
    ensure!(ship.helm("get manifest jam")?.contains("kind: Jar"));
    ensure!(ship.helm("get values jam --all")?.contains("label: strawberry"));
    ensure!(ship.helm("get hooks jam")?.contains("helm.sh/hook: pre-install"));
    let secrets = ship.kubectl("get secrets -l owner=helm,name=jam -o jsonpath={.items[*].type}")?;
    ensure!(secrets == "helm.sh/release.v1", "{secrets}");
    Ok(())
}

fn check(ship: &Ship) -> Result<()> {
    let said = ship.helm("test jam --logs --timeout 60s")?;
    ensure!(said.contains("Phase:          Succeeded") && said.contains("<h1>Welcome to nginx!</h1>"), "{said}");
    Ok(())
}

fn upgrade(ship: &Ship) -> Result<()> {
    let said = ship.helm("upgrade jam ./chart --set label=cherry,replicas=2 --wait --timeout 60s")?;
    ensure!(said.contains("REVISION: 2") && said.contains("holds cherry in 2 place(s)"), "{said}");
    ensure!(ship.label()? == "cherry/2");
    ensure!(ship.kubectl("logs jam-after")? == "post-upgrade of jam, revision 2\n", "the hook did not run");
    ensure!(ship.kubectl("get deployment jam-shelf -o jsonpath={.status.readyReplicas}")? == "2");
    Ok(())
}

fn upgrade_wrongly(ship: &Ship) -> Result<()> {
    let refused = ship.helm("upgrade jam ./chart --set replicas=many --rollback-on-failure --timeout 30s");
    ensure!(refused.is_err(), "a number of replicas that is none was taken");
    ensure!(ship.label()? == "cherry/2", "it was not taken back");
    Ok(())
}

fn rollback(ship: &Ship) -> Result<()> {
    let history = ship.helm("history jam --output json")?;
    ensure!(history.contains("\"revision\":2") && history.contains("superseded"), "{history}");
    let said = ship.helm("rollback jam 1 --wait --timeout 60s")?;
    ensure!(said.contains("Rollback was a success"), "{said}");
    ensure!(ship.label()? == "strawberry/1");
    ensure!(ship.kubectl("get deployment jam-shelf -o jsonpath={.spec.replicas}")? == "1");
    Ok(())
}

fn dry(ship: &Ship) -> Result<()> {
    ensure!(ship.helm("template other ./chart")?.contains("name: other-shelf"));
    let said = ship.helm("upgrade --install other ./chart --dry-run=server")?;
    ensure!(said.contains("name: other-shelf"), "{said}");
    ensure!(ship.kubectl("get deployment other-shelf").is_err(), "a dry run made something");
    Ok(())
}

fn uninstall(ship: &Ship) -> Result<()> {
    let said = ship.helm("uninstall jam --wait --timeout 60s")?;
    ensure!(said.contains("release \"jam\" uninstalled"), "{said}");
    for gone in ["deployment/jam-shelf", "service/jam-shelf", "configmap/jam-label", "jar/jam"] {
        ensure!(ship.kubectl(&format!("get {gone}")).is_err(), "{gone} is still there");
    }
    let secrets = ship.kubectl("get secrets -l owner=helm -o name")?;
    ensure!(secrets.is_empty(), "{secrets}");
    ensure!(ship.kubectl("get crd jars.pantry.example").is_ok(), "what stands in crds/ stays");
    Ok(())
}
