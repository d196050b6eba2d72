//! Redis by TLS, behind sentinels and in a cluster, all real processes; nothing is lost or doubled when masters die and
//! slots move under load.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::attempts::Attempts;
use crate::support::certificates::Certificates;
use crate::support::client::get;
use crate::support::gateway::{TestGateway, jobs};
use crate::support::redis_server::{RedisServer, free_port, words};
use crate::support::{eventually, eventually_within};

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

/// Load on a gateway whose answers are held against its queue afterwards.
struct Load {
    attempts: Arc<Attempts>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(gateway: &TestGateway) -> Load {
        let attempts = Arc::new(Attempts::default());
        let clients =
            (0..4).map(|_| tokio::spawn(Arc::clone(&attempts).send_until_gone(gateway.address))).collect();
        Load { attempts, clients }
    }

    /// Waits until more webhooks were accepted.
    async fn goes_on(&self) {
        let before = self.attempts.accepted();
        eventually_within(30, "webhooks are accepted", || async {
            (self.attempts.accepted() > before + 50).then_some(())
        })
        .await;
    }

    async fn check(self, gateway: &TestGateway) {
        self.attempts.finish();
        for client in self.clients {
            client.await.unwrap();
        }
        assert_eq!(self.attempts.refused(), HashMap::new(), "what Redis doesn't take lies in the journal");
        gateway.sent_its_journal().await;
        assert_eq!(gateway.metric("retrieve_redis_losses_total").await, Some(0.0));
        self.attempts.check(&jobs(gateway.admin).await);
    }
}

/// Whether a server says so in a section of `INFO`.
async fn says(server: &RedisServer, section: &str, line: &str) -> Option<()> {
    let info = server.try_command(&["INFO", section]).await.ok()?;
    let info: String = redis::from_redis_value(info).ok()?;
    info.lines().any(|other| other == line).then_some(())
}

fn plain() -> Vec<String> {
    words("--appendonly no --repl-diskless-sync-delay 0 --repl-diskless-sync yes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_failover_under_load_loses_and_doubles_nothing() {
    let mut first = RedisServer::start_with(plain).await;
    let mut second = RedisServer::start_with(plain).await;
    let port = first.address.port().to_string();
    second.command(&["REPLICAOF", "127.0.0.1", &port]).await;
    let folder = TempDir::new().unwrap();
    let sentinel = RedisServer::start_sentinel(folder.path(), first.address.port()).await;
    // The first of the sentinels is away.
    let url = format!("redis-sentinel://127.0.0.1:{},{}/mymaster", free_port(), sentinel.address);
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), TIMEOUT]).await;
    gateway.ready().await;
    let load = Load::start(&gateway);
    for _ in 0..2 {
        load.goes_on().await;
        eventually_within(30, "the replica follows", || {
            says(&second, "replication", "master_link_status:up")
        })
        .await;
        eventually_within(30, "the sentinel knows it", || async {
            let replicas = sentinel.try_command(&["SENTINEL", "REPLICAS", "mymaster"]).await.ok()?;
            format!("{replicas:?}").contains(&second.address.port().to_string()).then_some(())
        })
        .await;
        first.kill();
        eventually_within(60, "the sentinel names the replica as the master", || async {
            let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"];
            let named = sentinel.try_command(&words).await.ok()?;
            let (_, port): (String, u16) = redis::from_redis_value(named).ok()?;
            (port == second.address.port()).then_some(())
        })
        .await;
        load.goes_on().await;
        gateway.sent_its_journal().await;
        // The old master comes back without what it had, as a replica of the new one.
        let port = second.address.port();
        first.more = [plain(), words(&format!("--replicaof 127.0.0.1 {port}"))].concat();
        first.restart().await;
        std::mem::swap(&mut first, &mut second);
    }
    load.check(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_isnt_one_any_more_is_refused() {
    let master = RedisServer::start_with(plain).await;
    let folder = TempDir::new().unwrap();
    let sentinel = RedisServer::start_sentinel(folder.path(), master.address.port()).await;
    // The sentinel would repair this only after some seconds, and doesn't while nothing else can be the master.
    master.command(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]).await;
    let url = format!("redis-sentinel://{}/mymaster", sentinel.address);
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), NO_JOURNAL, TIMEOUT]).await;
    why_not_ready(&gateway, "isn't the master any more").await;
    let url = format!("redis-sentinel://{}/other", sentinel.address);
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), NO_JOURNAL, TIMEOUT]).await;
    why_not_ready(&gateway, "knows no such master").await;
}

/// A node of a cluster, and its id.
async fn cluster_node() -> (RedisServer, String) {
    let settings = || {
        let more = "--cluster-enabled yes --cluster-node-timeout 1500 --cluster-replica-validity-factor 0";
        [plain(), words(more), words(&format!("--cluster-port {}", free_port()))].concat()
    };
    let node = RedisServer::start_with(settings).await;
    let id: String = redis::from_redis_value(node.command(&["CLUSTER", "MYID"]).await).unwrap();
    (node, id)
}

fn cluster_port(node: &RedisServer) -> String {
    node.more.last().unwrap().clone()
}

/// Moves the app's slot from one master to another, key by key, as `redis-cli --cluster reshard` does.
async fn move_slot(
    slot: &str,
    from: &(RedisServer, String),
    to: &(RedisServer, String),
    others: &[&RedisServer],
) {
    to.0.command(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &from.1]).await;
    from.0.command(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &to.1]).await;
    let port = to.0.address.port().to_string();
    loop {
        let keys = from.0.command(&["CLUSTER", "GETKEYSINSLOT", slot, "1"]).await;
        let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
        let Some(key) = keys.first() else { break };
        from.0.command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
        // What is asked for meanwhile is half here and half there.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for node in [&to.0, &from.0].into_iter().chain(others.iter().copied()) {
        node.command(&["CLUSTER", "SETSLOT", slot, "NODE", &to.1]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clusters_failover_and_moves_of_its_slot_under_load_lose_and_double_nothing() {
    let mut masters = Vec::new();
    for range in [["0", "5460"], ["5461", "10922"], ["10923", "16383"]] {
        let node = cluster_node().await;
        node.0.command(&["CLUSTER", "ADDSLOTSRANGE", range[0], range[1]]).await;
        masters.push(node);
    }
    let replica = cluster_node().await;
    for (epoch, node) in masters.iter().chain([&replica]).enumerate() {
        node.0.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(epoch + 1).to_string()]).await;
        let seed = &masters[0].0;
        let port = seed.address.port().to_string();
        node.0.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &cluster_port(seed)]).await;
    }
    let slot = masters[0].0.command(&["CLUSTER", "KEYSLOT", "retrieve:{default}:jobs"]).await;
    let slot: u16 = redis::from_redis_value(slot).unwrap();
    let owner = usize::from(slot > 5460) + usize::from(slot > 10922);
    for node in masters.iter().chain([&replica]) {
        eventually_within(30, "the cluster is whole", || async {
            let info = node.0.try_command(&["CLUSTER", "INFO"]).await.ok()?;
            let info: String = redis::from_redis_value(info).ok()?;
            let is_whole = info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4");
            is_whole.then_some(())
        })
        .await;
    }
    replica.0.command(&["CLUSTER", "REPLICATE", &masters[owner].1]).await;
    let slot = slot.to_string();

    // The seed is a node that doesn't own the slot.
    let seed = masters[(owner + 1) % 3].0.address;
    let url = format!("redis-cluster://127.0.0.1:{},{seed}", free_port());
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), TIMEOUT]).await;
    gateway.ready().await;
    let load = Load::start(&gateway);
    load.goes_on().await;
    eventually_within(30, "the replica follows", || says(&replica.0, "replication", "master_link_status:up"))
        .await;
    let (mut dead, _) = masters.remove(owner);
    dead.kill();
    eventually_within(60, "the replica becomes the master", || {
        says(&replica.0, "replication", "role:master")
    })
    .await;
    load.goes_on().await;
    gateway.sent_its_journal().await;
    let [one, other] = &masters[..] else { unreachable!() };
    move_slot(&slot, &replica, one, &[&other.0]).await;
    load.goes_on().await;
    gateway.sent_its_journal().await;
    move_slot(&slot, one, other, &[&replica.0]).await;
    load.goes_on().await;
    load.check(&gateway).await;
}
