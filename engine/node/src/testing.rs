//! An imagined API server and an imagined machine, for tests of what stands between the two.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use kube::client::Body;
use serde_json::{Value, json};
use shipway_container::{ContainerSpec, ContainerState, PodState, Resources, SandboxSpec};
use tokio::sync::watch;

use crate::error::NodeError;
use crate::image::{Answer as ImageAnswer, Image, PullPolicy, Told};
use crate::keyring::Keyring;
use crate::machine::{Begun, Machine, Sandbox, Work};
use crate::observed::StartFailure;
use crate::volume::PodMount;

/// A request as the API got it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// What the API says.
pub(crate) enum Answer {
    NotFound,
    /// The request's body with this merged into it.
    Echo(Value),
}

pub(crate) type Log = Arc<Mutex<Vec<Asked>>>;

/// A client of an API that answers as told and remembers what it was asked.
pub(crate) fn api(answer: impl Fn(&Asked) -> Answer + Clone + Send + 'static) -> (kube::Client, Log) {
    let log = Log::default();
    let remembered = log.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answer, log) = (answer.clone(), log.clone());
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.expect("a body").to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let asked = Asked { method: parts.method.to_string(), path: parts.uri.path().to_owned(), body };
            log.lock().expect("not poisoned").push(asked.clone());
            Ok::<_, std::convert::Infallible>(reply(answer(&asked), asked.body))
        }
    });
    (kube::Client::new(service, "default"), remembered)
}

fn reply(answer: Answer, body: Value) -> Response<Body> {
    let (code, value) = match answer {
        Answer::NotFound => {
            (404, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}))
        }
        Answer::Echo(more) => {
            let mut body = if body.is_object() { body } else { json!({}) };
            merge(&mut body, &more);
            (200, body)
        }
    };
    Response::builder().status(code).body(Body::from(value.to_string().into_bytes())).expect("a reply")
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

/// What was done to the imagined machine, in order.
pub(crate) type Deeds = Arc<Mutex<Vec<String>>>;

/// A machine on which everything works at once, unless told otherwise.
#[derive(Clone, Default)]
pub(crate) struct Imagined {
    pub(crate) deeds: Deeds,
    /// Images that cannot be found.
    pub(crate) missing: Arc<Mutex<Vec<String>>>,
    pub(crate) sandbox: Arc<Mutex<Option<Place>>>,
    /// How often looking for an image panics.
    pub(crate) panics: Arc<AtomicUsize>,
    /// Containers that do not heed TERM.
    pub(crate) stubborn: bool,
}

impl Imagined {
    fn did(&self, deed: String) {
        self.deeds.lock().expect("not poisoned").push(deed);
    }

    pub(crate) fn place(&self) -> Place {
        self.sandbox.lock().expect("not poisoned").clone().expect("a sandbox was made")
    }
}

/// An imagined sandbox.
#[derive(Clone)]
pub(crate) struct Place {
    machine: Imagined,
    state: Arc<watch::Sender<PodState>>,
}

impl Place {
    /// Lets a run end.
    pub(crate) fn exit(&self, run: &str, code: i32) {
        self.state.send_modify(|state| {
            let now = SystemTime::now();
            let end =
                ContainerState::Exited { code, signal: None, out_of_memory: false, started_at: now, finished_at: now };
            state.containers.insert(run.to_owned(), end);
        });
    }

    /// Lets the supervisor die.
    pub(crate) fn lose(&self) {
        self.state.send_modify(|state| state.lost = true);
    }
}

impl Machine for Imagined {
    type Sandbox = Place;

    async fn create(&self, spec: SandboxSpec) -> Result<Place, NodeError> {
        self.did(format!("create {}", spec.uid));
        let place = Place { machine: self.clone(), state: Arc::default() };
        *self.sandbox.lock().expect("not poisoned") = Some(place.clone());
        Ok(place)
    }

    async fn find(&self, uid: &str) -> Result<Option<Place>, NodeError> {
        self.did(format!("find {uid}"));
        Ok(self.sandbox.lock().expect("not poisoned").clone())
    }

    async fn attach(&self, uid: &str, _namespace: &Path) -> Result<Ipv4Addr, NodeError> {
        self.did(format!("attach {uid}"));
        Ok(Ipv4Addr::new(10, 0, 0, 7))
    }

    async fn detach(&self, uid: &str) -> Result<(), NodeError> {
        self.did(format!("detach {uid}"));
        Ok(())
    }

    async fn released(&self, address: Ipv4Addr) {
        self.did(format!("released {address}"));
    }

    async fn fetch(&self, image: &str, _policy: PullPolicy, _keys: &Keyring) -> ImageAnswer {
        let once = |left: usize| left.checked_sub(1);
        assert!(self.panics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, once).is_err(), "no image today");
        if self.missing.lock().expect("not poisoned").iter().any(|missing| missing == image) {
            return (
                Err(("ErrImagePull".to_owned(), format!("no {image}"))),
                vec![Told::Warning("Failed", image.to_owned())],
            );
        }
        let entrypoint = vec!["/run".to_owned()];
        let image = Image { name: image.to_owned(), id: format!("{image}@sha256:0"), entrypoint, ..Image::default() };
        (Ok(Arc::new(image)), Vec::new())
    }

    async fn mount(&self, _supervisor: i32, mounts: Vec<PodMount>) -> Result<(), String> {
        for mount in mounts {
            self.did(format!("mount {mount:?}"));
        }
        Ok(())
    }

    async fn inside(&self, _supervisor: i32, work: Work) -> Result<(), String> {
        work()
    }
}

impl Sandbox for Place {
    fn supervisor(&self) -> i32 {
        i32::try_from(std::process::id()).expect("a process number")
    }

    fn network_namespace(&self) -> PathBuf {
        PathBuf::from("/proc/self/ns/net")
    }

    fn state(&self) -> watch::Receiver<PodState> {
        self.state.subscribe()
    }

    async fn start(&self, spec: ContainerSpec) -> Result<Begun, StartFailure> {
        self.machine.did(format!("start {}", spec.id));
        if spec.args == ["/nope"] {
            return Err(StartFailure::Run("executable \"/nope\" not found".to_owned()));
        }
        self.state.send_modify(|state| {
            state
                .containers
                .insert(spec.id.clone(), ContainerState::Running { pid: 42, started_at: SystemTime::now() });
        });
        Ok(Begun { pid: 42, since: Timestamp::now(), warnings: Vec::new() })
    }

    async fn resize(&self, run: &str, resources: Resources) -> Result<(), NodeError> {
        self.machine.did(format!("resize {run} {:?} {:?}", resources.cpu_limit_milli, resources.memory_limit));
        Ok(())
    }

    async fn kill(&self, run: &str, signal: i32) -> Result<(), NodeError> {
        self.machine.did(format!("kill {run} {signal}"));
        if signal == 9 || !self.machine.stubborn {
            self.exit(run, 128 + signal);
        }
        Ok(())
    }

    async fn exec(&self, run: &str, command: &[String], timeout: Duration) -> Result<(i32, Vec<u8>), NodeError> {
        self.machine.did(format!("exec {run} {}", command.join(" ")));
        match command.first().map(String::as_str) {
            Some("false") => Ok((1, b"it is false".to_vec())),
            Some("hang") => {
                tokio::time::sleep(timeout * 10).await;
                Ok((0, Vec::new()))
            }
            _ => Ok((0, Vec::new())),
        }
    }

    async fn forget(&self, run: &str) -> Result<(), NodeError> {
        self.machine.did(format!("forget {run}"));
        Ok(())
    }

    async fn destroy(&self) -> Result<(), NodeError> {
        self.machine.did("destroy".to_owned());
        let runs: BTreeMap<_, _> = self.state.borrow().containers.clone();
        for (run, state) in runs {
            if matches!(state, ContainerState::Running { .. }) {
                self.exit(&run, 137);
            }
        }
        Ok(())
    }
}
