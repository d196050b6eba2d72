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
