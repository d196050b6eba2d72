//! `send` as a user runs it, against a gateway.

use crate::support::gateway::TestGateway;
use crate::support::process::binary;

async fn send(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = binary().arg("send").args(arguments).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_becomes_a_job() {
    let gateway = TestGateway::start(&[]).await;
    let url = format!("http://{}/integration/demo", gateway.address);
    let (code, stdout, stderr) = send(&[&url]).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.starts_with("200 OK\n"), "{stdout}");
    assert!(stdout.ends_with("\n\n{\"result\":true,\"error\":\"\"}\n"), "{stdout}");

    let arguments =
        [&url, "--source", "shopify", "--event", "orders/paid", "--id", "e-1", "--secret", "a shared secret"];
    let (code, stdout, _) = send(&arguments).await;
    assert_eq!(code, Some(0), "{stdout}");

    let jobs = gateway.jobs().await;
    assert_eq!(jobs.len(), 2);
    assert_eq!(jobs[0]["data"]["data"]["event"], "order.created");
    let headers = &jobs[1]["request"]["headers"];
    assert_eq!(
        (&headers["x-shopify-topic"], &headers["x-shopify-event-id"]),
        (&"orders/paid".into(), &"e-1".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_tells_a_refusal_from_no_answer() {
    let gateway = TestGateway::start(&[]).await;
    let url = format!("http://{}/integration/nobody", gateway.address);
    let (code, stdout, stderr) = send(&[&url]).await;
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
    assert!(
        stdout.starts_with("404 Not Found\n") && stdout.contains("Integration (nobody) doesn't exist"),
        "{stdout}"
    );

    let (code, stdout, stderr) = send(&["http://127.0.0.1:1/integration/demo"]).await;
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(
        stderr.starts_with("retrieve-gateway: no answer from 127.0.0.1:1: it can't be connected to"),
        "{stderr}"
    );
    let (code, _, stderr) = send(&[]).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("<URL>"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn help_and_list_are_worth_reading() {
    let (code, stdout, _) = send(&["--help"]).await;
    assert_eq!(code, Some(0));
    for words in ["Exits 0 if the answer is a 2xx", "--secret env:SHOPIFY_SECRET", "--list", "file:PATH"] {
        assert!(stdout.contains(words), "{words}: {stdout}");
    }
    let (code, stdout, _) = send(&["--list"]).await;
    assert_eq!(code, Some(0));
    assert!(stdout.contains("shopify            Shopify\n"), "{stdout}");
}
