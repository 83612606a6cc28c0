//! Changes of one table, collected into a batch: chains, rules, sets and their elements.

use super::attribute::Attributes;
use super::batch::{APPEND, Batch, CREATE, Kind};
use super::expression::{Expression, Verdict};

const LIST_ELEMENT: u16 = 1;
/// One attribute holds at most 64 KiB; an element takes at most about 350 bytes (a chain name of 255).
const ELEMENTS_A_MESSAGE: usize = 150;

const ANONYMOUS: u32 = 0x1;
const CONSTANT: u32 = 0x2;
const INTERVAL: u32 = 0x4;
const MAP: u32 = 0x8;
const TIMEOUT: u32 = 0x10;
const CHANGED_BY_RULES: u32 = 0x20;
/// How many clients a service port remembers.
const MOST_CLIENTS: u32 = 65_536;
/// How long they are remembered at most: a day, the most that a service can ask for.
const LONGEST_MEMORY: u64 = 86_400_000;
/// `NFT_SET_ELEM_INTERVAL_END`: the element is the first that is no longer in.
const INTERVAL_END: u32 = 0x1;
const VERDICT: u32 = 0xffff_ff00;

const TYPE_INTEGER: u32 = 4;
const TYPE_ADDRESS: u32 = 7;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;

/// What the keys of a set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Address, protocol, port.
    AddressPort,
    /// Protocol, port.
    Port,
    /// Two addresses.
    Pair,
    /// An address.
    Address,
    /// The number of a port.
    Number,
}

impl Key {
    fn kind_and_length(self) -> (u32, u32) {
        match self {
            Self::AddressPort => ((TYPE_ADDRESS << 6 | TYPE_PROTOCOL) << 6 | TYPE_PORT, 12),
            Self::Port => (TYPE_PROTOCOL << 6 | TYPE_PORT, 8),
            Self::Pair => (TYPE_ADDRESS << 6 | TYPE_ADDRESS, 8),
            Self::Address => (TYPE_ADDRESS, 4),
            Self::Number => (TYPE_PORT, 2),
        }
    }

    /// The last bytes of a number, as many as a key of this kind has.
    fn bytes_of(self, number: u32) -> Vec<u8> {
        let bytes = number.to_be_bytes();
        if self == Self::Number { bytes[2..].to_vec() } else { bytes.to_vec() }
    }

    fn greatest(self) -> u32 {
        if self == Self::Number { u32::from(u16::MAX) } else { u32::MAX }
    }
}

/// Where a base chain hangs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    /// `nat` or `filter`.
    pub(crate) kind: &'static str,
    /// `NF_INET_*`: prerouting 0, input 1, forward 2, output 3, postrouting 4.
    pub(crate) number: u32,
    /// Lower comes first.
    pub(crate) priority: i32,
}

/// A batch of changes to one table.
pub(crate) struct Commands<'a> {
    table: &'a str,
    batch: Batch,
    next_set: u32,
}

impl<'a> Commands<'a> {
    /// No change yet.
    pub(crate) fn new(table: &'a str) -> Self {
        Self { table, batch: Batch::new(), next_set: 1 }
    }

    /// Whether nothing is to be changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// The bytes to send.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.batch.finish()
    }

    /// Makes the table unless it is there.
    pub(crate) fn add_table(&mut self) {
        let table = self.table;
        self.batch.push(Kind::NewTable, CREATE, |message| {
            message.text(1, table);
            message.number(2, 0);
        });
    }

    /// Deletes the table and all in it.
    pub(crate) fn delete_table(&mut self) {
        let table = self.table;
        self.batch.push(Kind::DeleteTable, 0, |message| message.text(1, table));
    }

    /// Makes a chain that packets enter at a hook, unless it is there.
    pub(crate) fn add_base_chain(&mut self, name: &str, hook: Hook) {
        let table = self.table;
        self.batch.push(Kind::NewChain, CREATE, |message| {
            message.text(1, table);
            message.text(3, name);
            message.nest(4, |place| {
                place.number(1, hook.number);
                place.bytes(2, &hook.priority.to_be_bytes());
            });
            message.text(7, hook.kind);
        });
    }

    /// Makes a chain that other chains lead to, unless it is there.
    pub(crate) fn add_chain(&mut self, name: &str) {
        self.chain(Kind::NewChain, CREATE, name);
    }

    /// Deletes a chain that nothing leads to any more, with its rules.
    pub(crate) fn delete_chain(&mut self, name: &str) {
        self.flush_chain(name);
        self.chain(Kind::DeleteChain, 0, name);
    }

    fn chain(&mut self, kind: Kind, flags: u16, name: &str) {
        let table = self.table;
        self.batch.push(kind, flags, |message| {
            message.text(1, table);
            message.text(3, name);
        });
    }

    /// Deletes the rules of a chain.
    pub(crate) fn flush_chain(&mut self, name: &str) {
        let table = self.table;
        self.batch.push(Kind::DeleteRule, 0, |message| {
            message.text(1, table);
            message.text(2, name);
        });
    }

    /// Appends a rule to a chain.
    pub(crate) fn add_rule(&mut self, chain: &str, expressions: &[Expression]) {
        let table = self.table;
        self.batch.push(Kind::NewRule, CREATE | APPEND, |message| {
            message.text(1, table);
            message.text(2, chain);
            message.nest(4, |list| {
                for expression in expressions {
                    expression.encode(list);
                }
            });
        });
    }

    /// Makes a set, or a map to verdicts, unless it is there.
    pub(crate) fn add_set(&mut self, name: &str, key: Key, verdicts: bool) {
        let (table, id) = (self.table, self.set_id());
        let (kind, length) = key.kind_and_length();
        self.batch.push(Kind::NewSet, CREATE, |message| {
            message.text(1, table);
            message.text(2, name);
            message.number(3, if verdicts { MAP } else { 0 });
            message.number(4, kind);
            message.number(5, length);
            if verdicts {
                message.number(6, VERDICT);
            }
            message.number(10, id);
        });
    }

    /// Makes a set whose elements count the packets that were found in it, unless it is there.
    pub(crate) fn add_counted_set(&mut self, name: &str, key: Key) {
        let (table, id) = (self.table, self.set_id());
        let (kind, length) = key.kind_and_length();
        self.batch.push(Kind::NewSet, CREATE, |message| {
            message.text(1, table);
            message.text(2, name);
            message.number(3, 0);
            message.number(4, kind);
            message.number(5, length);
            message.number(10, id);
            message.nest(17, |expression| expression.text(1, "counter"));
        });
    }

    /// Makes a map from clients' addresses to address and port that rules fill, unless it is there.
    pub(crate) fn add_affinity(&mut self, name: &str) {
        let (table, id) = (self.table, self.set_id());
        self.batch.push(Kind::NewSet, CREATE, |message| {
            message.text(1, table);
            message.text(2, name);
            message.number(3, MAP | TIMEOUT | CHANGED_BY_RULES);
            message.number(4, TYPE_ADDRESS);
            message.number(5, 4);
            message.number(6, TYPE_ADDRESS << 6 | TYPE_PORT);
            message.number(7, 8);
            message.nest(9, |description| description.number(1, MOST_CLIENTS));
            message.number(10, id);
            message.bytes(11, &LONGEST_MEMORY.to_be_bytes());
        });
    }

    /// Makes an unnamed set of addresses with ports; it lives as long as the rule that uses it. Returns the name and the
    /// id by which a rule of the same batch refers to it.
    pub(crate) fn add_backends(&mut self, keys: &[Vec<u8>]) -> (String, u32) {
        let (table, id, name) = (self.table, self.set_id(), "__set%d");
        self.batch.push(Kind::NewSet, CREATE, |message| {
            message.text(1, table);
            message.text(2, name);
            message.number(3, ANONYMOUS | CONSTANT);
            message.number(4, TYPE_ADDRESS << 6 | TYPE_PORT);
            message.number(5, 8);
            message.number(10, id);
        });
        for part in keys.chunks(ELEMENTS_A_MESSAGE) {
            self.elements(Kind::NewElement, CREATE, name, Some(id), part.len(), |at, element| {
                element.nest(1, |value| value.bytes(1, &part[at]));
            });
        }
        (name.to_owned(), id)
    }

    /// Makes an unnamed map from the numbers 0, 1, ... to address and port; it lives as long as the rule that uses it.
    /// Returns the name and the id by which a rule of the same batch refers to it.
    pub(crate) fn add_numbered_map(&mut self, values: &[Vec<u8>]) -> (String, u32) {
        let (table, id, name) = (self.table, self.set_id(), "__map%d");
        self.batch.push(Kind::NewSet, CREATE, |message| {
            message.text(1, table);
            message.text(2, name);
            message.number(3, ANONYMOUS | CONSTANT | MAP);
            message.number(4, TYPE_INTEGER);
            message.number(5, 4);
            message.number(6, TYPE_ADDRESS << 6 | TYPE_PORT);
            message.number(7, 8);
            message.nest(9, |description| description.number(1, bounded(values.len())));
            message.number(10, id);
            // How listing tools are to read the keys: in the machine's byte order (type 0, length 4, value 1).
            let mut hint = vec![0, 4];
            hint.extend_from_slice(&1_u32.to_ne_bytes());
            message.bytes(13, &hint);
        });
        for (chunk, part) in values.chunks(ELEMENTS_A_MESSAGE).enumerate() {
            let first = chunk * ELEMENTS_A_MESSAGE;
            self.elements(Kind::NewElement, CREATE, name, Some(id), part.len(), |at, element| {
                let key = bounded(first + at).to_ne_bytes();
                element.nest(1, |value| value.bytes(1, &key));
                element.nest(2, |value| value.bytes(1, &part[at]));
            });
        }
        (name.to_owned(), id)
    }

    /// Makes an unnamed set of ranges, in order and apart; it lives as long as the rule that uses it. Returns the name and
    /// the id by which a rule of the same batch refers to it.
    pub(crate) fn add_ranges(&mut self, key: Key, ranges: &[(u32, u32)]) -> (String, u32) {
        let (table, id, name) = (self.table, self.set_id(), "__set%d");
        let (kind, length) = key.kind_and_length();
        self.batch.push(Kind::NewSet, CREATE, |message| {
            message.text(1, table);
            message.text(2, name);
            message.number(3, ANONYMOUS | CONSTANT | INTERVAL);
            message.number(4, kind);
            message.number(5, length);
            message.number(10, id);
        });
        let begin = ranges.iter().map(|(first, _)| (*first, false));
        let ends = ranges.iter().filter(|(_, last)| *last < key.greatest()).map(|(_, last)| (last + 1, true));
        let mut marks: Vec<(u32, bool)> = begin.chain(ends).collect();
        marks.sort_unstable();
        for part in marks.chunks(ELEMENTS_A_MESSAGE) {
            self.elements(Kind::NewElement, CREATE, name, Some(id), part.len(), |at, element| {
                element.nest(1, |value| value.bytes(1, &key.bytes_of(part[at].0)));
                if part[at].1 {
                    element.number(3, INTERVAL_END);
                }
            });
        }
        (name.to_owned(), id)
    }

    /// Deletes a set that no rule uses any more, with its elements.
    pub(crate) fn delete_set(&mut self, name: &str) {
        let table = self.table;
        self.batch.push(Kind::DeleteSet, 0, |message| {
            message.text(1, table);
            message.text(2, name);
        });
    }

    /// Adds elements: a key, and for a map the chain to go to.
    pub(crate) fn add_elements(&mut self, set: &str, elements: &[(&[u8], Option<&str>)]) {
        for part in elements.chunks(ELEMENTS_A_MESSAGE) {
            self.elements(Kind::NewElement, CREATE, set, None, part.len(), |at, element| {
                element.nest(1, |value| value.bytes(1, part[at].0));
                if let Some(chain) = part[at].1 {
                    element.nest(2, |data| Verdict::Goto(chain.to_owned()).encode(data));
                }
            });
        }
    }

    /// Deletes elements, which must be there.
    pub(crate) fn delete_elements(&mut self, set: &str, keys: &[&[u8]]) {
        for part in keys.chunks(ELEMENTS_A_MESSAGE) {
            self.elements(Kind::DeleteElement, 0, set, None, part.len(), |at, element| {
                element.nest(1, |value| value.bytes(1, part[at]));
            });
        }
    }

    /// Deletes all elements of a set.
    pub(crate) fn flush_set(&mut self, set: &str) {
        let table = self.table;
        self.batch.push(Kind::DeleteElement, 0, |message| {
            message.text(1, table);
            message.text(2, set);
        });
    }

    fn elements(
        &mut self,
        kind: Kind,
        flags: u16,
        set: &str,
        id: Option<u32>,
        count: usize,
        build: impl Fn(usize, &mut Attributes<'_>),
    ) {
        let table = self.table;
        self.batch.push(kind, flags, |message| {
            message.text(1, table);
            message.text(2, set);
            if let Some(id) = id {
                message.number(4, id);
            }
            message.nest(3, |list| {
                for at in 0..count {
                    list.nest(LIST_ELEMENT, |element| build(at, element));
                }
            });
        });
    }

    fn set_id(&mut self) -> u32 {
        self.next_set += 1;
        self.next_set
    }
}

fn bounded(count: usize) -> u32 {
    u32::try_from(count).expect("no service has four billion backends")
}

#[cfg(test)]
mod tests {
    use super::super::attribute::{attributes, find, find_text};
    use super::super::batch::messages;
    use super::*;

    #[test]
    fn many_elements_are_split_over_messages_and_none_is_lost() {
        let values: Vec<Vec<u8>> = (0..1000_u32).map(|at| [at.to_be_bytes(), [0; 4]].concat()).collect();
        let mut commands = Commands::new("t");
        commands.add_numbered_map(&values);
        let bytes = commands.finish();
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(read.len(), 1 + 1 + 1000_usize.div_ceil(ELEMENTS_A_MESSAGE) + 1);
        let elements: usize = read
            .iter()
            .skip(2)
            .filter_map(|message| find(message.attributes(), 3))
            .map(|l| attributes(l).count())
            .sum();
        assert_eq!(elements, 1000);
    }

    #[test]
    fn an_element_of_a_map_is_read_back() {
        let mut commands = Commands::new("t");
        commands.add_elements("cluster", &[(&[1, 2, 3, 4], Some("svc/a/b"))]);
        let bytes = commands.finish();
        let message = messages(&bytes).nth(1).unwrap();
        assert_eq!(find_text(message.attributes(), 2), Some("cluster"));
        let element = find(find(message.attributes(), 3).unwrap(), LIST_ELEMENT).unwrap();
        assert_eq!(find(find(element, 1).unwrap(), 1), Some(&[1, 2, 3, 4][..]));
        assert_eq!(find_text(find(find(element, 2).unwrap(), 2).unwrap(), 2), Some("svc/a/b"));
    }
}
