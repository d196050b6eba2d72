//! The reference workers of `examples/`: each, as it stands, takes the jobs of a real gateway from a real redis-server,
//! tries what failed again, parks poison, takes over what a killed worker left, knows what is done, and stops when told.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use redis::streams::{StreamPendingCountReply, StreamPendingReply, StreamRangeReply};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::eventually;
use crate::support::gateway::TestGateway;
use crate::support::redis_server::RedisServer;

const JOBS: &str = "retrieve:{default}:jobs";
const RESULTS: &str = "retrieve:{default}:results";
const PARKED: &str = "retrieve:{default}:parked";
const GROUP: &str = "workers";

/// Shorter than any wait of a worker, so that what was left is claimed at the next look.
const SOON: (&str, &str) = ("CLAIM_IDLE_MS", "20");
const TWO_TRIES: (&str, &str) = ("MAX_TRIES", "2");

struct Worker(Child);

impl Worker {
    fn start(command: fn() -> Command, settings: &[(&str, &str)]) -> Worker {
        let mut command = command();
        command.envs(settings.iter().copied()).kill_on_drop(true);
        Worker(command.spawn().expect("the worker's runtime; does scripts/test run the tests?"))
    }

    async fn kill(mut self) {
        self.0.kill().await.unwrap();
    }

    async fn stop(mut self) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.0.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.0.wait().await.unwrap()
    }
}

/// A gateway on a Redis of its own.
struct Stage {
    redis: RedisServer,
    gateway: TestGateway,
}

impl Stage {
    async fn start() -> Stage {
        let redis = RedisServer::start().await;
        let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url())]).await;
        gateway.ready().await;
        Stage { redis, gateway }
    }

    /// Sends a webhook and returns its job's id.
    async fn send(&self, body: &Value) -> String {
        let answer = self.gateway.post_json(body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.header("x-retrieve-job-id").unwrap().to_owned()
    }

    async fn entries(&self, stream: &str) -> Vec<Value> {
        let range = self.redis.command(&["XRANGE", stream, "-", "+"]).await;
        let range: StreamRangeReply = redis::from_redis_value(range).unwrap();
        let entries = range.ids.iter().map(|entry| {
            let fields = entry.map.iter().map(|(name, value)| {
                let text: String = redis::from_redis_value(value.clone()).unwrap();
                (name.clone(), Value::String(text))
            });
            Value::Object(fields.collect())
        });
        entries.collect()
    }

    /// The results of one job, in order.
    async fn results_of(&self, job: &str) -> Vec<String> {
        let entries = self.entries(RESULTS).await;
        let of_job = entries.iter().filter(|entry| entry["job_id"] == job);
        of_job.map(|entry| entry["jobStatus"].as_str().unwrap().to_owned()).collect()
    }

    async fn pending(&self) -> usize {
        let reply = self.redis.command(&["XPENDING", JOBS, GROUP]).await;
        redis::from_redis_value::<StreamPendingReply>(reply).map_or(0, |pending| pending.count())
    }

    /// Waits until a job has these results and nothing is pending.
    async fn settled(&self, job: &str, expect: &[&str]) {
        eventually(&format!("{job} is {expect:?} and nothing is pending"), || async {
            (self.results_of(job).await == expect && self.pending().await == 0).then_some(())
        })
        .await;
    }

    async fn something_in_hand(&self) {
        eventually("a job is in hand", || async { (self.pending().await == 1).then_some(()) }).await;
    }

    async fn consumers(&self) -> usize {
        match self.redis.command(&["XINFO", "CONSUMERS", JOBS, GROUP]).await {
            redis::Value::Array(consumers) => consumers.len(),
            other => panic!("{other:?}"),
        }
    }
}

/// What every worker has to show.
async fn check(command: fn() -> Command) {
    let stage = Stage::start().await;
    let url = stage.redis.url();
    let url = ("REDIS_URL", url.as_str());

    // A job that was there before the group is handled, too.
    let first = stage.send(&json!({"order": {"id": 1001}})).await;
    let worker = Worker::start(command, &[url, SOON, TWO_TRIES]);
    stage.settled(&first, &["done"]).await;
    assert_eq!(stage.entries(RESULTS).await[0]["message"], "order 1001 handled");

    // Poison is tried again, then parked as it was, with the reason, and out of the way.
    let poison = stage.send(&json!({"n": 1})).await;
    let after = stage.send(&json!({"order": {"id": 1002}})).await;
    stage.settled(&poison, &["failed", "parked"]).await;
    stage.settled(&after, &["done"]).await;
    let parked = stage.entries(PARKED).await;
    let job: Value = serde_json::from_str(parked[0]["job"].as_str().unwrap()).unwrap();
    assert_eq!((parked.len(), &job["id"], &parked[0]["tries"]), (1, &json!(poison), &json!("2")));
    assert!(!parked[0]["message"].as_str().unwrap().is_empty());

    // A copy of a job that is done isn't handled again.
    let document = stage.redis.jobs("default").await[0].to_string();
    stage.redis.command(&["XADD", JOBS, "*", "job", &document]).await;
    let last = stage.send(&json!({"order": {"id": 1003}})).await;
    stage.settled(&last, &["done"]).await;
    stage.settled(&first, &["done"]).await;

    // What somebody else put on the stream doesn't end the worker.
    stage.redis.command(&["XADD", JOBS, "*", "job", "no JSON"]).await;
    stage.settled("", &["failed", "parked"]).await;
    worker.stop().await;

    // What a killed worker had in hand is claimed by another one.
    let slow = Worker::start(command, &[url, ("WORK_SECONDS", "600")]);
    let orphan = stage.send(&json!({"order": {"id": 1004}})).await;
    stage.something_in_hand().await;
    slow.kill().await;
    let worker = Worker::start(command, &[url, SOON]);
    stage.settled(&orphan, &["done"]).await;
    worker.stop().await;

    // One that kills its worker every time is parked without another try.
    let deadly = stage.send(&json!({"order": {"id": 1005}})).await;
    for _ in 0..2 {
        let slow = Worker::start(command, &[url, SOON, ("WORK_SECONDS", "600")]);
        let name = format!("-{}", slow.0.id().unwrap());
        eventually("this worker has it in hand", || async {
            let pending = stage.redis.command(&["XPENDING", JOBS, GROUP, "-", "+", "1"]).await;
            let pending: StreamPendingCountReply = redis::from_redis_value(pending).unwrap();
            pending.ids.first().filter(|entry| entry.consumer.ends_with(&name)).map(|_| ())
        })
        .await;
        slow.kill().await;
    }
    let worker = Worker::start(command, &[url, SOON, TWO_TRIES]);
    stage.settled(&deadly, &["parked"]).await;
    worker.stop().await;

    // Told to stop, a worker finishes what it has in hand, and leaves the group if nothing is left under its name.
    let before = stage.consumers().await;
    let worker = Worker::start(command, &[url, ("WORK_SECONDS", "0.5")]);
    let in_hand = stage.send(&json!({"order": {"id": 1006}})).await;
    stage.something_in_hand().await;
    assert!(worker.stop().await.success());
    assert_eq!(stage.results_of(&in_hand).await, ["done"]);
    assert_eq!((stage.pending().await, stage.consumers().await), (0, before));
}

/// What scripts/setup installs for the workers.
fn prepared(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/workers").join(path)
}

fn python() -> Command {
    let mut command = Command::new(prepared("python/bin/python3"));
    command.arg("examples/worker.py");
    command
}

fn node() -> Command {
    let mut command = Command::new("node");
    command.arg(prepared("node/worker.mjs"));
    command
}

fn php() -> Command {
    let mut command = Command::new("php");
    command.arg("examples/worker.php");
    command
}

/// Beside the gateway's own binary, whatever the profile.
fn rust_worker() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_retrieve-gateway")).with_file_name("examples").join("worker")
}

fn rust() -> Command {
    Command::new(rust_worker())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_worker() {
    check(python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_worker() {
    // Node looks for modules beside the file, so the file is put beside them.
    std::fs::copy("examples/worker.mjs", prepared("node/worker.mjs"))
        .expect("scripts/setup makes the folder");
    check(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_php_worker() {
    let modules = Command::new("php").arg("-m").output().await;
    let modules =
        modules.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let has = |name: &str| modules.lines().any(|line| line == name);
    if !has("redis") || !has("pcntl") {
        println!("SKIPPED: there is no php with redis and pcntl (Debian: php-cli, php-redis)");
        return;
    }
    check(php).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_worker() {
    let changed = |path: PathBuf| path.metadata().and_then(|file| file.modified()).ok();
    let (built, source) = (changed(rust_worker()), changed(PathBuf::from("examples/worker.rs")));
    assert!(built > source, "`cargo test --test it` alone doesn't build it: cargo build --example worker");
    check(rust).await;
}

/// The Python worker reads the embedded queue, too, and acknowledges what it handled or parked.
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_queue_is_worked_off_over_http() {
    let gateway = TestGateway::start(&[]).await;
    let folder = TempDir::new().unwrap();
    let parked = folder.path().join("parked.ndjson");
    for body in [json!({"order": {"id": 1}}), json!({"n": 1}), json!({"order": {"id": 2}})] {
        assert_eq!(gateway.post_json(body.to_string()).await.status, 200);
    }
    let mut command = python();
    command
        .args(["--from", &format!("http://{}", gateway.admin)])
        .envs([SOON, TWO_TRIES])
        .env("PARKED_FILE", &parked)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut worker = Worker(command.spawn().unwrap());
    let mut lines = BufReader::new(worker.0.stdout.take().unwrap()).lines();
    for expect in ["done", "parked", "done"] {
        let line = lines.next_line().await.unwrap().expect("the worker ended");
        let result: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(result["jobStatus"], expect, "{line}");
    }
    eventually("all of it is acknowledged", || async { gateway.jobs().await.is_empty().then_some(()) }).await;
    assert!(worker.stop().await.success());
    let parked = std::fs::read_to_string(parked).unwrap();
    let parked: Value = serde_json::from_str(parked.trim_end()).unwrap();
    assert_eq!((&parked["id"], &parked["job"]["data"]["data"]), (&json!("2"), &json!({"n": 1})));
}
