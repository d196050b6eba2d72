//! An app's jobs on several streams: an integration's order is kept, everything is read, and a changed number of shards
//! leaves nothing behind.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tempfile::TempDir;

use crate::support::attempts::Attempts;
use crate::support::client::{exchange, get, post};
use crate::support::gateway::{TestGateway, jobs, journal_is_sent_within};
use crate::support::process::GatewayProcess;
use crate::support::redis_server::RedisServer;

const SHARDS: (&str, &str) = ("RETRIEVE_SHARDS", "4");

async fn send(gateway: &TestGateway, integration: &str, number: u64) {
    let path = format!("/integration/{integration}");
    let body = format!("{{\"attempt\":{number}}}");
    assert_eq!(exchange(gateway.address, post(&path, "application/json", body)).await.status, 200);
}

fn number(job: &serde_json::Value) -> u64 {
    job["data"]["data"]["attempt"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_keeps_its_stream_and_one_that_keeps_no_order_takes_all() {
    let redis = RedisServer::start().await;
    let ids: Vec<String> = (0..24).map(|number| format!("shop-{number}")).collect();
    let mut toml = String::from("[[integration]]\nid = \"bulk\"\nkeep_order = false\n");
    ids.iter().for_each(|id| toml.push_str(&format!("[[integration]]\nid = \"{id}\"\n")));
    let gateway = TestGateway::with_integrations(&toml, &[("RETRIEVE_QUEUE", &redis.url()), SHARDS]).await;
    gateway.ready().await;
    for number in 0..3 {
        for id in &ids {
            send(&gateway, id, number).await;
        }
    }
    for number in 0..64 {
        send(&gateway, "bulk", number).await;
    }
    let mut streams: BTreeMap<String, HashSet<usize>> = BTreeMap::new();
    for shard in 0..4 {
        let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for job in redis.jobs(&format!("default.{shard}")).await {
            let id = job["integration"].as_str().unwrap();
            numbers.entry(id.to_owned()).or_default().push(number(&job));
            streams.entry(id.to_owned()).or_default().insert(shard);
        }
        assert!(numbers.len() > 1, "shard {shard} has jobs of several integrations");
        for (id, numbers) in &numbers {
            assert!(numbers.is_sorted(), "{id}: {numbers:?}");
        }
    }
    assert_eq!(streams.remove("bulk").unwrap().len(), 4);
    assert!(streams.len() == 24 && streams.values().all(|shards| shards.len() == 1), "{streams:?}");
    assert_eq!(redis.jobs("default").await.len(), 0);

    // The private plane reads all of them, each once, in pages of any size.
    let all = gateway.jobs().await;
    let ids: HashSet<_> = all.iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!((all.len(), ids.len()), (24 * 3 + 64, 24 * 3 + 64));
    let mut after = "0".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = get(gateway.admin, &format!("/api/jobs?after={after}&limit=7")).await;
        let lines: Vec<serde_json::Value> =
            page.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let Some(last) = lines.last() else { break };
        // The position of a line is as good as that of the page.
        after = last["id"].as_str().unwrap().to_owned();
        assert_eq!(page.header("x-retrieve-last-id"), Some(after.as_str()));
        seen.extend(lines.iter().map(|line| line["job"]["id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen.len(), ids.len());
    assert_eq!(seen.iter().map(String::as_str).collect::<HashSet<_>>(), ids);

    // From the end on, a job on any shard ends the waiting.
    let end = get(gateway.admin, "/api/jobs?after=$").await;
    let end = end.header("x-retrieve-last-id").unwrap().to_owned();
    let path = format!("/api/jobs?after={end}&wait=10s");
    let (page, ()) = tokio::join!(get(gateway.admin, &path), send(&gateway, "bulk", 99));
    assert_eq!(page.body.lines().count(), 1);
    for after in ["1-1", "1-1,1-1,1-1", "1-1,1-1,1-1,x", "1-1,1-1,1-1,1-1,1-1"] {
        assert_eq!(get(gateway.admin, &format!("/api/jobs?after={after}")).await.status, 400, "{after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_goes_to_its_own_streams_when_the_number_of_shards_changes() {
    let mut redis = RedisServer::start().await;
    let folder = TempDir::new().unwrap();
    let url = redis.url();
    let attempts = Arc::new(Attempts::default());
    // With each number some jobs go straight to Redis, and some are left in the journal.
    let mut sent_to_one = u64::MAX;
    for shards in ["1", "3", "2"] {
        let more = [
            ("RETRIEVE_QUEUE", url.as_str()),
            ("RETRIEVE_QUEUE_TIMEOUT", "400ms"),
            ("RETRIEVE_SHARDS", shards),
        ];
        let mut gateway = GatewayProcess::start(&folder, &more).await;
        sent_to_one = if shards == "1" { u64::MAX } else { sent_to_one.min(attempts.sent()) };
        for is_up in [true, false] {
            if !is_up {
                redis.kill();
            }
            let client = attempts.start_clients(gateway.address, 1);
            attempts.go_on_within(10, 20).await;
            attempts.finish();
            client.join_all().await;
        }
        gateway.signal(rustix::process::Signal::KILL);
        gateway.ended().await;
        redis.restart().await;
    }
    let more = [("RETRIEVE_QUEUE", url.as_str()), ("RETRIEVE_SHARDS", "2")];
    let gateway = GatewayProcess::start(&folder, &more).await;
    let (_, admin, _child) = gateway.ignore_log();
    journal_is_sent_within(10, admin).await;
    let mut all = redis.jobs("default").await;
    assert!(all.iter().all(|job| number(job) < sent_to_one), "other jobs than those of one shard");
    assert!(all.len() > 40, "what lay in the journal is there as well");
    for shard in 0..3 {
        let jobs = redis.jobs(&format!("default.{shard}")).await;
        assert!(jobs.iter().all(|job| number(job) >= sent_to_one), "jobs of one shard on the stream {shard}");
        all.extend(jobs);
    }
    attempts.check(&all);
    assert!(jobs(admin).await.len() < all.len(), "what lies on older streams isn't read with the others");
}
