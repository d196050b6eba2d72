//! Bodies over the wire: every example of docs/payloads.md, compressed bodies and bombs, signatures over what was sent,
//! and every limit by its setting.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::client::{Answer, exchange};
use crate::support::eventually;
use crate::support::gateway::TestGateway;

const SECRET: &str = "a-secret-of-some-length";

fn gzip(content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content.as_ref()).unwrap();
    encoder.finish().unwrap()
}

fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn request(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head =
        format!("POST /integration/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

async fn send(gateway: &TestGateway, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    exchange(gateway.address, request(path, headers, body)).await
}

fn refused(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.json(), json!({"result": false, "error": words}));
}

/// What stands between the fences of a page, with the language of each.
fn fenced(page: &str) -> Vec<(&str, String)> {
    let mut blocks: Vec<(&str, String)> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some("") => open = false,
            Some(language) => {
                open = true;
                blocks.push((language, String::new()));
            }
            None if open => {
                let block = &mut blocks.last_mut().unwrap().1;
                if !block.is_empty() {
                    block.push('\n');
                }
                block.push_str(line);
            }
            None => {}
        }
    }
    blocks
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_documentation_is_true() {
    let blocks = fenced(include_str!("../../docs/payloads.md"));
    let mut examples = Vec::new();
    let mut settings = String::new();
    for (language, text) in &blocks {
        match *language {
            "toml" => settings = text.clone(),
            "xml" | "http" => examples.push((*language, text, std::mem::take(&mut settings), None)),
            "json" => examples.last_mut().unwrap().3 = Some(serde_json::from_str::<Value>(text).unwrap()),
            other => panic!("a block of {other}"),
        }
    }
    assert!(examples.len() > 5);
    let toml: String = examples
        .iter()
        .enumerate()
        .map(|(index, example)| format!("[[integration]]\nid = \"e{index}\"\n{}\n", example.2))
        .collect();
    let gateway = TestGateway::with_integrations(&toml, &[]).await;
    for (index, (language, text, _, _)) in examples.iter().enumerate() {
        let answer = if *language == "xml" {
            send(&gateway, &format!("e{index}/xml"), &[], text.as_bytes()).await
        } else {
            let (head, body) = text.split_once("\n\n").unwrap();
            let content_type = head.strip_prefix("Content-Type: ").unwrap();
            let is_multipart = content_type.starts_with("multipart/");
            let body = if is_multipart { body.replace('\n', "\r\n") } else { body.to_owned() };
            send(&gateway, &format!("e{index}"), &[("Content-Type", content_type)], body.as_bytes()).await
        };
        assert_eq!(answer.status, 200, "{}: {text}", answer.body);
    }
    let jobs = gateway.jobs().await;
    assert_eq!(jobs.len(), examples.len());
    for (job, (_, text, _, expect)) in jobs.iter().zip(&examples) {
        assert_eq!(&job["data"]["data"], expect.as_ref().unwrap(), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_body_gives_the_job_of_a_plain_one() {
    let gateway = TestGateway::start(&[]).await;
    let json = br#"{"id":12345678901234567890,"a":[1.50, "\u00e9"]}"#;
    let large = format!(
        "[{}]",
        (0..60_000u32)
            .map(|number| number.wrapping_mul(2_654_435_761).to_string())
            .collect::<Vec<_>>()
            .join(",")
    );
    let multipart = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n";
    for (path, content_type, coding, body) in [
        ("demo", "application/json", "gzip", gzip(json)),
        ("demo", "application/json", "x-gzip", [gzip(&json[..9]), gzip(&json[9..])].concat()),
        ("demo", "application/json", "deflate", zlib(json)),
        ("demo", "application/json", "Deflate", deflate(json)),
        ("demo", "application/json", "identity", json.to_vec()),
        ("demo/xml", "text/plain", "gzip", gzip("<a b='1'>é</a>")),
        ("demo", "multipart/form-data; boundary=x", "gzip", gzip(multipart)),
        ("demo", "application/json", "gzip", gzip(&large)),
    ] {
        let headers = [("Content-Type", content_type), ("Content-Encoding", coding)];
        let answer = send(&gateway, path, &headers, &body).await;
        assert_eq!(answer.status, 200, "{coding} {content_type}: {}", answer.body);
    }
    let jobs = gateway.jobs().await;
    for job in &jobs[..5] {
        assert_eq!(job["data"]["data"], serde_json::from_slice::<Value>(json).unwrap());
    }
    assert_eq!(
        jobs[5]["data"],
        json!({"format": "xml", "data": {"a": {"@b": "1", "#text": "é"}}, "raw": "<a b='1'>é</a>"})
    );
    assert_eq!(jobs[6]["data"], json!({"format": "multipart", "data": {"a": "1"}, "raw": null}));
    assert_eq!(jobs[7]["data"]["data"], serde_json::from_str::<Value>(&large).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_or_unknown_coding_is_refused_in_plain_words() {
    let gateway = TestGateway::start(&[]).await;
    let whole = gzip(b"{}");
    let unsupported = |name: &str| {
        format!(
            "The content encoding {name} isn't supported; send the body uncompressed, or as gzip or deflate"
        )
    };
    let malformed = |what: &str| format!("The compressed body is malformed: {what}");
    for (coding, body, status, words) in [
        ("br", whole.clone(), 415, unsupported("br")),
        ("gzip, gzip", gzip(&whole), 415, unsupported("gzip, gzip")),
        ("gzip", b"{}".to_vec(), 400, malformed("it ends early")),
        ("gzip", b"{\"a\": 12345}".to_vec(), 400, malformed("it isn't gzip")),
        ("gzip", whole[..whole.len() - 1].to_vec(), 400, malformed("it ends early")),
        ("gzip", [&whole[..], b"x"].concat(), 400, malformed("it goes on behind its end")),
        ("deflate", zlib(b"{}")[..5].to_vec(), 400, malformed("it ends early")),
    ] {
        let answer = send(&gateway, "demo", &[("Content-Encoding", coding)], &body).await;
        refused(&answer, status, &words);
        assert_eq!(answer.header("accept-encoding"), (status == 415).then_some("gzip, deflate"));
    }
    // An error of the content names its place in the content.
    let answer = send(&gateway, "demo", &[("Content-Encoding", "gzip")], &gzip("{\n\"a\":}")).await;
    refused(&answer, 400, "The JSON body is malformed: expected a value at line 2, column 5");
    assert!(gateway.jobs().await.is_empty());
}

/// Two hundred bombs at once are each answered 413, and nothing of their memory is kept.
#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_given_up_and_leave_nothing() {
    let settings = [("RETRIEVE_MAX_CONNECTIONS_PER_ADDRESS", "1000"), ("RETRIEVE_IN_FLIGHT_LIMIT", "256MiB")];
    let gateway = TestGateway::start(&settings).await;
    // 64 MiB of blanks, made piece by piece.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        encoder.write_all(&[b' '; 1 << 20]).unwrap();
    }
    let bomb = request("demo", &[("Content-Encoding", "gzip")], &encoder.finish().unwrap());
    let answers = futures_util::future::join_all((0..200).map(|_| exchange(gateway.address, &bomb))).await;
    // Whoever gets no turn is told to come again.
    let (opened, others): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status != 503);
    assert!(!opened.is_empty(), "the first ones get their turns");
    for answer in opened {
        refused(answer, 413, "The body is compressed by more than 100 to 1; send it uncompressed");
    }
    assert!(others.iter().all(|answer| answer.header("retry-after").is_some()));
    // Under the ratio, the body limit holds for what comes out.
    let mut state = 1u32;
    let digits: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        b'1' + (state % 8) as u8
    })
    .take((5 << 20) + 1)
    .collect();
    let answer = send(&gateway, "demo", &[("Content-Encoding", "gzip")], &gzip(&digits)).await;
    refused(&answer, 413, "The decompressed body is larger than 5242880 bytes");
    let answer = send(&gateway, "demo", &[("Content-Encoding", "gzip")], &gzip(&digits[1..])).await;
    assert_eq!(answer.status, 200, "a body at the limit");
    eventually("the memory is free again", || async {
        (gateway.metric("retrieve_in_flight_bytes").await? == 0.0).then_some(())
    })
    .await;
}

/// The signature is over the bytes as they were sent; what the sender says in its body is found behind the coding; and
/// a bomb that isn't signed is never opened.
#[tokio::test(flavor = "multi_thread")]
async fn signatures_are_over_the_compressed_bytes() {
    let integration = |id: &str, source: &str| {
        format!("[[integration]]\nid = \"{id}\"\nsource = \"{source}\"\nsecrets = [\"env:SENDER_SECRET\"]\n")
    };
    let toml = [integration("github", "github"), integration("typeform", "typeform")].concat();
    let gateway = TestGateway::with_integrations(&toml, &[("SENDER_SECRET", SECRET)]).await;
    let mac = |body: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(body);
        mac.finalize().into_bytes()
    };
    let github = |signed: &[u8]| format!("sha256={}", hex::encode(mac(signed)));
    let content = b"payload=%7B%22zen%22%3A+%22a%22%7D";
    let body = gzip(content);
    for (signed, expect) in [(&body[..], 200), (&content[..], 401)] {
        let headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Encoding", "gzip"),
            ("X-Hub-Signature-256", &github(signed)),
        ];
        assert_eq!(send(&gateway, "github", &headers, &body).await.status, expect);
    }
    // An event that stands in the body.
    let body = gzip(br#"{"event_id":"E1","event_type":"form_response"}"#);
    let signature = {
        use base64::Engine;
        format!("sha256={}", base64::engine::general_purpose::STANDARD.encode(mac(&body)))
    };
    let headers = [("Content-Encoding", "gzip"), ("Typeform-Signature", signature.as_str())];
    assert_eq!(send(&gateway, "typeform", &headers, &body).await.status, 200);
    let bomb = gzip(vec![b' '; 16 << 20]);
    let headers = [("Content-Encoding", "gzip"), ("X-Hub-Signature-256", &github(b"another"))];
    let answer = send(&gateway, "github", &headers, &bomb).await;
    refused(&answer, 401, "The webhook signature is missing or doesn't match");

    let jobs = gateway.jobs().await;
    assert_eq!(jobs.len(), 2);
    assert_eq!(jobs[0]["data"], json!({"format": "json", "data": {"zen": "a"}, "raw": null}));
    assert_eq!((&jobs[1]["event"], &jobs[1]["delivery_id"]), (&json!("form_response"), &json!("E1")));
    assert_eq!(jobs[1]["source"]["verified"], true);
}

/// Each limit is where its variable says, and the answer names it.
#[tokio::test(flavor = "multi_thread")]
async fn every_limit_is_set_by_its_variable() {
    let settings = [
        ("RETRIEVE_COMPRESSION_RATIO_LIMIT", "2"),
        ("RETRIEVE_DEPTH_LIMIT", "3"),
        ("RETRIEVE_NAME_LIMIT", "4"),
        ("RETRIEVE_FORM_FIELD_LIMIT", "2"),
        ("RETRIEVE_XML_ELEMENT_LIMIT", "3"),
        ("RETRIEVE_XML_ATTRIBUTE_LIMIT", "1"),
        ("RETRIEVE_XML_TEXT_LIMIT", "5"),
        ("RETRIEVE_XML_OUTPUT_LIMIT", "40"),
    ];
    let gateway = TestGateway::start(&settings).await;
    let part = |name: &str| format!("--x\r\nContent-Disposition: form-data; name={name}\r\n\r\n1\r\n");
    let parts = |names: &[&str]| names.iter().map(|name| part(name)).collect::<String>() + "--x--";
    const FORM: &str = "application/x-www-form-urlencoded";
    const MULTIPART: &str = "multipart/form-data; boundary=x";
    for (content_type, good, bad, words) in [
        ("application/json", "[[[]]]".to_owned(), "[[[[]]]]".to_owned(), "it nests deeper than 3 levels"),
        ("application/jsonl", "[[[]]]".to_owned(), "1\n[[[[]]]]".to_owned(), "it nests deeper than 3 levels"),
        (FORM, "a=1&b=2".to_owned(), "a=1&b=2&c=3".to_owned(), "it has more than 2 pairs"),
        (MULTIPART, parts(&["a", "b"]), parts(&["a", "b", "c"]), "it has more than 2 parts"),
        (MULTIPART, parts(&["abcd"]), parts(&["abcde"]), "a name is longer than 4 bytes"),
        (
            "text/xml",
            "<a><b><c/></b></a>".to_owned(),
            "<a><b><c><d/></c></b></a>".to_owned(),
            "more than 3 deep",
        ),
        ("text/xml", "<a><b/><b/></a>".to_owned(), "<a><b/><b/><b/></a>".to_owned(), "more than 3 elements"),
        ("text/xml", "<a b='1'/>".to_owned(), "<a b='1' c='2'/>".to_owned(), "more than 1 attributes"),
        ("text/xml", "<abcd/>".to_owned(), "<abcde/>".to_owned(), "longer than 4 bytes"),
        ("text/xml", "<a>12345</a>".to_owned(), "<a>123456</a>".to_owned(), "longer than 5 bytes"),
        (
            "text/xml",
            "<a b='12345'><c>12345</c></a>".to_owned(),
            "<a b='12345'><c d='12345'>12345</c></a>".to_owned(),
            "longer than 40 bytes",
        ),
    ] {
        let headers = [("Content-Type", content_type)];
        let answer = send(&gateway, "demo", &headers, good.as_bytes()).await;
        assert_eq!(answer.status, 200, "{good}: {}", answer.body);
        let answer = send(&gateway, "demo", &headers, bad.as_bytes()).await;
        assert!(answer.status == 400 && answer.body.contains(words), "{bad}: {}", answer.body);
    }
    let dense = format!("\"{}\"", "ab".repeat(100_000));
    let answer = send(&gateway, "demo", &[("Content-Encoding", "gzip")], &gzip(&dense)).await;
    refused(&answer, 413, "The body is compressed by more than 2 to 1; send it uncompressed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_takes_files_only_if_it_says_so() {
    let toml = r#"
        [[integration]]
        id = "none"
        [[integration]]
        id = "files"
        multipart = { files = "base64", file_limit = "4" }
    "#;
    let gateway = TestGateway::with_integrations(toml, &[]).await;
    let body = |content: &str| {
        format!(
            "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"n\"\r\n\r\n{content}\r\n--x--\r\n"
        )
    };
    let headers = [("Content-Type", "multipart/form-data; boundary=x")];
    let answer = send(&gateway, "none", &headers, body("1234").as_bytes()).await;
    refused(
        &answer,
        415,
        "The multipart field f is a file, which this integration doesn't take; send fields alone",
    );
    let answer = send(&gateway, "files", &headers, body("12345").as_bytes()).await;
    refused(
        &answer,
        400,
        "The multipart body is malformed: a file is larger than 4 bytes at line 4, column 1",
    );
    assert_eq!(send(&gateway, "files", &headers, body("1234").as_bytes()).await.status, 200);
    let jobs = gateway.jobs().await;
    let file = json!({"f": {"filename": "n", "content_type": null, "base64": "MTIzNA=="}});
    assert_eq!((jobs.len(), &jobs[0]["data"]["data"]), (1, &file));
}

/// Mailgun's older webhooks come as a form, and as multipart where a mail has attachments.
#[tokio::test(flavor = "multi_thread")]
async fn mailguns_proof_is_found_in_multipart_fields() {
    let toml = "[[integration]]\nid = \"mail\"\nsource = \"mailgun\"\nsecrets = [\"env:SENDER_SECRET\"]\n\
                multipart = { files = \"base64\" }\n";
    let gateway = TestGateway::with_integrations(toml, &[("SENDER_SECRET", SECRET)]).await;
    let (timestamp, token) = ("1529006854", "a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0");
    let signature = {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(format!("{timestamp}{token}").as_bytes());
        hex::encode(mac.finalize().into_bytes())
    };
    let part = |name: &str, value: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let body = |parts: &[(&str, &str)]| {
        parts.iter().map(|(name, value)| part(name, value)).collect::<String>() + "--x--\r\n"
    };
    let whole =
        [("event", "dropped"), ("timestamp", timestamp), ("token", token), ("signature", signature.as_str())];
    let headers = [("Content-Type", "multipart/form-data; boundary=\"x\"")];
    let good = body(&whole).replace("--x--\r\n", &part("message\"; filename=\"m.txt", "hello")) + "--x--";
    for (body, expect) in [
        (good.as_str(), 200),
        (&body(&whole[..3]), 401),
        (&body(&[whole[0], whole[1], whole[2], whole[3], whole[3]]), 401),
        (&good.replace("1529006854", "1529006855"), 401),
        (&good.replace("--x--", ""), 401),
    ] {
        assert_eq!(send(&gateway, "mail", &headers, body.as_bytes()).await.status, expect, "{body}");
    }
    let jobs = gateway.jobs().await;
    assert_eq!((jobs.len(), &jobs[0]["data"]["data"]["message"]["base64"]), (1, &json!("aGVsbG8=")));
}
