//! Redis by TLS, and a sentinel that names a server that isn't the master, all real processes. Failovers and moves of slots
//! under load: `faults::topologies`.

use tempfile::TempDir;

use crate::support::certificates::Certificates;
use crate::support::client::get;
use crate::support::eventually;
use crate::support::gateway::TestGateway;
use crate::support::redis_server::{RedisServer, free_port, without_a_file};

/// What batches have before they go to the journal is three quarters of this.
const TIMEOUT: (&str, &str) = ("RETRIEVE_QUEUE_TIMEOUT", "400ms");
const NO_JOURNAL: (&str, &str) = ("RETRIEVE_DATA_DIR", "off");

async fn why_not_ready(gateway: &TestGateway, expect: &str) -> String {
    eventually(&format!("readiness says `{expect}`"), || async {
        let ready = get(gateway.admin, "/ready").await.json();
        let why = ready["probes"]["queue"]["why"].as_str()?.to_owned();
        why.contains(expect).then_some(why)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_an_authority_and_a_client_certificate_of_its_own() {
    let certificates = Certificates::new();
    let redis = RedisServer::start_with(|| certificates.server_settings("server", free_port())).await;
    let url = format!("rediss://127.0.0.1:{}", redis.more[1]);
    let (ca, cert, key) =
        (certificates.path("ca.pem"), certificates.path("client.pem"), certificates.path("client.key"));
    let queue = ("RETRIEVE_QUEUE", url.as_str());
    let good = [
        queue,
        ("RETRIEVE_REDIS_CA", ca.as_str()),
        ("RETRIEVE_REDIS_CERT", cert.as_str()),
        ("RETRIEVE_REDIS_KEY", key.as_str()),
    ];
    let gateway = TestGateway::start(&good).await;
    gateway.ready().await;
    assert_eq!(gateway.post_json("{\"n\":1}").await.status, 200);
    assert_eq!(gateway.jobs().await.len(), 1, "reading goes by TLS as well");
    assert_eq!(redis.jobs("default").await.len(), 1);

    let unknown_authority = TestGateway::start(&[queue, NO_JOURNAL]).await;
    why_not_ready(&unknown_authority, "authority that isn't trusted, see RETRIEVE_REDIS_CA").await;
    let without_certificate = TestGateway::start(&[queue, good[1], NO_JOURNAL]).await;
    why_not_ready(&without_certificate, "CertificateRequired").await;

    let elsewhere = RedisServer::start_with(|| certificates.server_settings("elsewhere", free_port())).await;
    let url = format!("rediss://127.0.0.1:{}", elsewhere.more[1]);
    let other_name =
        TestGateway::start(&[("RETRIEVE_QUEUE", &url), good[1], good[2], good[3], NO_JOURNAL]).await;
    why_not_ready(&other_name, "for another name").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_isnt_one_any_more_is_refused() {
    let master = RedisServer::start_with(without_a_file).await;
    let folder = TempDir::new().unwrap();
    let sentinel = RedisServer::start_sentinel(folder.path(), master.address.port(), 2000).await;
    // The sentinel would repair this only after some seconds, and doesn't while nothing else can be the master.
    master.command(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]).await;
    let url = format!("redis-sentinel://{}/mymaster", sentinel.address);
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), NO_JOURNAL, TIMEOUT]).await;
    why_not_ready(&gateway, "isn't the master any more").await;
    let url = format!("redis-sentinel://{}/other", sentinel.address);
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), NO_JOURNAL, TIMEOUT]).await;
    why_not_ready(&gateway, "knows no such master").await;
}
