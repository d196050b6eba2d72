//! Payloads as the path makes them: by headers, settings and presets.

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::admission::allowlist::{Proof, Rule};
use crate::job::{Job, Parts};
use crate::signature::Verifier;

fn decode(headers: &[(&'static str, &'static str)], body: &[u8], is_xml: bool) -> Result<String, String> {
    let headers =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    Payload::decode(&Verified::for_test(body), &headers, is_xml, &PayloadOptions::default())
        .map(|payload| format!("{} {}", payload.format.as_str(), std::str::from_utf8(&payload.json).unwrap()))
        .map_err(|error| error.to_string())
}

#[test]
fn the_content_type_decides_unless_the_path_says_xml() {
    const CONTENT: &str = "content-type";
    const UNSUPPORTED: &str = "can't be turned into JSON; send application/json, application/xml, \
                               application/x-www-form-urlencoded, multipart/form-data or text/plain";
    let unsupported = |name: &str| Err(format!("The content type {name} {UNSUPPORTED}"));
    for (content_type, body, expect) in [
        ("application/json", "{}", Ok("json {}".to_owned())),
        ("text/json", "{}", Ok("json {}".to_owned())),
        ("application/vnd.api+json; charset=utf-8", "[1]", Ok("json [1]".to_owned())),
        ("application/x-ndjson", "1\n[2]\n", Ok("ndjson [1,[2]]".to_owned())),
        ("application/jsonl", "{}", Ok("ndjson [{}]".to_owned())),
        ("application/x-jsonlines", "{}", Ok("ndjson [{}]".to_owned())),
        ("application/json-seq", "{}", unsupported("application/json-seq")),
        ("application/xml", "<a/>", Ok("xml {\"a\":null}".to_owned())),
        ("text/xml", "<a/>", Ok("xml {\"a\":null}".to_owned())),
        ("application/soap+xml", "<a/>", Ok("xml {\"a\":null}".to_owned())),
        ("application/x-www-form-urlencoded", "a=1", Ok("form {\"a\":\"1\"}".to_owned())),
        // What `curl -d '{"a":1}'` sends.
        ("application/x-www-form-urlencoded", " {\"a\":\"b&c=d\"}", Ok("json {\"a\":\"b&c=d\"}".to_owned())),
        ("application/x-www-form-urlencoded", "%5Ba%5D=1", Ok("form {\"[a]\":\"1\"}".to_owned())),
        ("text/plain", "{}", Ok("text \"{}\"".to_owned())),
        ("text/plain", "", Ok("text \"\"".to_owned())),
        ("text/csv; charset=windows-1252", "a;b", Ok("text \"a;b\"".to_owned())),
        ("text/html", "<a>", Ok("text \"<a>\"".to_owned())),
        (
            "multipart/form-data; boundary=x",
            "--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--\r\n",
            Ok("multipart {\"a\":\"1\"}".to_owned()),
        ),
        (
            "multipart/form-data",
            "--x--",
            Err("The multipart body is malformed: its content type names no boundary, or one that isn't allowed at \
                 line 1, column 1"
                .to_owned()),
        ),
        ("multipart/mixed; boundary=x", "--x--", unsupported("multipart/mixed")),
        ("application/octet-stream", "{}", unsupported("application/octet-stream")),
        ("image/png", "\0", unsupported("image/png")),
        ("nonsense", "{}", unsupported("nonsense")),
        (
            "application/json; charset=utf-16",
            "{}",
            Err("The charset utf-16 isn't supported for this content type; send UTF-8".to_owned()),
        ),
    ] {
        assert_eq!(decode(&[(CONTENT, content_type)], body.as_bytes(), false), expect, "{content_type}");
    }
    assert_eq!(decode(&[], b"{}", false), Ok("json {}".to_owned()));
    assert_eq!(decode(&[(CONTENT, "")], b"{}", false), Ok("json {}".to_owned()));
    let mut twice = HeaderMap::new();
    for (content_type, expect) in [
        ("text/plain", Ok(())),
        ("text/plain", Ok(())),
        ("application/json", unsupported("text/plain, application/json").map(|_: String| ())),
    ] {
        twice.append(CONTENT_TYPE, content_type.parse().unwrap());
        let body = Verified::for_test(b"1");
        let result = Payload::decode(&body, &twice, false, &PayloadOptions::default());
        assert_eq!(result.map(drop).map_err(|error| error.to_string()), expect);
    }
    for content_type in ["application/json", "text/plain", "application/x-www-form-urlencoded"] {
        assert_eq!(decode(&[(CONTENT, content_type)], b"<a/>", true), Ok("xml {\"a\":null}".to_owned()));
    }
}

#[test]
fn a_malformed_xml_body_is_refused_with_line_and_column() {
    let error = decode(&[], b"<a>\n  <b></a>", true).unwrap_err();
    assert!(error.starts_with("The XML body is malformed: ") && error.contains("line 2, column"), "{error}");
    assert_eq!(decode(&[], b" \n", true), Err("The body is empty".to_owned()));
    let error = decode(&[], b"<a>\xFF</a>", true).unwrap_err();
    assert!(
        error.starts_with("The XML body is malformed: ") && error.contains("line 1, column 4"),
        "{error}"
    );
}

#[test]
fn the_original_xml_is_kept_unless_switched_off() {
    let body = Verified::for_test(b"<a>1</a>");
    let mut options = PayloadOptions::default();
    let raw =
        |options: &PayloadOptions| Payload::decode(&body, &HeaderMap::new(), true, options).unwrap().raw;
    assert_eq!(raw(&options).as_deref(), Some("<a>1</a>"));
    options.drop_raw_xml = true;
    assert_eq!(raw(&options), None);
}

/// The job of a body, by the same functions as on the path; and what of it is `data.data`, as it was written.
fn job_data(content_type: &str, body: &[u8]) -> Result<(Vec<u8>, String), PayloadError> {
    let request =
        http::Request::post("/integration/demo").header("content-type", content_type).body(()).unwrap();
    let request = request.into_parts().0;
    let body = Verified::for_test(body);
    let payload = Payload::decode(&body, &request.headers, false, &PayloadOptions::default())?;
    let job = Job::encode(&Parts {
        id: uuid::Uuid::nil(),
        app: "default",
        integration: "demo",
        received_at: jiff::Timestamp::UNIX_EPOCH,
        client: [127, 0, 0, 1].into(),
        rule: &Rule { proof: Proof::Any, entry: "*".to_owned() },
        preset: None,
        event: None,
        delivery_id: None,
        verifier: &Verifier::Unsigned,
        verified: false,
        request: &request,
        payload: &payload,
    });
    #[derive(serde::Deserialize)]
    struct Document<'j> {
        #[serde(borrow)]
        data: Data<'j>,
    }
    #[derive(serde::Deserialize)]
    struct Data<'j> {
        format: String,
        #[serde(borrow)]
        data: &'j RawValue,
    }
    let Document { data } = serde_json::from_slice(&job.document).expect("the job is JSON");
    Ok((data.data.get().as_bytes().to_vec(), data.format))
}

/// White space between tokens.
fn space() -> impl Strategy<Value = String> + Clone {
    "[ \t\r\n]{0,3}"
}

/// What a string of JSON may hold: characters, and every kind of escape.
fn json_string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[^\"\\\\\u{0}-\u{1f}]{0,4}",
        1 => prop::sample::select(vec![
            "\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t", "\\u0000", "\\u00e9", "\\uD83D\\uDE00", "\\ud800",
            "\u{7f}", "\u{2028}", "[[{{", "😀",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// A document of JSON as text: odd white space, duplicate keys, numbers that no float holds.
fn json_document() -> impl Strategy<Value = String> {
    let number = "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?";
    let leaf = prop_oneof![
        number,
        json_string(),
        prop::sample::select(vec!["true", "false", "null", "[]", "{ }"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(6, 60, 6, |value| {
        let element = (space(), value, space()).prop_map(|(before, value, after)| before + &value + &after);
        let name = prop_oneof![
            prop::sample::select(vec!["\"a\"", "\"\"", "\"id\""]).prop_map(str::to_owned),
            json_string()
        ];
        let member = (space(), name, space(), element.clone())
            .prop_map(|(before, name, after, value)| format!("{before}{name}{after}:{value}"));
        prop_oneof![
            prop::collection::vec(element, 1..6).prop_map(|elements| format!("[{}]", elements.join(","))),
            prop::collection::vec(member, 1..6).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

proptest! {
    /// Every JSON document that goes in comes out equal: the same bytes but for the white space around it, and so the
    /// same value to every reader.
    #[test]
    fn every_json_document_comes_out_equal(before in space(), document in json_document(), after in space()) {
        let body = before + &document + &after;
        let (data, format) = job_data("application/json", body.as_bytes()).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(std::str::from_utf8(&data).unwrap(), &document);
        prop_assert_eq!(format, "json");
        let value = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).ok();
        prop_assert_eq!(value(&data), value(body.as_bytes()));
    }

    /// Lines of NDJSON come out as the elements of one array, each as it was written.
    #[test]
    fn every_line_comes_out_equal(documents in prop::collection::vec(json_document(), 1..5), end in "\r?\n?") {
        let lines: Vec<String> = documents.iter().map(|document| document.replace(['\r', '\n'], " ")).collect();
        let body = lines.join("\r\n\n") + &end;
        let (data, format) = job_data("application/x-ndjson", body.as_bytes()).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(String::from_utf8(data).unwrap(), format!("[{}]", lines.join(",")));
        prop_assert_eq!(format, "ndjson");
    }

    /// A text comes out as the string that it was.
    #[test]
    fn every_text_comes_out_equal(text: String) {
        let (data, format) = job_data("text/plain; charset=utf-8", text.as_bytes()).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let content = text.strip_prefix('\u{feff}').unwrap_or(&text);
        prop_assert_eq!(serde_json::from_slice::<String>(&data).unwrap(), content);
        prop_assert_eq!(format, "text");
    }

    /// Whatever the body and whatever it is said to be: the job is JSON, or the body is refused.
    #[test]
    fn arbitrary_bodies_give_a_job_or_an_error(
        content_type in prop::sample::select(vec![
            "application/json", "application/jsonl", "text/xml", "text/plain; charset=utf-16", "text/plain; charset=gbk",
            "application/x-www-form-urlencoded", "multipart/form-data; boundary=a",
        ]),
        body in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let _ = job_data(content_type, &body);
    }
}

/// What a preset or the settings say of the bodies.
#[test]
fn settings_and_presets_outrank_the_content_type() {
    let read = |options: &PayloadOptions, content_type: &str, is_xml: bool, body: &[u8]| {
        let headers = [(CONTENT_TYPE, content_type.parse().unwrap())].into_iter().collect();
        let body = Verified::for_test(body);
        let payload = Payload::decode(&body, &headers, is_xml, options);
        payload.map(|payload| payload.format).map_err(|error| error.to_string())
    };
    let preset =
        |name: &str| PayloadOptions { source: crate::source::preset(name), ..PayloadOptions::default() };
    let said =
        |text: &str| PayloadOptions { content_type: MediaType::parse(text), ..PayloadOptions::default() };
    for (options, content_type, is_xml, body, expect) in [
        (preset("aws-sns"), "text/plain; charset=UTF-8", false, "{}", Format::Json),
        (preset("shopify"), "text/plain; charset=UTF-8", false, "{}", Format::Text),
        (preset("github"), "application/x-www-form-urlencoded", false, "payload=%7B%7D", Format::Json),
        (preset("magento-mageplaza"), "application/json", false, "<a/>", Format::Xml),
        (preset("webrun"), "image/png", false, "", Format::Json),
        (preset("webrun"), "image/png", false, "some words", Format::Text),
        (said("application/json"), "text/plain", false, "{}", Format::Json),
        (said("application/json"), "image/png", false, "{}", Format::Json),
        (said("application/json"), "application/json; charset=utf-16", false, "{}", Format::Json),
        (said("text/plain; charset=windows-1252"), "application/json", false, "caf\u{e9}", Format::Text),
        (said("application/json"), "application/json", true, "<a/>", Format::Xml),
    ] {
        assert_eq!(
            read(&options, content_type, is_xml, body.as_bytes()),
            Ok(expect),
            "{content_type} {body}"
        );
    }
    let error = read(&said("application/json"), "text/plain", false, b"words").unwrap_err();
    assert!(error.starts_with("The JSON body is malformed: "), "{error}");
}
