use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::payload::xml::{Arrays, Root, XmlLimits, XmlOptions, convert, decode};

#[derive(Debug, Clone)]
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    content: Vec<Content>,
}

#[derive(Debug, Clone)]
enum Content {
    Text(String),
    Cdata(String),
    Comment,
    LineEnd,
    Child(Element),
}

fn text() -> impl Strategy<Value = String> {
    "[a-c<>&'\"\\]\\\\ \t\n\r\u{a0}\u{3000}é😀]{0,8}"
}

fn attributes() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::btree_map("[a-c]|x:[ab]", text(), 0..3)
        .prop_map(|attributes| attributes.into_iter().collect())
}

fn element() -> impl Strategy<Value = Element> {
    let leaf = ("[a-d]|s:[ab]", attributes()).prop_map(|(name, attributes)| Element {
        name,
        attributes,
        content: Vec::new(),
    });
    leaf.prop_recursive(5, 60, 6, |child| {
        let content = prop_oneof![
            text().prop_map(Content::Text),
            "[a-c<& ]{0,4}".prop_map(Content::Cdata),
            Just(Content::Comment),
            Just(Content::LineEnd),
            child.prop_map(Content::Child),
        ];
        let parts = ("[a-d]|s:[ab]", attributes(), prop::collection::vec(content, 0..6));
        parts.prop_map(|(name, attributes, content)| Element { name, attributes, content })
    })
}

fn write_xml(element: &Element, out: &mut String) {
    let escape = |text: &str, out: &mut String| {
        for character in text.chars() {
            match character {
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '&' => out.push_str("&amp;"),
                '\'' | '\t' | '\n' | '\r' => out.push_str(&format!("&#{};", character as u32)),
                _ => out.push(character),
            }
        }
    };
    out.push_str(&format!("<{}", element.name));
    for (name, value) in &element.attributes {
        out.push_str(&format!(" {name}='"));
        escape(value, out);
        out.push('\'');
    }
    out.push('>');
    for content in &element.content {
        match content {
            Content::Text(text) => escape(text, out),
            Content::Cdata(text) => out.push_str(&format!("<![CDATA[{text}]]>")),
            Content::Comment => out.push_str("<!-- <a> & -->"),
            Content::LineEnd => out.push_str("\r\n"),
            Content::Child(child) => write_xml(child, out),
        }
    }
    out.push_str(&format!("</{}>", element.name));
}

/// The value of an element, built as the conventions say and without regard to speed.
fn value_of(element: &Element) -> Value {
    let mut members = Map::new();
    let mut text = String::new();
    for (name, value) in &element.attributes {
        members.insert(format!("@{name}"), Value::from(value.as_str()));
    }
    for content in &element.content {
        match content {
            Content::Text(part) | Content::Cdata(part) => text.push_str(part),
            Content::Comment => {}
            Content::LineEnd => text.push('\n'),
            Content::Child(child) => {
                let value = value_of(child);
                match members.get_mut(&child.name) {
                    Some(Value::Array(values)) => values.push(value),
                    Some(first) => *first = Value::from(vec![first.take(), value]),
                    None => {
                        members.insert(child.name.clone(), value);
                    }
                }
            }
        }
    }
    let text = text.trim();
    match (members.is_empty(), text.is_empty()) {
        (true, true) => Value::Null,
        (true, false) => Value::from(text),
        (false, true) => Value::from(members),
        (false, false) => {
            members.insert("#text".to_owned(), Value::from(text));
            Value::from(members)
        }
    }
}

fn options() -> impl Strategy<Value = XmlOptions> {
    let force_list = prop::collection::vec("[a-d]|[ab]\\.[ab]|", 0..3);
    let keys = ("|@|a", "|#text|a|@a");
    (force_list, any::<[bool; 4]>(), keys).prop_map(|(force_list, flags, keys)| XmlOptions {
        force_list,
        arrays: if flags[0] { Arrays::Always } else { Arrays::WhenRepeated },
        strip_prefixes: flags[1],
        keep_whitespace: flags[2],
        root: if flags[3] { Root::Unwrap } else { Root::Keep },
        attribute_prefix: keys.0,
        text_key: keys.1,
    })
}

/// Text made of what a scanner might stumble over.
fn markup() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        prop::sample::select(vec![
            "<a>",
            "</a>",
            "<a/>",
            "<b",
            ">",
            "/>",
            " a='",
            "'",
            "\"",
            "=",
            "&",
            ";",
            "&lt;",
            "&#x",
            "<!--",
            "--",
            "-->",
            "<![CDATA[",
            "]]>",
            "]",
            "<?",
            "?>",
            "<?xml version='1.0'",
            "\r",
            "<!DOCTYPE a",
            "[",
            "xmlns:x",
            "é",
            "\u{ffff}",
            "\u{0}",
            "\n",
            " ",
            "😀",
            "\u{feff}",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(part, 0..30).prop_map(|parts| parts.concat())
}

proptest! {
    /// A generated tree gives the value that the test builds from the tree itself.
    #[test]
    fn tree_gives_its_value(root in element()) {
        let mut xml = String::new();
        write_xml(&root, &mut xml);
        let json = convert(&xml, &XmlOptions::default(), &XmlLimits::default()).unwrap();
        let expected = Value::from(Map::from_iter([(root.name.clone(), value_of(&root))]));
        // Compared as text, since the order of members matters.
        prop_assert_eq!(json, expected.to_string());
    }

    /// Under any options the JSON is valid and no object has a key twice: reading it and
    /// writing it again changes nothing.
    #[test]
    fn json_is_valid(root in element(), options in options()) {
        let mut xml = String::new();
        write_xml(&root, &mut xml);
        let json = convert(&xml, &options, &XmlLimits::default()).unwrap();
        let value: Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(value.to_string(), json);
    }

    /// No text makes the converter panic, and what it accepts becomes valid JSON.
    #[test]
    fn no_text_panics(text in markup(), options in options()) {
        for xml in [text.clone(), format!("<a>{text}</a>")] {
            if let Ok(json) = convert(&xml, &options, &XmlLimits::default()) {
                prop_assert!(serde_json::from_str::<Value>(&json).is_ok(), "{}", json);
            }
        }
    }

    /// No bytes make the decoder panic, and positions count from 1.
    #[test]
    fn no_bytes_panic(
        mark in prop::sample::select(vec![&b""[..], b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"<\0"]),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        charset in prop::option::of("utf-16|gbk|x|us-ascii|iso-2022-jp|latin1"),
    ) {
        let bytes = [mark, &bytes].concat();
        match decode(&bytes, charset.as_deref()) {
            Ok(text) => {
                let _ = convert(&text, &XmlOptions::default(), &XmlLimits::default());
            }
            Err(error) => prop_assert!(error.line > 0 && error.column > 0),
        }
    }
}
