//! The protobuf tag table: for every message that a request may carry, which tag is which JSON field.
//!
//! Lines: `M name` opens a message; `tag name shape` is a field of it. A shape is a cardinality (`o` one, `r` repeated,
//! `k` map by text, `e` embedded: its fields belong to the message around it), a type (`s` text, `b` bool, `i` integer,
//! `d` number, `y` bytes, `m<n>` the n-th message, `T` time, `U` time with microseconds, `Q` quantity, `I` integer or
//! text, `J` raw JSON, `L` a message that wraps a list of text, `A<n>` the n-th message or a list of them, `B<n>` the n-th
//! message or a bool, `C<n>` the n-th message or a list of text), and `!` when zero values are kept.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use serde_json::{Map, Value};

use crate::definitions;
use crate::source::{Cardinality, Field};

/// Messages that Go embeds by value under these names: an empty one means "not given".
const BY_VALUE: [&str; 22] = [
    "conditions",
    "daemonEndpoints",
    "deprecatedSource",
    "devices",
    "kubeletEndpoint",
    "lastState",
    "limitResponse",
    "loadBalancer",
    "metadata",
    "nodeInfo",
    "port",
    "regarding",
    "resources",
    "source",
    "spec",
    "state",
    "status",
    "strategy",
    "template",
    "updateStrategy",
    "user",
    "userInfo",
];

struct Table<'a> {
    messages: &'a HashMap<String, Vec<Field>>,
    definitions: &'a Map<String, Value>,
    pointers: &'a HashSet<(String, String)>,
    /// Definition names by message path in lower case: prost changes capitals.
    names: HashMap<String, &'a str>,
    /// Message paths by the same key.
    paths: HashMap<String, &'a str>,
    numbers: HashMap<(String, String), usize>,
    bodies: Vec<String>,
}

/// The whole table as text.
pub(crate) fn table(
    messages: &HashMap<String, Vec<Field>>,
    definitions: &Map<String, Value>,
    pointers: &HashSet<(String, String)>,
) -> String {
    let names = definitions.keys().map(|name| (message_path(name), name.as_str())).collect();
    let paths = messages.keys().map(|path| (path.to_lowercase(), path.as_str())).collect();
    let numbers = HashMap::new();
    let mut table = Table { messages, definitions, pointers, names, paths, numbers, bodies: Vec::new() };
    for root in definitions::message_roots() {
        let path = table.path_of(&root);
        table.message(path.unwrap_or_else(|| panic!("k8s-pb has no message for {root}")), &root);
    }
    table.bodies.concat()
}

/// The path of a definition's message, in lower case.
fn message_path(definition: &str) -> String {
    definition.trim_start_matches("io.k8s.").replace('-', "_").to_lowercase()
}

/// A JSON name as prost would spell it: only letters and digits, in lower case.
fn plain_name(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

impl<'a> Table<'a> {
    /// The number of a message whose fields are named by a definition; reads it when it is new.
    fn message(&mut self, path: &str, definition: &str) -> usize {
        let key = (path.to_owned(), definition.to_owned());
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = self.bodies.len();
        self.numbers.insert(key, number);
        self.bodies.push(String::new());
        let mut body = format!("M {}\n", if self.is_own(path, definition) { definition } else { path });
        let messages = self.messages;
        for field in messages.get(path).unwrap_or_else(|| panic!("k8s-pb has no message {path}")) {
            if let Some((name, shape)) = self.field(field, definition) {
                writeln!(body, "{} {name} {shape}", field.tag).expect("a String takes any text");
            }
        }
        self.bodies[number] = body;
        number
    }

    /// The message of a definition. A version that the crate does not know yet is written as the one before it was.
    fn path_of(&self, definition: &str) -> Option<&'a str> {
        let path = message_path(definition);
        self.paths.get(&path).or_else(|| self.paths.get(&path.replace(".v1.", ".v1beta1."))).copied()
    }

    /// The definition that a message is of.
    fn definition_of(&self, path: &str) -> Option<&'a str> {
        let path = path.to_lowercase();
        self.names.get(&path).or_else(|| self.names.get(&path.replace(".v1beta1.", ".v1."))).copied()
    }

    fn is_own(&self, path: &str, definition: &str) -> bool {
        self.definition_of(path) == Some(definition)
    }

    fn properties(&self, definition: &str) -> Option<&Map<String, Value>> {
        self.definitions.get(definition)?.get("properties")?.as_object()
    }

    fn property(&self, definition: &str, name: &str) -> Option<String> {
        self.properties(definition)?.keys().find(|key| plain_name(key) == name).cloned()
    }

    fn field(&mut self, field: &Field, definition: &str) -> Option<(String, String)> {
        let Some(name) = self.property(definition, &field.name) else {
            return self.embedded(field, definition);
        };
        let cardinality = match field.cardinality {
            Cardinality::One => 'o',
            Cardinality::Many => 'r',
            Cardinality::Map => 'k',
        };
        let kind = match &field.message {
            Some(path) => self.message_shape(path),
            None => scalar_shape(&field.scalar).to_string(),
        };
        let keep = if self.keeps_zero(field, definition, &name) { "!" } else { "" };
        Some((name, format!("{cardinality}{kind}{keep}")))
    }

    /// A message that is no property stands for a Go struct embedded in another; anything else is not in the JSON form.
    fn embedded(&mut self, field: &Field, definition: &str) -> Option<(String, String)> {
        let path = field.message.clone().filter(|_| field.cardinality == Cardinality::One)?;
        let known = self.messages.get(&path)?.iter().any(|inner| self.property(definition, &inner.name).is_some());
        known.then(|| (field.name.clone(), format!("em{}", self.message(&path, definition))))
    }

    fn message_shape(&mut self, path: &str) -> String {
        let special = match path.rsplit('.').next().expect("split yields a part") {
            "Time" => "T",
            "MicroTime" => "U",
            "Quantity" => "Q",
            "IntOrString" => "I",
            "FieldsV1" | "Json" | "RawExtension" => "J",
            "ExtraValue" | "Verbs" => "L",
            _ => "",
        };
        if !special.is_empty() {
            return special.to_owned();
        }
        if let Some((either, or)) = path.rsplit_once("Or") {
            let letter = match or {
                "Array" => 'A',
                "Bool" => 'B',
                "StringArray" => 'C',
                _ => ' ',
            };
            if letter != ' ' {
                return self.message_shape(either).replacen('m', &letter.to_string(), 1);
            }
        }
        let definition = self.definition_of(path);
        let definition = definition.unwrap_or_else(|| panic!("no definition for the message {path}"));
        format!("m{}", self.message(path, definition))
    }

    fn keeps_zero(&self, field: &Field, definition: &str, name: &str) -> bool {
        let required = self.definitions.get(definition).and_then(|each| each.get("required")).and_then(Value::as_array);
        let required = required.is_some_and(|required| required.iter().any(|each| each == name));
        let by_reference = field.message.is_some() && !BY_VALUE.contains(&name);
        required || by_reference || self.pointers.contains(&(definition.to_owned(), name.to_owned()))
    }
}

fn scalar_shape(scalar: &str) -> char {
    match scalar {
        "string" => 's',
        "bool" => 'b',
        "bytes" => 'y',
        "double" => 'd',
        "int32" | "int64" | "uint32" | "uint64" => 'i',
        other => panic!("k8s-pb uses the type {other}"),
    }
}
