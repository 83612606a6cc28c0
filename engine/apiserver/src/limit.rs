//! How many requests may be in flight: of one user, of all users, and apart from them of the parts that keep the cluster
//! alive, so that users who ask too much are told to come back while nodes and controllers go on.
//!
//! Watches and other long requests are counted apart. Nothing waits here: what does not fit is refused at once.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use crate::body::{Body, BoxError, CHUNK};
use crate::error::ApiError;
use crate::identity::Identity;

/// The most requests in flight. [`Default`] suits one machine.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Short requests of one user.
    pub user: usize,
    /// Short requests of all users that are no part of the system.
    pub users: usize,
    /// Long requests, such as watches, of one user.
    pub user_long: usize,
    /// Long requests of all users that are no part of the system.
    pub users_long: usize,
    /// Requests of either sort of all parts of the system.
    pub system: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { user: 200, users: 400, user_long: 1000, users_long: 5000, system: 20_000 }
    }
}

/// Counts what is in flight.
pub(crate) struct InFlight {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Short and long requests of each user that has any.
    users: HashMap<Box<str>, [usize; 2]>,
    all: [usize; 2],
    system: usize,
    /// Long requests of each part of the system.
    parts: HashMap<Box<str>, usize>,
}

/// One request in flight, until dropped.
pub(crate) struct Permit {
    owner: Arc<InFlight>,
    user: Box<str>,
    system: bool,
    long: bool,
}

impl InFlight {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// Whether a part of the system has a long request in flight.
    pub(crate) fn is_watching(&self, user: &str) -> bool {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).parts.contains_key(user)
    }

    /// Counts a request in, or refuses it.
    pub(crate) fn enter(self: &Arc<Self>, identity: &Identity, long: bool) -> Result<Permit, ApiError> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (user, system): (Box<str>, bool) = (identity.user.as_str().into(), identity.is_system());
        if system {
            if counts.system >= self.limits.system {
                return Err(ApiError::TooManyRequests);
            }
            counts.system += 1;
            if long {
                *counts.parts.entry(user.clone()).or_default() += 1;
            }
        } else {
            let (own, all) = if long {
                (self.limits.user_long, self.limits.users_long)
            } else {
                (self.limits.user, self.limits.users)
            };
            let sort = usize::from(long);
            let before = counts.users.get(&*identity.user).map_or(0, |counts| counts[sort]);
            if before >= own || counts.all[sort] >= all {
                return Err(ApiError::TooManyRequests);
            }
            counts.all[sort] += 1;
            match counts.users.get_mut(&user) {
                Some(own) => own[sort] += 1,
                None => counts.users.entry(user.clone()).or_default()[sort] += 1,
            }
        }
        Ok(Permit { owner: self.clone(), user, system, long })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.owner.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if self.system {
            counts.system -= 1;
            if self.long
                && let Some(own) = counts.parts.get_mut(&self.user)
            {
                *own -= 1;
                if *own == 0 {
                    counts.parts.remove(&self.user);
                }
            }
            return;
        }
        let sort = usize::from(self.long);
        counts.all[sort] -= 1;
        if let Some(own) = counts.users.get_mut(&self.user) {
            own[sort] -= 1;
            if *own == [0, 0] {
                counts.users.remove(&self.user);
            }
        }
    }
}

/// Whether a request lasts as long as its caller likes.
pub(crate) fn is_long(verb: &str, subresource: &str) -> bool {
    verb == "watch" || matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

/// Keeps the permit until a reply that is long to send has been sent.
pub(crate) fn hold(response: Response<Body>, permit: Permit) -> Response<Body> {
    let known = http_body::Body::size_hint(response.body()).exact();
    if known.is_some_and(|size| size <= CHUNK as u64) {
        return response;
    }
    response.map(|body| Held { body, _permit: permit }.boxed_unsync())
}

struct Held {
    body: Body,
    _permit: Permit,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_bounded_apart_and_together_and_the_system_goes_on() {
        let limits = Limits { user: 2, users: 3, user_long: 1, users_long: 1, system: 2 };
        let flight = InFlight::new(limits);
        let (jane, joe) = (Identity::new("jane", &[]), Identity::new("joe", &[]));
        let first = flight.enter(&jane, false).unwrap();
        let second = flight.enter(&jane, false).unwrap();
        assert!(flight.enter(&jane, false).is_err(), "one user has its share");
        let third = flight.enter(&joe, false).unwrap();
        assert!(flight.enter(&joe, false).is_err(), "all users have theirs");
        let watch = flight.enter(&joe, true).unwrap();
        assert!(flight.enter(&jane, true).is_err(), "long requests are counted apart");
        let node = Identity::node("a");
        let fourth = flight.enter(&node, false).unwrap();
        drop(first);
        assert!(flight.enter(&joe, false).is_ok());
        let fifth = flight.enter(&Identity::admin(), true).unwrap();
        assert!(flight.enter(&node, false).is_err());
        drop((second, third, watch, fourth, fifth));
        let counts = flight.counts.lock().unwrap();
        assert!(counts.users.is_empty() && counts.all == [0, 0] && counts.system == 0);
    }
}
