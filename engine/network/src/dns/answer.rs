//! From a question's bytes to an answer's: pure, so that any bytes can be tried on it.

use std::str::FromStr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{Meaning, Target, Zone};

/// How long an answer may be remembered, in seconds.
const TTL: u32 = 5;
/// No UDP answer is longer, whatever the asker allows: it must fit one packet on any link.
const LONGEST_DATAGRAM: usize = 1232;
const SHORTEST_DATAGRAM: u16 = 512;
/// Aliases of aliases are followed this far.
const LONGEST_CHAIN: usize = 8;

/// How the question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What is to be done with a question.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Send this.
    Reply(Vec<u8>),
    /// Ask the host's resolvers the same question.
    Forward(Box<Forward>),
    /// Not a question: stay silent.
    Malformed,
}

/// A question for the host's resolvers.
#[derive(Debug)]
pub(super) struct Forward {
    /// The question to pass on.
    pub(super) question: Vec<u8>,
    /// What we know already: an alias into the world outside, whose records the resolvers add.
    known: Option<Message>,
    /// What to say when no resolver answers.
    failure: Vec<u8>,
    limit: usize,
}

impl Forward {
    /// The answer to send, made from the resolver's if there is one.
    pub(super) fn finish(self, answer: Option<Vec<u8>>) -> Vec<u8> {
        let Self { known, failure, limit, .. } = self;
        match (known, answer) {
            (_, None) => failure,
            (None, Some(answer)) => answer,
            (Some(mut known), Some(answer)) => {
                let Ok(theirs) = Message::from_vec(&answer) else { return failure };
                known.metadata.response_code = theirs.metadata.response_code;
                known.answers.extend(theirs.answers);
                encode(&known, limit).unwrap_or(failure)
            }
        }
    }

    /// The answer when nobody can be asked.
    pub(super) fn refuse(self) -> Vec<u8> {
        self.failure
    }
}

/// Answers one question, or says who can.
pub(super) fn answer(zone: &Zone, bytes: &[u8], transport: Transport) -> Outcome {
    let Ok(question) = Message::from_vec(bytes) else { return Outcome::Malformed };
    if question.metadata.message_type != MessageType::Query {
        return Outcome::Malformed;
    }
    let limit = limit(&question, transport);
    let mut reply = Reply::to(&question, limit);
    if question.metadata.op_code != OpCode::Query {
        return reply.fail(ResponseCode::NotImp);
    }
    let [query] = &question.queries[..] else { return reply.fail(ResponseCode::FormErr) };
    if query.query_class() != DNSClass::IN {
        return reply.fail(ResponseCode::Refused);
    }
    reply.message.metadata.recursion_available = true;
    reply.follow(zone, query, bytes)
}

fn limit(question: &Message, transport: Transport) -> usize {
    match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => usize::from(question.max_payload().max(SHORTEST_DATAGRAM)).min(LONGEST_DATAGRAM),
    }
}

struct Reply {
    message: Message,
    limit: usize,
}

impl Reply {
    fn to(question: &Message, limit: usize) -> Self {
        let metadata = Metadata::response_from_request(&question.metadata);
        let mut message = Message::response(metadata.id, metadata.op_code);
        message.metadata = metadata;
        message.add_queries(question.queries.iter().cloned());
        if question.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(u16::try_from(LONGEST_DATAGRAM).expect("fits"));
            message.set_edns(edns);
        }
        Self { message, limit }
    }

    fn fail(mut self, code: ResponseCode) -> Outcome {
        self.message.metadata.response_code = code;
        self.finish()
    }

    fn finish(self) -> Outcome {
        encode(&self.message, self.limit).map_or(Outcome::Malformed, Outcome::Reply)
    }

    /// Follows the name, and aliases inside the cluster, to its records.
    fn follow(mut self, zone: &Zone, query: &Query, bytes: &[u8]) -> Outcome {
        let mut name = query.name().clone();
        for _ in 0..LONGEST_CHAIN {
            let meaning = zone.meaning(&labels(&name).iter().map(String::as_str).collect::<Vec<_>>());
            let Meaning::Alias(target) = meaning else {
                return self.conclude(zone, &name, query.query_type(), meaning, bytes);
            };
            self.message.metadata.authoritative = true;
            let Ok(target) = Name::from_ascii(target.trim_end_matches('.')).map(fully) else {
                return self.fail(ResponseCode::ServFail);
            };
            self.add(&name, RData::CNAME(CNAME(target.clone())));
            if query.query_type() == RecordType::CNAME {
                return self.finish();
            }
            name = target;
        }
        self.fail(ResponseCode::ServFail)
    }

    fn conclude(mut self, zone: &Zone, name: &Name, kind: RecordType, meaning: Meaning, bytes: &[u8]) -> Outcome {
        if meaning == Meaning::Elsewhere {
            return self.forward(name, kind, bytes);
        }
        self.message.metadata.authoritative = true;
        match (meaning, kind) {
            (Meaning::Missing, _) => self.message.metadata.response_code = ResponseCode::NXDomain,
            (Meaning::Addresses(mut addresses), RecordType::A | RecordType::ANY) => {
                // Askers tend to take the first address.
                fastrand::shuffle(&mut addresses);
                for address in addresses {
                    self.add(name, RData::A(A(address)));
                }
            }
            (Meaning::Targets(targets), RecordType::SRV | RecordType::ANY) => self.add_targets(zone, name, targets),
            (Meaning::Text(text), RecordType::TXT | RecordType::ANY) => {
                self.add(name, RData::TXT(TXT::new(vec![text.to_owned()])));
            }
            (Meaning::Names(names), RecordType::PTR | RecordType::ANY) => {
                for full in names.iter().filter_map(|short| full_name(zone, short)) {
                    self.add(name, RData::PTR(PTR(full)));
                }
            }
            _ => {}
        }
        if self.message.answers.is_empty() || self.message.metadata.response_code == ResponseCode::NXDomain {
            self.message.authorities.extend(authority(zone));
        }
        self.finish()
    }

    fn add(&mut self, name: &Name, data: RData) {
        self.message.add_answer(Record::from_rdata(name.clone(), TTL, data));
    }

    fn add_targets(&mut self, zone: &Zone, name: &Name, targets: Vec<Target>) {
        for Target { name: short, port, address } in targets {
            let Some(full) = full_name(zone, &short) else { continue };
            self.add(name, RData::SRV(SRV::new(0, 100, port, full.clone())));
            self.message.add_additional(Record::from_rdata(full, TTL, RData::A(A(address))));
        }
    }

    /// Passes the question on: as it came, or for the alias that it led to.
    fn forward(self, name: &Name, kind: RecordType, bytes: &[u8]) -> Outcome {
        let Self { message, limit } = self;
        let mut failed = message.clone();
        failed.metadata.response_code = ResponseCode::ServFail;
        let Some(failure) = encode(&failed, limit) else { return Outcome::Malformed };
        if message.answers.is_empty() {
            let question = bytes.to_vec();
            return Outcome::Forward(Box::new(Forward { question, known: None, failure, limit }));
        }
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(name.clone(), kind));
        let Ok(question) = question.to_vec() else { return Outcome::Reply(failure) };
        Outcome::Forward(Box::new(Forward { question, known: Some(message), failure, limit }))
    }
}

/// The bytes of a message; without its records and marked so when it is too long.
fn encode(message: &Message, limit: usize) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= limit { Some(bytes) } else { message.truncate().to_vec().ok() }
}

/// The labels of a name, in lower case. Bytes that are no text match nothing.
fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

fn fully(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}

fn full_name(zone: &Zone, short: &str) -> Option<Name> {
    Name::from_str(&format!("{short}.{}.", zone.domain())).ok()
}

/// Who says that there is nothing, and for how long that may be remembered.
fn authority(zone: &Zone) -> Option<Record> {
    let domain = Name::from_str(&format!("{}.", zone.domain())).ok()?;
    let server = full_name(zone, "ns.dns")?;
    let master = full_name(zone, "hostmaster")?;
    Some(Record::from_rdata(domain, TTL, RData::SOA(SOA::new(server, master, 1, 7200, 1800, 86_400, TTL))))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::super::zone::tests::zone;
    use super::super::zone::{EndpointRecord, ServiceRecords};
    use super::*;

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn ask(zone: &Zone, name: &str, kind: RecordType) -> Message {
        match answer(zone, &question(name, kind), Transport::Udp) {
            Outcome::Reply(bytes) => Message::from_vec(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_service_has_an_address_and_no_other_records() {
        let zone = zone();
        let reply = ask(&zone, "WEB.default.svc.cluster.local.", RecordType::A);
        assert_eq!(reply.answers[0].data, RData::A(A(Ipv4Addr::new(10, 73, 128, 20))));
        assert_eq!(reply.answers[0].ttl, 5);
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
        let none = ask(&zone, "web.default.svc.cluster.local.", RecordType::AAAA);
        assert_eq!((none.metadata.response_code, none.answers.len()), (ResponseCode::NoError, 0));
        assert_eq!(none.authorities[0].record_type(), RecordType::SOA);
    }

    #[test]
    fn what_does_not_exist_in_the_cluster_is_denied_at_once() {
        let reply = ask(&zone(), "www.example.com.default.svc.cluster.local.", RecordType::A);
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(reply.authorities.len(), 1);
    }

    #[test]
    fn ports_come_with_the_addresses_of_their_targets() {
        let reply = ask(&zone(), "_http._tcp.db.default.svc.cluster.local.", RecordType::SRV);
        assert_eq!((reply.answers.len(), reply.additionals.len()), (2, 2));
        let back = ask(&zone(), "20.128.73.10.in-addr.arpa.", RecordType::PTR);
        assert_eq!(back.answers[0].data.to_string(), "web.default.svc.cluster.local.");
    }

    #[test]
    fn an_alias_is_followed_inside_and_passed_on_outside() {
        let zone = zone();
        let inside = ask(&zone, "inside.default.svc.cluster.local.", RecordType::A);
        assert_eq!(
            inside.answers.iter().map(Record::record_type).collect::<Vec<_>>(),
            [RecordType::CNAME, RecordType::A]
        );
        let bytes = question("outside.default.svc.cluster.local.", RecordType::A);
        let Outcome::Forward(forward) = answer(&zone, &bytes, Transport::Udp) else { panic!() };
        let passed = Message::from_vec(&forward.question).unwrap();
        assert_eq!(passed.queries[0].name().to_string(), "www.example.com.");
        let mut theirs = Message::response(passed.metadata.id, OpCode::Query);
        let address = RData::A(A(Ipv4Addr::new(192, 0, 2, 7)));
        theirs.add_answer(Record::from_rdata(passed.queries[0].name().clone(), 60, address));
        let reply = Message::from_vec(&forward.finish(Some(theirs.to_vec().unwrap()))).unwrap();
        assert_eq!(reply.answers.len(), 2);
        assert_eq!(reply.queries[0].name().to_string(), "outside.default.svc.cluster.local.");
    }

    #[test]
    fn aliases_that_lead_in_a_circle_fail() {
        let zone = zone();
        let itself = Some("loop.default.svc.cluster.local".to_owned());
        zone.set("default", "loop", ServiceRecords { external_name: itself, ..ServiceRecords::default() });
        let reply = ask(&zone, "loop.default.svc.cluster.local.", RecordType::A);
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    }

    #[test]
    fn a_long_answer_is_cut_over_udp_and_whole_over_tcp() {
        let zone = zone();
        let endpoints = (0..200)
            .map(|last| EndpointRecord { address: Ipv4Addr::new(10, 73, 1, last), hostname: None, ports: vec![] })
            .collect();
        zone.set("default", "many", ServiceRecords { endpoints, ..ServiceRecords::default() });
        let cut = ask(&zone, "many.default.svc.cluster.local.", RecordType::A);
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        let bytes = question("many.default.svc.cluster.local.", RecordType::A);
        let Outcome::Reply(bytes) = answer(&zone, &bytes, Transport::Tcp) else { panic!() };
        assert_eq!(Message::from_vec(&bytes).unwrap().answers.len(), 200);
    }

    #[test]
    fn answers_and_other_noise_are_not_answered() {
        let zone = zone();
        let mut message = Message::from_vec(&question("web.default.svc.cluster.local.", RecordType::A)).unwrap();
        message.metadata.message_type = MessageType::Response;
        assert!(matches!(answer(&zone, &message.to_vec().unwrap(), Transport::Udp), Outcome::Malformed));
        assert!(matches!(answer(&zone, b"noise", Transport::Udp), Outcome::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            answer(&zone(), &bytes, Transport::Udp);
        }

        #[test]
        fn no_change_of_a_real_question_makes_it_panic(at in 0_usize..60, value: u8, cut in 0_usize..60) {
            let mut bytes = question("_http._tcp.db.default.svc.cluster.local.", RecordType::SRV);
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            answer(&zone(), &bytes, Transport::Tcp);
        }
    }
}
