//! The protobuf tag table that the build derives; its notation is described where it is written (`build/tags.rs`).

use std::collections::HashMap;

static TABLE: &str = include_str!(concat!(env!("OUT_DIR"), "/tags.txt"));

/// All messages that a request may carry.
#[derive(Debug)]
pub(crate) struct Tags {
    messages: Vec<Message>,
    by_name: HashMap<&'static str, usize>,
}

/// One message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) name: &'static str,
    /// In order of tag.
    fields: Vec<Field>,
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    tag: u32,
    /// The JSON name.
    pub(super) name: &'static str,
    pub(super) cardinality: Cardinality,
    pub(super) kind: Kind,
    /// Whether a zero value means something.
    pub(super) keeps_zero: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cardinality {
    One,
    Many,
    /// A map by text, written as messages of key (1) and value (2).
    Map,
    /// The fields of this message belong to the message around it.
    Embedded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Boolean,
    Integer,
    Number,
    Bytes,
    Message(usize),
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    RawJson,
    TextList,
    /// A message, or something else in its place.
    Either(Or, usize),
}

/// What may stand in place of a message (1), as the field after it (2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Or {
    /// A list of such messages.
    Messages,
    /// `true` or `false`; the tags are the other way round.
    Boolean,
    /// A list of text.
    Texts,
}

impl Tags {
    /// Reads the embedded table.
    pub(crate) fn embedded() -> Self {
        let mut messages: Vec<Message> = Vec::new();
        for line in TABLE.lines() {
            if let Some(name) = line.strip_prefix("M ") {
                messages.push(Message { name, fields: Vec::new() });
            } else {
                let message = messages.last_mut().expect("a field follows its message");
                message.fields.push(field(line).expect("the build wrote this line"));
            }
        }
        for message in &mut messages {
            message.fields.sort_by_key(|field| field.tag);
        }
        let by_name = messages.iter().enumerate().map(|(number, message)| (message.name, number)).collect();
        Self { messages, by_name }
    }

    /// The number of the message that a definition is written as.
    pub(super) fn number_of(&self, definition: &str) -> Option<usize> {
        self.by_name.get(definition).copied()
    }

    pub(super) fn message(&self, number: usize) -> &Message {
        &self.messages[number]
    }
}

impl Message {
    pub(super) fn field(&self, tag: u32) -> Option<&Field> {
        let at = self.fields.binary_search_by_key(&tag, |field| field.tag).ok()?;
        Some(&self.fields[at])
    }
}

fn field(line: &'static str) -> Option<Field> {
    let mut words = line.split(' ');
    let (tag, name, shape) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let (shape, keeps_zero) = shape.strip_suffix('!').map_or((shape, false), |shape| (shape, true));
    let (cardinality, kind) = shape.split_at_checked(1)?;
    let cardinality = match cardinality {
        "o" => Cardinality::One,
        "r" => Cardinality::Many,
        "k" => Cardinality::Map,
        "e" => Cardinality::Embedded,
        _ => return None,
    };
    let kind = match kind.split_at_checked(1)? {
        ("s", _) => Kind::Text,
        ("b", _) => Kind::Boolean,
        ("i", _) => Kind::Integer,
        ("d", _) => Kind::Number,
        ("y", _) => Kind::Bytes,
        ("m", number) => Kind::Message(number.parse().ok()?),
        ("T", _) => Kind::Time,
        ("U", _) => Kind::MicroTime,
        ("Q", _) => Kind::Quantity,
        ("I", _) => Kind::IntOrString,
        ("J", _) => Kind::RawJson,
        ("L", _) => Kind::TextList,
        ("A", number) => Kind::Either(Or::Messages, number.parse().ok()?),
        ("B", number) => Kind::Either(Or::Boolean, number.parse().ok()?),
        ("C", number) => Kind::Either(Or::Texts, number.parse().ok()?),
        _ => return None,
    };
    Some(Field { tag, name, cardinality, kind, keeps_zero })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_table_leads_to_a_message() {
        let tags = Tags::embedded();
        assert!(tags.messages.len() > 150, "{} messages", tags.messages.len());
        for message in &tags.messages {
            for field in &message.fields {
                if let Kind::Message(number) | Kind::Either(_, number) = field.kind {
                    assert!(number < tags.messages.len(), "{}.{}", message.name, field.name);
                }
            }
        }
    }

    #[test]
    fn names_are_the_json_names() {
        let tags = Tags::embedded();
        let status = tags.message(tags.number_of("io.k8s.api.core.v1.PodStatus").expect("a pod has a status"));
        assert_eq!(status.fields.iter().filter(|field| field.name == "podIPs").count(), 1);
        let probe = tags.message(tags.number_of("io.k8s.api.core.v1.Probe").expect("a container has probes"));
        assert_eq!(probe.field(1).expect("the handler").cardinality, Cardinality::Embedded);
    }
}
