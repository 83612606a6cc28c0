//! What the host's resolvers answered, for as long as they said that it holds; bounded.
//!
//! The key is the question itself without its id, so that what differs in the question (case of letters aside), the
//! flags or the size that the asker takes never gets another's answer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::time::Instant;

/// Answers that are kept.
const MOST: usize = 2048;
/// No answer is kept longer, whatever its records say.
const LONGEST: u32 = 300;
/// The bytes of the id, which a question begins with.
const ID: usize = 2;

#[derive(Debug)]
struct Kept {
    answer: Message,
    since: Instant,
    seconds: u32,
}

/// Answers by question.
#[derive(Debug, Default)]
pub(super) struct Cache {
    kept: Mutex<HashMap<Vec<u8>, Kept>>,
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a question, if it still holds; its records hold that much shorter.
    pub(super) fn get(&self, question: &[u8]) -> Option<Vec<u8>> {
        let mut kept = self.lock();
        let key = key(question)?;
        let found = kept.get(&key)?;
        let age = u32::try_from(found.since.elapsed().as_secs()).unwrap_or(u32::MAX);
        if age >= found.seconds {
            kept.remove(&key);
            return None;
        }
        let mut answer = found.answer.clone();
        drop(kept);
        answer.metadata.id = u16::from_be_bytes([question[0], question[1]]);
        for record in records(&mut answer) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        answer.to_vec().ok()
    }

    /// Keeps an answer, if it says for how long it holds.
    pub(super) fn put(&self, question: &[u8], answer: &[u8]) {
        let (Some(key), Ok(answer)) = (key(question), Message::from_vec(answer)) else { return };
        let Some(seconds) = seconds(&answer).filter(|seconds| *seconds > 0) else { return };
        let mut kept = self.lock();
        if kept.len() >= MOST {
            kept.retain(|_, entry| entry.since.elapsed() < Duration::from_secs(entry.seconds.into()));
        }
        if kept.len() >= MOST {
            kept.clear();
        }
        kept.insert(key, Kept { answer, since: Instant::now(), seconds });
    }
}

/// The question without its id. Only plain questions are kept: one name, and nothing but what sizes an answer.
fn key(question: &[u8]) -> Option<Vec<u8>> {
    let rest = question.get(ID..)?;
    (question.len() <= 512).then(|| rest.to_ascii_lowercase())
}

fn records(message: &mut Message) -> impl Iterator<Item = &mut Record> {
    let all = message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals);
    all.filter(|record| record.record_type() != RecordType::OPT)
}

/// For how long an answer holds: as long as the first of its records, or as its denial says (RFC 2308, section 5).
fn seconds(answer: &Message) -> Option<u32> {
    let shortest = answer.answers.iter().map(|record| record.ttl).min();
    let denial = answer.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    });
    let holds = match answer.metadata.response_code {
        _ if answer.metadata.truncation => None,
        ResponseCode::NoError if !answer.answers.is_empty() => shortest,
        ResponseCode::NoError | ResponseCode::NXDomain => {
            denial.map(|denial| shortest.map_or(denial, |it| it.min(denial)))
        }
        _ => None,
    };
    holds.map(|seconds| seconds.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::op::{OpCode, Query};
    use hickory_proto::rr::Name;
    use hickory_proto::rr::rdata::{A, SOA};

    use super::*;

    fn question(id: u16, name: &str) -> Message {
        let mut message = Message::query();
        message.metadata.id = id;
        message.add_query(Query::query(name.parse().unwrap(), RecordType::A));
        message
    }

    fn answer(question: &Message, ttl: u32) -> Message {
        let mut message = Message::response(question.metadata.id, OpCode::Query);
        message.add_queries(question.queries.iter().cloned());
        let name = question.queries[0].name().clone();
        message.add_answer(Record::from_rdata(name, ttl, RData::A(A(Ipv4Addr::new(192, 0, 2, 1)))));
        message
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_given_again_until_its_time_is_over() {
        let cache = Cache::default();
        let asked = question(1, "a.example.");
        cache.put(&asked.to_vec().unwrap(), &answer(&asked, 10).to_vec().unwrap());
        tokio::time::advance(Duration::from_secs(4)).await;
        let again = cache.get(&question(7, "A.EXAMPLE.").to_vec().unwrap()).unwrap();
        let again = Message::from_vec(&again).unwrap();
        assert_eq!((again.metadata.id, again.answers[0].ttl), (7, 6));
        assert!(cache.get(&question(7, "b.example.").to_vec().unwrap()).is_none());
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(cache.get(&asked.to_vec().unwrap()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn denials_hold_as_long_as_they_say_and_failures_not_at_all() {
        let cache = Cache::default();
        let asked = question(1, "no.example.");
        let mut denied = answer(&asked, 10);
        denied.answers.clear();
        denied.metadata.response_code = ResponseCode::NXDomain;
        cache.put(&asked.to_vec().unwrap(), &denied.to_vec().unwrap());
        assert!(cache.get(&asked.to_vec().unwrap()).is_none(), "nobody says for how long");
        let name: Name = "example.".parse().unwrap();
        let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, 3);
        denied.authorities.push(Record::from_rdata(name, 60, RData::SOA(soa)));
        cache.put(&asked.to_vec().unwrap(), &denied.to_vec().unwrap());
        assert!(cache.get(&asked.to_vec().unwrap()).is_some());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(cache.get(&asked.to_vec().unwrap()).is_none());
        denied.metadata.response_code = ResponseCode::ServFail;
        cache.put(&asked.to_vec().unwrap(), &denied.to_vec().unwrap());
        assert!(cache.get(&asked.to_vec().unwrap()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_kept_than_there_is_room_for() {
        let cache = Cache::default();
        for number in 0..MOST + 10 {
            let asked = question(1, &format!("a{number}.example."));
            cache.put(&asked.to_vec().unwrap(), &answer(&asked, 10).to_vec().unwrap());
        }
        assert!(cache.lock().len() <= MOST);
    }
}
