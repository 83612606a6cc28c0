//! Programs and the API, as on any cluster: a program in a pod asks with what it finds in its file system, roles decide what
//! it is told; who asks for a certificate gets one when the request is approved, and is known by it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};
use shipway_tests::{Instance, root, wait_for};
use tokio::runtime::Runtime;

/// The config map that every namespace has.
const ROOT: &str = "kube-root-ca.crt";
const PATIENCE: Duration = Duration::from_secs(20);

/// An instance and its administrator.
struct Cluster {
    instance: Instance,
    runtime: Runtime,
    client: Client,
}

impl Cluster {
    fn start() -> Result<Self> {
        drop(rustls::crypto::ring::default_provider().install_default());
        let instance = Instance::up()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(client(Kubeconfig::read_from(instance.kubeconfig())?))?;
        Ok(Self { instance, runtime, client })
    }

    /// Runs the program that asks; gives the name of its only pod.
    fn run_asker(&self) -> Result<String> {
        let program = root().join("tests/fixtures/asker.py");
        self.instance.ok(&["run", &program.display().to_string(), "--detach"])?;
        let pods: Api<Pod> = Api::default_namespaced(self.client.clone());
        let found = self.runtime.block_on(pods.list(&ListParams::default()))?;
        found.items.first().and_then(|pod| pod.metadata.name.clone()).context("the program has no pod")
    }

    /// The last complete round of answers.
    fn answers(&self, pod: &str) -> Result<Vec<String>> {
        let pods: Api<Pod> = Api::default_namespaced(self.client.clone());
        let log = self.runtime.block_on(pods.logs(pod, &LogParams::default()))?;
        let lines: Vec<&str> = log.lines().collect();
        let end = lines.iter().rposition(|line| line.starts_with("without a token: ")).context("no answer yet")?;
        let round = lines[end.saturating_sub(2)..=end].iter();
        Ok(round.filter_map(|line| line.split_once(": ")).map(|(_, answer)| answer.to_owned()).collect())
    }

    fn create<K>(&self, api: &Api<K>, object: Value) -> Result<K>
    where
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
    {
        Ok(self.runtime.block_on(api.create(&PostParams::default(), &serde_json::from_value(object)?))?)
    }

    fn allow_the_default_account_to_list(&self) -> Result<()> {
        let rules = json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"] }]);
        let api: Api<Role> = Api::default_namespaced(self.client.clone());
        self.create(&api, json!({ "metadata": { "name": "lister" }, "rules": rules }))?;
        let api: Api<RoleBinding> = Api::default_namespaced(self.client.clone());
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lister" });
        let account = json!([{ "kind": "ServiceAccount", "name": "default", "namespace": "default" }]);
        let binding = json!({ "metadata": { "name": "lister" }, "roleRef": role, "subjects": account });
        self.create(&api, binding).map(drop)
    }
}

async fn client(kubeconfig: Kubeconfig) -> Result<Client> {
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

#[test]
fn a_program_in_a_pod_asks_the_api_and_roles_decide() -> Result<()> {
    let cluster = Cluster::start()?;
    let pod = cluster.run_asker()?;
    let refused =
        |user: &str| format!("403 configmaps is forbidden: User \"{user}\" cannot list resource \"configmaps\"");
    let account = refused("system:serviceaccount:default:default");
    wait_for("the refusals", PATIENCE, || {
        let answers = cluster.answers(&pod)?;
        ensure!(answers[..2].iter().all(|answer| answer.starts_with(&account)), "{answers:?}");
        ensure!(answers[2].starts_with(&refused("system:anonymous")), "{answers:?}");
        Ok(true)
    })?;
    cluster.allow_the_default_account_to_list()?;
    wait_for("the answers", PATIENCE, || {
        let answers = cluster.answers(&pod)?;
        ensure!(answers[..2] == [format!("200 {ROOT}"), format!("200 {ROOT}")], "{answers:?}");
        ensure!(answers[2].starts_with("403 "), "{answers:?}");
        Ok(true)
    })
}

#[test]
fn every_namespace_has_the_root_certificate_and_gets_it_back() -> Result<()> {
    let cluster = Cluster::start()?;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    cluster.create(&namespaces, json!({ "metadata": { "name": "new" } }))?;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "new");
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "new");
    let container = json!({ "name": "c", "image": "none", "imagePullPolicy": "Never" });
    // At once: it waits for the account, and with that the certificate is there.
    cluster.create(&pods, json!({ "metadata": { "name": "early" }, "spec": { "containers": [container] } }))?;
    let whole = |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get("ca.crt")).cloned();
    let first = whole(&cluster.runtime.block_on(maps.get(ROOT))?).context("no certificate")?;
    ensure!(first.starts_with("-----BEGIN CERTIFICATE-----"), "{first}");
    let comes_back = |what: &str| {
        wait_for(what, PATIENCE, || {
            let found = cluster.runtime.block_on(maps.get_opt(ROOT))?;
            Ok(found
                .is_some_and(|map| whole(&map).as_ref() == Some(&first) && map.data.is_some_and(|it| it.len() == 1)))
        })
    };
    let spoilt = Patch::Merge(json!({ "data": { "ca.crt": "other", "more": "x" } }));
    cluster.runtime.block_on(maps.patch(ROOT, &PatchParams::default(), &spoilt))?;
    comes_back("the changed certificate to be mended")?;
    cluster.runtime.block_on(maps.delete(ROOT, &DeleteParams::default()))?;
    comes_back("the deleted certificate to be published again")
}

/// A request for a certificate and the key that goes with it.
fn request(user: &str, group: &str) -> Result<(KeyPair, String)> {
    use base64::Engine as _;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, user);
    let pem = params.serialize_request(&key)?.pem()?;
    Ok((key, base64::engine::general_purpose::STANDARD.encode(pem)))
}

/// Puts a request to the cluster, approves it, and gives what came of it.
fn approved(cluster: &Cluster, name: &str, spec: &Value) -> Result<CertificateSigningRequest> {
    let requests: Api<CertificateSigningRequest> = Api::all(cluster.client.clone());
    cluster.create(&requests, json!({ "metadata": { "name": name }, "spec": spec }))?;
    let word = json!([{ "type": "Approved", "status": "True", "reason": "Known" }]);
    let patch = Patch::Merge(json!({ "status": { "conditions": word } }));
    cluster.runtime.block_on(requests.patch_approval(name, &PatchParams::default(), &patch))?;
    settled(cluster, name)
}

/// Waits for the signer's word on a request.
fn settled(cluster: &Cluster, name: &str) -> Result<CertificateSigningRequest> {
    let requests: Api<CertificateSigningRequest> = Api::all(cluster.client.clone());
    let mut last = None;
    wait_for("the signer's word", PATIENCE, || {
        let found = cluster.runtime.block_on(requests.get(name))?;
        let status = found.status.clone().unwrap_or_default();
        let done = status.certificate.is_some() || status.conditions.is_some_and(|conditions| conditions.len() > 1);
        last = done.then_some(found);
        Ok(done)
    })?;
    last.context("it was seen")
}

#[test]
fn who_gets_a_certificate_is_known_by_it() -> Result<()> {
    use base64::Engine as _;
    let cluster = Cluster::start()?;
    let (key, request) = request("jane", "developers")?;
    let spec = json!({
        "request": request, "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"], "expirationSeconds": 3600,
    });
    let signed = approved(&cluster, "jane", &spec)?;
    let certificate = signed.status.and_then(|status| status.certificate).context("no certificate")?;
    let mut kubeconfig = Kubeconfig::read_from(cluster.instance.kubeconfig())?;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let own = kubeconfig.auth_infos[0].auth_info.as_mut().context("a user")?;
    own.client_certificate_data = Some(encode(&certificate.0));
    own.client_key_data = Some(encode(key.serialize_pem().as_bytes()).into());
    let jane = cluster.runtime.block_on(client(kubeconfig))?;
    let pods: Api<Pod> = Api::default_namespaced(jane);
    let error = cluster.runtime.block_on(pods.list(&ListParams::default())).err().context("jane has no role")?;
    ensure!(error.to_string().contains("User \"jane\" cannot list resource \"pods\""), "{error}");

    let wrong = json!({
        "request": request, "signerName": "kubernetes.io/kubelet-serving",
        "usages": ["digital signature", "server auth"],
    });
    let failed = approved(&cluster, "wrong", &wrong)?.status.unwrap_or_default();
    let conditions = failed.conditions.unwrap_or_default();
    ensure!(failed.certificate.is_none() && conditions[1].type_ == "Failed", "{conditions:?}");
    ensure!(conditions[1].message.as_deref() == Some("subject organization is not system:nodes"), "{conditions:?}");
    Ok(())
}

#[test]
fn a_certificate_for_a_node_needs_no_word_where_roles_allow_it() -> Result<()> {
    let cluster = Cluster::start()?;
    let (_, request) = request("system:node:beta", "system:nodes")?;
    let spec = json!({
        "request": request, "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
        "usages": ["digital signature", "client auth"],
    });
    let requests: Api<CertificateSigningRequest> = Api::all(cluster.client.clone());
    cluster.create(&requests, json!({ "metadata": { "name": "beta" }, "spec": spec }))?;
    let status = settled(&cluster, "beta")?.status.context("no status")?;
    ensure!(status.certificate.is_some_and(|certificate| !certificate.0.is_empty()), "{:?}", status.conditions);
    let conditions = status.conditions.unwrap_or_default();
    ensure!(conditions[0].reason.as_deref() == Some("AutoApproved"), "{conditions:?}");
    Ok(())
}
