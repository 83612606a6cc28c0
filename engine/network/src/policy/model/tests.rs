//! What the public documentation of network policies says, as a table: some objects, and who then reaches whom.

use serde_json::{Value, json};

use super::*;

/// What the model says about one packet of a new connection, read as the kernel reads it.
fn passes(model: &Model, from: Ipv4Addr, to: Ipv4Addr, protocol: u8, port: u16) -> bool {
    let side = |direction, own, peer| {
        model.lead(direction, own).is_none_or(|chain| {
            let (looks, allowed) = model.chain(chain).expect("a lead has a chain");
            assert_eq!(looks, direction);
            allowed.iter().any(|one| matches(model, one, peer, to, protocol, port))
        })
    };
    from == to || (side(Direction::Egress, from, to) && side(Direction::Ingress, to, from))
}

fn matches(model: &Model, one: &Allowed, peer: Ipv4Addr, to: Ipv4Addr, protocol: u8, port: u16) -> bool {
    let within = |ranges: &[Range], number: u32| ranges.iter().any(|(first, last)| (*first..=*last).contains(&number));
    let peers = match &one.peers {
        Peers::Anybody => true,
        Peers::Some { sets, blocks } => {
            let address = peer.octets().to_vec();
            sets.iter().any(|set| model.has(*set, &address)) || within(blocks, u32::from(peer))
        }
    };
    let ports = match &one.ports {
        Ports::Every => true,
        Ports::Some(numbers) => numbers.get(&protocol).is_some_and(|ranges| within(ranges, u32::from(port))),
        Ports::Paired(sets) => sets.iter().any(|set| model.has(*set, &paired(to, protocol, port))),
    };
    peers && ports
}

fn key(text: &str) -> Key {
    let (namespace, name) = text.split_once('/').unwrap();
    (namespace.to_owned(), name.to_owned())
}

fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// The pods of the table: key, labels, the last byte of the address, and the number of their port `http`.
const PODS: [(&str, &str, u8, u16); 6] = [
    ("default/db", "role=db", 2, 5432),
    ("default/web", "role=frontend,tier=web", 3, 80),
    ("default/other", "role=other", 4, 8080),
    ("mine/client", "role=client", 5, 80),
    ("mine/web", "role=frontend", 6, 81),
    ("away/client", "role=client", 7, 80),
];
const NAMESPACES: [(&str, &str); 3] = [
    ("default", "kubernetes.io/metadata.name=default"),
    ("mine", "kubernetes.io/metadata.name=mine,project=mine"),
    ("away", "kubernetes.io/metadata.name=away,project=away"),
];
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// A pod of the table, or any address.
fn address(name: &str) -> Ipv4Addr {
    let pod = PODS.iter().find(|(key, ..)| *key == name);
    pod.map_or_else(|| name.parse().unwrap(), |(_, _, last, _)| Ipv4Addr::new(10, 73, 0, *last))
}

fn facts(labels_text: &str, last: u8, http: u16) -> PodFacts {
    PodFacts {
        labels: labels(labels_text),
        address: Some(Ipv4Addr::new(10, 73, 0, last)),
        ports: vec![("http".to_owned(), TCP, http)],
        exempt: false,
    }
}

fn world() -> Model {
    let mut model = Model::default();
    for (name, text) in NAMESPACES {
        model.set_namespace(name, Some(labels(text)));
    }
    for (name, text, last, http) in PODS {
        model.set_pod(&key(name), Some(facts(text, last, http)));
    }
    model
}

fn policy(namespace: &str, spec: &Value) -> Policy {
    let metadata = json!({"name": "p", "namespace": namespace});
    Policy::of(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
}

fn with(specs: &[(&str, Value)]) -> Model {
    let mut model = world();
    for (number, (namespace, spec)) in specs.iter().enumerate() {
        model.set_policy(&key(&format!("{namespace}/p{number}")), Some(policy(namespace, spec)));
    }
    model
}

/// From, to, protocol, port, whether it passes.
type Question = (&'static str, &'static str, u8, u16, bool);

fn check(what: &str, specs: &[(&str, Value)], questions: &[Question]) {
    let model = with(specs);
    for (from, to, protocol, port, expected) in questions {
        let passed = passes(&model, address(from), address(to), *protocol, *port);
        assert_eq!(passed, *expected, "{what}: {from} to {to}, protocol {protocol}, port {port}");
    }
    // The same in another order of events.
    let mut late = Model::default();
    for (number, (namespace, spec)) in specs.iter().enumerate() {
        late.set_policy(&key(&format!("{namespace}/p{number}")), Some(policy(namespace, spec)));
    }
    for (name, text, last, http) in PODS {
        late.set_pod(&key(name), Some(facts(text, last, http)));
    }
    for (name, text) in NAMESPACES {
        late.set_namespace(name, Some(labels(text)));
    }
    for (from, to, protocol, port, expected) in questions {
        let passed = passes(&late, address(from), address(to), *protocol, *port);
        assert_eq!(passed, *expected, "{what}, policies first: {from} to {to}");
    }
}

/// A policy about the database that lets these come in.
fn db(rules: &Value) -> (&'static str, Value) {
    ("default", json!({"podSelector": {"matchLabels": {"role": "db"}}, "ingress": rules}))
}

#[test]
fn default_policies_close_and_open_whole_directions() {
    let all = |more: Value| {
        let mut spec = json!({"podSelector": {}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        [("default", spec)]
    };
    check("no policy", &[], &[("mine/client", "default/db", TCP, 1, true), ("default/db", "192.0.2.1", UDP, 9, true)]);
    check(
        "deny all ingress",
        &all(json!({"policyTypes": ["Ingress"]})),
        &[
            ("mine/client", "default/db", TCP, 80, false),
            ("default/web", "default/db", TCP, 80, false),
            ("default/db", "mine/client", TCP, 80, true),
            ("default/db", "default/db", TCP, 80, true),
            ("192.0.2.1", "default/db", UDP, 53, false),
            ("mine/client", "away/client", TCP, 80, true),
        ],
    );
    check(
        "no types, no rules",
        &all(json!({})),
        &[("mine/client", "default/db", TCP, 80, false), ("default/db", "mine/client", TCP, 80, true)],
    );
    check(
        "allow all ingress",
        &all(json!({"ingress": [{}], "policyTypes": ["Ingress"]})),
        &[("mine/client", "default/db", TCP, 80, true), ("192.0.2.1", "default/db", SCTP, 7, true)],
    );
    check(
        "deny all egress",
        &all(json!({"policyTypes": ["Egress"]})),
        &[
            ("default/db", "mine/client", TCP, 80, false),
            ("default/db", "192.0.2.1", UDP, 53, false),
            ("mine/client", "default/db", TCP, 80, true),
        ],
    );
    check(
        "allow all egress",
        &all(json!({"egress": [{}], "policyTypes": ["Egress"]})),
        &[("default/db", "mine/client", TCP, 80, true), ("default/db", "192.0.2.1", UDP, 53, true)],
    );
    check(
        "deny both",
        &all(json!({"policyTypes": ["Ingress", "Egress"]})),
        &[
            ("default/db", "default/web", TCP, 80, false),
            ("mine/client", "default/db", TCP, 80, false),
            ("default/db", "192.0.2.1", TCP, 80, false),
        ],
    );
    check(
        "egress follows from egress rules",
        &all(json!({"egress": [{"to": [{"podSelector": {}}]}]})),
        &[("default/db", "mine/client", TCP, 80, false), ("mine/client", "default/db", TCP, 80, false)],
    );
    check(
        "an empty list of egress rules is none",
        &all(json!({"egress": []})),
        &[("default/db", "mine/client", TCP, 80, true)],
    );
    check(
        "ingress rules mean nothing to a policy of egress",
        &all(json!({"policyTypes": ["Egress"], "egress": [{}], "ingress": []})),
        &[("mine/client", "default/db", TCP, 80, true)],
    );
}

#[test]
fn the_documentations_example_means_what_it_says() {
    let example = json!({
        "podSelector": {"matchLabels": {"role": "db"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{
            "from": [
                {"ipBlock": {"cidr": "172.17.0.0/16", "except": ["172.17.1.0/24"]}},
                {"namespaceSelector": {"matchLabels": {"project": "mine"}}},
                {"podSelector": {"matchLabels": {"role": "frontend"}}},
            ],
            "ports": [{"protocol": "TCP", "port": 6379}],
        }],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}], "ports": [{"protocol": "TCP", "port": 5978}]}],
    });
    check(
        "the example",
        &[("default", example)],
        &[
            ("default/web", "default/db", TCP, 6379, true),
            ("default/web", "default/db", TCP, 6380, false),
            ("default/web", "default/db", UDP, 6379, false),
            ("default/other", "default/db", TCP, 6379, false),
            ("mine/client", "default/db", TCP, 6379, true),
            ("mine/web", "default/db", TCP, 6379, true),
            ("away/client", "default/db", TCP, 6379, false),
            ("172.17.0.1", "default/db", TCP, 6379, true),
            ("172.17.0.255", "default/db", TCP, 6379, true),
            ("172.17.1.0", "default/db", TCP, 6379, false),
            ("172.17.1.255", "default/db", TCP, 6379, false),
            ("172.17.2.0", "default/db", TCP, 6379, true),
            ("172.18.0.0", "default/db", TCP, 6379, false),
            ("default/db", "10.0.0.7", TCP, 5978, true),
            ("default/db", "10.0.1.7", TCP, 5978, false),
            ("default/db", "10.0.0.7", TCP, 5979, false),
            ("default/db", "default/web", TCP, 5978, false),
            ("default/web", "default/other", TCP, 80, true),
        ],
    );
}

#[test]
fn peers_are_chosen_by_pod_by_namespace_and_by_both() {
    let both = json!({"namespaceSelector": {"matchLabels": {"project": "mine"}}, "podSelector": {"matchLabels": {"role": "client"}}});
    check(
        "both in one peer",
        &[db(&json!([{"from": [both]}]))],
        &[
            ("mine/client", "default/db", TCP, 1, true),
            ("mine/web", "default/db", TCP, 1, false),
            ("away/client", "default/db", TCP, 1, false),
        ],
    );
    let either = json!([{"namespaceSelector": {"matchLabels": {"project": "mine"}}}, {"podSelector": {"matchLabels": {"role": "client"}}}]);
    check(
        "one in each of two peers",
        &[db(&json!([{"from": either}]))],
        &[
            ("mine/client", "default/db", TCP, 1, true),
            ("mine/web", "default/db", TCP, 1, true),
            ("away/client", "default/db", TCP, 1, false),
            ("default/web", "default/db", TCP, 1, false),
        ],
    );
    check(
        "every pod of the own namespace",
        &[db(&json!([{"from": [{"podSelector": {}}]}]))],
        &[("default/other", "default/db", TCP, 1, true), ("mine/client", "default/db", TCP, 1, false)],
    );
    check(
        "every namespace",
        &[db(&json!([{"from": [{"namespaceSelector": {}}]}]))],
        &[("away/client", "default/db", UDP, 1, true), ("192.0.2.1", "default/db", UDP, 1, false)],
    );
    let named = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "away"}}});
    check(
        "a namespace by its name",
        &[db(&json!([{"from": [named]}]))],
        &[("away/client", "default/db", TCP, 1, true), ("mine/client", "default/db", TCP, 1, false)],
    );
    let expression = |operator: &str, values: Value| json!([{"from": [{"namespaceSelector": {"matchExpressions": [{"key": "project", "operator": operator, "values": values}]}}]}]);
    check(
        "a namespace that is one of some",
        &[db(&expression("In", json!(["mine", "yours"])))],
        &[("mine/client", "default/db", TCP, 1, true), ("away/client", "default/db", TCP, 1, false)],
    );
    check(
        "a namespace that is none of some",
        &[db(&expression("NotIn", json!(["mine"])))],
        &[
            ("mine/client", "default/db", TCP, 1, false),
            ("away/client", "default/db", TCP, 1, true),
            ("default/web", "default/db", TCP, 1, true),
        ],
    );
    check(
        "a namespace that has a label",
        &[db(&expression("Exists", Value::Null))],
        &[("away/client", "default/db", TCP, 1, true), ("default/web", "default/db", TCP, 1, false)],
    );
    check(
        "an empty list of peers is everybody",
        &[db(&json!([{"from": []}]))],
        &[("192.0.2.1", "default/db", TCP, 1, true)],
    );
    check(
        "a rule without peers beside one with",
        &[db(&json!([{"from": [{"podSelector": {"matchLabels": {"role": "x"}}}]}, {}]))],
        &[("192.0.2.1", "default/db", TCP, 1, true)],
    );
}

#[test]
fn policies_add_up_and_both_ends_must_agree() {
    let from = |role: &str| db(&json!([{"from": [{"podSelector": {"matchLabels": {"role": role}}}]}]));
    check(
        "two policies about one pod",
        &[from("frontend"), from("other")],
        &[
            ("default/web", "default/db", TCP, 1, true),
            ("default/other", "default/db", TCP, 1, true),
            ("mine/client", "default/db", TCP, 1, false),
        ],
    );
    let closed = ("default", json!({"podSelector": {}}));
    check(
        "denying everything takes nothing away that is allowed",
        &[closed.clone(), from("frontend")],
        &[
            ("default/web", "default/db", TCP, 1, true),
            ("default/other", "default/db", TCP, 1, false),
            ("default/db", "default/web", TCP, 1, false),
        ],
    );
    let leaves = (
        "mine",
        json!({"podSelector": {"matchLabels": {"role": "client"}}, "policyTypes": ["Egress"],
        "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"project": "away"}}}]}]}),
    );
    let comes = (
        "away",
        json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"project": "mine"}}}]}]}),
    );
    check(
        "what one end allows and the other does not",
        &[leaves.clone(), db(&json!([{}]))],
        &[("mine/client", "default/db", TCP, 1, false), ("mine/web", "default/db", TCP, 1, true)],
    );
    check(
        "what both ends allow",
        &[leaves, comes],
        &[
            ("mine/client", "away/client", TCP, 1, true),
            ("mine/web", "away/client", TCP, 1, true),
            ("default/web", "away/client", TCP, 1, false),
        ],
    );
    check(
        "an ingress policy and an egress policy of one pod",
        &[
            closed,
            (
                "default",
                json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {}}]}]}),
            ),
        ],
        &[("default/web", "default/db", TCP, 1, false), ("default/web", "mine/client", TCP, 1, false)],
    );
}

#[test]
fn ports_are_numbers_ranges_and_names_of_three_protocols() {
    let at = |ports: Value| db(&json!([{"ports": ports}]));
    check(
        "a port is of TCP unless it says otherwise",
        &[at(json!([{"port": 80}]))],
        &[("mine/client", "default/db", TCP, 80, true), ("mine/client", "default/db", UDP, 80, false)],
    );
    check(
        "UDP and SCTP",
        &[at(json!([{"protocol": "UDP", "port": 53}, {"protocol": "SCTP", "port": 7777}]))],
        &[
            ("mine/client", "default/db", UDP, 53, true),
            ("mine/client", "default/db", SCTP, 7777, true),
            ("mine/client", "default/db", TCP, 53, false),
            ("mine/client", "default/db", SCTP, 53, false),
        ],
    );
    check(
        "a protocol alone is all of its ports",
        &[at(json!([{"protocol": "UDP"}]))],
        &[("mine/client", "default/db", UDP, 65535, true), ("mine/client", "default/db", TCP, 1, false)],
    );
    check(
        "a range has both its ends",
        &[at(json!([{"port": 32000, "endPort": 32768}]))],
        &[
            ("mine/client", "default/db", TCP, 31999, false),
            ("mine/client", "default/db", TCP, 32000, true),
            ("mine/client", "default/db", TCP, 32500, true),
            ("mine/client", "default/db", TCP, 32768, true),
            ("mine/client", "default/db", TCP, 32769, false),
        ],
    );
    check(
        "several ports",
        &[at(json!([{"port": 80}, {"port": 443}]))],
        &[("mine/client", "default/db", TCP, 443, true), ("mine/client", "default/db", TCP, 81, false)],
    );
    check(
        "a named port is the pod's own",
        &[("default", json!({"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]}))],
        &[
            ("mine/client", "default/db", TCP, 5432, true),
            ("mine/client", "default/db", TCP, 80, false),
            ("mine/client", "default/web", TCP, 80, true),
            ("mine/client", "default/web", TCP, 5432, false),
        ],
    );
    check(
        "a name that the pod does not have",
        &[at(json!([{"port": "nope"}]))],
        &[("mine/client", "default/db", TCP, 5432, false)],
    );
    check(
        "a name of another protocol",
        &[at(json!([{"port": "http", "protocol": "UDP"}]))],
        &[("mine/client", "default/db", UDP, 5432, false), ("mine/client", "default/db", TCP, 5432, false)],
    );
    let leave = |rule: Value| ("mine", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]}));
    check(
        "a named port of what is spoken to",
        &[leave(json!({"ports": [{"port": "http"}]}))],
        &[
            ("mine/client", "default/db", TCP, 5432, true),
            ("mine/client", "default/db", TCP, 80, false),
            ("mine/client", "mine/web", TCP, 81, true),
            ("mine/client", "192.0.2.1", TCP, 80, false),
        ],
    );
    let named = json!({"to": [{"podSelector": {"matchLabels": {"role": "frontend"}}}], "ports": [{"port": "http"}, {"port": 9}]});
    check(
        "a named port of certain pods, beside a number",
        &[leave(named)],
        &[
            ("mine/client", "mine/web", TCP, 81, true),
            ("mine/client", "mine/web", TCP, 9, true),
            ("mine/client", "default/web", TCP, 80, false),
        ],
    );
    check("an empty list of ports is every port", &[at(json!([]))], &[("mine/client", "default/db", TCP, 1, true)]);
}

#[test]
fn blocks_of_addresses_hold_pods_as_well() {
    let from = |cidr: &str, except: Value| db(&json!([{"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}]));
    check(
        "everything",
        &[from("0.0.0.0/0", json!([]))],
        &[
            ("192.0.2.1", "default/db", TCP, 1, true),
            ("mine/client", "default/db", TCP, 1, true),
            ("255.255.255.255", "default/db", TCP, 1, true),
        ],
    );
    check(
        "one address",
        &[from("10.73.0.5/32", Value::Null)],
        &[("mine/client", "default/db", TCP, 1, true), ("mine/web", "default/db", TCP, 1, false)],
    );
    check(
        "exceptions, the last address among them",
        &[from("0.0.0.0/0", json!(["10.0.0.0/8", "255.255.255.255/32"]))],
        &[
            ("mine/client", "default/db", TCP, 1, false),
            ("9.255.255.255", "default/db", TCP, 1, true),
            ("11.0.0.0", "default/db", TCP, 1, true),
            ("255.255.255.255", "default/db", TCP, 1, false),
        ],
    );
    check(
        "what is excepted here may be allowed there",
        &[db(&json!([{"from": [
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.73.0.0/16"]}}, {"ipBlock": {"cidr": "10.73.0.5/32"}}]}]))],
        &[
            ("mine/client", "default/db", TCP, 1, true),
            ("mine/web", "default/db", TCP, 1, false),
            ("10.72.0.1", "default/db", TCP, 1, true),
        ],
    );
    check(
        "what is no IPv4 network allows nothing",
        &[from("fd00::/8", Value::Null)],
        &[("192.0.2.1", "default/db", TCP, 1, false)],
    );
}

#[test]
fn changes_of_labels_addresses_and_policies_are_followed() {
    let (web, client) = (key("default/web"), key("mine/client"));
    let mut model = with(&[db(
        &json!([{"from": [{"namespaceSelector": {"matchLabels": {"project": "mine"}}, "podSelector": {"matchLabels": {"role": "client"}}}]}]),
    )]);
    let reaches = |model: &Model, from: &str| passes(model, address(from), address("default/db"), TCP, 1);
    assert!(reaches(&model, "mine/client") && !reaches(&model, "away/client") && !reaches(&model, "default/web"));
    model.set_namespace("away", Some(labels("project=mine")));
    assert!(reaches(&model, "away/client"));
    model.set_pod(&client, Some(facts("role=none", 5, 80)));
    assert!(!reaches(&model, "mine/client"));
    model.set_pod(&client, Some(facts("role=client", 55, 80)));
    assert!(!reaches(&model, "mine/client"), "the old address");
    assert!(reaches(&model, "10.73.0.55"));
    // A pod that is over has no address; a later one may have it.
    model.set_pod(&client, Some(PodFacts { address: None, ..facts("role=client", 55, 80) }));
    model.set_pod(&web, Some(facts("role=frontend", 55, 80)));
    assert!(!reaches(&model, "10.73.0.55"));
    // The same address before the news that its old owner is gone.
    model.set_pod(&client, Some(facts("role=client", 55, 80)));
    assert!(reaches(&model, "10.73.0.55"));
    model.set_pod(&web, None);
    assert!(reaches(&model, "10.73.0.55"));
    model.set_policy(&key("default/p0"), None);
    assert!(reaches(&model, "default/web") && model.is_empty());
    assert!(model.sets.is_empty() && model.chains.is_empty() && model.leads.is_empty());
}

#[test]
fn what_is_exempt_can_be_mentioned_but_not_closed() {
    let mut model = with(&[(
        "default",
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]}]}),
    )]);
    let dns = Ipv4Addr::new(10, 73, 128, 10);
    let facts =
        PodFacts { labels: labels("k8s-app=kube-dns"), address: Some(dns), exempt: true, ..PodFacts::default() };
    assert!(!passes(&model, address("default/db"), dns, UDP, 53));
    model.set_pod(&key("default//dns"), Some(facts));
    assert!(passes(&model, address("default/db"), dns, UDP, 53));
    assert!(passes(&model, address("mine/client"), dns, UDP, 53));
}

#[test]
fn a_change_touches_only_what_it_concerns() {
    let mut model = with(&[
        db(&json!([{"from": [{"podSelector": {"matchLabels": {"role": "frontend"}}}]}])),
        ("mine", json!({"podSelector": {}})),
    ]);
    assert_eq!(model.chains.len(), 2, "pods with the same rules share a chain");
    model.told();
    model.set_pod(&key("default/new"), Some(facts("role=frontend", 9, 80)));
    let journal = model.journal();
    assert_eq!(journal.elements.len(), 1);
    assert!(journal.sets.is_empty() && journal.chains.is_empty() && journal.leads.is_empty());
    model.told();
    model.set_pod(&key("default/new"), Some(facts("role=frontend", 9, 80)));
    assert!(model.journal().is_empty());
    model.set_pod(&key("mine/new"), Some(facts("role=x", 10, 80)));
    let journal = model.journal();
    assert_eq!(journal.leads.len(), 1, "an existing chain decides about it");
    assert!(journal.chains.is_empty() && journal.elements.is_empty());
    assert!(!model.was_led(Ipv4Addr::new(10, 73, 0, 10)) && model.is_led(Ipv4Addr::new(10, 73, 0, 10)));
    model.told();
    model.set_policy(&key("mine/p1"), None);
    assert!(model.journal().sets.is_empty() && model.journal().elements.is_empty());
    assert_eq!((model.journal().chains.len(), model.journal().leads.len()), (1, 3));
}
