//! NDJSON (ndjson-spec, JSON Lines): one JSON value a line becomes one array.
//!
//! Each value is carried byte for byte. Blank lines are passed over, as both descriptions of the format let a reader
//! do; the last line need not end in a line feed. The depth is that of a line: the array around the values isn't counted,
//! as the job's own objects aren't. RFC 7464 (`application/json-seq`) frames its values differently
//! and isn't this format.

use super::{Format, Limits, PayloadError, Position, json};

/// Converts NDJSON to the text of a JSON array.
///
/// # Errors
/// What is wrong with the first line that isn't one JSON value, and where; or that there is no value at all.
pub fn convert(body: &[u8], limits: &Limits) -> Result<Vec<u8>, PayloadError> {
    let body = body.strip_prefix(json::BYTE_ORDER_MARK).unwrap_or(body);
    let mut out = Vec::with_capacity(body.len() + 2);
    out.push(b'[');
    for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
        let value = match json::value(line, limits.depth) {
            Err(PayloadError::Empty) => continue,
            value => value.map_err(|error| at_line(error, index + 1))?,
        };
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(value.as_bytes());
    }
    if out.len() == 1 {
        return Err(PayloadError::Empty);
    }
    out.push(b']');
    Ok(out)
}

fn at_line(error: PayloadError, line: usize) -> PayloadError {
    match error {
        PayloadError::Malformed { message, position, .. } => PayloadError::Malformed {
            format: Format::NdJson,
            message,
            position: Position { line, column: position.column },
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn check(body: &[u8], expect: Result<&str, &str>) {
        let result = convert(body, &Limits::DEFAULT)
            .map(|json| String::from_utf8(json).unwrap())
            .map_err(|error| error.to_string());
        assert_eq!(result, expect.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn lines_become_an_array_of_values_as_they_were_written() {
        check(
            b"{\"id\":12345678901234567890,\"id\":1.50}\n[ 1 ]\n",
            Ok("[{\"id\":12345678901234567890,\"id\":1.50},[ 1 ]]"),
        );
        check(b"1\r\n\r\n \t\n  2  \r\n\"a\"", Ok("[1,2,\"a\"]"));
        check(b"\xEF\xBB\xBFnull", Ok("[null]"));
        check(b"", Err("The body is empty"));
        check(b"\n \r\n", Err("The body is empty"));
    }

    #[test]
    fn the_first_bad_line_is_named() {
        for (body, expect) in [
            (&b"{}\n\n{\"a\":}\n"[..], "expected a value at line 3, column 6"),
            (b"{}\n1 2", "expected nothing after the value at line 2, column 3"),
            (b"{}{}", "expected nothing after the value at line 1, column 3"),
            (b"{\n}", "it ends too early at line 1, column 2"),
            (b"1\r2", "expected nothing after the value at line 1, column 3"),
            (b"1\n\xFF", "it isn't UTF-8 at line 2, column 1"),
            (b"1\n\x0C\n", "expected a value at line 2, column 1"),
            (b"1\n\xEF\xBB\xBF2", "expected a value at line 2, column 1"),
            // RFC 7464.
            (b"\x1E{}\n", "expected a value at line 1, column 1"),
        ] {
            let expect = format!("The NDJSON body is malformed: {expect}");
            check(body, Err(&expect));
        }
    }

    #[test]
    fn the_depth_is_that_of_a_line() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        check(deep(64).as_bytes(), Ok(&deep(65)));
        let expect = "The NDJSON body is malformed: it nests deeper than 64 levels at line 2, column 65";
        check(format!("1\n{}", deep(65)).as_bytes(), Err(expect));
    }

    proptest! {
        /// Values come out as they went in, in their order, whatever blank lines and white space are between them.
        #[test]
        fn values_survive(lines in prop::collection::vec(
            prop::sample::select(vec!["", " ", "\r", "1", " -0.0e9 ", "\"\\u00e9é\"", "{\"a\": [ ],\"a\":2}\r", "[null,true]"]),
            1..20,
        )) {
            let values: Vec<&str> = lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
            match convert(lines.join("\n").as_bytes(), &Limits::DEFAULT) {
                Ok(json) => prop_assert_eq!(String::from_utf8(json).unwrap(), format!("[{}]", values.join(","))),
                Err(error) => prop_assert!(values.is_empty() && error == PayloadError::Empty),
            }
        }

        /// Arbitrary bytes never panic, and what comes out is JSON.
        #[test]
        fn arbitrary_bytes_give_json_or_an_error(bytes in prop::collection::vec(prop::sample::select(b"[]{},:\"1\\ \n\r\xC3".to_vec()), 0..60)) {
            if let Ok(json) = convert(&bytes, &Limits::DEFAULT) {
                prop_assert!(serde_json::from_slice::<Box<RawValue>>(&json).is_ok());
            }
        }
    }
}
