//! The tokens that a pod's volumes show: asked of the API for this pod alone, kept while they are young, asked for anew when
//! most of their time is over. A token that cannot be renewed is shown until it dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use tokio::time::Instant;

use crate::error::NodeError;
use crate::pod;

/// What a token lives when its source does not say.
const USUAL: i64 = 3600;
/// Renewed when this much of its time is over, in percent, and at the latest after a day.
const YOUNG: u32 = 80;
const OLDEST: Duration = Duration::from_hours(24);
/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// What a source asks for; sources that ask for the same share a token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    /// Empty for the API's own.
    audience: String,
    seconds: i64,
}

impl Wanted {
    pub(crate) fn of(source: &ServiceAccountTokenProjection) -> Self {
        let audience = source.audience.clone().unwrap_or_default();
        Self { audience, seconds: source.expiration_seconds.unwrap_or(USUAL) }
    }
}

/// The tokens of one moment.
pub(crate) type Issued = BTreeMap<Wanted, Arc<str>>;

/// The tokens of one pod.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<State>);

#[derive(Default)]
struct State {
    held: BTreeMap<Wanted, Held>,
    /// When something failed: the time of the next try.
    retry: Option<Instant>,
}

struct Held {
    token: Arc<str>,
    renew: Instant,
    dies: Instant,
}

impl Tokens {
    /// Every token that the pod's volumes ask for; those that are not young are asked for anew, all at once.
    pub(crate) async fn read(&self, client: &kube::Client, pod: &Pod) -> Result<Issued, NodeError> {
        let wanted = wanted(pod);
        let now = Instant::now();
        let due: Vec<Wanted> = {
            let state = self.state();
            wanted.iter().filter(|one| state.held.get(one).is_none_or(|held| held.renew <= now)).cloned().collect()
        };
        let answers = futures::future::join_all(due.iter().map(|one| request(client, pod, one))).await;
        let mut failure = None;
        let mut state = self.state();
        state.retry = None;
        for (one, answer) in due.into_iter().zip(answers) {
            match answer {
                Ok(held) => {
                    state.held.insert(one, held);
                }
                Err(error) => {
                    state.retry = Some(Instant::now() + RETRY);
                    if state.held.get(&one).is_some_and(|held| held.dies > now) {
                        tracing::warn!(pod = pod::name(pod), %error, "a token was not renewed, trying again");
                    } else {
                        failure = Some(error);
                    }
                }
            }
        }
        failure.map_or_else(|| Ok(state.issued()), Err)
    }

    /// When the next token should be asked for.
    pub(crate) fn due(&self) -> Option<Instant> {
        let state = self.state();
        state.retry.or_else(|| state.held.values().map(|held| held.renew).min())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn issued(&self) -> Issued {
        self.held.iter().map(|(wanted, held)| (wanted.clone(), held.token.clone())).collect()
    }
}

fn wanted(pod: &Pod) -> BTreeSet<Wanted> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let projected = volumes.filter_map(|volume| volume.projected.as_ref());
    let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    sources.filter_map(|source| source.service_account_token.as_ref()).map(Wanted::of).collect()
}

/// Asks for a token that ends with the pod.
async fn request(client: &kube::Client, pod: &Pod, wanted: &Wanted) -> Result<Held, NodeError> {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let failed = |error| NodeError::api(format!("ask for a token of service account {account}"), error);
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod::name(pod).to_owned()),
        uid: Some(pod::uid(pod).to_owned()),
    };
    let spec = TokenRequestSpec {
        audiences: (!wanted.audience.is_empty()).then(|| vec![wanted.audience.clone()]),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(wanted.seconds),
    };
    let asked = TokenRequest { metadata: ObjectMeta::default(), spec: Some(spec), status: None };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), pod::namespace(pod));
    let now = Instant::now();
    let answer = accounts.create_token_request(account, &PostParams::default(), &asked).await.map_err(failed)?;
    // The server may give a token less time than it was asked for.
    let seconds = answer.spec.and_then(|spec| spec.expiration_seconds).unwrap_or(wanted.seconds);
    let lifetime = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let token = answer.status.and_then(|status| status.token).unwrap_or_default();
    Ok(Held { token: token.into(), renew: now + (lifetime * YOUNG / 100).min(OLDEST), dies: now + lifetime })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Answer};
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn pod(seconds: i64) -> Pod {
        let source = |audience: &str| json!({"serviceAccountToken": {"path": audience, "audience": audience, "expirationSeconds": seconds}});
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "serviceAccountName": "bot", "volumes": [
                {"name": "a", "projected": {"sources": [source("vault"), source("")]}},
                {"name": "b", "projected": {"sources": [source("vault")]}},
            ]},
        }))
        .expect("a pod")
    }

    /// An API that gives numbered tokens, or none from some number on.
    fn api(last: usize) -> (kube::Client, testing::Log) {
        let count = Arc::new(AtomicUsize::new(0));
        testing::api(move |_| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            if number > last {
                return Answer::NotFound;
            }
            let status = json!({"token": format!("t{number}"), "expirationTimestamp": "2030-01-01T00:00:00Z"});
            Answer::Echo(json!({"metadata": {}, "status": status}))
        })
    }

    fn texts(issued: &Issued) -> Vec<&str> {
        issued.values().map(|token| &**token).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_asked_for_once_and_again_when_most_of_its_time_is_over() {
        let (client, asked) = api(100);
        let (tokens, pod) = (Tokens::default(), pod(1000));
        let begin = Instant::now();
        let first = tokens.read(&client, &pod).await.expect("tokens");
        assert_eq!(texts(&first), ["t0", "t1"]);
        assert_eq!(tokens.due(), Some(begin + Duration::from_secs(800)));
        tokio::time::sleep_until(begin + Duration::from_secs(799)).await;
        assert_eq!(tokens.read(&client, &pod).await.expect("tokens"), first);
        tokio::time::sleep_until(begin + Duration::from_secs(800)).await;
        assert_eq!(texts(&tokens.read(&client, &pod).await.expect("tokens")), ["t2", "t3"]);
        let asked = asked.lock().expect("not poisoned");
        assert_eq!(asked[1].path, "/api/v1/namespaces/n/serviceaccounts/bot/token");
        let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
        let spec = json!({"audiences": ["vault"], "boundObjectRef": bound, "expirationSeconds": 1000});
        assert_eq!((asked.len(), &asked[1].body["spec"]), (4, &spec));
        assert!(asked[0].body["spec"]["audiences"].is_null());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_shown_until_it_dies_when_no_other_can_be_had() {
        let (client, _) = api(1);
        let (tokens, pod) = (Tokens::default(), pod(1000));
        let begin = Instant::now();
        let first = tokens.read(&client, &pod).await.expect("tokens");
        tokio::time::sleep_until(begin + Duration::from_mins(15)).await;
        assert_eq!(tokens.read(&client, &pod).await.expect("old tokens"), first);
        assert_eq!(tokens.due(), Some(Instant::now() + RETRY));
        tokio::time::sleep_until(begin + Duration::from_secs(1001)).await;
        let error = tokens.read(&client, &pod).await.expect_err("they are dead").to_string();
        assert!(error.contains("ask for a token of service account bot"), "{error}");
        assert_eq!(tokens.due(), Some(Instant::now() + RETRY));
    }

    #[tokio::test(start_paused = true)]
    async fn no_token_is_older_than_a_day() {
        let (client, _) = api(100);
        let tokens = Tokens::default();
        tokens.read(&client, &pod(1 << 32)).await.expect("tokens");
        assert_eq!(tokens.due(), Some(Instant::now() + OLDEST));
        let none = Tokens::default();
        assert_eq!(none.read(&client, &Pod::default()).await.expect("no tokens"), Issued::new());
        assert_eq!(none.due(), None);
    }
}
