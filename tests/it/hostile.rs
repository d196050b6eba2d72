//! Hostile payloads over HTTP, to the real binary: every one gets its right answer, alone and 200 at once, nothing takes
//! more memory than the settings say, and the next webhook is served. How long it takes is measured by
//! `benches/hostile.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use retrieve_gateway::config::env;
use tempfile::TempDir;

use crate::support::client::{Connection, exchange, post};
use crate::support::gateway::settings;
use crate::support::hostile::{Hostile, payloads, peak_memory_bytes};
use crate::support::process::GatewayProcess;

const INTEGRATIONS: &str =
    "[[integration]]\nid = \"demo\"\n\n[[integration]]\nid = \"large\"\nbody_limit = \"32MiB\"\n";

/// How many come at once.
const AT_ONCE: usize = 200;

/// What a process takes besides connections and bodies: its own code and tables, threads, the allocator's reserve, and the
/// store's cache.
const SLACK_BYTES: usize = 128 << 20;

struct Gateway {
    process: GatewayProcess,
    bound_bytes: usize,
    _folder: TempDir,
}

impl Gateway {
    async fn start() -> Gateway {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("integrations.toml");
        std::fs::write(&path, INTEGRATIONS).unwrap();
        let path = path.display().to_string();
        let more = [
            ("RETRIEVE_INTEGRATIONS_FILE", path.as_str()),
            ("RETRIEVE_IN_FLIGHT_LIMIT", "32MiB"),
            ("RETRIEVE_MAX_CONNECTIONS", "512"),
            // Two hundred bodies are slow on a busy machine, and what is tested is not its speed.
            ("RETRIEVE_BODY_TIMEOUT", "2m"),
            // As in the image and the service file: what the C library keeps of freed memory grows with its arenas.
            ("MALLOC_ARENA_MAX", "2"),
        ];
        let settings: BTreeMap<String, String> = settings(&folder, &more);
        let bound_bytes = env::read(&settings).0.unwrap().memory_bound_bytes();
        let process = GatewayProcess::start(&folder, &more).await;
        Gateway { process, bound_bytes, _folder: folder }
    }

    /// A webhook is served, and memory stayed within the stated bound.
    async fn is_well(&self) {
        let answer =
            exchange(self.process.address, post("/integration/demo", "application/json", "{}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let peak = peak_memory_bytes(self.process.id());
        let bound = self.bound_bytes + SLACK_BYTES;
        assert!(peak <= bound, "{} MiB of at most {} MiB", peak >> 20, bound >> 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_payload_gets_its_answer() {
    let gateway = Gateway::start().await;
    for payload in payloads() {
        let answer = exchange(gateway.process.address, payload.request()).await;
        assert!(
            payload.expect.contains(&answer.status),
            "{}: {} {}",
            payload.name,
            answer.status,
            answer.body
        );
        assert!(answer.body.len() < 500, "{}: {}", payload.name, answer.body);
        gateway.is_well().await;
    }
}

/// Two hundred at once want more memory and more turns than there are: each gets its answer, or 503 and when to come again.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once_stay_within_the_stated_memory() {
    let gateway = Gateway::start().await;
    // Those of 5 MB are no worse than these, and many; the bombs are the point.
    let is_quick = |payload: &Hostile| payload.is_gzip || payload.body.len() < 3_500_000;
    for payload in payloads().into_iter().filter(is_quick) {
        let request: Arc<[u8]> = payload.request().into();
        let senders = (0..AT_ONCE).map(|_| tokio::spawn(send(gateway.process.address, request.clone())));
        let senders: Vec<_> = senders.collect();
        for sender in senders {
            check(&payload, sender.await.unwrap());
        }
        gateway.is_well().await;
    }
}

fn check(payload: &Hostile, (status, retries): (u16, bool)) {
    let name = payload.name;
    assert!(payload.expect.contains(&status) || status == 503, "{name}: {status}");
    assert_eq!(retries, status == 503, "{name}: {status}");
}

/// The status, and whether the answer says when to come again. A body that isn't wanted isn't read to its end.
async fn send(address: std::net::SocketAddr, request: Arc<[u8]>) -> (u16, bool) {
    let mut connection = Connection::open(address).await;
    let _ = connection.try_send(&request).await;
    let answer = connection.answer_within(Duration::from_secs(120)).await;
    (answer.status, answer.header("retry-after").is_some())
}
