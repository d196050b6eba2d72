//! The embedded queue keeps what was answered 200 until a reader acknowledges it, exactly once, whenever the process is
//! killed; without a reader: `faults::gateway_kills`.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::attempts::Attempts;
use crate::support::client::{Connection, exchange, get, post};
use crate::support::eventually;
use crate::support::gateway::{TestGateway, acknowledgement, file_names, settings};
use crate::support::process::{GatewayProcess, binary};
use crate::support::random::Random;

const CLIENTS: usize = 8;
const KILLS_WITH_A_READER: usize = 30;

/// Reads and acknowledges page by page until the gateway is gone, and remembers what it was given and told.
#[derive(Default)]
struct Reader {
    handled: BTreeMap<u64, serde_json::Value>,
    /// The last position whose acknowledgement was answered 200.
    acknowledged: u64,
    /// Every file that was seen.
    files: BTreeSet<String>,
}

impl Reader {
    async fn read_until_gone(&mut self, admin: SocketAddr) -> Option<()> {
        // A reader that starts anew knows no position.
        let mut after = 0;
        let mut connection = Connection::open(admin).await;
        loop {
            let path = format!("/api/jobs?after={after}&limit=50&wait=1s");
            let get = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\n\r\n");
            connection.try_send(get).await.ok()?;
            let page = connection.try_answer().await?;
            assert_eq!(page.status, 200, "{}", page.body);
            for line in page.body.lines() {
                let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
                let position: u64 = line["id"].as_str().unwrap().parse().unwrap();
                assert!(position > self.acknowledged, "{position} came back after {}", self.acknowledged);
                let job = line["job"].take();
                let before = self.handled.insert(position, job.clone());
                assert!(before.is_none_or(|before| before == job), "another job at {position}");
                after = position;
            }
            connection.try_send(acknowledgement(admin, after)).await.ok()?;
            let answer = connection.try_answer().await?;
            assert_eq!(answer.status, 200, "{}", answer.body);
            self.acknowledged = after.max(self.acknowledged);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reader_acknowledged_never_comes_back_and_nothing_else_is_missing() {
    let folder = TempDir::new().unwrap();
    let attempts = Arc::new(Attempts::default());
    let mut random = Random::from_environment();
    let mut reader = Reader::default();
    // A small limit has files begun and removed all the time, and sometimes the queue is full.
    let settings = [("RETRIEVE_EMBEDDED_LIMIT", "1MiB")];
    for _ in 0..KILLS_WITH_A_READER {
        let gateway = GatewayProcess::start(&folder, &settings).await;
        let (address, admin, mut child) = gateway.ignore_log();
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| tokio::spawn(Arc::clone(&attempts).send_until_gone(address))).collect();
        let reading = reader.read_until_gone(admin);
        let killing = async {
            tokio::time::sleep(Duration::from_millis(5 + random.below(395))).await;
            child.kill().await.unwrap();
        };
        tokio::join!(reading, killing);
        reader.files.append(&mut file_names(&folder));
        for client in clients {
            client.await.unwrap();
        }
    }
    let gateway = GatewayProcess::start(&folder, &settings).await;
    let mut left = jobs_by_position(gateway.admin).await;
    assert!(left.keys().all(|position| *position > reader.acknowledged));
    println!("{} handled, {} left, files {:?}", reader.handled.len(), left.len(), reader.files);
    assert!(reader.acknowledged > 0, "nothing was acknowledged");
    left.append(&mut reader.handled);
    let accepted = attempts.check(&left.into_values().collect::<Vec<_>>());
    assert!(accepted > KILLS_WITH_A_READER, "the load was too small to prove anything: {accepted}");
}

/// All that the queue holds, by its positions.
async fn jobs_by_position(admin: SocketAddr) -> BTreeMap<u64, serde_json::Value> {
    let mut jobs = BTreeMap::new();
    let mut after = "0".to_owned();
    loop {
        let page = get(admin, &format!("/api/jobs?after={after}&limit=1000")).await;
        for line in page.body.lines() {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            let position = line["id"].as_str().unwrap().parse().unwrap();
            assert!(jobs.insert(position, line["job"].take()).is_none(), "{position} twice");
        }
        if page.body.is_empty() {
            return jobs;
        }
        after = page.header("x-retrieve-last-id").unwrap().to_owned();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_until_something_is_acknowledged() {
    let gateway = TestGateway::start(&[("RETRIEVE_EMBEDDED_LIMIT", "1MiB")]).await;
    gateway.ready().await;
    let body = format!("{{\"text\":\"{}\"}}", "x".repeat(300_000));
    for _ in 0..4 {
        assert_eq!(gateway.post_json(&body).await.status, 200);
    }
    let refused = gateway.post_json("{}").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    let ready = get(gateway.admin, "/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(
        ready.json()["probes"]["queue"]["why"],
        "the embedded queue is full: jobs of 1048576 bytes aren't acknowledged (POST /api/jobs/ack), which is \
         RETRIEVE_EMBEDDED_LIMIT"
    );
    assert_eq!(gateway.metric("retrieve_embedded_jobs").await, Some(4.0));
    assert!(gateway.metric("retrieve_embedded_bytes").await > Some(1_200_000.0));
    assert!(gateway.metric("retrieve_embedded_oldest_seconds").await > Some(0.0));

    let answer = exchange(gateway.admin, acknowledgement(gateway.admin, 2)).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{\"acknowledged\":\"2\"}"));
    gateway.ready().await;
    assert_eq!(gateway.post_json("{}").await.status, 200);
    assert_eq!(gateway.metric("retrieve_embedded_jobs").await, Some(3.0));
    let positions: Vec<_> = jobs_by_position(gateway.admin).await.into_keys().collect();
    assert_eq!(positions, [3, 4, 5], "reading begins behind what is acknowledged");
    assert_eq!(exchange(gateway.admin, acknowledgement(gateway.admin, 5)).await.status, 200);
    assert_eq!(gateway.metric("retrieve_embedded_jobs").await, Some(0.0));
    assert_eq!(gateway.metric("retrieve_embedded_bytes").await, Some(0.0));
    assert_eq!(gateway.metric("retrieve_embedded_oldest_seconds").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_removed_when_all_of_them_is_acknowledged_and_numbers_go_on() {
    let folder = TempDir::new().unwrap();
    let settings = [("RETRIEVE_EMBEDDED_LIMIT", "1MiB")];
    let body = format!("{{\"text\":\"{}\"}}", "x".repeat(100_000));
    let request = post("/integration/demo", "application/json", &body);
    let last = Cell::new(0);
    for round in 1..=3 {
        let gateway = GatewayProcess::start(&folder, &settings).await;
        let (address, admin, mut child) = gateway.ignore_log();
        // The next file is made beside the path, so when it is gone over to isn't known; each round needs one.
        eventually("a file is begun and the ones before it are removed", || async {
            for _ in 0..5 {
                assert_eq!(exchange(address, &request).await.status, 200);
            }
            let positions: Vec<_> = jobs_by_position(admin).await.into_keys().collect();
            assert_eq!(positions, (last.get() + 1..=last.get() + 5).collect::<Vec<_>>());
            last.set(last.get() + 5);
            assert_eq!(exchange(admin, acknowledgement(admin, last.get())).await.status, 200);
            let names = file_names(&folder);
            (!names.contains(&format!("jobs-{round:06}.log"))).then_some(())
        })
        .await;
        child.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_on_the_same_folder_is_refused_in_plain_words() {
    let folder = TempDir::new().unwrap();
    let first = GatewayProcess::start(&folder, &[]).await;
    let second = binary().envs(settings(&folder, &[])).output().await.unwrap();
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8(second.stderr).unwrap();
    let expect = format!(
        "retrieve-gateway: another gateway is using the folder {}; stop it, or give this one a folder of its own \
         (RETRIEVE_QUEUE=embedded:./other; with Redis RETRIEVE_DATA_DIR=./other)\n",
        folder.path().join("data").display()
    );
    assert!(words.ends_with(&expect), "{words}");
    assert_eq!(get(first.admin, "/ready").await.status, 200, "the first one goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let _gateway = GatewayProcess::start(&folder, &[]).await;
    let mode = std::fs::metadata(folder.path().join("data")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
