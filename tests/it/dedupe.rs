//! Repeats of a delivery: one job for each, on both queues, across restarts, and only where the integration asks for it.

use std::collections::{BTreeMap, BTreeSet};

use tempfile::TempDir;

use crate::support::client::{self, Answer, Connection, exchange};
use crate::support::gateway::{TestGateway, acknowledgement, jobs};
use crate::support::process::GatewayProcess;
use crate::support::random::{Random, rounds};
use crate::support::redis_server::RedisServer;

const INTEGRATIONS: &str = r#"
[[integration]]
id = "by-id"
source = "github"
admit = "allowlist"
secrets = ["env:SENDER_SECRET"]
dedupe = { by = "delivery_id", within = "72h" }

[[integration]]
id = "by-body"
dedupe = { by = "body", within = "1h" }

[[integration]]
id = "short"
dedupe = { by = "body", within = "1s" }

[[integration]]
id = "kept"
"#;

const SECRET: (&str, &str) = ("SENDER_SECRET", "a-secret-of-some-length");

const SMALLEST_QUEUE: (&str, &str) = ("RETRIEVE_EMBEDDED_LIMIT", "1MiB");

fn integrations_file(folder: &TempDir) -> String {
    let file = folder.path().join("integrations.toml");
    std::fs::write(&file, INTEGRATIONS).unwrap();
    file.display().to_string()
}

fn signature(body: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.1.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

async fn send(address: std::net::SocketAddr, id: &str, delivery: &str, body: &str) -> Answer {
    let text = format!(
        "POST /integration/{id} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         X-GitHub-Delivery: {delivery}\r\nX-Hub-Signature-256: sha256={}\r\n\r\n{body}",
        body.len(),
        signature(body)
    );
    let answer = exchange(address, text).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{\"result\":true,\"error\":\"\"}"));
    answer
}

fn job_id(answer: &Answer) -> String {
    answer.header("x-retrieve-job-id").unwrap().to_owned()
}

async fn check(gateway: &TestGateway) {
    let address = gateway.address;
    let first = send(address, "by-id", "d-1", "{\"n\":1}").await;
    let other = send(address, "by-id", "d-2", "{\"n\":1}").await;
    let repeat = send(address, "by-id", "d-1", "{\"n\":1,\"attempt\":2}").await;
    assert_eq!(job_id(&repeat), job_id(&first), "a repeat has the first job's id");
    assert_ne!(job_id(&other), job_id(&first));
    let first = send(address, "by-body", "", "{\"n\":2}").await;
    assert_eq!(job_id(&send(address, "by-body", "", "{\"n\":2}").await), job_id(&first));
    assert_ne!(job_id(&send(address, "by-body", "", "{\"n\": 2}").await), job_id(&first), "another byte");
    // The same body at another integration is no repeat.
    assert_ne!(job_id(&send(address, "short", "", "{\"n\":2}").await), job_id(&first));
    for _ in 0..2 {
        send(address, "kept", "d-1", "{\"n\":3}").await;
    }
    // Many at once: one of them is the first.
    let all = (0..20).map(|_| send(address, "by-body", "", "{\"n\":4}"));
    let ids: BTreeMap<String, usize> =
        futures_util::future::join_all(all).await.iter().fold(BTreeMap::new(), |mut ids, answer| {
            *ids.entry(job_id(answer)).or_default() += 1;
            ids
        });
    assert_eq!(ids.into_values().collect::<Vec<_>>(), [20]);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for job in gateway.jobs().await {
        *counts.entry(format!("{} {}", job["integration"], job["data"]["data"])).or_default() += 1;
    }
    let expect = [
        ("\"by-body\" {\"n\":2}", 2),
        ("\"by-body\" {\"n\":4}", 1),
        ("\"by-id\" {\"n\":1}", 2),
        ("\"kept\" {\"n\":3}", 2),
        ("\"short\" {\"n\":2}", 1),
    ];
    assert_eq!(counts, expect.map(|(what, count)| (what.to_owned(), count)).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_are_answered_with_the_first_jobs_id_on_the_embedded_queue() {
    check(&TestGateway::with_integrations(INTEGRATIONS, &[SECRET]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_are_answered_with_the_first_jobs_id_on_redis() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let gateway =
        TestGateway::with_integrations(INTEGRATIONS, &[SECRET, ("RETRIEVE_QUEUE", url.as_str())]).await;
    gateway.ready().await;
    check(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_during_an_outage_is_dropped_on_the_way_to_redis() {
    let mut redis = RedisServer::start().await;
    let url = redis.url();
    let settings = [SECRET, ("RETRIEVE_QUEUE", url.as_str()), ("RETRIEVE_QUEUE_TIMEOUT", "400ms")];
    let gateway = TestGateway::with_integrations(INTEGRATIONS, &settings).await;
    send(gateway.address, "by-body", "", "{\"n\":1}").await;
    redis.kill();
    for _ in 0..3 {
        send(gateway.address, "by-body", "", "{\"n\":1}").await;
        send(gateway.address, "by-body", "", "{\"n\":2}").await;
    }
    redis.restart().await;
    crate::support::eventually("the journal is sent", || async {
        (gateway.metric("retrieve_journal_jobs").await? == 0.0).then_some(())
    })
    .await;
    let bodies: Vec<_> =
        redis.jobs("default").await.iter().map(|job| job["data"]["data"]["n"].as_u64().unwrap()).collect();
    assert_eq!(bodies, [1, 2]);
}

async fn acknowledge_all(admin: std::net::SocketAddr) {
    let page = crate::support::client::get(admin, "/api/jobs?after=0&limit=1000").await;
    let last = page.header("x-retrieve-last-id").unwrap();
    let ack = acknowledgement(admin, last);
    assert_eq!(exchange(admin, ack).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_are_known_after_kills_and_after_their_file_was_acknowledged_and_removed() {
    let folder = TempDir::new().unwrap();
    let file = integrations_file(&folder);
    let settings = [SECRET, ("RETRIEVE_INTEGRATIONS_FILE", file.as_str()), SMALLEST_QUEUE];
    let gateway = GatewayProcess::start(&folder, &settings).await;
    let first = job_id(&send(gateway.address, "by-body", "", "{\"n\":0}").await);
    let filler = "x".repeat(30_000);
    for number in 1..14 {
        send(gateway.address, "by-body", "", &format!("{{\"n\":{number},\"x\":\"{filler}\"}}")).await;
    }
    let data = folder.path().join("data");
    crate::support::eventually("a second file is begun", || async {
        send(gateway.address, "kept", "", "{}").await;
        data.join("jobs-000002.log").exists().then_some(())
    })
    .await;
    assert!(jobs(gateway.admin).await.len() > 14);
    // Nothing is removed before the new file has taken over the numbers, with the next job that it holds.
    crate::support::eventually("the first file is removed", || async {
        send(gateway.address, "kept", "", "{}").await;
        acknowledge_all(gateway.admin).await;
        (!data.join("jobs-000001.log").exists()).then_some(())
    })
    .await;
    let (_, _, mut child) = gateway.ignore_log();
    child.kill().await.unwrap();
    let gateway = GatewayProcess::start(&folder, &settings).await;
    assert_eq!(
        job_id(&send(gateway.address, "by-body", "", "{\"n\":0}").await),
        first,
        "its mark is kept without its job"
    );
}

/// By delivery: the ids of its jobs. One that was read and not acknowledged comes again.
type Handled = BTreeMap<u64, BTreeSet<String>>;

/// Reads what is there, remembers it and acknowledges it; how many jobs that are. None if the gateway is gone.
async fn handle_all(admin: std::net::SocketAddr, handled: &mut Handled) -> Option<usize> {
    let page = client::try_get(admin, "/api/jobs?after=0&limit=1000").await?;
    for line in page.body.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let delivery = line["job"]["data"]["data"]["n"].as_u64().unwrap();
        handled.entry(delivery).or_default().insert(line["job"]["id"].as_str().unwrap().to_owned());
    }
    if !page.body.is_empty() {
        let mut connection = Connection::open(admin).await;
        let last = page.header("x-retrieve-last-id").unwrap();
        connection.try_send(acknowledgement(admin, last)).await.ok()?;
        connection.try_answer().await?;
    }
    Some(page.body.lines().count())
}

/// A sender that repeats a delivery until it is answered, and sometimes one that was answered long ago, while files are begun,
/// acknowledged and removed.
#[tokio::test(flavor = "multi_thread")]
async fn each_delivery_is_one_job_whenever_the_gateway_is_killed() {
    let folder = TempDir::new().unwrap();
    let file = integrations_file(&folder);
    let settings = [SECRET, ("RETRIEVE_INTEGRATIONS_FILE", file.as_str()), SMALLEST_QUEUE];
    let mut random = Random::from_environment();
    let filler = "x".repeat(2000);
    let (mut next, mut repeats) = (0, 0);
    let mut answered: BTreeMap<u64, String> = BTreeMap::new();
    let mut handled = Handled::new();
    for _ in 0..rounds(20) {
        let gateway = GatewayProcess::start(&folder, &settings).await;
        let (address, admin, mut child) = gateway.ignore_log();
        let moment = random.moment(400);
        let sending = async {
            let mut connection = Connection::open(address).await;
            loop {
                let number = if random.one_in(4) { random.below(next + 1) } else { next };
                let body = format!("{{\"n\":{number},\"x\":\"{filler}\"}}");
                let request = client::post("/integration/by-body", "application/json", body);
                let Ok(()) = connection.try_send(request).await else { return };
                let Some(answer) = connection.try_answer().await else { return };
                assert_eq!(answer.status, 200, "{}", answer.body);
                let id = job_id(&answer);
                repeats += u64::from(number < next);
                assert_eq!(*answered.entry(number).or_insert(id.clone()), id, "delivery {number}");
                next = next.max(number + 1);
                if random.one_in(20) && handle_all(admin, &mut handled).await.is_none() {
                    return;
                }
            }
        };
        tokio::select! {
            () = sending => panic!("the gateway ended by itself"),
            () = tokio::time::sleep(moment) => {}
        }
        child.kill().await.unwrap();
    }
    let gateway = GatewayProcess::start(&folder, &settings).await;
    while handle_all(gateway.admin, &mut handled).await != Some(0) {}
    let files = std::fs::read_dir(folder.path().join("data")).unwrap().map(|file| file.unwrap().file_name());
    println!(
        "{next} deliveries and {repeats} repeats of them (seed {}); {:?}",
        random.seed,
        files.collect::<Vec<_>>()
    );
    // The last one may have come without an answer.
    handled.remove(&next);
    assert_eq!(handled.len() as u64, next, "each is there");
    for (number, ids) in handled {
        assert_eq!(ids.into_iter().collect::<Vec<_>>(), [answered[&number].clone()], "delivery {number}");
    }
    assert!(repeats > 100, "too few to prove anything");
}
