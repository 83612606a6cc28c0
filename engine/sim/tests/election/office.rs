//! Two places for contenders, and who of them leads at a moment.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use kube::Client;
use kube::client::Body;
use shipway_apiserver::{BoxError, Identity};
use shipway_driver::{Election, Terms};
use shipway_sim::Cluster;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What becomes of a contender's calls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Way {
    #[default]
    Open,
    /// They fail at once.
    Refused,
    /// They never arrive, and nobody says so.
    Silent,
    /// They are carried out, and the answer never arrives.
    Deaf,
    /// They arrive so much later, and the answer in time after that.
    Late(Duration),
}

/// What happened so far.
#[derive(Default)]
struct Book {
    leading: Vec<usize>,
    most: usize,
    terms: usize,
}

#[derive(Default)]
pub(crate) struct Office {
    book: Arc<Mutex<Book>>,
    places: [Place; 2],
}

#[derive(Default)]
struct Place {
    way: Arc<Mutex<Way>>,
    contender: Option<(JoinHandle<()>, CancellationToken)>,
    /// Each that comes has a name of its own.
    incarnation: usize,
}

/// The name of the first that came to a place.
pub(crate) fn name(place: usize) -> String {
    format!("contender-{place}-1")
}

impl Office {
    /// Puts a contender into a place, unless there is one.
    pub(crate) fn enter(&mut self, cluster: &Cluster, place: usize) {
        let book = self.book.clone();
        let at = &mut self.places[place];
        if at.contender.as_ref().is_some_and(|(task, _)| !task.is_finished()) {
            return;
        }
        at.incarnation += 1;
        let identity = format!("contender-{place}-{}", at.incarnation);
        let election = Election::new(client(cluster, at.way.clone()), "office", &identity, Terms::default());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let work = |stop: CancellationToken| {
                let book = book.clone();
                async move {
                    let _term = Term::begin(book, place);
                    stop.cancelled().await;
                }
            };
            election.lead(&stopped, work).await;
        });
        at.contender = Some((task, stop));
    }

    /// Ends a contender in the middle of what it does.
    pub(crate) fn kill(&mut self, place: usize) {
        if let Some((task, _)) = self.places[place].contender.take() {
            task.abort();
        }
    }

    /// Asks a contender to end.
    pub(crate) fn stop(&mut self, place: usize) {
        if let Some((_, stop)) = &self.places[place].contender {
            stop.cancel();
        }
    }

    pub(crate) fn set(&self, place: usize, way: Way) {
        *self.places[place].way.lock().unwrap() = way;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// Who leads.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.book().leading.first().copied()
    }

    /// How many ever led at once.
    pub(crate) fn most(&self) -> usize {
        self.book().most
    }

    /// How often somebody began to lead.
    pub(crate) fn terms(&self) -> usize {
        self.book().terms
    }
}

/// One leads as long as this lives.
struct Term(Arc<Mutex<Book>>, usize);

impl Term {
    fn begin(shared: Arc<Mutex<Book>>, place: usize) -> Self {
        let mut book = shared.lock().unwrap();
        book.leading.push(place);
        book.terms += 1;
        book.most = book.most.max(book.leading.len());
        drop(book);
        Self(shared, place)
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        let leading = &mut self.0.lock().unwrap().leading;
        leading.retain(|place| *place != self.1);
    }
}

/// A client whose calls fare as `way` says when they are made.
fn client(cluster: &Cluster, way: Arc<Mutex<Way>>) -> Client {
    let server = cluster.client_of(Identity::new("system:kube-controller-manager", &["system:masters"]));
    let door = tower::service_fn(move |request: http::Request<Body>| {
        let (server, way) = (server.clone(), *way.lock().unwrap());
        async move {
            match way {
                Way::Open => {}
                Way::Refused => return Err(BoxError::from("connection refused")),
                Way::Silent => return pending().await,
                Way::Deaf => {
                    tokio::spawn(async move { server.send(request).await });
                    return pending().await;
                }
                Way::Late(time) => {
                    // It is on its way, whether or not somebody still waits for it.
                    let sent = tokio::spawn(async move {
                        sleep(time).await;
                        server.send(request).await
                    });
                    return Ok(sent.await??);
                }
            }
            Ok::<_, BoxError>(server.send(request).await?)
        }
    });
    Client::new(door, "default")
}
