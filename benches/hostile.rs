//! Measures how long hostile payloads take: each alone, and 200 at once, against the real binary over HTTP.
//!
//! `cargo bench --bench hostile [-- --write] [--in-flight SIZE]`. The time runs from the last byte of the request, which
//! is held back until all the rest has arrived everywhere, to the end of the answer; a request that is refused before its
//! end counts as 0. Each payload gets a fresh process with the default settings, but that of `--in-flight`
//! (`RETRIEVE_IN_FLIGHT_LIMIT`); its peak of memory is beside what the settings allow. `--write` puts the table into
//! docs/evidence/hostile.md. The exit status is 1 if an answer is wrong, takes 100 ms or more, or if memory is exceeded.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "../tests/it/support/hostile.rs"]
mod hostile;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hostile::{Hostile, payloads, peak_memory_bytes};
use retrieve_gateway::config::env;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

const EVIDENCE: &str = "docs/evidence/hostile.md";
const INTEGRATIONS: &str =
    "[[integration]]\nid = \"demo\"\n\n[[integration]]\nid = \"large\"\nbody_limit = \"32MiB\"\n";
const BAR: Duration = Duration::from_millis(100);
const AT_ONCE: usize = 200;
const ALONE: usize = 20;

/// How long the bytes before the last one get to arrive and to be read.
const SETTLING: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let in_flight = arguments.iter().position(|argument| argument == "--in-flight");
    let in_flight = in_flight.and_then(|index| arguments.get(index + 1)).map_or("64MiB", String::as_str);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let (rows, bound_bytes) = runtime.expect("a runtime").block_on(measure_all(in_flight));
    let table = table(&rows, bound_bytes);
    print!("{table}");
    if arguments.iter().any(|argument| argument == "--write") {
        std::fs::write(EVIDENCE, evidence(&table, in_flight)).expect("docs/evidence can be written");
    }
    let is_fine = |row: &Row| row.is_right && row.slowest() < BAR && row.peak_bytes <= bound_bytes;
    if rows.iter().all(is_fine) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Row {
    name: &'static str,
    bytes: usize,
    alone: Vec<Sent>,
    at_once: Vec<Sent>,
    peak_bytes: usize,
    is_right: bool,
}

/// What came of one request.
#[derive(Clone, Copy)]
struct Sent {
    status: u16,
    took: Duration,
}

impl Row {
    fn slowest(&self) -> Duration {
        self.alone.iter().chain(&self.at_once).map(|sent| sent.took).max().unwrap_or_default()
    }
}

async fn measure_all(in_flight: &str) -> (Vec<Row>, usize) {
    let mut rows = Vec::new();
    let mut bound_bytes = 0;
    for payload in payloads() {
        eprintln!("hostile: {}", payload.name);
        let gateway = Gateway::start(in_flight).await;
        bound_bytes = gateway.bound_bytes;
        rows.push(measure(&gateway, &payload).await);
    }
    (rows, bound_bytes)
}

async fn measure(gateway: &Gateway, payload: &Hostile) -> Row {
    let request: Arc<[u8]> = payload.request().into();
    let mut alone = Vec::new();
    for _ in 0..ALONE {
        alone.push(send(gateway.address, request.clone(), Arc::new(Barrier::new(1)), SETTLING / 10).await);
    }
    let barrier = Arc::new(Barrier::new(AT_ONCE));
    let senders: Vec<_> = (0..AT_ONCE)
        .map(|_| tokio::spawn(send(gateway.address, request.clone(), barrier.clone(), SETTLING)))
        .collect();
    let mut at_once = Vec::new();
    for sender in senders {
        at_once.push(sender.await.expect("a sender"));
    }
    // Alone every answer is the right one; among 200 the gateway may say that it is busy.
    let is_right = alone.iter().all(|sent| payload.expect.contains(&sent.status))
        && at_once.iter().all(|sent| payload.expect.contains(&sent.status) || sent.status == 503);
    let peak_bytes = peak_memory_bytes(gateway.process.id());
    Row { name: payload.name, bytes: request.len(), alone, at_once, peak_bytes, is_right }
}

/// Sends all but the last byte, waits for the others, and then sends that.
async fn send(address: SocketAddr, request: Arc<[u8]>, barrier: Arc<Barrier>, settling: Duration) -> Sent {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("an option of the socket");
    let (mut reading, mut writing) = stream.into_split();
    let reader = tokio::spawn(async move {
        let mut answer = Vec::new();
        while !is_complete(&answer) {
            match reading.read_buf(&mut answer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let at = Instant::now();
        let status = answer.get(9..12).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        (status.unwrap_or(0), at)
    });
    let (last, rest) = request.split_last().expect("a request");
    // A request that is refused before its end is not read to it.
    let is_refused = writing.write_all(rest).await.is_err();
    barrier.wait().await;
    tokio::time::sleep(settling).await;
    let begin = Instant::now();
    if !is_refused {
        let _ = writing.write_all(&[*last]).await;
    }
    let (status, at) = reader.await.expect("a reader");
    Sent { status, took: at.saturating_duration_since(begin) }
}

/// Whether a head and the body of its length are there.
fn is_complete(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    answer.len() >= head + 4 + length.unwrap_or(0)
}

struct Gateway {
    process: Child,
    address: SocketAddr,
    bound_bytes: usize,
    _folder: tempfile::TempDir,
}

impl Gateway {
    async fn start(in_flight: &str) -> Gateway {
        let folder = tempfile::tempdir().expect("a folder");
        let integrations = folder.path().join("integrations.toml");
        std::fs::write(&integrations, INTEGRATIONS).expect("a file");
        let settings: BTreeMap<String, String> = [
            ("RETRIEVE_LISTEN", "127.0.0.1:0".to_owned()),
            ("RETRIEVE_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("RETRIEVE_INTEGRATIONS_FILE", integrations.display().to_string()),
            ("RETRIEVE_QUEUE", format!("embedded:{}", folder.path().join("data").display())),
            ("RETRIEVE_IN_FLIGHT_LIMIT", in_flight.to_owned()),
            ("RETRIEVE_LOG_FORMAT", "json".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let bound_bytes = env::read(&settings).0.expect("settings").memory_bound_bytes();
        let mut process = Command::new(env!("CARGO_BIN_EXE_retrieve-gateway"))
            .env_clear()
            .envs(&settings)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the gateway");
        let log =
            tokio::process::ChildStderr::from_std(process.stderr.take().expect("a log")).expect("a pipe");
        let mut lines = BufReader::new(log).lines();
        let address = loop {
            let line = lines.next_line().await.expect("a log").expect("the gateway listens");
            let line: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
            if line["message"] == "listening" {
                break line["public"].as_str().expect("an address").parse().expect("an address");
            }
        };
        // Its pipe must never fill.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Gateway { process, address, bound_bytes, _folder: folder }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn table(rows: &[Row], bound_bytes: usize) -> String {
    let mut table = String::from(
        "| payload | bytes | alone | max ms | 200 at once | p50 ms | max ms | peak RSS MiB | verdict |\n|---|--:|---|--:|---|--:|--:|--:|---|\n",
    );
    for row in rows {
        let is_met = row.is_right && row.slowest() < BAR && row.peak_bytes <= bound_bytes;
        let verdict = if is_met { "met" } else { "MISSED" };
        let (_, alone) = median_and_max(&row.alone);
        let (median, max) = median_and_max(&row.at_once);
        let (once, many) = (statuses(&row.alone), statuses(&row.at_once));
        let (name, bytes, peak) = (row.name, row.bytes, row.peak_bytes >> 20);
        let _ = writeln!(
            table,
            "| {name} | {bytes} | {once} | {alone:.1} | {many} | {median:.1} | {max:.1} | {peak} | {verdict} |"
        );
    }
    let _ = writeln!(table, "\nThe settings allow connections and bodies {} MiB.", bound_bytes >> 20);
    table
}

fn median_and_max(sent: &[Sent]) -> (f64, f64) {
    let mut times: Vec<f64> = sent.iter().map(|sent| sent.took.as_secs_f64() * 1e3).collect();
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() - 1])
}

/// `400`, or `37 × 400, 163 × 503`.
fn statuses(sent: &[Sent]) -> String {
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for sent in sent {
        *counts.entry(sent.status).or_default() += 1;
    }
    match counts.len() {
        1 => counts.keys().map(u16::to_string).collect(),
        _ => {
            counts.iter().map(|(status, count)| format!("{count} × {status}")).collect::<Vec<_>>().join(", ")
        }
    }
}

fn evidence(table: &str, in_flight: &str) -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let (date, commit) = (jiff::Timestamp::now().strftime("%F"), commit.unwrap_or_default());
    format!(
        "# Hostile payloads, {date}\n\n`cargo bench --bench hostile -- --write`, commit {commit}, generator and gateway on the same machine, in flight\n{in_flight}. From the last byte of the request to the end of the answer; what is refused before its last byte counts as 0.\n503 is the answer where 200 bodies together would take more memory than the settings allow, or where one gets no turn at a\ncore within 50 ms. The controls are bodies that nothing is made of: what sending, receiving and answering as much take by\nthemselves.\n\n{table}"
    )
}
