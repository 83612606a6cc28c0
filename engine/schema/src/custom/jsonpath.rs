//! The part of JSONPath that columns need: fields, indexes, wildcards and filters that compare a field with a value.
//!
//! A path is parsed once and bounded; evaluating it visits each place of a document at most once a segment.

use serde_json::Value;

/// The longest path taken, in bytes.
const LENGTH: usize = 1024;
/// The most values that a path yields.
const FOUND: usize = 1024;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonPath(Vec<Segment>);

#[derive(Clone, Debug, PartialEq)]
enum Segment {
    Field(Box<str>),
    Index(i64),
    /// From the first to before the second, each so many-th.
    Slice(Option<i64>, Option<i64>, usize),
    All,
    /// The path of the operand within the item, the comparison, and what to compare with; none means that it is there.
    Filter(JsonPath, Option<(Compare, Value)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl JsonPath {
    /// Parses `.spec.containers[0].name` or `.status.conditions[?(@.type=="Ready")].status`, with or without the braces
    /// and the dollar around it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LENGTH {
            return Err(format!("is longer than {LENGTH} characters"));
        }
        let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let rest = text.strip_prefix('$').unwrap_or(text);
        if !rest.starts_with(['.', '[']) {
            return Err("is invalid: must begin with '.'".into());
        }
        Self::segments(rest)
    }

    fn segments(mut rest: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let (segment, after) = segment(rest)?;
            segments.push(segment);
            rest = after;
        }
        Ok(Self(segments))
    }

    /// The names of a path that only goes down through objects.
    pub(crate) fn fields(&self) -> Option<Vec<&str>> {
        let names = self.0.iter().map(|segment| match segment {
            Segment::Field(name) => Some(&**name),
            _ => None,
        });
        names.collect()
    }

    /// Everything that the path leads to.
    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for segment in &self.0 {
            let mut next = Vec::new();
            for value in found {
                segment.step(value, &mut next);
            }
            next.truncate(FOUND);
            found = next;
        }
        found
    }
}

impl Segment {
    fn step<'a>(&self, value: &'a Value, next: &mut Vec<&'a Value>) {
        match (self, value) {
            (Self::Field(name), Value::Object(object)) => next.extend(object.get(&**name)),
            (Self::Index(index), Value::Array(items)) => {
                next.extend(usize::try_from(place(*index, items)).ok().and_then(|at| items.get(at)));
            }
            (Self::Slice(from, to, step), Value::Array(items)) => {
                let bound = |at: i64| usize::try_from(place(at, items)).unwrap_or(0).min(items.len());
                let (from, to) = (from.map_or(0, bound), to.map_or(items.len(), bound));
                next.extend(items.iter().take(to).skip(from).step_by(*step));
            }
            (Self::All, Value::Array(items)) => next.extend(items),
            (Self::All, Value::Object(object)) => next.extend(object.values()),
            (Self::Filter(operand, test), Value::Array(items)) => {
                next.extend(items.iter().filter(|item| {
                    operand
                        .find(item)
                        .iter()
                        .any(|found| test.as_ref().is_none_or(|(compare, wanted)| compare.holds(found, wanted)))
                }));
            }
            _ => {}
        }
    }
}

impl Compare {
    fn holds(self, found: &Value, wanted: &Value) -> bool {
        let order = match (found, wanted) {
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (a, b) if a == b => Some(std::cmp::Ordering::Equal),
            _ => None,
        };
        match self {
            Self::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
            Self::Unequal => !order.is_some_and(std::cmp::Ordering::is_eq),
            Self::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Self::LessEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Self::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
            Self::GreaterEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

/// The place that an index means: a negative one counts from the end.
fn place(index: i64, items: &[Value]) -> i64 {
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if index < 0 { length.saturating_add(index) } else { index }
}

/// What stands between the brackets of an index or a slice.
fn index(text: &str) -> Result<Segment, String> {
    let wrong = || format!("is invalid: invalid array index {text}");
    let parts: Vec<&str> = text.split(':').collect();
    let number = |part: &str| part.parse::<i64>().map_err(|_| wrong());
    let bound = |part: &str| if part.is_empty() { Ok(None) } else { number(part).map(Some) };
    match parts.as_slice() {
        [at] => Ok(Segment::Index(number(at)?)),
        [from, to] => Ok(Segment::Slice(bound(from)?, bound(to)?, 1)),
        [from, to, step] => {
            let step = bound(step)?.unwrap_or(1);
            let step = usize::try_from(step).ok().filter(|step| *step > 0).ok_or("is invalid: step must be > 0")?;
            Ok(Segment::Slice(bound(from)?, bound(to)?, step))
        }
        _ => Err(wrong()),
    }
}

/// The first segment and the rest.
fn segment(text: &str) -> Result<(Segment, &str), String> {
    if let Some(rest) = text.strip_prefix('.') {
        return field(rest);
    }
    let inner = text.strip_prefix('[').ok_or_else(|| format!("is invalid: unexpected {text:?}"))?;
    if let Some(filter) = inner.strip_prefix("?(") {
        let end = closing(filter).ok_or("is invalid: a filter is not closed")?;
        let rest = filter[end..].strip_prefix(")]").ok_or("is invalid: a filter is not closed")?;
        return Ok((parse_filter(&filter[..end])?, rest));
    }
    if let Some(quote) = inner.chars().next().filter(|letter| matches!(letter, '\'' | '"')) {
        let end = inner[1..].find(quote).ok_or("is invalid: a quote is not closed")?;
        let rest = inner[end + 2..].strip_prefix(']').ok_or("is invalid: a bracket is not closed")?;
        return Ok((Segment::Field(inner[1..=end].into()), rest));
    }
    let (name, rest) = inner.split_once(']').ok_or("is invalid: a bracket is not closed")?;
    Ok((if name == "*" { Segment::All } else { index(name)? }, rest))
}

fn field(text: &str) -> Result<(Segment, &str), String> {
    if let Some(rest) = text.strip_prefix('*') {
        return Ok((Segment::All, rest));
    }
    let mut name = String::new();
    let mut letters = text.char_indices();
    let mut end = text.len();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.extend(letters.next().map(|(_, letter)| letter)),
            '.' | '[' => {
                end = at;
                break;
            }
            _ => name.push(letter),
        }
    }
    // A single dot is the document itself.
    if name.is_empty() && !(end == text.len() && text.is_empty()) {
        return Err("is invalid: a field has no name".into());
    }
    if name.is_empty() {
        Err("is invalid: a field has no name".into())
    } else {
        Ok((Segment::Field(name.into()), &text[end..]))
    }
}

/// Where the parenthesis that is open is closed, quotes left aside.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (None, ')') => return Some(at),
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            _ => {}
        }
    }
    None
}

fn parse_filter(text: &str) -> Result<Segment, String> {
    let operand = text.trim().strip_prefix('@').ok_or("is invalid: a filter must begin with '@'")?;
    let comparisons = [
        ("==", Compare::Equal),
        ("!=", Compare::Unequal),
        ("<=", Compare::LessEqual),
        (">=", Compare::GreaterEqual),
        ("<", Compare::Less),
        (">", Compare::Greater),
    ];
    let first = comparisons.iter().filter_map(|(sign, compare)| Some((operand.find(sign)?, *sign, *compare)));
    // Of two signs at one place the longer one is meant; it comes first in the table.
    let Some((at, sign, compare)) = first.min_by_key(|(at, sign, _)| (*at, usize::MAX - sign.len())) else {
        return Ok(Segment::Filter(JsonPath::segments(operand.trim())?, None));
    };
    let path = JsonPath::segments(operand[..at].trim())?;
    if path.0.iter().any(|segment| matches!(segment, Segment::Filter(..))) {
        return Err("is invalid: filters cannot be nested".into());
    }
    let wanted = operand[at + sign.len()..].trim();
    let quoted = wanted.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
    let wanted = match quoted {
        Some(text) => Value::String(text.to_owned()),
        None => serde_json::from_str(wanted).map_err(|_| format!("is invalid: {wanted} is no value"))?,
    };
    Ok(Segment::Filter(path, Some((compare, wanted))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn found(path: &str) -> Vec<Value> {
        let document = json!({
            "spec": { "replicas": 3, "a.b": "dotted", "hosts": ["x", "y", "z"] },
            "status": { "conditions": [
                { "type": "Ready", "status": "True", "n": 1 },
                { "type": "Stalled", "status": "False", "n": 2 },
            ] },
        });
        JsonPath::parse(path).expect(path).find(&document).into_iter().cloned().collect()
    }

    #[test]
    fn columns_find_what_people_write() {
        assert_eq!(found(".spec.replicas"), [json!(3)]);
        assert_eq!(found("{.spec.replicas}"), [json!(3)]);
        assert_eq!(found(r".spec.a\.b"), [json!("dotted")]);
        assert_eq!(found(".spec['a.b']"), [json!("dotted")]);
        assert_eq!(found(".spec.hosts[0]"), [json!("x")]);
        assert_eq!(found(".spec.hosts[-1]"), [json!("z")]);
        assert_eq!(found(".spec.hosts[*]").len(), 3);
        assert_eq!(found(".spec.hosts[-1:]"), [json!("z")]);
        assert_eq!(found(".spec.hosts[:2]"), [json!("x"), json!("y")]);
        assert_eq!(found(".spec.hosts[::2]"), [json!("x"), json!("z")]);
        assert!(found(".spec.hosts[2:1]").is_empty() && found(".spec.hosts[-9:-8]").is_empty());
        assert_eq!(found(r#".status.conditions[?(@.type=="Ready")].status"#), [json!("True")]);
        assert_eq!(found(".status.conditions[?(@.type == 'Stalled')].status"), [json!("False")]);
        assert_eq!(found(".status.conditions[?(@.n>1)].type"), [json!("Stalled")]);
        assert_eq!(found(".status.conditions[?(@.n<=1)].type"), [json!("Ready")]);
        assert_eq!(found(".status.conditions[?(@.n)].type").len(), 2);
        assert!(found(".status.missing[?(@.n)].type").is_empty());
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in [
            "",
            ".a[::0]",
            ".a[1:2:3:4]",
            ".a[::-1]",
            "spec",
            ".",
            "..a",
            ".a[",
            ".a[x]",
            ".a[?(@.b==\"]",
            ".a[?(b)]",
            ".a[?(@.b==c)]",
            ".a['b",
        ] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
        assert!(JsonPath::parse(&format!(".{}", "a".repeat(2000))).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[.:\\[\\]?()@='\"a*0-9\\\\{}$<>!-]{0,40}") {
            if let Ok(path) = JsonPath::parse(&text) {
                path.find(&json!({ "a": [{ "a": 1 }, "a"] }));
            }
        }
    }
}
