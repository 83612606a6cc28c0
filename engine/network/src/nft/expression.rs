//! The expressions of nftables rules that we use, as data, and their encoding.
//!
//! Numbers are those of the kernel's `linux/netfilter/nf_tables.h`. Registers are the 4-byte ones; register `n` here is
//! the kernel's `NFT_REG32_n`.

use std::net::Ipv4Addr;

use super::attribute::Attributes;
use crate::config::{Subnet, mask};

const LIST_ELEMENT: u16 = 1;
const FIRST_REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;
const CONNTRACK_STATE: u32 = 0;
/// Codes of ICMP's `destination unreachable` (RFC 1812, section 5.2.7.1).
const PORT_UNREACHABLE: u8 = 3;
const PROHIBITED: u8 = 13;

/// A part of the packet or of its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Source,
    Destination,
    /// One byte: TCP, UDP, ...
    Transport,
    DestinationPort,
    InputLink,
    OutputLink,
    /// The connection's state, one bit a state, in the machine's byte order.
    State,
    /// How the host routes the destination: `RTN_LOCAL` and so on, in the machine's byte order.
    DestinationType,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(&'static str),
    Goto(String),
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    /// Loads a field.
    Load(Field, u32),
    /// Goes on when the register begins with these bytes (or does not).
    Compare { register: u32, equal: bool, bytes: Vec<u8> },
    /// Keeps only these bits of a 4-byte register.
    Mask { register: u32, bits: [u8; 4] },
    /// Goes on when the key at the register is in the set; one made in the same batch has an id.
    InSet { set: String, id: Option<u32>, register: u32 },
    /// Follows the verdict that the map has for the key at the register.
    Follow { map: &'static str, register: u32 },
    /// Replaces the key at the register by what the map has for it; one made in the same batch has an id.
    Translate { map: String, id: Option<u32>, from: u32, to: u32 },
    /// Puts or renews an element of a map that forgets it after so many seconds.
    Remember { map: String, key: u32, value: u32, seconds: u32 },
    /// Takes an element out of a map, if it is there: renewing one would not change its value.
    Forget { map: String, key: u32 },
    /// Puts bytes into a register.
    Set { register: u32, bytes: Vec<u8> },
    /// A random number below `below`, in the machine's byte order.
    Random { below: u32, register: u32 },
    /// New destination: address and port from registers. Without a port the packet keeps its own.
    Destination { address: u32, port: Option<u32> },
    /// New source address from a register.
    Source { address: u32 },
    /// New source: the address of the link that the packet leaves by, and a random port.
    Masquerade,
    /// Refuses a TCP connection.
    Reset,
    /// Tells the sender that nobody is at this port.
    Unreachable,
    /// Tells the sender that it may not.
    Prohibited,
    /// Holds the packet until whoever listens at the queue of that number says what becomes of it.
    Queue(u16),
    /// The same in the words of an older filter, for kernels that have only that.
    QueueTarget(u16),
    /// Ends the rule.
    End(Verdict),
}

impl Expression {
    fn name(&self) -> &'static str {
        match self {
            Self::Load(Field::State, _) => "ct",
            Self::Load(Field::DestinationType, _) => "fib",
            Self::Load(Field::Transport | Field::InputLink | Field::OutputLink, _) => "meta",
            Self::Load(..) => "payload",
            Self::Compare { .. } => "cmp",
            Self::Mask { .. } => "bitwise",
            Self::InSet { .. } | Self::Follow { .. } | Self::Translate { .. } => "lookup",
            Self::Remember { .. } | Self::Forget { .. } => "dynset",
            Self::Set { .. } | Self::End(_) => "immediate",
            Self::Random { .. } => "numgen",
            Self::Destination { .. } | Self::Source { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Queue(_) => "queue",
            Self::QueueTarget(_) => "target",
            Self::Reset | Self::Unreachable | Self::Prohibited => "reject",
        }
    }

    /// Appends this expression to a rule's list.
    pub(crate) fn encode(&self, list: &mut Attributes<'_>) {
        list.nest(LIST_ELEMENT, |element| {
            element.text(1, self.name());
            element.nest(2, |data| self.encode_data(data));
        });
    }

    fn encode_data(&self, data: &mut Attributes<'_>) {
        match self {
            Self::Load(field, to) => encode_load(*field, register(*to), data),
            Self::Compare { register: from, equal, bytes } => {
                data.number(1, register(*from));
                data.number(2, u32::from(!equal));
                data.nest(3, |value| value.bytes(1, bytes));
            }
            Self::Mask { register: both, bits } => {
                data.number(1, register(*both));
                data.number(2, register(*both));
                data.number(3, 4);
                data.nest(4, |value| value.bytes(1, bits));
                data.nest(5, |value| value.bytes(1, &[0; 4]));
            }
            Self::InSet { set, id, register: from } => {
                data.text(1, set);
                data.number(2, register(*from));
                if let Some(id) = id {
                    data.number(4, *id);
                }
            }
            Self::Follow { map, register: from } => {
                data.text(1, map);
                data.number(2, register(*from));
                data.number(3, VERDICT_REGISTER);
            }
            Self::Translate { map, id, from, to } => {
                data.text(1, map);
                data.number(2, register(*from));
                data.number(3, register(*to));
                if let Some(id) = id {
                    data.number(4, *id);
                }
            }
            Self::Remember { map, key, value, seconds } => {
                data.text(1, map);
                // `NFT_DYNSET_OP_UPDATE`
                data.number(3, 1);
                data.number(4, register(*key));
                data.number(5, register(*value));
                data.bytes(6, &(u64::from(*seconds) * 1000).to_be_bytes());
            }
            Self::Forget { map, key } => {
                data.text(1, map);
                // `NFT_DYNSET_OP_DELETE`
                data.number(3, 2);
                data.number(4, register(*key));
                // Not looked at, but a map wants it.
                data.number(5, register(0));
            }
            Self::Set { register: to, bytes } => {
                data.number(1, register(*to));
                data.nest(2, |value| value.bytes(1, bytes));
            }
            Self::End(verdict) => {
                data.number(1, VERDICT_REGISTER);
                data.nest(2, |value| verdict.encode(value));
            }
            _ => self.encode_action(data),
        }
    }

    fn encode_action(&self, data: &mut Attributes<'_>) {
        match self {
            Self::Random { below, register: to } => {
                data.number(1, register(*to));
                data.number(2, *below);
                data.number(3, 1);
            }
            Self::Destination { address, port } => encode_nat(1, *address, *port, data),
            Self::Source { address } => encode_nat(0, *address, None, data),
            // `NF_NAT_RANGE_PROTO_RANDOM_FULLY`: two pods' connections to one peer rarely race for one port.
            Self::Masquerade => data.number(1, 1 << 4),
            Self::Queue(number) => {
                data.bytes(1, &number.to_be_bytes());
                data.bytes(2, &1_u16.to_be_bytes());
            }
            Self::QueueTarget(number) => {
                data.text(1, "NFQUEUE");
                data.number(2, 0);
                // `struct xt_NFQ_info`, aligned.
                data.bytes(3, &[&number.to_ne_bytes()[..], &[0; 6]].concat());
            }
            Self::Reset => data.number(1, 1),
            Self::Unreachable => {
                data.number(1, 0);
                data.bytes(2, &[PORT_UNREACHABLE]);
            }
            Self::Prohibited => {
                data.number(1, 0);
                data.bytes(2, &[PROHIBITED]);
            }
            _ => unreachable!("encode_data handles every other expression"),
        }
    }
}

impl Verdict {
    /// Appends the verdict as the data of an expression or of a map's element.
    pub(crate) fn encode(&self, data: &mut Attributes<'_>) {
        let (code, chain): (i32, _) = match self {
            Self::Accept => (1, None),
            Self::Drop => (0, None),
            Self::Return => (-5, None),
            Self::Jump(chain) => (-3, Some(*chain)),
            Self::Goto(chain) => (-4, Some(chain.as_str())),
        };
        data.nest(2, |verdict| {
            verdict.bytes(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                verdict.text(2, chain);
            }
        });
    }
}

fn register(number: u32) -> u32 {
    FIRST_REGISTER + number
}

fn encode_nat(kind: u32, address: u32, port: Option<u32>, data: &mut Attributes<'_>) {
    data.number(1, kind);
    data.number(2, 2);
    data.number(3, register(address));
    if let Some(port) = port {
        data.number(5, register(port));
    }
}

fn encode_load(field: Field, to: u32, data: &mut Attributes<'_>) {
    let mut payload = |base: u32, offset: u32, length: u32| {
        data.number(1, to);
        data.number(2, base);
        data.number(3, offset);
        data.number(4, length);
    };
    match field {
        Field::Source => payload(1, 12, 4),
        Field::Destination => payload(1, 16, 4),
        Field::DestinationPort => payload(2, 2, 2),
        Field::Transport => encode_keyed(16, to, data),
        Field::InputLink => encode_keyed(6, to, data),
        Field::OutputLink => encode_keyed(7, to, data),
        Field::State => encode_keyed(CONNTRACK_STATE, to, data),
        Field::DestinationType => {
            data.number(1, to);
            data.number(2, 3);
            data.number(3, 1 << 1);
        }
    }
}

fn encode_keyed(key: u32, to: u32, data: &mut Attributes<'_>) {
    data.number(1, to);
    data.number(2, key);
}

/// Steps that go on when the field has exactly (or, with a link's name, begins with) these bytes.
pub(crate) fn matches(field: Field, bytes: &[u8]) -> Vec<Expression> {
    vec![Expression::Load(field, 0), Expression::Compare { register: 0, equal: true, bytes: bytes.to_vec() }]
}

/// Steps that go on when the field does not have these bytes.
pub(crate) fn differs(field: Field, bytes: &[u8]) -> Vec<Expression> {
    vec![Expression::Load(field, 0), Expression::Compare { register: 0, equal: false, bytes: bytes.to_vec() }]
}

/// Steps that go on when the address is inside (or outside) the subnet.
pub(crate) fn in_subnet(field: Field, subnet: Subnet, inside: bool) -> Vec<Expression> {
    let network = u32::from(subnet.0) & mask(subnet.1);
    vec![
        Expression::Load(field, 0),
        Expression::Mask { register: 0, bits: mask(subnet.1).to_be_bytes() },
        Expression::Compare { register: 0, equal: inside, bytes: network.to_be_bytes().to_vec() },
    ]
}

/// Goes on when the key at the first register is in a set of the table.
pub(crate) fn in_set(set: &str) -> Expression {
    Expression::InSet { set: set.to_owned(), id: None, register: 0 }
}

/// Steps that go on for packets of connections that are known, and what belongs to them.
pub(crate) fn of_known_connections() -> Vec<Expression> {
    const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    vec![
        Expression::Load(Field::State, 0),
        Expression::Mask { register: 0, bits: ESTABLISHED_OR_RELATED.to_ne_bytes() },
        Expression::Compare { register: 0, equal: false, bytes: vec![0; 4] },
    ]
}

/// Steps that go on for the first packet of a connection.
pub(crate) fn of_new_connections() -> Vec<Expression> {
    const NEW: u32 = 8;
    vec![
        Expression::Load(Field::State, 0),
        Expression::Mask { register: 0, bits: NEW.to_ne_bytes() },
        Expression::Compare { register: 0, equal: false, bytes: vec![0; 4] },
    ]
}

/// Steps that go on when the destination is an address of the host.
pub(crate) fn to_this_host() -> Vec<Expression> {
    const RTN_LOCAL: u32 = 2;
    matches(Field::DestinationType, &RTN_LOCAL.to_ne_bytes())
}

/// Steps that load the destination as the key of the collections over addresses.
pub(crate) fn load_address_key() -> Vec<Expression> {
    vec![
        Expression::Load(Field::Destination, 0),
        Expression::Load(Field::Transport, 1),
        Expression::Load(Field::DestinationPort, 2),
    ]
}

/// Steps that load the destination as the key of the collections over ports of the host.
pub(crate) fn load_port_key() -> Vec<Expression> {
    vec![Expression::Load(Field::Transport, 0), Expression::Load(Field::DestinationPort, 1)]
}

/// Puts an address into register 0.
pub(crate) fn set_address(address: Ipv4Addr) -> Expression {
    Expression::Set { register: 0, bytes: address.octets().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::super::attribute::{attributes, find, find_text};
    use super::*;

    fn encoded(expression: &Expression) -> Vec<u8> {
        let mut out = Vec::new();
        expression.encode(&mut Attributes::new(&mut out));
        find(&out, LIST_ELEMENT).unwrap().to_vec()
    }

    #[test]
    fn a_payload_load_has_these_golden_bytes() {
        let mut out = Vec::new();
        Expression::Load(Field::Destination, 0).encode(&mut Attributes::new(&mut out));
        let expected: [u8; 52] = [
            52, 0, 1, 0x80, 12, 0, 1, 0, b'p', b'a', b'y', b'l', b'o', b'a', b'd', 0, // an expression: payload
            36, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 8, 8, 0, 2, 0, 0, 0, 0, 1, // to register, from the IP header
            8, 0, 3, 0, 0, 0, 0, 16, 8, 0, 4, 0, 0, 0, 0, 4, // at byte 16, four bytes
        ];
        if cfg!(target_endian = "little") {
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn a_goto_names_its_chain() {
        let element = encoded(&Expression::End(Verdict::Goto("there".to_owned())));
        assert_eq!(find_text(&element, 1), Some("immediate"));
        let value = find(find(&element, 2).unwrap(), 2).unwrap();
        let verdict = find(value, 2).unwrap();
        assert_eq!(find(verdict, 1), Some(&(-4_i32).to_be_bytes()[..]));
        assert_eq!(find_text(verdict, 2), Some("there"));
    }

    #[test]
    fn a_new_destination_names_both_registers() {
        let element = encoded(&Expression::Destination { address: 1, port: Some(2) });
        let data: Vec<_> = attributes(find(&element, 2).unwrap()).collect();
        assert_eq!(
            data,
            vec![(1, &[0, 0, 0, 1][..]), (2, &[0, 0, 0, 2][..]), (3, &[0, 0, 0, 9][..]), (5, &[0, 0, 0, 10][..])]
        );
    }
}
