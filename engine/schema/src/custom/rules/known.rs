//! What is known of an expression's value before any object is there: its type, as far as it can be followed, and how
//! large it can be. Sizes follow what fits into one request, and the bounds that a schema sets.

use super::convert::escaped;
use crate::tree::{Kind, OBJECT_META, Schema};

/// The largest request, in bytes.
pub(super) const REQUEST: u64 = 3 * 1024 * 1024;

/// The type of a value.
#[derive(Clone)]
pub(super) enum Known {
    /// Of any type, or one that is not followed.
    Any,
    Bool,
    /// A number, a time or null.
    Scalar,
    Text,
    /// What a schema describes.
    Place(Schema),
    /// Items of one type.
    List(Box<Known>),
    /// Values of one type.
    Map(Box<Known>),
    /// A key and a value of what is looped over.
    Pair(Box<Known>),
    Optional(Box<Known>),
    /// A quantity, an address and the like.
    Opaque,
}

/// The least and the most elements of a value: characters, items or entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) least: u64,
    pub(super) most: u64,
}

impl Size {
    pub(super) const UNKNOWN: Self = Self { least: 0, most: u64::MAX };

    pub(super) fn exactly(count: u64) -> Self {
        Self { least: count, most: count }
    }

    pub(super) fn up_to(most: u64) -> Self {
        Self { least: 0, most }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { least: self.least.saturating_add(other.least), most: self.most.saturating_add(other.most) }
    }

    pub(super) fn times(self, other: Self) -> Self {
        Self { least: self.least.saturating_mul(other.least), most: self.most.saturating_mul(other.most) }
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self { least: self.least.min(other.least), most: self.most.max(other.most) }
    }
}

impl Known {
    pub(super) fn list(item: Self) -> Self {
        Self::List(Box::new(item))
    }

    pub(super) fn is_text(&self) -> bool {
        match self {
            Self::Text => true,
            Self::Place(schema) => schema.kind() == Kind::String && !is_time(schema),
            _ => false,
        }
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self, Self::List(_)) || matches!(self, Self::Place(schema) if schema.kind() == Kind::List)
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self, Self::Map(_)) || matches!(self, Self::Place(schema) if schema.kind() == Kind::Map)
    }

    /// Whether it may be what a rule has to be.
    pub(super) fn may_be_bool(&self) -> bool {
        match self {
            Self::Any | Self::Bool => true,
            Self::Place(schema) => matches!(schema.kind(), Kind::Boolean | Kind::IntOrString | Kind::Any),
            _ => false,
        }
    }

    /// Whether it may be a text.
    pub(super) fn may_be_text(&self) -> bool {
        let open = |schema: &Schema| matches!(schema.kind(), Kind::IntOrString | Kind::Any);
        self.is_text() || matches!(self, Self::Any) || matches!(self, Self::Place(schema) if open(schema))
    }

    /// Looking into it is counted.
    pub(super) fn is_looked_into(&self) -> bool {
        self.is_map() || matches!(self, Self::Place(schema) if schema.kind() == Kind::Object)
    }

    /// What an index into it gives.
    pub(super) fn inner(&self) -> Self {
        match self {
            Self::List(inner) | Self::Map(inner) => (**inner).clone(),
            Self::Optional(inner) => inner.inner(),
            Self::Place(schema) => schema.inner().map_or(Self::Any, Self::Place),
            _ => Self::Any,
        }
    }

    /// What an optional of it holds.
    pub(super) fn held(&self) -> Self {
        match self {
            Self::Optional(held) => (**held).clone(),
            _ => Self::Any,
        }
    }

    /// What a loop over it sees: items, or keys.
    pub(super) fn each(&self) -> Self {
        if self.is_map() { Self::Text } else { self.inner() }
    }

    /// The field as expressions name it; fails where there is none.
    pub(super) fn member(&self, field: &str) -> Result<Self, String> {
        match self {
            Self::Map(inner) => Ok((**inner).clone()),
            Self::Place(schema) => member(schema, field),
            Self::Optional(held) => held.member(field),
            Self::Any => Ok(Self::Any),
            _ => Err(format!("type does not support field selection: '{field}'")),
        }
    }

    /// The better known of two that should be alike.
    pub(super) fn or(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Any, _) => other,
            (Self::List(inner), Self::List(_)) if matches!(**inner, Self::Any) => other,
            (Self::List(inner), Self::Place(schema)) if matches!(**inner, Self::Any) && schema.kind() == Kind::List => {
                other
            }
            (Self::Map(inner), Self::Map(_)) if matches!(**inner, Self::Any) => other,
            _ => self,
        }
    }

    /// How large a value of the type can be where nothing more is known.
    pub(super) fn size(&self) -> Size {
        match self {
            Self::Place(schema) => Size::up_to(elements(schema)),
            Self::Text | Self::List(_) | Self::Map(_) => Size::UNKNOWN,
            Self::Any | Self::Bool | Self::Scalar | Self::Pair(_) | Self::Optional(_) | Self::Opaque => {
                Size::exactly(1)
            }
        }
    }
}

fn member(schema: &Schema, field: &str) -> Result<Known, String> {
    match schema.kind() {
        Kind::Map => Ok(schema.inner().map_or(Known::Any, Known::Place)),
        Kind::Object => {
            // Of an object's metadata only its names can be seen.
            let hidden = schema.definition() == Some(OBJECT_META) && !matches!(field, "name" | "generateName");
            let mut fields = schema.properties().filter(|_| !hidden);
            let found = fields.find(|(name, _)| escaped(name) == field).map(|(_, found)| found);
            // What has no type is not shown to expressions.
            let found = found.filter(|found| found.kind() != Kind::Any);
            found.map(Known::Place).ok_or_else(|| format!("undefined field '{field}'"))
        }
        Kind::Any | Kind::IntOrString => Ok(Known::Any),
        _ => Err(format!("type does not support field selection: '{field}'")),
    }
}

fn is_time(schema: &Schema) -> bool {
    matches!(schema.format(), Some("date" | "date-time" | "duration"))
}

/// The most characters, items or entries of a value in one request.
pub(super) fn elements(schema: &Schema) -> u64 {
    let checks = schema.checks();
    let longest = checks.and_then(|checks| checks.lengths.most);
    match schema.kind() {
        Kind::IntOrString => longest.map_or(REQUEST - 2, |most| most.saturating_mul(4)),
        Kind::List => bounded(schema).unwrap_or_else(|| (REQUEST - 2) / (inner_bytes(schema) + 1)),
        Kind::Map => bounded(schema).unwrap_or_else(|| (REQUEST - 2) / (inner_bytes(schema) + 6)),
        Kind::String => match (schema.format(), longest) {
            (Some("duration" | "date-time"), _) => 32,
            (Some("date"), _) => 12,
            (Some("byte"), Some(longest)) => longest,
            (_, Some(longest)) => longest.saturating_mul(4),
            (_, None) => allowed(schema).unwrap_or(REQUEST - 2),
        },
        Kind::Any | Kind::Boolean | Kind::Integer | Kind::Number | Kind::Object => 0,
    }
}

/// The longest of the texts that are allowed, where only some are.
fn allowed(schema: &Schema) -> Option<u64> {
    let texts = schema.checks()?.allowed.iter().filter_map(|value| value.as_str());
    texts.map(|text| text.len() as u64).max()
}

/// How many items or entries the schema itself allows; none without a bound.
pub(super) fn bounded(schema: &Schema) -> Option<u64> {
    let checks = schema.checks()?;
    if schema.kind() == Kind::List { checks.items.most } else { checks.properties.most }
}

fn inner_bytes(schema: &Schema) -> u64 {
    schema.inner().map_or(2, |inner| fewest_bytes(&inner))
}

/// The fewest bytes that a value takes in a request.
pub(super) fn fewest_bytes(schema: &Schema) -> u64 {
    match (schema.kind(), schema.format()) {
        (Kind::IntOrString | Kind::Integer | Kind::Number, _) => 1,
        (Kind::Boolean, _) => 4,
        (Kind::String, Some("duration")) => 3,
        (Kind::String, Some("date")) => 12,
        (Kind::String, Some("date-time")) => 21,
        (Kind::Object, _) => {
            let needed = schema.required().iter().filter_map(|name| Some((name, schema.field(name)?)));
            let needed = needed.filter(|(_, field)| field.default().is_none());
            2 + needed.map(|(name, field)| name.len() as u64 + fewest_bytes(&field) + 4).sum::<u64>()
        }
        _ => 2,
    }
}
