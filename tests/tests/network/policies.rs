//! Network policies: what pods experience.

use crate::check::{Check, inside, outside};

pub(crate) const PEERS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: away, labels: {role: client}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "python:3", imagePullPolicy: Never, command: [sh, -c, "FETCH exec sleep 100000"]}]
"#;

pub(crate) const OPEN: &[Check] =
    &[inside("where no policy is, everybody is heard", "away/client", "fetch http://web.default").says("web-")];

pub(crate) const CLOSED: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {role: web}}, policyTypes: [Ingress]}
";

pub(crate) const SHUT: &[Check] = &[
    inside("default deny shuts out other namespaces", "away/client", "fetch http://web.default").fails(),
    inside("default deny shuts out the own namespace", "client", "fetch http://web").fails(),
    inside("whoever is refused is told why", "client", "fetch http://web-0.peers:8080").lacks("timed out"),
    outside("the host reaches its pods whatever the policies", "curl -sfm3 http://127.0.0.1:31471").says("web-"),
    outside(
        "probes reach pods whatever the policies",
        "kubectl get pods -l app=web -o jsonpath='{.items[*].status.containerStatuses[0].ready}'",
    )
    .says("true true"),
    inside("a pod reaches itself whatever the policies", "web-0", "fetch http://web-0:8080").says("web-0"),
];

pub(crate) const CHOSEN: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: chosen}
spec:
  podSelector: {matchLabels: {role: web}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {team: away}}, podSelector: {matchLabels: {role: client}}}]
";

pub(crate) const LET_IN: &[Check] = &[
    inside("a peer is let in that is chosen by namespace and labels", "away/client", "fetch http://web.default")
        .says("web-"),
    inside("the same labels in another namespace are not enough", "client", "fetch http://web").fails(),
    outside("labels of a pod change", "kubectl label pod client --namespace away role=stranger --overwrite")
        .says("labeled"),
    inside("a peer that loses the label is shut out", "away/client", "fetch http://web.default").fails(),
    outside("labels of a pod change back", "kubectl label pod client --namespace away role=client --overwrite")
        .says("labeled"),
    inside("a peer that has the label again is let in", "away/client", "fetch http://web.default").says("web-"),
];

pub(crate) const PORTS: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: chosen}
spec:
  podSelector: {matchLabels: {role: web}}
  ingress:
  - from: [{podSelector: {}}]
    ports: [{port: http}, {port: 9000, endPort: 9100}]
";

pub(crate) const AT_PORTS: &[Check] = &[
    inside("a named port is open", "client", "fetch http://web").says("web-"),
    inside("a port that is not named is closed", "client", "fetch http://web:81").fails(),
    inside(
        "a port within a range is let through to where nobody listens",
        "client",
        "fetch http://web-0.peers:9050 2>&1; true",
    )
    .says("Connection refused"),
    inside("a port beside a range is not", "client", "fetch http://web-0.peers:9101 2>&1; true")
        .lacks("Connection refused"),
    inside("the peer of before is shut out", "away/client", "fetch http://web.default").fails(),
];

pub(crate) const BLOCKS: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: chosen}
spec:
  podSelector: {matchLabels: {role: web}}
  ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [203.0.113.0/24]}}]}]
";

pub(crate) const BY_ADDRESS: &[Check] =
    &[inside("a block of addresses lets in whoever has one", "away/client", "fetch http://web.default").says("web-")];

pub(crate) const LEAVING: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: leaving, namespace: away}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
  - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}, podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 8080}]
";

pub(crate) const LET_OUT: &[Check] = &[
    inside("what a policy lets out is heard", "away/client", "fetch http://web.default").says("web-"),
    inside("names are resolved where DNS is let out", "away/client", "nslookup web.default.svc.cluster.local")
        .says("Address"),
    inside("other ports are closed on the way out", "away/client", "fetch http://web.default:81").fails(),
    inside("the API is as far as anybody", "away/client", "fetch https://kubernetes.default").fails(),
    outside(
        "policies go",
        "kubectl delete networkpolicies --all && kubectl delete networkpolicies --all --namespace away",
    )
    .says("deleted"),
    inside("everybody is heard again", "away/client", "fetch http://web.default:81").says("web-"),
];
