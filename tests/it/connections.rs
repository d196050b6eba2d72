//! The limit of connections: one more is told so, and none is lost for good.

use crate::support::client::{Connection, post};
use crate::support::eventually;
use crate::support::gateway::TestGateway;

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_over_the_limit_is_answered_503_and_places_come_back() {
    let gateway = TestGateway::start(&[("RETRIEVE_MAX_CONNECTIONS", "4")]).await;
    let request = post("/integration/demo", "application/json", "{}");
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(gateway.address).await;
        connection.send(&request).await;
        assert_eq!(connection.answer().await.status, 200);
        open.push(connection);
    }
    assert_eq!(gateway.metric("retrieve_connections_open").await, Some(4.0));
    let mut refused = Connection::open(gateway.address).await;
    refused.send(&request).await;
    let answer = refused.answer().await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert_eq!(
        answer.body,
        "{\"result\":false,\"error\":\"The gateway is overloaded; send the webhook again later\"}"
    );
    assert_eq!(gateway.metric("retrieve_connections_refused_total").await, Some(1.0));

    drop(open);
    eventually("the places are free again", || async {
        (gateway.metric("retrieve_connections_open").await? == 0.0).then_some(())
    })
    .await;
    assert_eq!(gateway.post_json("{}").await.status, 200);
    assert_eq!(gateway.jobs().await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_all_places_unless_it_is_a_trusted_proxy() {
    let limits = [("RETRIEVE_MAX_CONNECTIONS", "100"), ("RETRIEVE_MAX_CONNECTIONS_PER_ADDRESS", "2")];
    let proxied = [limits[0], limits[1], ("RETRIEVE_TRUSTED_PROXIES", "127.0.0.1")];
    for (settings, last) in [(&limits[..], 503), (&proxied, 200)] {
        let gateway = TestGateway::start(settings).await;
        let request = post("/integration/demo", "application/json", "{}");
        let mut open = Vec::new();
        for expect in [200, 200, last] {
            let mut connection = Connection::open(gateway.address).await;
            connection.send(&request).await;
            assert_eq!(connection.answer().await.status, expect);
            open.push(connection);
        }
        drop(open);
        eventually("the places are free again", || async {
            (gateway.metric("retrieve_connections_open").await? == 0.0).then_some(())
        })
        .await;
        assert_eq!(gateway.post_json("{}").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_not_let_in_keeps_no_place() {
    let gateway = TestGateway::start(&[("RETRIEVE_ALLOWED_LIST", "203.0.113.5")]).await;
    for path in ["/integration/demo", "/nothing"] {
        let mut connection = Connection::open(gateway.address).await;
        connection.send(post(path, "application/json", "{}")).await;
        assert_eq!(connection.answer().await.header("connection"), Some("close"));
        assert_eq!(connection.closed().await, b"");
    }
}
