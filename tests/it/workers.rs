//! The workers of README run as they stand, and read the jobs of a real gateway through a consumer group.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::eventually;
use crate::support::gateway::TestGateway;
use crate::support::redis_server::RedisServer;

/// Runs a worker on a gateway's stream and checks that it prints, and acknowledges, what was sent.
async fn check(mut worker: Command, source: &str) {
    let readme = include_str!("../../README.md");
    assert!(readme.contains(source), "README shows another worker than the file");
    let redis = RedisServer::start().await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url())]).await;
    gateway.ready().await;
    assert_eq!(gateway.post_json("{\"n\": 1}").await.status, 200);
    let mut worker = worker
        .env("REDIS_URL", redis.url())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the worker's runtime");
    let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    for number in 1..=3 {
        let line =
            lines.next_line().await.unwrap().expect("the worker ended; does scripts/test run the tests?");
        let (integration, payload) = line.split_once(' ').unwrap();
        assert_eq!(integration, "demo");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(payload).unwrap(),
            serde_json::json!({ "n": number })
        );
        let next = format!("{{\"n\": {}}}", number + 1);
        assert_eq!(gateway.post_json(next).await.status, 200);
    }
    eventually("every job that was printed is acknowledged", || async {
        let pending = redis.command(&["XPENDING", "retrieve:{default}:jobs", "workers"]).await;
        let redis::Value::Array(parts) = pending else { panic!("{pending:?}") };
        (parts[0] == redis::Value::Int(0)).then_some(())
    })
    .await;
}

/// What scripts/test installs for the workers.
fn prepared(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/workers").join(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_worker_runs_as_it_stands() {
    let mut worker = Command::new(prepared("python/bin/python3"));
    worker.arg("examples/worker.py");
    check(worker, include_str!("../../examples/worker.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_worker_runs_as_it_stands() {
    // Node looks for modules beside the file, so the file is put beside them.
    let copy = prepared("node/worker.mjs");
    std::fs::copy("examples/worker.mjs", &copy).expect("target/workers/node; scripts/test makes it");
    let mut worker = Command::new("node");
    worker.arg(copy);
    check(worker, include_str!("../../examples/worker.mjs")).await;
}
