//! Payloads as the path makes them: by headers, settings and presets.

use super::*;

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
