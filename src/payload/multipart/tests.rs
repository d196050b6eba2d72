//! Multipart bodies: what is read, what is refused, and that nobody's bytes get further than they may.

use proptest::prelude::*;

use super::*;

const BASE64: Files = Files::Base64 { limit_bytes: 8 };

fn run(body: &[u8], boundary: &str, files: Files) -> Result<String, String> {
    convert(body, boundary, files, &Limits::DEFAULT)
        .map(|json| String::from_utf8(json).unwrap())
        .map_err(|error| error.to_string())
}

/// A body of parts, each a head without its last line end and a content.
fn body(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (head, content) in parts {
        body.extend_from_slice(format!("--x\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--x--\r\n");
    body
}

fn field(parameters: &str) -> String {
    format!("Content-Disposition: form-data; {parameters}")
}

#[test]
fn fields_become_an_object_of_strings() {
    let parts = body(&[
        (&field("name=\"b\""), b"1"),
        (&field("name=\"a\""), "é\r\n\"".as_bytes()),
        (&field("name=\"b\""), b""),
        ("content-type: text/plain; charset=iso-8859-1\r\nCONTENT-DISPOSITION:form-data;name=c;", b"\xE9"),
        (&format!("{}\r\nContent-Transfer-Encoding: 8bit\r\nX-More: z", field("name=\"d\"")), b" --x"),
    ]);
    let expect = r#"{"b":["1",""],"a":"é\r\n\"","c":"é","d":" --x"}"#;
    assert_eq!(run(&parts, "x", Files::Refuse).as_deref(), Ok(expect));
    assert_eq!(run(b"--x--", "x", Files::Refuse).as_deref(), Ok("{}"));
    // A line end before the first boundary, padding behind it, and a part that ends with its head.
    let odd = b"\r\n--a b  \t\r\nContent-Disposition: form-data; name=e\r\n\r\n--a b-- ";
    assert_eq!(run(odd, "a b", Files::Refuse).as_deref(), Ok(r#"{"e":""}"#));
}

#[test]
fn names_are_read_as_browsers_and_as_mail_programs_write_them() {
    for (parameters, expect) in [
        ("name=\"a b;c=d\"", "a b;c=d"),
        (r#"name="a%22b%0D%0Ac%20""#, "a\"b\r\nc%20"),
        (r#"name="a\"b\\c\d""#, "a\"b\\c\\d"),
        ("name=\"é\"", "é"),
        ("name=\"\"", ""),
        ("name=plain", "plain"),
        ("name=\"ASCII\"; name*=utf-8''%C3%A9", "é"),
        ("size=3 ; name=\"x\" ;", "x"),
    ] {
        let json = run(&body(&[(&field(parameters), b"")]), "x", Files::Refuse).unwrap();
        let object: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(object, serde_json::json!({ expect: "" }), "{parameters}");
    }
}

#[test]
fn files_are_refused_or_become_base64() {
    let file = format!("{}\r\nContent-Type: image/png", field("name=\"f\"; filename=\"C:\\a\\b.png\""));
    let parts = body(&[(&field("name=a"), b"1"), (&file, b"\x89PNG\r\n\x00")]);
    let refused = "The multipart field f is a file, which this integration doesn't take; send fields alone";
    assert_eq!(run(&parts, "x", Files::Refuse), Err(refused.to_owned()));
    let expect =
        r#"{"a":"1","f":{"filename":"C:\\a\\b.png","content_type":"image/png","base64":"iVBORw0KAA=="}}"#;
    assert_eq!(run(&parts, "x", BASE64).as_deref(), Ok(expect));
    let plain = body(&[(&field("name=f; filename=n"), b"12345678")]);
    let expect = r#"{"f":{"filename":"n","content_type":null,"base64":"MTIzNDU2Nzg="}}"#;
    assert_eq!(run(&plain, "x", BASE64).as_deref(), Ok(expect));
    let large = body(&[(&field("name=f; filename=n"), b"123456789")]);
    let expect = "The multipart body is malformed: a file is larger than 8 bytes at line 4, column 1";
    assert_eq!(run(&large, "x", BASE64), Err(expect.to_owned()));
    // A file field in which nothing was chosen.
    let none = body(&[(&field("name=f; filename=\"\""), b"")]);
    assert_eq!(run(&none, "x", Files::Refuse).as_deref(), Ok(r#"{"f":null}"#));
    let wide = body(&[(&field("name=f; filename*=UTF-8''%E2%82%AC.txt"), b"")]);
    assert!(run(&wide, "x", BASE64).unwrap().contains("\"filename\":\"€.txt\""));
}

/// SendGrid's Inbound Parse, and RFC 7578's own way.
#[test]
fn the_body_says_its_character_sets() {
    let charsets = br#"{"subject":"UTF-8","text":"iso-8859-1","n":7}"#;
    let mail = [
        (&*field("name=\"charsets\""), &charsets[..]),
        (&field("name=\"subject\""), "é".as_bytes()),
        (&field("name=\"text\""), b"\xE9"),
        (&field("name=\"n\""), b"1"),
    ];
    let json = run(&body(&mail), "x", Files::Refuse).unwrap();
    assert!(json.ends_with(r#""subject":"é","text":"é","n":"1"}"#), "{json}");
    let default = [(&*field("name=_charset_"), &b"windows-1252"[..]), (&field("name=a"), b"\x80")];
    let json = run(&body(&default), "x", Files::Refuse);
    assert_eq!(json.as_deref(), Ok(r#"{"_charset_":"windows-1252","a":"€"}"#));
    let lie = [(&*field("name=_charset_"), &b"utf-7"[..]), (&field("name=a"), b"1")];
    let error = run(&body(&lie), "x", Files::Refuse).unwrap_err();
    assert_eq!(error, "The charset utf-7 isn't supported for this content type; send UTF-8");
    let error = run(&body(&[(&field("name=a"), b"\xFF")]), "x", Files::Refuse).unwrap_err();
    assert_eq!(error, "The multipart body is malformed: a field: it isn't UTF-8 at line 4, column 1");
}

#[test]
fn what_two_readers_could_take_differently_is_refused() {
    const HEAD: &str = "--x\r\nContent-Disposition: form-data; name=a\r\n";
    for (body, expect) in [
        ("", "it doesn't begin with its boundary at line 1, column 1"),
        ("preamble\r\n--x--", "it doesn't begin with its boundary at line 1, column 1"),
        ("\n--x--", "it doesn't begin with its boundary at line 1, column 1"),
        ("--x", "it ends without its closing boundary at line 1, column 4"),
        ("--x\r\n", "it ends in the head of a part at line 2, column 1"),
        ("--x\r\nA: b\r\n", "it ends in the head of a part at line 3, column 1"),
        ("--xy--", "a line begins with the boundary and isn't one at line 1, column 4"),
        ("--x-\r\n", "a line begins with the boundary and isn't one at line 1, column 4"),
        ("--x--\r\nepilogue", "it goes on behind its closing boundary at line 2, column 1"),
        ("--x--\n", "a line doesn't end in CRLF at line 1, column 6"),
        ("--x\nA: b\r\n", "a line doesn't end in CRLF at line 1, column 4"),
        ("--x\r\nA: b\n\r\n", "a line doesn't end in CRLF at line 2, column 5"),
        ("HEAD\r\n1", "it ends without its closing boundary at line 4, column 2"),
        ("HEAD\r\n1\n--x--", "it ends without its closing boundary at line 5, column 6"),
        ("HEAD\r\n1\r\n--x", "it ends without its closing boundary at line 5, column 4"),
        ("HEAD\r\n1\r\n--xx\r\n--x--", "a line begins with the boundary and isn't one at line 5, column 4"),
        ("--x\r\n\r\n1\r\n--x--", "a part has no Content-Disposition at line 2, column 1"),
        (
            "--x\r\nContent-Type: text/plain\r\n\r\n1\r\n--x--",
            "a part has no Content-Disposition at line 2, column 1",
        ),
        ("--x\r\nA b\r\n\r\n", "a line of a part's head has no colon at line 2, column 1"),
        ("--x\r\nA : b\r\n\r\n", "a line of a part's head doesn't begin with a name at line 2, column 1"),
        ("HEAD folded: b\r\n\r\n", "a line of a part's head doesn't begin with a name at line 3, column 1"),
        ("--x\r\nA: b\rc\r\n\r\n", "the head of a part has a control character at line 2, column 1"),
        ("--x\r\nA: \0\r\n\r\n", "the head of a part has a control character at line 2, column 1"),
        (
            "HEADContent-Disposition: form-data; name=b\r\n\r\n",
            "a part has two lines Content-Disposition at line 3, column 1",
        ),
        (
            "HEADContent-Type: a/b\r\ncontent-type: a/b\r\n\r\n",
            "a part has two lines Content-Type at line 4, column 1",
        ),
        (
            "HEADContent-Transfer-Encoding: base64\r\n\r\n",
            "a part has a Content-Transfer-Encoding, which RFC 7578 leaves no use for at line 3, column 1",
        ),
    ] {
        let body = body.replace("HEAD", HEAD);
        let expect = format!("The multipart body is malformed: {expect}");
        assert_eq!(run(body.as_bytes(), "x", Files::Refuse), Err(expect), "{body:?}");
    }
    for (parameters, expect) in [
        ("filename=\"a\"", "a part has no name"),
        ("name=\"a\"; name=\"b\"", "a part's Content-Disposition names something twice"),
        ("name=\"a\"; filename=b; FileName=c", "a part's Content-Disposition names something twice"),
        ("name=\"a", "a part's Content-Disposition is malformed"),
        ("name=\"a\\\"", "a part's Content-Disposition is malformed"),
        ("name=\"a\"b", "a part's Content-Disposition is malformed"),
        ("name=a\"b", "a part's Content-Disposition is malformed"),
        ("name=a b", "a part's Content-Disposition is malformed"),
        ("name", "a part's Content-Disposition is malformed"),
        ("name =a", "a part's Content-Disposition is malformed"),
        ("name=", "a part's Content-Disposition is malformed"),
        ("name*=latin1''%E9", "a part's Content-Disposition is malformed"),
        ("name*=utf-8''%E9", "a part's Content-Disposition is malformed"),
    ] {
        let error = run(&body(&[(&field(parameters), b"1")]), "x", Files::Refuse).unwrap_err();
        assert_eq!(
            error,
            format!("The multipart body is malformed: {expect} at line 2, column 1"),
            "{parameters}"
        );
    }
    let error = run(&body(&[("Content-Disposition: attachment; name=a", b"")]), "x", BASE64).unwrap_err();
    assert!(error.contains("isn't form-data at line 2"), "{error}");
    let error = run(b"--x\r\nContent-Disposition: form-data; name=\xFF\r\n\r\n", "x", BASE64).unwrap_err();
    assert!(error.contains("the head of a part isn't UTF-8 at line 2, column 1"), "{error}");
    for boundary in ["", "a ", &"x".repeat(71), "a\"b", "a;b", "é"] {
        let error = run(b"--x--", boundary, Files::Refuse).unwrap_err();
        assert!(error.contains("no boundary, or one that isn't allowed"), "{boundary}: {error}");
    }
}

#[test]
fn limits_hold_and_name_themselves() {
    let limits = Limits { form_fields: 3, name_bytes: 5, ..Limits::DEFAULT };
    let run = |body: &[u8]| convert(body, "x", BASE64, &limits).map_err(|error| error.to_string());
    let part = field("name=a");
    let parts = |count| body(&vec![(&*part, &b"1"[..]); count]);
    assert!(run(&parts(3)).is_ok());
    assert!(run(&parts(4)).unwrap_err().contains("it has more than 3 parts at line 13"));
    assert!(run(&body(&[(&field("name=abcde; filename=abcde"), b"1")])).is_ok());
    for parameters in ["name=abcdef", "name=a; filename=abcdef"] {
        let error = run(&body(&[(&field(parameters), b"1")])).unwrap_err();
        assert!(error.contains("a name is longer than 5 bytes at line 2"), "{error}");
    }
    let long = format!("{}\r\nX: {}", field("name=a"), "y".repeat(5000));
    assert!(run(&body(&[(&long, b"1")])).unwrap_err().contains("larger than 4106 bytes at line 2"));
    assert!(run(&body(&[(&"A: b\r\n".repeat(5000), b"1")])).unwrap_err().contains("larger than 4106 bytes"));
}

/// What would make a reader that looks back, or that looks twice, take minutes.
#[test]
fn hostile_bodies_end() {
    let boundary = "x".repeat(70);
    let near = format!("\r\n--{}", "x".repeat(69)).repeat(100_000);
    for content in [near, "\r".repeat(5 << 20), "\r\n".repeat(2 << 20), "\r\n-".repeat(1 << 20)] {
        let body = format!("--{boundary}\r\n{}\r\n\r\n{content}", field("name=a"));
        assert!(run(body.as_bytes(), &boundary, Files::Refuse).unwrap_err().contains("without its closing"));
    }
    let heads = format!("--x\r\n{}\r\n\r\n\r\n", field("name=a")).repeat(50_000);
    assert!(run(heads.as_bytes(), "x", Files::Refuse).unwrap_err().contains("more than 10000 parts"));
}

proptest! {
    /// What goes in as fields and files comes out as members, in the order of first appearance.
    #[test]
    fn parts_survive(
        parts in prop::collection::vec(
            ("[a-cé\"% ]{0,3}", prop::option::of("\\PC{1,6}"), prop::collection::vec(any::<u8>(), 0..40)),
            1..12,
        )
    ) {
        let boundary = "----WebKitFormBoundary7MA4YWxkTrZu0gW";
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        let mut body = Vec::new();
        let mut expect: Vec<(String, Vec<serde_json::Value>)> = Vec::new();
        for (name, file_name, content) in &parts {
            let name = name.replace("%22", "");
            body.extend_from_slice(format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"", escape(&name)).as_bytes());
            let text = String::from_utf8_lossy(content).replace('\u{feff}', "");
            let value = match file_name {
                Some(file_name) => {
                    let file_name = file_name.replace("%0", "").replace("%2", "");
                    body.extend_from_slice(format!("; filename=\"{}\"", escape(&file_name)).as_bytes());
                    serde_json::json!({"filename": file_name, "content_type": null, "base64": STANDARD.encode(content)})
                }
                None => serde_json::json!(text),
            };
            body.extend_from_slice(b"\r\n\r\n");
            if file_name.is_some() { body.extend_from_slice(content) } else { body.extend_from_slice(text.as_bytes()) }
            body.extend_from_slice(b"\r\n");
            match expect.iter_mut().find(|(other, _)| *other == name) {
                Some((_, values)) => values.push(value),
                None => expect.push((name, vec![value])),
            }
        }
        // A file without a name and a content is the one that a browser sends when none was chosen.
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        let json = convert(&body, boundary, Files::Base64 { limit_bytes: 40 }, &Limits::DEFAULT);
        let json = json.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let object: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let names: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
        prop_assert_eq!(names, expect.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        for (name, values) in expect {
            let expect = if let [value] = values.as_slice() { value.clone() } else { serde_json::json!(values) };
            if expect["filename"] == "" && expect["base64"] == "" {
                prop_assert!(object[&name].is_null());
            } else {
                prop_assert_eq!(&object[&name], &expect);
            }
        }
    }

    /// Bodies of the grammar's own pieces never panic, and what comes out is JSON.
    #[test]
    fn pieces_give_json_or_an_error(pieces in prop::collection::vec(
        prop::sample::select(vec![
            "--x", "--", "\r\n", "\n", "\r", "Content-Disposition: form-data; name=a", "; filename=b", "; name*=utf-8''%41",
            "\"", "\\", "Content-Type: text/plain; charset=utf-16", ":", " ", "a", "é", "{\"a\":\"latin1\"}", "charsets",
        ]),
        0..30,
    )) {
        for files in [Files::Refuse, BASE64] {
            if let Ok(json) = run(pieces.concat().as_bytes(), "x", files) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
            }
        }
    }

    /// Neither do arbitrary bytes between two boundaries.
    #[test]
    fn arbitrary_bytes_give_json_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let framed = [&b"--x\r\n"[..], &bytes, b"\r\n--x--"].concat();
        for body in [&bytes[..], &framed] {
            if let Ok(json) = run(body, "x", BASE64) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
            }
        }
    }
}
