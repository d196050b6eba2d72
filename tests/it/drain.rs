//! Stopping: what is in flight is answered, what is idle is closed, what is new is refused; exit codes.

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::client::{Connection, get, post};
use crate::support::eventually;
use crate::support::process::GatewayProcess;

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_answers_what_is_in_flight_and_exits_0() {
    let folder = TempDir::new().unwrap();
    let mut gateway = GatewayProcess::start(&folder, &[("RETRIEVE_DRAIN_DELAY", "2s")]).await;
    let request = post("/integration/demo", "application/json", "{}");
    let mut idle = Connection::open(gateway.address).await;
    idle.send(&request).await;
    assert_eq!(idle.answer().await.status, 200);
    let silent = Connection::open(gateway.address).await;
    let mut slow = Connection::open(gateway.address).await;
    slow.send(&request[..request.len() - 1]).await;

    gateway.signal(Signal::TERM);
    eventually("readiness is off", || async {
        (get(gateway.admin, "/ready").await.status == 503).then_some(())
    })
    .await;
    // During the delay the balancer hasn't looked yet: new webhooks are still taken.
    let mut late = Connection::open(gateway.address).await;
    late.send(&request).await;
    assert_eq!(late.answer().await.status, 200);

    assert_eq!(idle.closed().await, b"");
    assert_eq!(silent.closed().await, b"");
    eventually("new connections are refused", || async {
        tokio::net::TcpStream::connect(gateway.address).await.is_err().then_some(())
    })
    .await;
    assert_eq!(get(gateway.admin, "/live").await.status, 200, "the private plane is the last to go");
    slow.send(&request[request.len() - 1..]).await;
    let answer = slow.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    drop(slow);
    assert_eq!(gateway.ended().await.code(), Some(0));

    let gateway = GatewayProcess::start(&folder, &[]).await;
    assert_eq!(
        crate::support::gateway::jobs(gateway.admin).await.len(),
        3,
        "all three answered 200 are there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_and_the_end_of_the_time_drop_what_is_left_and_exit_1() {
    for (timeout, signals) in [("60s", 2), ("200ms", 1)] {
        let folder = TempDir::new().unwrap();
        let mut gateway = GatewayProcess::start(&folder, &[("RETRIEVE_DRAIN_TIMEOUT", timeout)]).await;
        let request = post("/integration/demo", "application/json", "{}");
        let mut stuck = Connection::open(gateway.address).await;
        stuck.send(&request[..request.len() - 1]).await;
        eventually("the request is in flight", || async {
            get(gateway.admin, "/metrics").await.body.contains("retrieve_requests_in_flight 1").then_some(())
        })
        .await;
        gateway.signal(Signal::INT);
        eventually("it is draining", || async {
            tokio::net::TcpStream::connect(gateway.address).await.is_err().then_some(())
        })
        .await;
        if signals == 2 {
            gateway.signal(Signal::TERM);
        }
        assert_eq!(gateway.ended().await.code(), Some(1));
        let log = gateway.log_to_end().await;
        let last = log.last().unwrap()["text"].as_str().unwrap().to_owned();
        assert_eq!(last, "retrieve-gateway: stopped before everything in flight had been answered");
    }
}
