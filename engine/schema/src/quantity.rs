//! Amounts of a resource, such as `500m`, `1.5Gi` or `2e3`, held exactly.
//!
//! A quantity is a whole number of nano units in an `i128`; what is finer than a nano unit is rounded away from zero,
//! as Kubernetes does. Whatever does not fit is an error; nothing wraps, saturates or passes through a float.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde_json::Value;
use thiserror::Error;

/// Nano units in one unit.
const NANO: i128 = 1_000_000_000;
/// No written quantity is longer; longer text is refused before it is looked at.
const TEXT_MAX: usize = 64;
/// Binary suffixes: the n-th stands for 1024 to the power n+1.
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// Decimal suffixes and their power of ten.
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// Why a text is no quantity.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QuantityError {
    /// Neither a number nor a number with a suffix.
    #[error("{0:?} is no quantity: write a number with an optional suffix, such as 500m, 2 or 1.5Gi")]
    Malformed(String),
    /// The number is fine, what follows it is not.
    #[error("{text:?} ends in the unknown suffix {suffix:?}: use n u m k M G T P E, Ki Mi Gi Ti Pi Ei or an exponent")]
    Suffix {
        /// The whole text.
        text: String,
        /// What follows the number.
        suffix: String,
    },
    /// Too large, or with more digits than can be held exactly.
    #[error("{0:?} is out of the range of quantities")]
    OutOfRange(String),
}

/// How a quantity was written, which is how it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// An exact amount; compares by value, whatever the suffix was.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Nothing at all.
    pub const ZERO: Self = Self { nanos: 0, format: Format::Decimal };

    /// Whole units, such as cores or pods.
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO, format: Format::Decimal }
    }

    /// Thousandths, such as milli cores.
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1000), format: Format::Decimal }
    }

    /// Bytes, printed with a binary suffix where that is exact.
    pub fn from_bytes(bytes: u64) -> Self {
        Self { nanos: i128::from(bytes) * NANO, format: Format::Binary }
    }

    /// Reads what a manifest may hold.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.len() > TEXT_MAX {
            return Err(QuantityError::OutOfRange(text.chars().take(TEXT_MAX).collect()));
        }
        let number = Number::split(text).ok_or_else(|| QuantityError::Malformed(text.to_owned()))?;
        let (format, scale) = Scale::of(number.suffix)
            .ok_or_else(|| QuantityError::Suffix { text: text.to_owned(), suffix: number.suffix.to_owned() })?;
        let nanos = number.nanos(scale).ok_or_else(|| QuantityError::OutOfRange(text.to_owned()))?;
        Ok(Self { nanos, format })
    }

    /// Reads a JSON string, or a JSON number, which YAML makes of an unquoted `2` or `0.5`.
    pub fn from_value(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            other => Err(QuantityError::Malformed(other.to_string().chars().take(TEXT_MAX).collect())),
        }
    }

    /// Thousandths, rounded away from zero.
    pub fn to_milli(&self) -> i128 {
        div_away(self.nanos, NANO / 1000)
    }

    /// Whole units, rounded away from zero.
    pub fn to_units(&self) -> i128 {
        div_away(self.nanos, NANO)
    }

    /// The same as [`Quantity::to_units`], under the name that says so.
    pub fn to_units_rounded_up(&self) -> i128 {
        self.to_units()
    }

    /// Nano units, exactly.
    pub fn to_nanos(&self) -> i128 {
        self.nanos
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is below nothing.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// The sum, or `None` beyond the range; printed like `self`, or like `other` where `self` is zero.
    #[must_use]
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        let format = if self.is_zero() { other.format } else { self.format };
        Some(Self { nanos: self.nanos.checked_add(other.nanos)?, format })
    }

    /// The difference, or `None` beyond the range.
    #[must_use]
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        let format = if self.is_zero() { other.format } else { self.format };
        Some(Self { nanos: self.nanos.checked_sub(other.nanos)?, format })
    }
}

/// A text taken apart: sign, digits before and after the point, suffix.
struct Number<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Number<'a> {
    fn split(text: &'a str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, rest) = digits(rest);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => digits(rest),
            None => ("", rest),
        };
        (!whole.is_empty() || !fraction.is_empty()).then_some(Self { negative, whole, fraction, suffix })
    }

    fn nanos(&self, scale: Scale) -> Option<i128> {
        let fraction = self.fraction.trim_end_matches('0');
        let mut mantissa: i128 = 0;
        for digit in self.whole.bytes().chain(fraction.bytes()) {
            mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        }
        let places = i32::try_from(fraction.len()).ok()?;
        let (factor, power) = match scale {
            Scale::Binary(times) => (1_i128 << (10 * times), 9),
            Scale::Decimal(power) => (1, power.checked_add(9)?),
        };
        let nanos = shift_decimal(mantissa.checked_mul(factor)?, power - places)?;
        Some(if self.negative { -nanos } else { nanos })
    }
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// `value * 10^power` for a value that is not negative, rounded up.
fn shift_decimal(value: i128, power: i32) -> Option<i128> {
    if value == 0 {
        return Some(0);
    }
    match 10_i128.checked_pow(power.unsigned_abs()) {
        Some(factor) if power >= 0 => value.checked_mul(factor),
        Some(factor) => Some(div_away(value, factor)),
        // Below every digit of the value.
        None if power < 0 => Some(1),
        None => None,
    }
}

fn div_away(value: i128, by: i128) -> i128 {
    let whole = value / by;
    if value % by == 0 { whole } else { whole + value.signum() }
}

#[derive(Clone, Copy)]
enum Scale {
    /// A power of 1024.
    Binary(u32),
    /// A power of ten.
    Decimal(i32),
}

impl Scale {
    fn of(suffix: &str) -> Option<(Format, Self)> {
        if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
            return Some((Format::Decimal, Self::Decimal(*power)));
        }
        if let Some(at) = BINARY.iter().position(|name| *name == suffix) {
            return Some((Format::Binary, Self::Binary(u32::try_from(at).ok()? + 1)));
        }
        let exponent = suffix.strip_prefix(['e', 'E'])?;
        // `i32::from_str` takes a sign; three digits are far beyond the range already.
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let plain = !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit());
        let power = match exponent.parse::<i32>() {
            Ok(power) => power.clamp(-999, 999),
            Err(_) if plain => {
                if exponent.starts_with('-') {
                    -999
                } else {
                    999
                }
            }
            Err(_) => return None,
        };
        Some((Format::Exponent, Self::Decimal(power)))
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that leaves a whole number in front of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let large = self.nanos.unsigned_abs() >= 1024 * NANO.unsigned_abs();
        if self.format == Format::Binary && large && self.nanos % NANO == 0 {
            return write_binary(f, self.nanos / NANO);
        }
        write_decimal(f, self.nanos, self.format == Format::Exponent)
    }
}

fn write_binary(f: &mut fmt::Formatter<'_>, mut units: i128) -> fmt::Result {
    let mut suffix = "";
    for name in BINARY {
        if units % 1024 != 0 {
            break;
        }
        units /= 1024;
        suffix = name;
    }
    write!(f, "{units}{suffix}")
}

fn write_decimal(f: &mut fmt::Formatter<'_>, nanos: i128, exponent: bool) -> fmt::Result {
    let mut mantissa = nanos;
    let mut at = 0;
    while at + 1 < DECIMAL.len() && mantissa % 1000 == 0 {
        mantissa /= 1000;
        at += 1;
    }
    match DECIMAL[at] {
        (_, 0) => write!(f, "{mantissa}"),
        (_, power) if exponent => write!(f, "{mantissa}e{power}"),
        (suffix, _) => write!(f, "{mantissa}{suffix}"),
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

#[cfg(test)]
mod tests;
