//! A client that counts: plain HTTP requests, one at a time, each on a connection of its own.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The body of `http://address/path`; anything but a whole answer with status 200 is an error.
pub fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).context("no connection")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("the answer broke off")?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no whole answer: {answer:?}"))?;
    ensure!(head.split(' ').nth(1) == Some("200"), "refused: {head}");
    Ok(body.to_owned())
}

/// Asks again and again in a thread of its own until told to stop.
pub struct Loop {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Outcome>,
}

/// What a loop saw.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Whole answers.
    pub answered: usize,
    /// What went wrong, each time it did.
    pub failed: Vec<String>,
    /// The distinct answers.
    pub bodies: BTreeSet<String>,
}

impl Loop {
    /// Starts asking.
    pub fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut outcome = Outcome::default();
            while !told.load(Ordering::Relaxed) {
                match get(address, "/") {
                    Ok(body) => {
                        outcome.answered += 1;
                        outcome.bodies.insert(body);
                    }
                    Err(error) => outcome.failed.push(format!("request {}: {error:#}", outcome.answered)),
                }
            }
            outcome
        });
        Self { stop, thread }
    }

    /// Stops asking; gives what was seen.
    pub fn stop(self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the asking thread panicked"))
    }
}
