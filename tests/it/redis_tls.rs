//! TLS with an authority of one's own and certificates on both sides, and logins of their own for sentinels and data
//! nodes: on one server, behind sentinels and in a cluster, and what is said where something of it is wrong.

use retrieve_gateway::queue::redis::RIGHTS;

use crate::support::certificates::Certificates;
use crate::support::cluster::Cluster;
use crate::support::gateway::{TestGateway, jobs};
use crate::support::load::Load;
use crate::support::log::Lines;
use crate::support::redis_server::{RedisServer, Release, free_port, words};

/// What batches have before they go to the journal is three quarters of this.
const TIMEOUT: (&str, &str) = ("RETRIEVE_QUEUE_TIMEOUT", "1s");
const NO_JOURNAL: (&str, &str) = ("RETRIEVE_DATA_DIR", "off");

/// The settings of TLS, whose values are files.
fn tls(certificates: &Certificates) -> [(&'static str, String); 3] {
    [
        ("RETRIEVE_REDIS_CA", certificates.path("ca.pem")),
        ("RETRIEVE_REDIS_CERT", certificates.path("client.pem")),
        ("RETRIEVE_REDIS_KEY", certificates.path("client.key")),
    ]
}

async fn gateway(url: &str, tls: &[(&str, String)]) -> TestGateway {
    gateway_with(url, tls, &[TIMEOUT]).await
}

async fn gateway_with(url: &str, tls: &[(&str, String)], more: &[(&str, &str)]) -> TestGateway {
    let mut settings = vec![("RETRIEVE_QUEUE", url)];
    settings.extend_from_slice(more);
    settings.extend(tls.iter().map(|(name, value)| (*name, value.as_str())));
    TestGateway::start(&settings).await
}

/// The gateway's login at a node that keeps data.
async fn let_in(server: &RedisServer) {
    let mut words = vec!["ACL", "SETUSER", "gateway", "reset", "on", ">data-canary", "~retrieve:{default}:*"];
    words.extend(RIGHTS.split_whitespace());
    server.command(&words).await;
}

/// A master and a replica with TLS between them, and a sentinel that lets in nobody but `watcher`.
struct Sentinels {
    master: RedisServer,
    replica: RedisServer,
    sentinel: RedisServer,
}

impl Sentinels {
    async fn start(certificates: &Certificates) -> Sentinels {
        let settings = || {
            let more = words("--appendonly no --repl-diskless-sync-delay 0 --tls-replication yes");
            [certificates.server_settings("server", free_port()), more].concat()
        };
        let master = RedisServer::start_with(settings).await;
        let replica = RedisServer::start_with(settings).await;
        let_in(&master).await;
        let_in(&replica).await;
        replica.command(&["REPLICAOF", "127.0.0.1", master.setting("--tls-port")]).await;
        let port = master.setting("--tls-port").parse().unwrap();
        let sentinel = RedisServer::start_sentinel_of(Release::Usual, port, 2000, || {
            [certificates.server_settings("server", free_port()), words("--tls-replication yes")].concat()
        })
        .await;
        sentinel.knows_replica(replica.setting("--tls-port")).await;
        let user = "ACL SETUSER watcher reset on >watch-canary +sentinel|get-master-addr-by-name";
        sentinel.command(&user.split(' ').collect::<Vec<_>>()).await;
        sentinel.command(&["ACL", "SETUSER", "default", "off"]).await;
        Sentinels { master, replica, sentinel }
    }

    fn url(&self, login: &str, sentinel_login: &str) -> String {
        let port = self.sentinel.setting("--tls-port");
        format!("rediss-sentinel://{login}@127.0.0.1:{port}/mymaster{sentinel_login}")
    }
}

const DATA_LOGIN: &str = "gateway:data-canary";
const SENTINEL_LOGIN: &str = "?sentinel_user=watcher&sentinel_password=watch-canary";

#[tokio::test(flavor = "multi_thread")]
async fn one_server_with_tls_and_certificates_on_both_sides() {
    let certificates = Certificates::new();
    let tls = tls(&certificates);
    let redis = RedisServer::start_with(|| certificates.server_settings("server", free_port())).await;
    let url = format!("rediss://127.0.0.1:{}", redis.setting("--tls-port"));
    let gateway = gateway_with(&url, &tls, &[]).await;
    gateway.ready().await;
    assert_eq!(gateway.post_json("{\"n\":1}").await.status, 200);
    assert_eq!(gateway.jobs().await.len(), 1, "reading goes by TLS as well");
    assert_eq!(redis.jobs("default").await.len(), 1);

    let elsewhere = RedisServer::start_with(|| certificates.server_settings("elsewhere", free_port())).await;
    let elsewhere = format!("rediss://127.0.0.1:{}", elsewhere.setting("--tls-port"));
    for (url, tls, expect) in [
        (&url, &tls[..0], "authority that isn't trusted, see RETRIEVE_REDIS_CA"),
        (&url, &tls[..1], "CertificateRequired"),
        (&elsewhere, &tls, "for another name"),
    ] {
        gateway_with(url, tls, &[NO_JOURNAL]).await.why_not_ready(&[expect]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_behind_sentinels_with_tls_and_two_logins_loses_and_doubles_nothing() {
    let certificates = Certificates::new();
    let mut sentinels = Sentinels::start(&certificates).await;
    let gateway = gateway(&sentinels.url(DATA_LOGIN, SENTINEL_LOGIN), &tls(&certificates)).await;
    gateway.ready().await;
    let load = Load::start(gateway.address);
    load.goes_on().await;
    sentinels.replica.will_say("replication", "master_link_status:up").await;
    sentinels.master.kill();
    load.goes_on().await;
    sentinels.replica.will_say("replication", "role:master").await;
    load.goes_on().await;
    let attempts = load.finish(&gateway).await;
    attempts.check(&sentinels.replica.jobs("default").await);
    assert_eq!(attempts.check(&jobs(gateway.admin).await), attempts.accepted());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_tls_and_a_login_follows_its_slot() {
    let certificates = Certificates::new();
    let settings = || {
        let more = words("--appendonly no --tls-cluster yes --tls-replication yes");
        [certificates.server_settings("server", free_port()), more].concat()
    };
    let cluster = Cluster::start(Release::Usual, 2, settings).await;
    for node in &cluster.nodes {
        let_in(&node.server).await;
    }
    let slot = cluster.nodes[0].slot().await;
    let (owner, other) = cluster.owner_and_other(slot);
    // The seed isn't the owner, so the address that the seed names is dialled as well.
    let url = format!("rediss-cluster://{DATA_LOGIN}@127.0.0.1:{}", other.port());
    let gateway = gateway(&url, &tls(&certificates)).await;
    gateway.ready().await;
    gateway.take_numbers(0..1).await;
    owner.begin_to_give(slot, other).await;
    gateway.take_numbers(1..2).await;
    owner.give_keys(slot, other).await;
    gateway.take_numbers(2..3).await;
    cluster.give(slot, other).await;
    gateway.take_numbers(3..4).await;
    gateway.sent_its_journal().await;
    assert_eq!(other.server.numbers().await, [0, 1, 2, 3]);

    let stranger = Certificates::new();
    let wrong = [("RETRIEVE_REDIS_CA", stranger.path("ca.pem"))];
    says_and_takes_jobs(&url, &wrong, &["TLS failed", "see RETRIEVE_REDIS_CA"]).await;
    let wrong = url.replace("data-canary", "wrong-canary");
    says_and_takes_jobs(&wrong, &tls(&certificates), &["WRONGPASS"]).await;
}

/// A gateway there says what is wrong, without a password, and takes webhooks for its journal meanwhile.
async fn says_and_takes_jobs(url: &str, tls: &[(&str, String)], expect: &[&str]) {
    let gateway = gateway(url, tls).await;
    let said = gateway.note(expect).await;
    assert!(!said.contains("canary"), "{said}");
    assert_eq!(gateway.post_json("{}").await.status, 200);
    assert_eq!(gateway.metric("retrieve_journal_jobs").await, Some(1.0));
}

#[tokio::test]
async fn wrong_authorities_certificates_and_passwords_are_told_in_plain_words() {
    let (lines, _guard) = Lines::of_this_thread();
    let certificates = Certificates::new();
    let stranger = Certificates::new();
    let sentinels = Sentinels::start(&certificates).await;
    let right = tls(&certificates);
    let url = sentinels.url(DATA_LOGIN, SENTINEL_LOGIN);
    let wrong_authority = [("RETRIEVE_REDIS_CA", stranger.path("ca.pem"))];
    let no_certificate = [right[0].clone()];
    let strange_certificate = [
        right[0].clone(),
        ("RETRIEVE_REDIS_CERT", stranger.path("client.pem")),
        ("RETRIEVE_REDIS_KEY", stranger.path("client.key")),
    ];
    let wrong_data = sentinels.url("gateway:wrong-canary", SENTINEL_LOGIN);
    let no_data = sentinels.url("nobody:wrong-canary", SENTINEL_LOGIN);
    let wrong_sentinel = sentinels.url(DATA_LOGIN, "?sentinel_user=watcher&sentinel_password=wrong-canary");
    let no_sentinel = sentinels.url(DATA_LOGIN, "");
    let master = format!("127.0.0.1:{}", sentinels.master.setting("--tls-port"));
    let sentinel = format!("127.0.0.1:{}", sentinels.sentinel.setting("--tls-port"));
    let plain_port = format!("rediss://{}", sentinels.master.address);
    let single = |login: &str| format!("rediss://{login}@{master}");
    for (name, url, tls, expect) in [
        ("authority", &url, &wrong_authority[..], ["authority that isn't trusted", "see RETRIEVE_REDIS_CA"]),
        ("no certificate", &url, &no_certificate, ["Redis asks for a certificate", "RETRIEVE_REDIS_CERT"]),
        ("certificate", &url, &strange_certificate, ["fatal alert", "doesn't take the certificate"]),
        ("password of the data nodes", &wrong_data, &right, [&master, "WRONGPASS"]),
        ("user of the data nodes", &no_data, &right, [&master, "WRONGPASS"]),
        ("password of the sentinels", &wrong_sentinel, &right, [&sentinel, "WRONGPASS"]),
        ("no login at the sentinels", &no_sentinel, &right, [&sentinel, "NOAUTH"]),
        ("password of a single server", &single("gateway:wrong-canary"), &right, [&master, "WRONGPASS"]),
        ("only TLS on this port", &format!("redis://{master}"), &[], ["does this port want TLS", "rediss"]),
        ("no TLS on this port", &plain_port, &right, ["no answer", "does it speak TLS"]),
    ] {
        println!("{name}");
        says_and_takes_jobs(url, tls, &expect).await;
        lines.until(&[&["WARN", "jobs go to the outage journal"][..], &expect[..]].concat()).await;
    }
    assert_eq!(lines.with(&["canary"]), [] as [&str; 0], "no password is in the log");
    // Nothing but the login was wrong.
    let good = gateway(&single(DATA_LOGIN), &right).await;
    good.ready().await;
    assert_eq!(good.post_json("{}").await.status, 200);
    assert_eq!(sentinels.master.jobs("default").await.len(), 1);
}
