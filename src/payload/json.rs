//! JSON is validated and carried byte for byte: numbers of any size, key order and duplicate keys survive.

use serde_json::value::RawValue;

use super::{Format, PayloadError, Position, position_of};

/// How deep arrays and objects may nest unless the settings say otherwise. Consumers stop between 64 and 512;
/// serde_json's own reader has no stack to overflow, theirs may.
pub const DEPTH_LIMIT: usize = super::Limits::DEFAULT.depth;

/// Some senders write a byte order mark, which RFC 8259 (section 8.1) lets a reader ignore.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Checks that a body is one JSON value (RFC 8259) and returns its text without white space around it.
///
/// # Errors
/// What is wrong, and in which line and column.
pub fn validate(body: &[u8]) -> Result<&str, PayloadError> {
    validate_within(body, DEPTH_LIMIT)
}

/// The same with another limit of the depth.
///
/// # Errors
/// What is wrong, and in which line and column.
pub fn validate_within(body: &[u8], depth_limit: usize) -> Result<&str, PayloadError> {
    value(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body), depth_limit)
}

/// The same without the grace for a byte order mark.
pub(super) fn value(body: &[u8], depth_limit: usize) -> Result<&str, PayloadError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| malformed("it isn't UTF-8", position_of(body, error.valid_up_to())))?;
    if text.bytes().all(is_white_space) {
        return Err(PayloadError::Empty);
    }
    check_depth(text, depth_limit)?;
    let value: &RawValue = serde_json::from_str(text).map_err(|error| syntax_error(text, &error))?;
    Ok(value.get())
}

fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Counts brackets outside strings. Runs before the reader, so it can't rely on a valid text: it only ever errs on
/// texts that the reader refuses.
fn check_depth(text: &str, limit: usize) -> Result<(), PayloadError> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut in_string = false;
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        match byte {
            b'"' => in_string = !in_string,
            // The character after a backslash can't end the string.
            b'\\' if in_string => index += 1,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > limit {
                    let message = format!("it nests deeper than {limit} levels");
                    return Err(malformed(&message, position_of(bytes, index)));
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        index += 1;
    }
    Ok(())
}

/// serde_json's words without its own position, whose column counts bytes.
fn syntax_error(text: &str, error: &serde_json::Error) -> PayloadError {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let line_start: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    // The column counts bytes that were read, so a line end that was one byte too many is column 0 of the next line.
    let offset = (line_start + error.column()).saturating_sub(1);
    malformed(message, position_of(text.as_bytes(), offset.min(text.len())))
}

fn malformed(message: &str, position: Position) -> PayloadError {
    PayloadError::Malformed { format: Format::Json, message: message.to_owned(), position }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(input: &[u8], expect: Result<&str, &str>) {
        let result = validate(input).map_err(|error| error.to_string());
        assert_eq!(result, expect.map_err(str::to_owned), "{}", String::from_utf8_lossy(input));
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
            (&b"{\"a\":1,}"[..], "key must be a string at line 1, column 8"),
            (b"{\n  \"a\": tru\n}", "expected ident at line 2, column 11"),
            (b"{\"a\":1", "EOF while parsing an object at line 1, column 6"),
            (b"{\"a\":1} x", "trailing characters at line 1, column 9"),
            (b"{\"a\":01}", "invalid number at line 1, column 7"),
            (b"\"\xC3\xA9\xC3\xA9\" x", "trailing characters at line 1, column 6"),
            (
                b"[\"\n\"]",
                "control character (\\u0000-\\u001F) found while parsing a string at line 1, column 2",
            ),
            (b"\"\xFF\"", "it isn't UTF-8 at line 1, column 2"),
            (b"[1,\n\"\xE2\x82\"]", "it isn't UTF-8 at line 2, column 2"),
        ] {
            let expect = format!("The JSON body is malformed: {expect}");
            check(input, Err(&expect));
        }
        check(b"", Err("The body is empty"));
        check(b" \n", Err("The body is empty"));
    }

    #[test]
    fn nesting_is_bounded_outside_strings() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        check(deep(64).as_bytes(), Ok(&deep(64)));
        let expect = "The JSON body is malformed: it nests deeper than 64 levels at line 1, column 65";
        check(deep(65).as_bytes(), Err(expect));
        check("[".repeat(1_000_000).as_bytes(), Err(expect));
        let text = format!(r#"{{"a":"{}\"{}"}}"#, "[".repeat(500), "{".repeat(500));
        check(text.as_bytes(), Ok(&text));
    }

    proptest! {
        /// Whatever serde_json reads as a value comes out as the same value, and nothing panics. There is no exponent
        /// among the characters: a `Value` refuses numbers that a float can't hold, and they are carried here.
        #[test]
        fn accepted_texts_are_values(text in "[\\[\\]{}\",:0-9a-df-z\\\\ \n.+-]{0,60}") {
            if let Ok(json) = validate(text.as_bytes()) {
                let value: serde_json::Value = serde_json::from_str(json).map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(value, serde_json::from_str::<serde_json::Value>(&text).unwrap());
            } else if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
                return Err(TestCaseError::fail(format!("refused {value}")));
            }
        }

        /// Arbitrary bytes never panic.
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = validate(&bytes);
        }
    }
}
