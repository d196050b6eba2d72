//! Answers in RESP, version 2 (the Redis serialization protocol specification).

use redis::{ErrorKind, RedisError, Value};

/// How deep arrays may nest: the gateway's scripts and commands need three.
const DEPTH_LIMIT: usize = 8;

/// The longest line: a length, a number, or an error message.
const LINE_LIMIT_BYTES: usize = 64 << 10;

/// The longest bulk string, and the longest array.
const LENGTH_LIMIT: usize = 64 << 20;

/// Reads the first answer and its length in bytes. None if it isn't all there.
///
/// # Errors
/// It isn't RESP.
pub fn parse(bytes: &[u8]) -> Result<Option<(Value, usize)>, RedisError> {
    let mut at = 0;
    Ok(value(bytes, &mut at, DEPTH_LIMIT)?.map(|value| (value, at)))
}

fn value(bytes: &[u8], at: &mut usize, depth: usize) -> Result<Option<Value>, RedisError> {
    let begin = *at;
    let Some(line) = line(bytes, at)? else { return Ok(None) };
    let Some((kind, text)) = line.split_first() else { return Err(malformed()) };
    Ok(Some(match kind {
        b'+' if text == b"OK" => Value::Okay,
        b'+' => Value::SimpleString(String::from_utf8_lossy(text).into_owned()),
        b':' => Value::Int(number(text)?),
        b'-' => redis::parse_redis_value(&bytes[begin..*at])?,
        b'$' => match length(text)? {
            None => Value::Nil,
            Some(length) => {
                let end = *at + length;
                let Some(ending) = bytes.get(end..end + 2) else { return Ok(None) };
                if ending != b"\r\n" {
                    return Err(malformed());
                }
                let content = bytes[*at..end].to_vec();
                *at = end + 2;
                Value::BulkString(content)
            }
        },
        b'*' if depth > 0 => match length(text)? {
            None => Value::Nil,
            Some(length) => {
                // An element takes four bytes at the least, so what is there bounds what is set aside.
                let mut elements = Vec::with_capacity(length.min((bytes.len() - *at) / 4));
                for _ in 0..length {
                    match value(bytes, at, depth - 1)? {
                        Some(element) => elements.push(element),
                        None => return Ok(None),
                    }
                }
                Value::Array(elements)
            }
        },
        _ => return Err(malformed()),
    }))
}

/// A line without its end.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, RedisError> {
    let rest = bytes.get(*at..).unwrap_or_default();
    let Some(length) = rest.iter().position(|byte| *byte == b'\r') else {
        return if rest.len() > LINE_LIMIT_BYTES { Err(malformed()) } else { Ok(None) };
    };
    match rest.get(length + 1) {
        None => Ok(None),
        Some(b'\n') => {
            *at += length + 2;
            Ok(Some(&rest[..length]))
        }
        Some(_) => Err(malformed()),
    }
}

fn number(text: &[u8]) -> Result<i64, RedisError> {
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    text.parse().map_err(|_| malformed())
}

/// None for -1, which stands for nothing at all.
fn length(text: &[u8]) -> Result<Option<usize>, RedisError> {
    match number(text)? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).ok().filter(|length| *length <= LENGTH_LIMIT);
            length.map(Some).ok_or_else(malformed)
        }
    }
}

fn malformed() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "the server's answer isn't RESP; is it a Redis?").into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply() -> impl Strategy<Value = Vec<u8>> {
        let line =
            |kind: &'static str| "[ -~]{0,12}".prop_map(move |text| format!("{kind}{text}\r\n").into_bytes());
        let bulk = proptest::collection::vec(any::<u8>(), 0..20)
            .prop_map(|content| [format!("${}\r\n", content.len()).as_bytes(), &content, b"\r\n"].concat());
        let leaf = prop_oneof![
            line("+"),
            "[A-Z]{2,8} [a-z ]{0,9}".prop_map(|text| format!("-{text}\r\n").into_bytes()),
            any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
            bulk,
            Just(b"$-1\r\n".to_vec()),
            Just(b"*-1\r\n".to_vec()),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            proptest::collection::vec(inner, 0..6).prop_map(|elements| {
                [format!("*{}\r\n", elements.len()).into_bytes(), elements.concat()].concat()
            })
        })
    }

    proptest! {
        /// Answers are read as the client library reads them, wherever they are cut, and whatever follows.
        #[test]
        fn answers_are_read_as_the_library_reads_them(reply in reply(), behind: [u8; 3]) {
            let expect = redis::parse_redis_value(&reply).unwrap();
            let all = [&reply[..], &behind].concat();
            prop_assert_eq!(parse(&all).unwrap(), Some((expect, reply.len())));
            for cut in 0..reply.len() {
                prop_assert_eq!(parse(&reply[..cut]).unwrap(), None);
            }
        }

        /// Nothing panics, and nothing is read beyond its end.
        #[test]
        fn any_bytes_are_an_answer_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }

    #[test]
    fn what_isnt_resp_is_an_error() {
        for text in [
            "HTTP/1.1 400 Bad Request\r\n",
            "\r\n",
            "$x\r\n",
            "$-2\r\n",
            "$1\r\nabc",
            "+a\rb",
            ":1.5\r\n",
            "%1\r\n",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        let deep = "*1\r\n".repeat(DEPTH_LIMIT + 1);
        assert!(parse(deep.as_bytes()).is_err());
        assert!(parse(format!("*{}\r\n", LENGTH_LIMIT + 1).as_bytes()).is_err());
        assert!(parse(&vec![b'+'; LINE_LIMIT_BYTES + 1]).is_err());
    }
}
