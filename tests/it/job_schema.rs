//! docs/job.schema.json is what workers may rely on: every kind of job that the gateway makes is valid against it, and
//! what isn't such a job is not.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::client::{exchange, post};
use crate::support::gateway::TestGateway;

/// Reads documents from standard input, one a line, and says of each what is wrong with it.
const VALIDATE: &str = r#"
import json, sys
from jsonschema import Draft202012Validator
schema = json.load(open("docs/job.schema.json"))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
for line in sys.stdin.buffer:
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(json.loads(line))]
    print("; ".join(errors).replace("\n", " "))
"#;

/// What is wrong with each of the documents; empty for a valid one.
async fn errors(documents: &[Value]) -> Vec<String> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/workers/python/bin/python3");
    let mut child = Command::new(python)
        .args(["-c", VALIDATE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("scripts/setup installs it");
    let lines: String = documents.iter().map(|document| format!("{document}\n")).collect();
    let mut stdin = child.stdin.take().unwrap();
    let writing = tokio::spawn(async move { stdin.write_all(lines.as_bytes()).await });
    let output = child.wait_with_output().await.unwrap();
    writing.await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let errors: Vec<_> = text.lines().map(str::to_owned).collect();
    assert_eq!(errors.len(), documents.len());
    errors
}

/// Sends webhooks (path, content type, body) and returns the jobs that became of them.
async fn jobs_of(toml: &str, settings: &[(&str, &str)], webhooks: &[(&str, &str, &str)]) -> Vec<Value> {
    let gateway = TestGateway::with_integrations(toml, settings).await;
    for (path, content_type, body) in webhooks {
        let path = format!("/integration/{path}");
        let answer = exchange(gateway.address, post(&path, content_type, body)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    let jobs = gateway.jobs().await;
    assert_eq!(jobs.len(), webhooks.len());
    jobs
}

/// Jobs of every format, every kind of caller that needs no network, and the pinned document.
async fn every_kind() -> Vec<Value> {
    let toml = "[[integration]]\nid = \"demo\"\n\
                [[integration]]\nid = \"lean\"\nxml = { keep_raw = false, root = \"unwrap\" }\n\
                [[integration]]\nid = \"text\"\nsource = \"webrun\"\nsecrets = [\"env:TEXT_SECRET\"]\n";
    let secret = ("TEXT_SECRET", "a-secret-of-some-length");
    let json = "application/json";
    let webhooks = [
        ("demo", json, "{\"id\":12345678901234567890123,\"id\":1.50}"),
        ("demo?shop=a%20b&x", json, "[1,null,\"\\u0000\\ud83d\\ude00\"]"),
        ("demo/", json, "null"),
        ("demo/xml", "application/xml", "<order id=\"1\"><item>ö</item></order>"),
        ("lean/xml", "text/xml; charset=utf-8", "<order>text</order>"),
        ("demo", "application/x-www-form-urlencoded", "a=1&b=%C3%B6&a=2"),
        ("text", "text/plain\r\nAuthorization: a-secret-of-some-length", "not JSON"),
        ("text", "text/csv\r\nAuthorization: a-secret-of-some-length", ""),
    ];
    let mut jobs = jobs_of(toml, &[secret], &webhooks).await;
    let one = [("demo", json, "{}")];
    for settings in [
        &[secret, ("RETRIEVE_ALLOWED_LIST", "127.0.0.1")][..],
        &[secret, ("RETRIEVE_ALLOWED_LIST", "*")],
        &[secret, ("RETRIEVE_ALLOWED_LIST", "203.0.113.5"), ("RETRIEVE_ALLOWED_LIST_MODE", "report")],
    ] {
        jobs.extend(jobs_of(toml, settings, &one).await);
    }
    let pinned =
        include_str!("../../src/snapshots/retrieve_gateway__job__tests__the_bytes_of_version_1.snap");
    jobs.push(serde_json::from_str(&pinned[pinned.find("{\"v\"").unwrap()..]).unwrap());
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_job_is_valid_against_the_schema() {
    let jobs = every_kind().await;
    for (job, error) in jobs.iter().zip(errors(&jobs).await) {
        assert_eq!(error, "", "{job}");
    }
    let mut formats: Vec<_> = jobs.iter().map(|job| job["data"]["format"].as_str().unwrap()).collect();
    formats.sort_unstable();
    formats.dedup();
    assert_eq!(formats, ["form", "json", "text", "xml"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_job_is_not_valid() {
    let job = jobs_of("[[integration]]\nid = \"demo\"\n", &[], &[("demo", "application/json", "{}")])
        .await
        .remove(0);
    let with = |pointer: &str, value: Value| {
        let mut changed = job.clone();
        *changed.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        changed
    };
    let mut wrong = vec![
        json!(null),
        with("/v", json!(2)),
        with("/id", json!("0199c2de-7a63-4cc1-b0f6-2f4a7d3a9e10")),
        with("/integration", json!("a b")),
        with("/received_at", json!("2025-12-10T14:30:00Z")),
        with("/source/ip", json!("localhost")),
        with("/source/admitted_by", json!("luck")),
        with("/source/verified", json!("yes")),
        with("/event", json!(1)),
        with("/request/path", json!("/")),
        with("/request/headers", json!({"Accept": "x"})),
        with("/request/headers", json!({"authorization": "x"})),
        with("/request/headers", json!({"accept": ["x"]})),
        with("/data/format", json!("yaml")),
        with("/data/raw", json!("{}")),
        with("/data", json!({"format": "form", "data": [], "raw": null})),
        with("/data", json!({"format": "text", "data": {}, "raw": null})),
    ];
    for pointer in ["", "/source", "/request", "/data"] {
        let names = job.pointer(pointer).unwrap().as_object().unwrap().keys();
        for name in names {
            let mut changed = job.clone();
            changed.pointer_mut(pointer).unwrap().as_object_mut().unwrap().shift_remove(name);
            wrong.push(changed);
        }
    }
    for (document, error) in wrong.iter().zip(errors(&wrong).await) {
        assert_ne!(error, "", "{document}");
    }
}
