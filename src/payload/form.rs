//! Form bodies (`application/x-www-form-urlencoded`, WHATWG URL, section 5.1) become an object.
//!
//! Every value is a string; a repeated key becomes an array at the place of its first appearance. Unlike the
//! standard, bytes that aren't UTF-8 are refused rather than replaced: a job never holds what wasn't sent.

use std::borrow::Cow;
use std::collections::HashMap;

use percent_encoding::percent_decode;

use super::{Format, PayloadError, Position};

/// How many `key=value` pairs a form may have unless the settings say otherwise.
pub const PAIR_LIMIT: usize = super::Limits::DEFAULT.form_fields;

/// Converts a form to the text of a JSON object.
///
/// # Errors
/// Names the column of a key or value that isn't UTF-8, or of the pair over the limit.
pub fn convert(body: &[u8]) -> Result<Vec<u8>, PayloadError> {
    convert_within(body, PAIR_LIMIT)
}

/// The same with another limit of the pairs.
///
/// # Errors
/// Names the column of a key or value that isn't UTF-8, or of the pair over the limit.
pub fn convert_within(body: &[u8], pair_limit: usize) -> Result<Vec<u8>, PayloadError> {
    let mut object = Object::default();
    let mut column = 1;
    let mut pairs = 0;
    for pair in body.split(|byte| *byte == b'&') {
        if !pair.is_empty() {
            pairs += 1;
            if pairs > pair_limit {
                return Err(malformed(&format!("it has more than {pair_limit} pairs"), column));
            }
            let (key, value) = split_pair(pair);
            object.add(decode(key, column)?, decode(value, column)?);
        }
        column += pair.len() + 1;
    }
    let mut json = Vec::with_capacity(body.len() + body.len() / 2);
    object.write(&mut json, |json, value| crate::job::write_string(json, value));
    Ok(json)
}

/// Names with their values, in the order in which the names came first.
#[derive(Debug)]
pub(super) struct Object<'a, V> {
    names: Vec<Cow<'a, str>>,
    values: Vec<Vec<V>>,
    index_of: HashMap<Cow<'a, str>, usize>,
}

impl<V> Default for Object<'_, V> {
    fn default() -> Self {
        Object { names: Vec::new(), values: Vec::new(), index_of: HashMap::new() }
    }
}

impl<'a, V> Object<'a, V> {
    pub(super) fn add(&mut self, name: Cow<'a, str>, value: V) {
        let Object { names, values, index_of } = self;
        let index = *index_of.entry(name.clone()).or_insert_with(|| {
            names.push(name);
            values.push(Vec::new());
            names.len() - 1
        });
        values[index].push(value);
    }

    /// Writes a JSON object; several values of one name are an array.
    pub(super) fn write(&self, json: &mut Vec<u8>, write_value: impl Fn(&mut Vec<u8>, &V)) {
        json.push(b'{');
        for (index, (name, values)) in self.names.iter().zip(&self.values).enumerate() {
            if index > 0 {
                json.push(b',');
            }
            crate::job::write_string(json, name);
            json.push(b':');
            if let [value] = values.as_slice() {
                write_value(json, value);
                continue;
            }
            json.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                write_value(json, value);
            }
            json.push(b']');
        }
        json.push(b'}');
    }
}

fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(equals) => (&pair[..equals], &pair[equals + 1..]),
        None => (pair, b""),
    }
}

fn decode(text: &[u8], column: usize) -> Result<Cow<'_, str>, PayloadError> {
    let spaced: Cow<'_, [u8]> = if text.contains(&b'+') {
        Cow::Owned(text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect())
    } else {
        Cow::Borrowed(text)
    };
    let decoded = match spaced {
        Cow::Borrowed(text) => percent_decode(text).into(),
        Cow::Owned(text) => Cow::Owned(percent_decode(&text).collect()),
    };
    let not_utf8 = || malformed("a pair isn't UTF-8", column);
    match decoded {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| not_utf8()),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| not_utf8()),
    }
}

fn malformed(message: &str, column: usize) -> PayloadError {
    PayloadError::Malformed {
        format: Format::Form,
        message: message.to_owned(),
        position: Position { line: 1, column },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(input: &[u8], expect: Result<&str, &str>) {
        let result =
            convert(input).map(|json| String::from_utf8(json).unwrap()).map_err(|error| error.to_string());
        assert_eq!(result, expect.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn a_form_becomes_an_object_of_strings() {
        check(b"webhook_id=7", Ok(r#"{"webhook_id":"7"}"#));
        check(b"b=2&a=1&b=3", Ok(r#"{"b":["2","3"],"a":"1"}"#));
        check(b"a+b=c%20d%2B&e", Ok(r#"{"a b":"c d+","e":""}"#));
        check(b"&&a=1&", Ok(r#"{"a":"1"}"#));
        check(b"a=b=c&=x", Ok(r#"{"a":"b=c","":"x"}"#));
        check("n=é&m=%C3%A9&q=%22%5C%01".as_bytes(), Ok(r#"{"n":"é","m":"é","q":"\"\\\u0001"}"#));
        check(b"bad=%zz%4", Ok(r#"{"bad":"%zz%4"}"#));
        check(b"", Ok("{}"));
    }

    #[test]
    fn what_is_not_utf8_is_refused_at_its_pair() {
        check(b"a=1&b=%FF", Err("The form body is malformed: a pair isn't UTF-8 at line 1, column 5"));
        check(b"a=1&b\xC3=2", Err("The form body is malformed: a pair isn't UTF-8 at line 1, column 5"));
    }

    #[test]
    fn pairs_are_bounded() {
        assert!(convert("a=1&".repeat(PAIR_LIMIT).as_bytes()).is_ok());
        assert!(convert("a=1&".repeat(PAIR_LIMIT + 1).as_bytes()).is_err());
    }

    proptest! {
        /// What goes in as pairs comes out as members, in the order of first appearance.
        #[test]
        fn pairs_survive(pairs in prop::collection::vec(("[a-e]{1,2}", "\\PC{0,8}"), 1..20)) {
            let body: Vec<String> = pairs
                .iter()
                .map(|(key, value)| {
                    let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
                    format!("{key}={value}")
                })
                .collect();
            let json = convert(body.join("&").as_bytes()).unwrap();
            let object: serde_json::Value = serde_json::from_slice(&json).unwrap();
            for (key, _) in &pairs {
                let sent: Vec<&String> = pairs.iter().filter(|pair| pair.0 == *key).map(|pair| &pair.1).collect();
                let expect = match sent.as_slice() {
                    [value] => serde_json::json!(value),
                    values => serde_json::json!(values),
                };
                prop_assert_eq!(&object[key], &expect);
            }
        }

        /// Arbitrary bytes never panic, and what comes out is JSON.
        #[test]
        fn arbitrary_bytes_give_json_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(json) = convert(&bytes) {
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
            }
        }
    }
}
