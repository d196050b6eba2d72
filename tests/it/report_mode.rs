//! `RETRIEVE_ALLOWED_LIST_MODE=report`: who is on no list is let in, counted and logged, its job says so, and every other
//! check stays.

use tempfile::TempDir;

use crate::support::client::{exchange, get, post};
use crate::support::gateway::{TestGateway, jobs};
use crate::support::process::GatewayProcess;

const INTEGRATIONS: &str = r#"
    [[integration]]
    id = "demo"

    [[integration]]
    id = "mine"
    allowed_list = ["127.0.0.1"]

    [[integration]]
    id = "off"
    enabled = false

    [[integration]]
    id = "slow"
    rate = "1/h"
"#;

const REPORT: (&str, &str) = ("RETRIEVE_ALLOWED_LIST_MODE", "report");
const REPORTED: &str = "retrieve_allowlist_reported_total";

#[tokio::test(flavor = "multi_thread")]
async fn callers_on_no_list_are_let_in_and_every_other_check_stays() {
    let settings =
        [REPORT, ("RETRIEVE_ALLOWED_LIST", "203.0.113.5"), ("RETRIEVE_TRUSTED_PROXIES", "10.0.0.1")];
    let gateway = TestGateway::with_integrations(INTEGRATIONS, &settings).await;
    for (path, body, status, reported) in [
        ("/integration/demo", "{}", 200, 1.0),
        ("/integration/demo", "{", 400, 2.0),
        ("/integration/slow", "{}", 200, 3.0),
        ("/integration/slow", "{}", 429, 3.0),
        ("/integration/off", "{}", 403, 3.0),
        ("/integration/none", "{}", 404, 3.0),
        // Its own list admits this one.
        ("/integration/mine", "{}", 200, 3.0),
    ] {
        let answer = exchange(gateway.address, post(path, "application/json", body)).await;
        assert_eq!(answer.status, status, "{path} {body}");
        assert_eq!(gateway.metric(REPORTED).await, Some(reported), "{path} {body}");
    }
    let jobs = gateway.jobs().await;
    let sources: Vec<_> =
        jobs.iter().map(|job| (&job["source"]["admitted_by"], &job["source"]["rule"])).collect();
    let expect =
        [("report", ""), ("report", ""), ("address", "127.0.0.1")].map(|(by, rule)| (by.into(), rule.into()));
    assert_eq!(sources, expect.iter().map(|(by, rule)| (by, rule)).collect::<Vec<_>>());
    assert!(jobs.iter().all(|job| job["source"]["ip"] == "127.0.0.1" && job["source"]["verified"] == false));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untraceable_client_is_refused_all_the_same() {
    let gateway = TestGateway::start(&[REPORT, ("RETRIEVE_TRUSTED_PROXIES", "127.0.0.1")]).await;
    let request = "POST /integration/demo HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: unknown\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(exchange(gateway.address, request).await.status, 400);
    assert_eq!(gateway.metric(REPORTED).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn enforcing_is_the_default_and_counts_nothing() {
    for mode in [None, Some(("RETRIEVE_ALLOWED_LIST_MODE", "enforce"))] {
        let settings: Vec<_> = mode.into_iter().chain([("RETRIEVE_ALLOWED_LIST", "203.0.113.5")]).collect();
        let gateway = TestGateway::start(&settings).await;
        assert_eq!(gateway.post_json("{}").await.status, 403);
        assert_eq!(gateway.metric(REPORTED).await, Some(0.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_warns_at_the_start_and_names_who_would_be_refused() {
    let folder = TempDir::new().unwrap();
    let settings = [
        REPORT,
        ("RETRIEVE_ALLOWED_LIST", "203.0.113.5"),
        ("RETRIEVE_TRUSTED_PROXIES", "127.0.0.1"),
        ("RETRIEVE_LOG", "info"),
    ];
    let mut gateway = GatewayProcess::start(&folder, &settings).await;
    assert!(gateway.log_before_listening().iter().any(|line| {
        line["level"] == "WARN"
            && line["setting"] == "RETRIEVE_ALLOWED_LIST_MODE"
            && line["message"].as_str().unwrap().starts_with("no allowlist is enforced")
    }));
    for client in ["198.51.100.7", "203.0.113.5"] {
        let request = format!(
            "POST /integration/demo HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        assert_eq!(exchange(gateway.address, request).await.status, 200);
    }
    assert_eq!(jobs(gateway.admin).await.len(), 2);
    let metrics = get(gateway.admin, "/metrics").await.body;
    assert!(metrics.lines().any(|line| line == "retrieve_allowlist_reported_total 1"), "{metrics}");
    gateway.signal(rustix::process::Signal::TERM);
    gateway.ended().await;
    let log = gateway.log_to_end().await;
    let would_be: Vec<_> = log
        .iter()
        .filter(|line| line["message"] == "would be refused: the client is on no allowlist")
        .map(|line| (&line["level"], &line["client"], &line["integration"]))
        .collect();
    assert_eq!(would_be, [(&"WARN".into(), &"198.51.100.7".into(), &"demo".into())]);
}
