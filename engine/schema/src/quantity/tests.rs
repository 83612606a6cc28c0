//! Canonical forms, refusals and rounding by table; order and round trips by property.

use proptest::prelude::*;

use super::*;

fn quantity(text: &str) -> Quantity {
    Quantity::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"))
}

#[test]
fn quantities_print_in_their_canonical_form() {
    let table = [
        ("0", "0"),
        ("0Gi", "0"),
        ("-0", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("1.0", "1"),
        ("1.5", "1500m"),
        (".5", "500m"),
        ("5.", "5"),
        ("1000", "1k"),
        ("1000m", "1"),
        ("1500k", "1500k"),
        ("1000k", "1M"),
        ("0.1", "100m"),
        ("100n", "100n"),
        ("1u", "1u"),
        ("0.0000000001", "1n"),
        ("-0.0000000001", "-1n"),
        ("1Ki", "1Ki"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("0.5Gi", "512Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("1.3Ki", "1331200m"),
        ("-2Gi", "-2Gi"),
        ("1Ei", "1Ei"),
        ("1025Ki", "1025Ki"),
        ("1e3", "1e3"),
        ("12e6", "12e6"),
        ("1E3", "1e3"),
        ("1e1", "10"),
        ("1e-3", "1e-3"),
        ("1E", "1E"),
        ("1e-999999999999", "1e-9"),
        ("2E6", "2e6"),
        ("9999E", "9999E"),
    ];
    for (text, canonical) in table {
        assert_eq!(quantity(text).to_string(), canonical, "for {text}");
    }
}

#[test]
fn what_is_no_quantity_is_refused_with_its_reason() {
    let malformed = ["", "-", ".", "m", "Gi", " 1", "--1", "+-1", "ä"];
    for text in malformed {
        assert_eq!(Quantity::parse(text), Err(QuantityError::Malformed(text.to_owned())));
    }
    for text in ["1.2.3", "1 ", "1K", "1ki", "1mi", "1Mb", "1e", "1ee3", "1e+", "1e1.5", "1Gi2", "1é"] {
        assert!(matches!(Quantity::parse(text), Err(QuantityError::Suffix { .. })), "{text}");
    }
    for text in ["1e30", "1e99999999999", "999999999999999Ei", &"9".repeat(40), &"0".repeat(65)] {
        assert!(matches!(Quantity::parse(text), Err(QuantityError::OutOfRange(_))), "{text}");
    }
}

#[test]
fn fractions_round_away_from_zero() {
    assert_eq!(quantity("1.0001").to_milli(), 1001);
    assert_eq!(quantity("-1.0001").to_milli(), -1001);
    assert_eq!(quantity("100m").to_units_rounded_up(), 1);
    assert_eq!(quantity("1n").to_milli(), 1);
    assert_eq!(quantity("64Mi").to_units(), 67_108_864);
}

#[test]
fn sums_keep_the_form_of_the_first_term() {
    let sum = quantity("1Gi").checked_add(&quantity("1k")).unwrap();
    assert_eq!(sum.to_string(), "1073742824");
    assert_eq!(Quantity::ZERO.checked_add(&quantity("2Ki")).unwrap().to_string(), "2Ki");
    assert_eq!(quantity("100m").checked_sub(&quantity("1")).unwrap().to_string(), "-900m");
    let most = Quantity { nanos: i128::MAX, format: Format::Decimal };
    assert_eq!(most.checked_add(&quantity("1n")), None);
}

#[test]
fn numbers_in_json_are_quantities_too() {
    assert_eq!(Quantity::from_value(&serde_json::json!(2)), Ok(quantity("2")));
    assert_eq!(Quantity::from_value(&serde_json::json!(0.5)), Ok(quantity("500m")));
    assert!(Quantity::from_value(&serde_json::json!([])).is_err());
}

proptest! {
    #[test]
    fn printing_and_reading_again_changes_nothing(whole in any::<i64>(), fraction in 0u32..1_000_000_000, suffix in 0usize..16) {
        let suffixes: Vec<&str> = DECIMAL.iter().map(|(name, _)| *name).chain(BINARY).collect();
        let text = format!("{}.{fraction:09}{}", whole / 1_000_000_000, suffixes[suffix]);
        let read = quantity(&text);
        let again = quantity(&read.to_string());
        prop_assert_eq!(read, again);
        prop_assert_eq!(read.to_string(), again.to_string());
    }

    #[test]
    fn comparison_agrees_with_exact_fractions(a in -1_000_000i64..1_000_000, p in 0u32..7, b in -1_000_000i64..1_000_000, q in 0u32..7) {
        let written = |value: i64, places: u32| {
            let scale = 10_i64.pow(places);
            let sign = if value < 0 { "-" } else { "" };
            let (whole, rest) = (value.abs() / scale, value.abs() % scale);
            if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest:0width$}", width = places as usize) }
        };
        let left = i128::from(a) * 10_i128.pow(q);
        let right = i128::from(b) * 10_i128.pow(p);
        prop_assert_eq!(quantity(&written(a, p)).cmp(&quantity(&written(b, q))), left.cmp(&right));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[-+0-9.eEinumkKMGTP ]{0,70}|\\PC{0,20}") {
        if let Ok(read) = Quantity::parse(&text) {
            prop_assert_eq!(Quantity::parse(&read.to_string()), Ok(read));
        }
    }
}
