//! Tokens, roles, nodes, reviews and acting for others: what opens, and that nothing else does.
#![allow(clippy::unwrap_used, clippy::similar_names)]

mod common;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use common::listening::Listening;
use common::{Cluster, PODS, Reply, pod, request};
use serde_json::{Value, json};
use shipway_apiserver::Identity;
use shipway_apiserver::pki::TokenKey;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

async fn ask(cluster: &Cluster, identity: &Identity, method: &str, path: &str, body: &Value) -> Reply {
    let content = if body.is_null() { String::new() } else { body.to_string() };
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    cluster.send(identity.clone(), request(method, path, kind, content)).await
}

async fn code(cluster: &Cluster, identity: &Identity, method: &str, path: &str, body: &Value) -> u16 {
    ask(cluster, identity, method, path, body).await.code.as_u16()
}

/// Lets subjects do something everywhere.
async fn grant(cluster: &Cluster, name: &str, rules: &Value, subjects: &Value) {
    let role = json!({"metadata": {"name": name}, "rules": rules});
    cluster.post(&format!("{RBAC}/clusterroles"), &role).await.ok();
    let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
    let binding = json!({"metadata": {"name": name}, "roleRef": reference, "subjects": subjects});
    cluster.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.ok();
}

fn user(name: &str) -> Value {
    json!([{"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}])
}

async fn token(cluster: &Cluster, account: &str, spec: &Value) -> Reply {
    cluster.post(&format!("{ACCOUNTS}/{account}/token"), &json!({"spec": spec})).await
}

fn text(reply: &Value) -> String {
    reply["status"]["token"].as_str().unwrap().to_owned()
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

async fn bot(cluster: &Cluster) {
    cluster.post(ACCOUNTS, &json!({"metadata": {"name": "bot"}})).await.ok();
    let rules = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]);
    grant(cluster, "bots", &rules, &json!([{"kind": "ServiceAccount", "namespace": "default", "name": "bot"}])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_as_long_as_its_account_is() {
    let listening = Listening::new().await;
    let cluster = &listening.cluster;
    bot(cluster).await;
    let issued = token(cluster, "bot", &json!({})).await.ok();
    let secret = text(&issued);
    assert_eq!((&issued["spec"]["audiences"], &issued["spec"]["expirationSeconds"]), (&json!([ISSUER]), &json!(3600)));
    let said = claims(&secret);
    assert_eq!((&said["sub"], &said["iss"]), (&json!("system:serviceaccount:default:bot"), &json!(ISSUER)));
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 3600);
    assert_eq!(said["kubernetes.io"]["serviceaccount"]["name"], "bot");
    for _ in 0..2 {
        assert_eq!(listening.with_token(PODS, &secret).await, 200);
    }
    assert_eq!(listening.with_token(SECRETS, &secret).await, 403, "a token gives what its roles give");
    assert_eq!(listening.with_token("/.well-known/openid-configuration", &secret).await, 200);
    assert_eq!(listening.with_token("/openid/v1/jwks", &secret).await, 200);
    assert_eq!(listening.get("/openid/v1/jwks", None, true, None).await.0, 403);
    cluster.delete(&format!("{ACCOUNTS}/bot")).await.ok();
    assert_eq!(listening.with_token(PODS, &secret).await, 401, "the account is gone");
    cluster.post(ACCOUNTS, &json!({"metadata": {"name": "bot"}})).await.ok();
    assert_eq!(listening.with_token(PODS, &secret).await, 401, "another account has the name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_ours_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = shipway_store::Log::open(dir.path(), shipway_store::Options::default()).unwrap();
    let mut config = common::config();
    let keys = tempfile::tempdir().unwrap();
    config.token_key = Some(std::sync::Arc::new(TokenKey::open(keys.path()).unwrap()));
    let listening = Listening::over(Cluster::with(store, dir, config).await).await;
    bot(&listening.cluster).await;
    let good = text(&token(&listening.cluster, "bot", &json!({})).await.ok());
    assert_eq!(listening.with_token(PODS, &good).await, 200);
    // The same words signed by our own hand, with the server's key and with another.
    let pem = std::fs::read_to_string(keys.path().join("sa.key")).unwrap();
    let own = rcgen::KeyPair::from_pem(&pem).unwrap();
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let sign = |key: &rcgen::KeyPair, head: Value, claims: &Value| {
        use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
        let random = ring::rand::SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der(), &random).unwrap();
        let [head, claims] = [&head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signature = pair.sign(&random, format!("{head}.{claims}").as_bytes()).unwrap();
        format!("{head}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let said = claims(&good);
    let es256 = json!({"alg": "ES256"});
    let with = |field: &str, value: Value| {
        let mut claims = said.clone();
        claims[field] = value;
        claims
    };
    assert_eq!(listening.with_token(PODS, &sign(&own, es256.clone(), &said)).await, 200);
    let now = said["iat"].as_i64().unwrap();
    let none = URL_SAFE_NO_PAD.encode(json!({"alg": "none"}).to_string());
    let body = good.split('.').nth(1).unwrap();
    let mut foreign = said.clone();
    foreign["kubernetes.io"]["serviceaccount"]["name"] = "default".into();
    for (why, wrong) in [
        ("another key", sign(&other, es256.clone(), &said)),
        ("another issuer", sign(&own, es256.clone(), &with("iss", json!("https://elsewhere")))),
        ("expired", sign(&own, es256.clone(), &with("exp", json!(now - 1)))),
        ("not yet", sign(&own, es256.clone(), &with("nbf", json!(now + 3600)))),
        ("for others", sign(&own, es256.clone(), &with("aud", json!(["vault"])))),
        ("another subject", sign(&own, es256.clone(), &with("sub", json!("system:admin")))),
        ("another account inside", sign(&own, es256.clone(), &foreign)),
        ("another algorithm", sign(&own, json!({"alg": "HS256"}), &said)),
        ("no algorithm", format!("{none}.{body}.")),
        ("no signature", good.rsplit_once('.').unwrap().0.to_owned()),
        ("garbage", "a.b.c".to_owned()),
        ("nothing", String::new()),
    ] {
        assert_eq!(listening.with_token(PODS, &wrong).await, 401, "{why}");
        assert_eq!(listening.with_token("/healthz", &wrong).await, 401, "{why}: never anonymous");
    }
    let basic = http::Request::get("https://localhost/healthz").header("authorization", "Basic YTpi");
    assert_eq!(listening.ask(basic.body(http_body_util::Full::default()).unwrap(), None, true).await.0, 401);
    let twice = http::Request::get("https://localhost/healthz").header("authorization", format!("Bearer {good}"));
    let twice = twice.header("authorization", "Bearer x");
    assert_eq!(listening.ask(twice.body(http_body_util::Full::default()).unwrap(), None, true).await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_token_ends_with_what_it_is_bound_to() {
    let listening = Listening::new().await;
    let cluster = &listening.cluster;
    bot(cluster).await;
    let mut wanted = pod("a", &json!({}));
    wanted["spec"]["serviceAccountName"] = "bot".into();
    let made = cluster.post(PODS, &wanted).await.ok();
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let bound = |name: &str, uid: &str| json!({"expirationSeconds": 3607, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}});
    assert_eq!(token(cluster, "bot", &bound("none", "")).await.failure().0, 404);
    assert_eq!(token(cluster, "bot", &bound("a", "other")).await.failure().0, 409);
    assert_eq!(token(cluster, "default", &bound("a", uid)).await.failure().0, 400, "the pod runs as another");
    let secret = text(&token(cluster, "bot", &bound("a", uid)).await.ok());
    let said = claims(&secret);
    assert_eq!(said["kubernetes.io"]["pod"], json!({"name": "a", "uid": uid}));
    assert_eq!(said["kubernetes.io"]["warnafter"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 3607);
    assert_eq!(listening.with_token(PODS, &secret).await, 200);
    let own = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = cluster.post(own, &json!({"spec": {"token": secret}})).await.ok();
    let status = &review["status"];
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!([ISSUER])));
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:bot");
    assert_eq!(
        status["user"]["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["a"]));
    let review = cluster.post(own, &json!({"spec": {"token": secret, "audiences": ["vault"]}})).await.ok();
    assert_ne!(review["status"]["authenticated"], true);
    assert!(!review["status"]["error"].as_str().unwrap().contains(&secret));
    cluster.delete(&format!("{PODS}/a?gracePeriodSeconds=0")).await.ok();
    assert_eq!(listening.with_token(PODS, &secret).await, 401, "the pod is gone");
    for (seconds, message) in [(599, "10 minutes"), (1_i64 << 33, "2^32 seconds")] {
        let (code, said) = token(cluster, "bot", &json!({"expirationSeconds": seconds})).await.failure();
        assert!(code == 422 && said.contains(message), "{said}");
    }
    assert_eq!(token(cluster, "nobody", &json!({})).await.failure().0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_token_opens_as_its_secret_says() {
    let listening = Listening::new().await;
    let cluster = &listening.cluster;
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let make = async |id: &str, more: &[(&str, &str)]| {
        let fields =
            [("token-id", id), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-authentication", "true")];
        let data: serde_json::Map<String, Value> =
            fields.iter().chain(more).map(|(key, value)| ((*key).to_owned(), STANDARD.encode(value).into())).collect();
        let secret = json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token", "data": data});
        cluster.post(secrets, &secret).await.ok();
    };
    make("aaaaaa", &[]).await;
    make("bbbbbb", &[("expiration", "2001-01-01T00:00:00Z")]).await;
    make("cccccc", &[("usage-bootstrap-authentication", "false")]).await;
    make("dddddd", &[("auth-extra-groups", "system:masters")]).await;
    assert_eq!(listening.with_token("/api", "aaaaaa.0123456789abcdef").await, 200);
    assert_eq!(listening.with_token(PODS, "aaaaaa.0123456789abcdef").await, 403);
    for wrong in [
        "aaaaaa.0123456789abcdee",
        "bbbbbb.0123456789abcdef",
        "cccccc.0123456789abcdef",
        "dddddd.0123456789abcdef",
        "eeeeee.0123456789abcdef",
    ] {
        assert_eq!(listening.with_token("/api", wrong).await, 401, "{wrong}");
    }
    cluster.delete(&format!("{secrets}/bootstrap-token-aaaaaa")).await.ok();
    assert_eq!(listening.with_token("/api", "aaaaaa.0123456789abcdef").await, 401);
}

#[tokio::test]
async fn a_binding_holds_from_its_acknowledgement_to_its_removal() {
    let cluster = Cluster::new().await;
    let jane = Identity::new("jane", &[]);
    assert_eq!(code(&cluster, &jane, "GET", PODS, &Value::Null).await, 403);
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let view = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    for _ in 0..20 {
        let binding = json!({"metadata": {"name": "jane"}, "roleRef": view, "subjects": user("jane")});
        cluster.post(&bindings, &binding).await.ok();
        assert_eq!(code(&cluster, &jane, "GET", PODS, &Value::Null).await, 200);
        assert_eq!(code(&cluster, &jane, "GET", &PODS.replace("default", "kube-system"), &Value::Null).await, 403);
        assert_eq!(code(&cluster, &jane, "GET", SECRETS, &Value::Null).await, 403, "who views sees no secrets");
        assert_eq!(code(&cluster, &jane, "POST", PODS, &pod("a", &json!({}))).await, 403);
        cluster.delete(&format!("{bindings}/jane")).await.ok();
        assert_eq!(code(&cluster, &jane, "GET", PODS, &Value::Null).await, 403);
    }
    let rules = json!([{"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"]}]);
    grant(&cluster, "one", &rules, &user("jane")).await;
    let one = format!("{SECRETS}?fieldSelector=metadata.name%3Done");
    assert_eq!(code(&cluster, &jane, "GET", &one, &Value::Null).await, 200, "a list of one object by its name");
    assert_eq!(code(&cluster, &jane, "GET", SECRETS, &Value::Null).await, 403);
}

#[tokio::test]
async fn nobody_gives_away_more_than_it_has() {
    let cluster = Cluster::new().await;
    let jane = Identity::new("jane", &[]);
    let rules = json!([
        {"verbs": ["create", "update", "patch"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"]},
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]},
    ]);
    grant(&cluster, "officer", &rules, &user("jane")).await;
    let roles = format!("{RBAC}/clusterroles");
    let role = |name: &str, verb: &str, resource: &str| json!({"metadata": {"name": name}, "rules": [{"verbs": [verb], "apiGroups": [""], "resources": [resource]}]});
    assert_eq!(code(&cluster, &jane, "POST", &roles, &role("fine", "get", "pods")).await, 201);
    let (refused, text) = ask(&cluster, &jane, "POST", &roles, &role("more", "get", "secrets")).await.failure();
    assert!(refused == 403 && text.contains("attempting to grant RBAC permissions not currently held"), "{text}");
    assert!(text.contains(r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#), "{text}");
    assert_eq!(code(&cluster, &jane, "POST", &roles, &role("all", "*", "*")).await, 403);
    assert_eq!(
        code(
            &cluster,
            &jane,
            "PATCH",
            &format!("{roles}/fine"),
            &json!({"rules": role("", "get", "secrets")["rules"]})
        )
        .await,
        403
    );
    assert_eq!(
        code(&cluster, &jane, "PATCH", &format!("{roles}/view"), &json!({"metadata": {"labels": {"a": "b"}}})).await,
        200,
        "rules are unchanged"
    );
    let gather = json!({"metadata": {"name": "gather"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}]}});
    assert_eq!(code(&cluster, &jane, "POST", &roles, &gather).await, 403, "gathering may give anything");
    let applied = request("PATCH", &format!("{roles}/applied?fieldManager=x"), "application/apply-patch+yaml",
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "applied"}, "rules": role("", "get", "secrets")["rules"]}).to_string());
    assert_eq!(cluster.send(jane.clone(), applied).await.code, 403);

    let bindings = format!("{RBAC}/clusterrolebindings");
    let binding = |name: &str, role: &str| {
        let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role});
        json!({"metadata": {"name": name}, "roleRef": reference, "subjects": user("jane")})
    };
    assert_eq!(code(&cluster, &jane, "POST", &bindings, &binding("a", "cluster-admin")).await, 403);
    assert_eq!(code(&cluster, &jane, "POST", &bindings, &binding("a", "nowhere")).await, 404);
    assert_eq!(code(&cluster, &jane, "POST", &bindings, &binding("a", "fine")).await, 201);
    let own = format!("{RBAC}/namespaces/default/rolebindings");
    assert_eq!(code(&cluster, &jane, "POST", &own, &binding("a", "admin")).await, 403);
    let other = json!({"roleRef": {"name": "cluster-admin"}});
    let (changed, text) = ask(&cluster, &Identity::admin(), "PATCH", &format!("{bindings}/a"), &other).await.failure();
    assert!(changed == 422 && text.contains("cannot change roleRef"), "{text}");

    let rules = json!([{"verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["view"]},
        {"verbs": ["escalate"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"]}]);
    grant(&cluster, "binder", &rules, &user("jane")).await;
    assert_eq!(code(&cluster, &jane, "POST", &own, &binding("b", "view")).await, 201, "bind is the right to");
    assert_eq!(code(&cluster, &jane, "POST", &own, &binding("c", "edit")).await, 403);
    let roles = format!("{RBAC}/namespaces/default/roles");
    assert_eq!(code(&cluster, &jane, "POST", &roles, &role("any", "*", "*")).await, 201, "escalate is the right to");
}

#[tokio::test]
async fn a_node_reads_what_its_pods_name_and_gets_their_tokens() {
    let cluster = Cluster::new().await;
    bot(&cluster).await;
    for name in ["mine", "other"] {
        cluster.post(SECRETS, &json!({"metadata": {"name": name}})).await.ok();
    }
    let mut wanted = pod("a", &json!({}));
    wanted["spec"]["serviceAccountName"] = "bot".into();
    wanted["spec"]["nodeName"] = "alpha".into();
    wanted["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "mine"}}]);
    let uid = cluster.post(PODS, &wanted).await.ok()["metadata"]["uid"].as_str().unwrap().to_owned();
    let (alpha, beta) = (Identity::node("alpha"), Identity::node("beta"));
    let mine = format!("{SECRETS}/mine");
    let watch = format!("{SECRETS}?fieldSelector=metadata.name%3Dmine");
    for path in [&mine, &watch, &format!("{PODS}/a"), &format!("{ACCOUNTS}/bot")] {
        assert_eq!(code(&cluster, &alpha, "GET", path, &Value::Null).await, 200, "{path}");
        assert_eq!(code(&cluster, &beta, "GET", path, &Value::Null).await, 403, "{path}");
    }
    assert_eq!(code(&cluster, &alpha, "GET", &format!("{SECRETS}/other"), &Value::Null).await, 403);
    assert_eq!(
        code(&cluster, &alpha, "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dalpha", &Value::Null).await,
        200
    );
    // Network policies are about the pods of all nodes: they are listed, but neither read one by one nor changed.
    assert_eq!(code(&cluster, &beta, "GET", "/api/v1/pods", &Value::Null).await, 200);
    assert_eq!(code(&cluster, &beta, "DELETE", "/api/v1/namespaces/default/pods", &Value::Null).await, 403);
    let path = format!("{ACCOUNTS}/bot/token");
    let bound = json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": "a", "uid": uid}}});
    assert_eq!(code(&cluster, &alpha, "POST", &path, &bound).await, 201);
    assert_eq!(code(&cluster, &alpha, "POST", &path, &json!({"spec": {}})).await, 403, "not bound to a pod");
    assert_eq!(code(&cluster, &beta, "POST", &path, &bound).await, 403);
    assert_eq!(code(&cluster, &alpha, "POST", &format!("{ACCOUNTS}/default/token"), &bound).await, 403);
    let mut vault = bound.clone();
    vault["spec"]["audiences"] = json!(["vault"]);
    assert_eq!(code(&cluster, &alpha, "POST", &path, &vault).await, 403, "no volume asks for that audience");
    let pretender = Identity::new("system:node:alpha", &[]);
    assert_eq!(code(&cluster, &pretender, "GET", &mine, &Value::Null).await, 403);
    cluster.delete(&format!("{PODS}/a?gracePeriodSeconds=0")).await.ok();
    assert_eq!(code(&cluster, &alpha, "GET", &mine, &Value::Null).await, 403, "its pod is gone");
}

#[tokio::test]
async fn acting_for_others_is_a_right_for_each_name() {
    let cluster = Cluster::new().await;
    let rules = json!([
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["joe"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["devs"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"], "resourceNames": ["view"]},
    ]);
    grant(&cluster, "actor", &rules, &user("jane")).await;
    let own = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let act = async |headers: &[(&str, &str)]| {
        let mut request = request("POST", own, "application/json", "{}");
        for (name, value) in headers {
            request
                .headers_mut()
                .append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        cluster.send(Identity::new("jane", &[]), request).await
    };
    let joe = ("impersonate-user", "joe");
    let info = act(&[joe, ("impersonate-group", "devs"), ("impersonate-extra-scopes", "view")]).await.ok();
    let info = &info["status"]["userInfo"];
    assert_eq!((&info["username"], &info["groups"]), (&json!("joe"), &json!(["devs", "system:authenticated"])));
    assert_eq!(info["extra"], json!({"scopes": ["view"]}));
    let info = act(&[("impersonate-user", "system:serviceaccount:default:bot")]).await.ok();
    assert_eq!(info["status"]["userInfo"]["groups"][1], "system:serviceaccounts:default");
    for refused in [
        &[("impersonate-user", "admin")][..],
        &[joe, ("impersonate-group", "system:masters")],
        &[joe, ("impersonate-group", "devs"), ("impersonate-group", "system:masters")],
        &[joe, ("impersonate-uid", "1")],
        &[joe, ("impersonate-extra-scopes", "edit")],
        &[joe, ("impersonate-extra-other", "view")],
    ] {
        assert_eq!(act(refused).await.failure().0, 403, "{refused:?}");
    }
    assert_eq!(act(&[("impersonate-group", "devs")]).await.failure().0, 400, "a group needs a user");
    assert_eq!(act(&[("impersonate-extra-scopes", "view")]).await.failure().0, 400);
}

#[tokio::test]
async fn reviews_answer_for_others_to_those_who_may_ask() {
    let cluster = Cluster::new().await;
    let jane = Identity::new("jane", &[]);
    let asked = json!({"spec": {"user": "joe", "groups": ["devs"], "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(code(&cluster, &jane, "POST", path, &asked).await, 403);
    assert_eq!(
        code(&cluster, &jane, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", &json!({"spec": {"token": "x"}}))
            .await,
        403
    );
    let answer = async |path: &str, asked: &Value| cluster.post(path, asked).await.ok()["status"]["allowed"].clone();
    assert_eq!(answer(path, &asked).await, false);
    let rules = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]);
    grant(&cluster, "devs", &rules, &json!([{"kind": "Group", "name": "devs"}])).await;
    assert_eq!(answer(path, &asked).await, true);
    let local = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    assert_eq!(answer(local, &asked).await, true);
    assert_eq!(cluster.post(&local.replace("default", "other"), &asked).await.failure().0, 400);
    let path_asked = json!({"spec": {"user": "joe", "nonResourceAttributes": {"verb": "get", "path": "/metrics"}}});
    assert_eq!(answer(path, &path_asked).await, false);
    assert_eq!(cluster.post(path, &json!({"spec": {"user": "joe"}})).await.failure().0, 400);
    let own = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let told = ask(&cluster, &Identity::new("joe", &["devs"]), "POST", own, &json!({"spec": {"namespace": "default"}}))
        .await
        .ok();
    let rules = told["status"]["resourceRules"].as_array().unwrap();
    assert!(
        rules.iter().any(|rule| rule["resources"] == json!(["pods"]) && rule["verbs"] == json!(["list"])),
        "{told}"
    );
}

#[tokio::test]
async fn the_roles_of_a_fresh_cluster_are_there_and_come_back() {
    let cluster = Cluster::new().await;
    let admin = cluster.get(&format!("{RBAC}/clusterroles/admin")).await.ok();
    assert!(admin["rules"].as_array().unwrap().len() > 10 && admin["aggregationRule"].is_object());
    cluster.delete(&format!("{RBAC}/clusterroles/system:discovery")).await.ok();
    cluster
        .patch(&format!("{RBAC}/clusterrolebindings/system:basic-user"), "merge", &json!({"subjects": []}))
        .await
        .ok();
    cluster
        .patch(&format!("{RBAC}/clusterroles/view"), "merge", &json!({"metadata": {"annotations": {"a": "b"}}}))
        .await
        .ok();
    let cluster = Cluster::at(cluster.close().await).await;
    let before = cluster.store.revision();
    cluster.get(&format!("{RBAC}/clusterroles/system:discovery")).await.ok();
    let bound = cluster.get(&format!("{RBAC}/clusterrolebindings/system:basic-user")).await.ok();
    assert_eq!(bound["subjects"].as_array().unwrap().len(), 1);
    let view = cluster.get(&format!("{RBAC}/clusterroles/view")).await.ok();
    assert_eq!(view["metadata"]["annotations"]["a"], "b", "what others wrote stays");
    let cluster = Cluster::at(cluster.close().await).await;
    let roles = cluster.get(&format!("{RBAC}/clusterroles")).await.ok();
    let newest = roles["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|role| role["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap())
        .max();
    assert!(newest.unwrap() <= before, "a later start writes no role");
}
