//! RFC 8259 by a table, with `serde_json` as a second judge, and by properties.

mod scalars;
mod structure;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

/// Documents by the rule that they are about.
struct Rule {
    /// The section of RFC 8259 and what it is about.
    name: &'static str,
    /// Whether `serde_json` has to come to the same verdict; not where this reader has a rule of its own.
    is_common: bool,
    accept: &'static [Row],
    refuse: &'static [Row],
}

/// A document, and what it is there for.
type Row = (&'static [u8], &'static str);

fn rules() -> impl Iterator<Item = &'static Rule> {
    structure::RULES.iter().chain(scalars::RULES)
}

fn check(input: &[u8], expect: Result<&str, &str>) {
    let result = validate(input).map_err(|error| error.to_string());
    assert_eq!(result, expect.map_err(str::to_owned), "{}", String::from_utf8_lossy(input));
}

/// What the second judge says of a text; it doesn't bound the depth.
fn second_judge(text: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(text).is_ok()
}

fn trimmed(text: &[u8]) -> &[u8] {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let is_kept = |byte: &u8| !b" \t\n\r".contains(byte);
    let begin = text.iter().position(is_kept).unwrap_or(text.len());
    let end = text.iter().rposition(is_kept).map_or(begin, |last| last + 1);
    &text[begin..end]
}

#[test]
fn every_rule_of_the_grammar_accepts_and_refuses_what_the_table_says() {
    let mut seen = std::collections::HashSet::new();
    for rule in rules() {
        let rows =
            rule.accept.iter().map(|row| (row, true)).chain(rule.refuse.iter().map(|row| (row, false)));
        for ((text, reason), is_valid) in rows {
            let shown = String::from_utf8_lossy(text);
            assert!(seen.insert(*text), "twice in the table: {shown}");
            match validate(text) {
                Ok(json) => {
                    assert!(is_valid, "accepted: {shown} ({}: {reason})", rule.name);
                    assert_eq!(json.as_bytes(), trimmed(text), "changed: {shown}");
                }
                Err(error) => assert!(!is_valid, "refused: {shown} ({}: {reason}): {error}", rule.name),
            }
            if rule.is_common {
                assert_eq!(second_judge(text), is_valid, "the second judge differs: {shown} ({reason})");
            }
        }
    }
    assert!(seen.len() >= 300, "{} documents", seen.len());
}

/// Every beginning of a document is refused, by both judges, unless it is a document itself.
#[test]
fn a_document_that_is_cut_off_anywhere_is_refused() {
    for text in [
        r#"{"a":[1,-2.5e+10,"\u00e9\n\\ é",true,false,null,{}],"b":{"c":[]}}"#,
        "[[[\"x\"]]]",
        "\"\\ud83d\\ude00 😀\"",
        "-0.5E-7",
        " [ 1 , { \"k\" : \"v\" } ] ",
        "false",
    ] {
        let text = text.as_bytes();
        let end = text.len() - text.iter().rev().take_while(|byte| **byte == b' ').count();
        let mut refused = 0;
        for length in 0..end {
            let begin = &text[..length];
            let is_valid = validate(begin).is_ok();
            assert_eq!(is_valid, second_judge(begin), "{}", String::from_utf8_lossy(begin));
            refused += usize::from(!is_valid);
        }
        // Only a number's beginning can be a number: `-0`, `-0.5`.
        let numbers = if text[0] == b'-' { 2 } else { 0 };
        assert_eq!(refused, end - numbers, "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn a_value_is_carried_as_it_was_written() {
    for text in [
        r#"{"b":1,"a":2,"b":3}"#,
        r#"{"id":12345678901234567890123,"price":1.50,"rate":1e400}"#,
        "{\n  \"spaced\" : [ 1 , 2 ]\n}",
        "\"\\ud800 lone surrogate, \\u00e9 and é\"",
        "0",
        "null",
    ] {
        check(text.as_bytes(), Ok(text));
    }
    check(b" \r\n\t[1] \n", Ok("[1]"));
    check(b"\xEF\xBB\xBF{}", Ok("{}"));
}

#[test]
fn a_malformed_text_is_refused_with_line_and_column() {
    for (input, expect) in [
        (&b"{\"a\":1,}"[..], "expected a member's name in quotes at line 1, column 8"),
        (b"{\n  \"a\": tru\n}", "expected `true`, `false` or `null` at line 2, column 8"),
        (b"{\"a\":1", "it ends too early at line 1, column 7"),
        (b"{\"a\":1} x", "expected nothing after the value at line 1, column 9"),
        (b"{\"a\":01}", "the number is malformed at line 1, column 7"),
        (b"\"\xC3\xA9\xC3\xA9\" x", "expected nothing after the value at line 1, column 6"),
        (b"[\"\n\"]", "a control character in a string at line 1, column 3"),
        (b"\"\xFF\"", "it isn't UTF-8 at line 1, column 2"),
        (b"[1,\n\"\xE2\x82\"]", "it isn't UTF-8 at line 2, column 2"),
        (b"\xEF\xBB\xBF \n [1 2]", "expected `,` or `]` at line 2, column 5"),
        (b"{\"a\" 1}", "expected `:` at line 1, column 6"),
        (b"{\"a\":1]", "expected `,` or `}` at line 1, column 7"),
        (b"<a/>", "expected a value at line 1, column 1"),
        (b"\"\\x\"", "the escape is malformed at line 1, column 2"),
    ] {
        let expect = format!("The JSON body is malformed: {expect}");
        check(input, Err(&expect));
    }
    check(b"", Err("The body is empty"));
    check(b" \n", Err("The body is empty"));
    check(b"\xEF\xBB\xBF", Err("The body is empty"));
}

#[test]
fn nesting_is_bounded_outside_strings() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    check(deep(64).as_bytes(), Ok(&deep(64)));
    let expect = "The JSON body is malformed: it nests deeper than 64 levels at line 1, column 65";
    check(deep(65).as_bytes(), Err(expect));
    check("[".repeat(1_000_000).as_bytes(), Err(expect));
    let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    check(objects(64).as_bytes(), Ok(&objects(64)));
    assert!(validate(objects(65).as_bytes()).is_err());
    let mixed = |pairs: usize| format!("{}[]{}", "[{\"a\":".repeat(pairs), "}]".repeat(pairs));
    check(mixed(31).as_bytes(), Ok(&mixed(31)));
    assert!(validate(mixed(32).as_bytes()).is_err(), "an array in 64 levels");
    // A level that was closed is free again.
    let wide = format!("[{}[]]", "[[]],".repeat(1000));
    check(wide.as_bytes(), Ok(&wide));
    let text = format!(r#"{{"a":"{}\"{}"}}"#, "[".repeat(500), "{".repeat(500));
    check(text.as_bytes(), Ok(&text));
}

/// A limit beyond the bits of one word: every level is still known for what it is.
#[test]
fn the_depth_may_be_raised() {
    for levels in [1, 63, 64, 65, 127, 128, 129, 200, 1000] {
        let kinds: Vec<bool> = (0..levels).map(|level| (level * level / 7) % 3 == 0).collect();
        let open: String = kinds.iter().map(|is_object| if *is_object { "{\"a\":" } else { "[" }).collect();
        let close = |kinds: &[bool]| -> String {
            kinds.iter().rev().map(|is_object| if *is_object { "}" } else { "]" }).collect()
        };
        let text = format!("{open}0{}", close(&kinds));
        assert_eq!(validate_within(text.as_bytes(), levels), Ok(text.as_str()));
        assert!(validate_within(text.as_bytes(), levels - 1).is_err(), "{levels} levels");
        for wrong in 0..levels {
            let mut others = kinds.clone();
            others[wrong] = !others[wrong];
            let text = format!("{open}0{}", close(&others));
            assert!(validate_within(text.as_bytes(), levels).is_err(), "level {wrong} of {levels}");
        }
    }
}

/// The scanner reads strings eight bytes at a time: what ends one is found at every place of such a step.
#[test]
fn a_string_ends_where_it_ends_at_every_offset() {
    for length in 0..40 {
        for plain in ["a", "\u{7f}", "é", "!", "#", "[", "]"] {
            let inner = plain.repeat(length);
            let text = format!("[\"{inner}\",\"{inner}\\\"{inner}\"]");
            check(text.as_bytes(), Ok(&text));
            for wrong in ["\0", "\u{1f}", "\n", "\\x", "\\"] {
                let text = format!("[\"{inner}{wrong}\"   ]");
                assert!(validate(text.as_bytes()).is_err(), "{text:?}");
            }
        }
    }
}

proptest! {
    /// Both judges agree on texts made of JSON's own characters, and what is accepted is carried as it came.
    #[test]
    fn both_judges_agree(text in "[\\[\\]{}\",:0-9aeftrulsn\\\\ \n.+-]{0,60}") {
        match validate(text.as_bytes()) {
            Ok(json) => {
                prop_assert!(second_judge(text.as_bytes()));
                prop_assert_eq!(json.as_bytes(), trimmed(text.as_bytes()));
            }
            Err(_) => prop_assert!(!second_judge(text.as_bytes())),
        }
    }

    /// Every document that `serde_json` writes comes out as the same value.
    #[test]
    fn every_document_comes_out_equal(value in documents(), pretty in any::<bool>()) {
        let write = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
        let text = write(&value).unwrap();
        let json = validate(text.as_bytes()).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(json, &text);
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(json).unwrap(), value);
    }

    /// A document with one byte changed is judged alike.
    #[test]
    fn damaged_documents_are_judged_alike(value in documents(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = serde_json::to_vec(&value).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        prop_assert_eq!(validate(&text).is_ok(), second_judge(&text));
    }

    /// Arbitrary bytes never panic.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = validate(&bytes);
    }
}

fn documents() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        "[\\\\\"/\u{0}-\u{1f}a-c😀]{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}
