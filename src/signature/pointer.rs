//! JSON pointers (RFC 6901) into a body, without a tree of it: what isn't on the way is skipped where it stands.
//!
//! A member that is there twice is no answer, because the reader behind the queue might choose the other one.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// How many values a pointer with `*` may find.
const VALUE_LIMIT: usize = 10_000;

/// The one string or number that a pointer leads to.
pub(crate) fn find(body: &[u8], pointer: &str) -> Option<String> {
    let [value] = <[String; 1]>::try_from(find_all(body, pointer)?).ok()?;
    Some(value)
}

/// All strings and numbers that a pointer leads to. In it `*` is every element of an array, or the value itself if it
/// is none; `+` is the only member of an object besides XML attributes (`@…`). None if anything on the way is missing
/// or something else.
pub(crate) fn find_all(body: &[u8], pointer: &str) -> Option<Vec<String>> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let steps: Vec<Cow<'_, str>> = pointer.split('/').skip(1).map(unescape).collect();
    let mut found = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(body);
    Walk { steps: &steps, found: &mut found }.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    (!found.is_empty()).then_some(found)
}

fn unescape(step: &str) -> Cow<'_, str> {
    if step.contains('~') { step.replace("~1", "/").replace("~0", "~").into() } else { step.into() }
}

struct Walk<'w> {
    steps: &'w [Cow<'w, str>],
    found: &'w mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.steps.is_empty() {
            let raw: &RawValue = serde::Deserialize::deserialize(deserializer)?;
            let text = scalar(raw.get()).ok_or_else(|| D::Error::custom("neither a string nor a number"))?;
            if self.found.len() == VALUE_LIMIT {
                return Err(D::Error::custom("too many values"));
            }
            self.found.push(text);
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

/// A string's text, or a number as it is written.
fn scalar(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok(),
        b'-' | b'0'..=b'9' => Some(json.to_owned()),
        _ => None,
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.steps.split_first() else { return Ok(()) };
        // An object in the place of an array of one: what XML gives for an element that comes once.
        let (name, rest) = match (step.as_ref(), rest.split_first()) {
            ("*", Some((next, after))) => (next, after),
            _ => (step, rest),
        };
        let mut seen = false;
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            let is_on_the_way = if name == "+" { !key.starts_with('@') } else { key == *name };
            if !is_on_the_way {
                map.next_value::<IgnoredAny>()?;
            } else if std::mem::replace(&mut seen, true) {
                return Err(A::Error::custom("a member is there twice"));
            } else {
                map.next_value_seed(Walk { steps: rest, found: self.found })?;
            }
        }
        if seen { Ok(()) } else { Err(A::Error::custom("a member is missing")) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.steps.split_first() else { return Ok(()) };
        if step == "*" {
            while sequence.next_element_seed(Walk { steps: rest, found: self.found })?.is_some() {}
            return Ok(());
        }
        let wanted: usize = step.parse().map_err(A::Error::custom)?;
        let mut index = 0;
        let mut seen = false;
        loop {
            let more = if index == wanted {
                seen = true;
                sequence.next_element_seed(Walk { steps: rest, found: self.found })?.is_some()
            } else {
                sequence.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                break;
            }
            index += 1;
        }
        if seen && index > wanted { Ok(()) } else { Err(A::Error::custom("an element is missing")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pointer_leads_to_one_string_or_number() {
        for (body, pointer, expect) in [
            (r#"{"id":"evt_1"}"#, "/id", Some("evt_1")),
            ("\u{FEFF}{\"id\":\"evt_1\"}", "/id", Some("evt_1")),
            (r#"{"id":12345678901234567890}"#, "/id", Some("12345678901234567890")),
            (r#"{"a":{"id":"x"},"id":"y"}"#, "/a/id", Some("x")),
            (r#"{"a":[{"id":1},{"id":"\u00e92"}]}"#, "/a/1/id", Some("é2")),
            (r#"{"a/b":{"~":"x"}}"#, "/a~1b/~0", Some("x")),
            (r#"{"id":null}"#, "/id", None),
            (r#"{"id":true}"#, "/id", None),
            (r#"{"id":{}}"#, "/id", None),
            (r#"{"id":1,"id":2}"#, "/id", None),
            (r#"{"i\u0064":1,"id":2}"#, "/id", None),
            (r#"{"id":1} x"#, "/id", None),
            (r#"{"id":1"#, "/id", None),
            (r#"[1,2]"#, "/2", None),
            (r#"[1,2]"#, "/x", None),
            (r#""text""#, "/id", None),
            ("", "/id", None),
        ] {
            assert_eq!(find(body.as_bytes(), pointer).as_deref(), expect, "{body} {pointer}");
        }
    }

    #[test]
    fn a_star_is_every_element() {
        let all = |body: &str| find_all(body.as_bytes(), "/value/*/state");
        let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(all(r#"{"value":[{"state":"a"},{"x":1,"state":"b"}]}"#), texts(&["a", "b"]));
        assert_eq!(all(r#"{"value":{"state":"a"}}"#), texts(&["a"]));
        for body in
            [r#"{"value":[]}"#, r#"{"value":[{"state":"a"},{}]}"#, r#"{"value":[1]}"#, r#"{"value":null}"#]
        {
            assert_eq!(all(body), None, "{body}");
        }
    }

    #[test]
    fn a_plus_is_the_only_member() {
        let only = |body: &str| find(body.as_bytes(), "/Body/+/Time");
        assert_eq!(only(r#"{"Body":{"@a":"x","GetItem":{"Time":"t"}}}"#).as_deref(), Some("t"));
        assert_eq!(only(r#"{"Body":{"A":{"Time":"t"},"B":{"Time":"u"}}}"#), None);
        assert_eq!(only(r#"{"Body":{"@a":"x"}}"#), None);
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let passed_over = format!("{{\"a\":{deep},\"id\":1}}");
        assert_eq!(find(passed_over.as_bytes(), "/id").as_deref(), Some("1"));
        assert_eq!(find(deep.as_bytes(), &"/0".repeat(50_000)), None);
    }

    proptest! {
        /// A string is found as it was, wherever it stands.
        #[test]
        fn strings_survive(text: String, other: String) {
            let body = serde_json::json!({"a": [other, {"b~/c": text}]}).to_string();
            prop_assert_eq!(find(body.as_bytes(), "/a/1/b~0~1c"), Some(text));
        }
    }
}
