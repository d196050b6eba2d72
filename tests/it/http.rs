//! Malformed and hostile HTTP by raw sockets: an answer or a closed connection, the next request served, and nothing
//! on the queue.

use std::time::Duration;

use crate::support::client::{Connection, exchange};
use crate::support::gateway::TestGateway;

const HEAD: &str = "POST /integration/demo HTTP/1.1\r\nHost: x\r\n";

/// How many rows of the table below don't get as far as a request.
const MALFORMED_HEADS: f64 = 16.0;

/// Sends bytes, ends the sending side, and reads what comes until the connection is closed.
async fn status_of(gateway: &TestGateway, bytes: &[u8]) -> Option<u16> {
    let mut connection = Connection::open(gateway.address).await;
    connection.send(bytes).await;
    connection.finish_sending().await;
    let status = connection.try_answer().await.map(|answer| answer.status);
    assert_eq!(connection.closed().await, b"", "nothing after the answer");
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_and_the_next_one_is_served() {
    let gateway = TestGateway::start(&[]).await;
    let long_header = format!("{HEAD}X: {}\r\n\r\n", "x".repeat(20_000));
    let many_headers = format!("{HEAD}{}\r\n", "X: y\r\n".repeat(200));
    let long_id = format!(
        "POST /integration/{} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}",
        "a".repeat(10_000)
    );
    let long_path = format!("POST /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
    for (name, bytes, expect) in [
        ("no HTTP at all", "hello\r\n\r\n".to_owned(), Some(400)),
        ("TLS on a plain port", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\r\n\r\n".to_owned(), Some(400)),
        ("HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), None),
        ("unknown version", "POST /integration/demo HTTP/3.0\r\n\r\n".to_owned(), Some(400)),
        ("space before the colon", format!("{HEAD}Content-Length : 2\r\n\r\n{{}}"), Some(400)),
        ("folded header", format!("{HEAD}X: a\r\n b\r\n\r\n"), Some(400)),
        ("NUL in a header", format!("{HEAD}X: a\0b\r\n\r\n"), Some(400)),
        ("bare CR in a header", format!("{HEAD}X: a\rb\r\n\r\n"), Some(400)),
        ("NUL in the path", "POST /integration/de\0mo HTTP/1.1\r\n\r\n".to_owned(), Some(400)),
        ("two lengths", format!("{HEAD}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"), Some(400)),
        ("signed length", format!("{HEAD}Content-Length: +2\r\n\r\n{{}}"), Some(400)),
        ("length beyond 64 bits", format!("{HEAD}Content-Length: 99999999999999999999\r\n\r\n"), Some(400)),
        ("length of 8 GiB", format!("{HEAD}Content-Length: 8589934592\r\n\r\n"), Some(413)),
        ("unknown coding", format!("{HEAD}Transfer-Encoding: gzip\r\n\r\n{{}}"), Some(400)),
        ("chunk size that isn't hex", format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n"), Some(400)),
        (
            "chunk size beyond 64 bits",
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
            Some(400),
        ),
        (
            "chunk without its line end",
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}X"),
            Some(400),
        ),
        (
            "chunks that end early",
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n"),
            Some(400),
        ),
        ("body that ends early", format!("{HEAD}Content-Length: 100\r\n\r\n{{}}"), Some(400)),
        ("head that ends early", HEAD.to_owned(), None),
        ("a header of 20 KB", long_header, Some(431)),
        ("200 headers", many_headers, Some(431)),
        ("an id of 10 KB", long_id, Some(404)),
        ("a path of 100 KB", long_path, Some(431)),
        (
            "dots",
            "POST /integration/../../etc/passwd HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Some(404),
        ),
        (
            "escapes",
            "POST /integration/%64emo%00 HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Some(404),
        ),
        ("a star", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), Some(404)),
        ("CONNECT", "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), Some(404)),
        ("nothing", String::new(), None),
    ] {
        assert_eq!(status_of(&gateway, bytes.as_bytes()).await, expect, "{name}");
        assert_eq!(status_of(&gateway, b"\r\n\r\n").await, None, "{name}");
    }
    let not_utf8 = [HEAD.as_bytes(), b"Content-Length: 3\r\n\r\n\"\xFF\""].concat();
    assert_eq!(status_of(&gateway, &not_utf8).await, Some(400));
    assert!(gateway.jobs().await.is_empty());
    assert_eq!(gateway.post_json("{}").await.status, 200);
    assert_eq!(gateway.metric("retrieve_malformed_heads_total").await, Some(MALFORMED_HEADS));
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_and_endless_bodies_get_their_answer_though_they_are_still_being_sent() {
    let gateway = TestGateway::start(&[("RETRIEVE_BODY_LIMIT", "64KiB")]).await;
    for head in ["Transfer-Encoding: chunked\r\n\r\n", "Content-Length: 1000000000\r\n\r\n"] {
        let mut connection = Connection::open(gateway.address).await;
        connection.send(format!("{HEAD}{head}")).await;
        let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
        // Sends until the gateway stops reading; it must not have reset the connection before its answer.
        for _ in 0..100 {
            if connection.try_send(&chunk).await.is_err() {
                break;
            }
        }
        let answer = connection.answer().await;
        assert_eq!(answer.status, 413, "{head}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.body, "{\"result\":false,\"error\":\"The body is larger than 65536 bytes\"}");
    }
    assert!(gateway.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_bodies_are_answered_408_and_closed() {
    let gateway =
        TestGateway::start(&[("RETRIEVE_HEADER_TIMEOUT", "200ms"), ("RETRIEVE_BODY_TIMEOUT", "200ms")]).await;
    let mut slow_head = Connection::open(gateway.address).await;
    slow_head.send(HEAD).await;
    let answer = slow_head.answer().await;
    assert_eq!(answer.status, 408);
    assert_eq!(answer.body, "{\"result\":false,\"error\":\"The request's head didn't arrive in time\"}");
    assert_eq!(slow_head.closed().await, b"");
    assert_eq!(gateway.metric("retrieve_slow_heads_total").await, Some(1.0));

    let mut slow_body = Connection::open(gateway.address).await;
    slow_body.send(format!("{HEAD}Content-Length: 100\r\n\r\n{{")).await;
    let answer = slow_body.answer().await;
    assert_eq!(answer.status, 408);
    assert_eq!(answer.body, "{\"result\":false,\"error\":\"The body didn't arrive within 0.2 seconds\"}");
    assert_eq!(slow_body.closed().await, b"");

    // A peer that never says a word is closed without one.
    assert_eq!(Connection::open(gateway.address).await.closed().await, b"");
    assert!(gateway.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_rest_longer_than_a_head_may_take() {
    let gateway =
        TestGateway::start(&[("RETRIEVE_HEADER_TIMEOUT", "100ms"), ("RETRIEVE_IDLE_TIMEOUT", "1s")]).await;
    let mut connection = Connection::open(gateway.address).await;
    let request = format!("{HEAD}Content-Length: 2\r\n\r\n{{}}");
    connection.send(&request).await;
    assert_eq!(connection.answer().await.status, 200);
    // What is proved needs time to pass: three times what a head may take.
    tokio::time::sleep(Duration::from_millis(300)).await;
    connection.send(&request).await;
    assert_eq!(connection.answer().await.status, 200);
    // And the pause has its own end, without an answer to a question that nobody asked.
    assert_eq!(connection.closed().await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_every_legal_form_are_served() {
    let gateway = TestGateway::start(&[]).await;
    for (name, request) in [
        ("HTTP/1.0", "POST /integration/demo HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}".to_owned()),
        (
            "absolute form",
            "POST http://shop.example/integration/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
                .to_owned(),
        ),
        (
            "chunks with extensions and trailers",
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n1;a=b\r\n{{\r\n1\r\n}}\r\n0\r\nX: y\r\n\r\n"),
        ),
        (
            "headers in odd case",
            "POST /integration/demo HTTP/1.1\r\nHOST: x\r\ncOnTeNt-LeNgTh: 2\r\n\r\n{}".to_owned(),
        ),
        ("line ends before it", format!("\r\n\r\n{HEAD}Content-Length: 2\r\n\r\n{{}}")),
    ] {
        assert_eq!(exchange(gateway.address, request).await.status, 200, "{name}");
    }
    // Several requests sent at once are answered in order.
    let mut connection = Connection::open(gateway.address).await;
    let request = format!("{HEAD}Content-Length: 2\r\n\r\n{{}}");
    connection.send(format!("{request}{request}GET / HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    for expect in [200, 200, 404] {
        assert_eq!(connection.answer().await.status, expect);
    }
    // A peer that closes its sending side still gets its answer.
    assert_eq!(status_of(&gateway, request.as_bytes()).await, Some(200));
    assert_eq!(gateway.jobs().await.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_100_continue_is_answered_only_for_a_body_that_is_wanted() {
    let gateway = TestGateway::start(&[]).await;
    let mut connection = Connection::open(gateway.address).await;
    connection.send(format!("{HEAD}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")).await;
    let interim = connection.until("\r\n\r\n").await;
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    connection.send("{}").await;
    assert_eq!(connection.answer().await.status, 200);

    let mut connection = Connection::open(gateway.address).await;
    connection.send(format!("{HEAD}Expect: 100-continue\r\nContent-Length: 999999999\r\n\r\n")).await;
    let head = connection.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
}
