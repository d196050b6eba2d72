//! The oracle of durability: every attempt carries a number of its own and is never sent again. Afterwards the queue
//! is read: accepted and absent is lost, twice is doubled, never sent is a phantom.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::post;

/// What became of every attempt.
#[derive(Default)]
pub struct Attempts {
    next: AtomicU64,
    accepted: Mutex<Vec<u64>>,
    refused: Mutex<HashMap<u16, u64>>,
    refused_numbers: Mutex<HashSet<u64>>,
    /// Whether a 503 came without saying when to come again.
    lacks_retry_after: AtomicBool,
    enough: AtomicBool,
    /// How many bytes more than its number an attempt has.
    padding: usize,
}

/// What the queue makes of all attempts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answered 200 and absent.
    pub lost: usize,
    /// There more than once.
    pub doubled: usize,
    /// There, and refused or never sent.
    pub phantom: usize,
}

impl Attempts {
    /// Attempts that are larger than they need to be.
    pub fn padded(padding: usize) -> Attempts {
        Attempts { padding, ..Attempts::default() }
    }

    /// Whether each 503 said when to come again.
    pub fn all_said_when_to_come_again(&self) -> bool {
        !self.lacks_retry_after.load(Ordering::Relaxed)
    }

    /// How many were sent.
    pub fn sent(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Holds the queue's jobs against the answers: a job whose sender was refused counts as well.
    pub fn tally(&self, jobs: &[serde_json::Value]) -> Tally {
        let mut queued: HashMap<u64, usize> = HashMap::new();
        for job in jobs {
            *queued.entry(job["data"]["data"]["attempt"].as_u64().unwrap()).or_default() += 1;
        }
        let accepted = self.accepted.lock().unwrap();
        let refused = self.refused_numbers.lock().unwrap();
        let sent = self.sent();
        Tally {
            lost: accepted.iter().filter(|number| !queued.contains_key(number)).count(),
            doubled: queued.values().filter(|count| **count > 1).count(),
            phantom: queued.keys().filter(|number| **number >= sent || refused.contains(number)).count(),
        }
    }

    /// The line that a longer run is kept by, and the check: nothing lost, doubled or there against the answer.
    pub fn prove(&self, fault: &str, mode: &str, random: &Random, rounds: u64, jobs: &[serde_json::Value]) {
        let tally = self.tally(jobs);
        let refused: u64 = self.refused().values().sum();
        println!(
            "evidence {}",
            serde_json::json!({
                "fault": fault, "mode": mode, "seed": random.seed, "rounds": rounds, "attempts": self.sent(),
                "accepted": self.accepted(), "refused": refused, "lost": tally.lost, "doubled": tally.doubled,
                "phantom": tally.phantom, "seconds": random.began.elapsed().as_secs(),
            })
        );
        assert_eq!(tally, Tally::default(), "{fault} in mode {mode}");
    }

    /// Sends webhooks one after the other, until the gateway is gone or [`Attempts::finish`] was called.
    pub async fn send_until_gone(self: Arc<Self>, address: SocketAddr) {
        let Ok(mut stream) = TcpStream::connect(address).await else { return };
        let mut answer = vec![0; 4096];
        while !self.enough.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let padding = "x".repeat(self.padding);
            let body = format!("{{\"attempt\":{number},\"padding\":\"{padding}\"}}");
            let request = post("/integration/demo", "application/json", body);
            if stream.write_all(&request).await.is_err() {
                return;
            }
            // An answer is far smaller than the buffer and comes in one piece, or not at all.
            let Ok(length @ 1..) = stream.read(&mut answer).await else { return };
            let text = String::from_utf8_lossy(&answer[..length]);
            if text.starts_with("HTTP/1.1 200 ") && text.ends_with("{\"result\":true,\"error\":\"\"}") {
                self.accepted.lock().unwrap().push(number);
            } else {
                let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
                *self.refused.lock().unwrap().entry(status).or_default() += 1;
                self.refused_numbers.lock().unwrap().insert(number);
                let says_when = text.to_ascii_lowercase().contains("\r\nretry-after: ");
                self.lacks_retry_after.fetch_or(status == 503 && !says_when, Ordering::Relaxed);
            }
        }
    }

    pub fn finish(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }

    /// Lets clients begin again after [`Attempts::finish`].
    pub fn go_on(&self) {
        self.enough.store(false, Ordering::Relaxed);
    }

    pub fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    pub fn refused(&self) -> HashMap<u16, u64> {
        self.refused.lock().unwrap().clone()
    }

    /// Holds the queue's jobs against the answers. Returns how many were accepted.
    pub fn check(&self, jobs: &[serde_json::Value]) -> usize {
        let mut queued: HashMap<u64, usize> = HashMap::new();
        for job in jobs {
            *queued.entry(job["data"]["data"]["attempt"].as_u64().unwrap()).or_default() += 1;
        }
        let accepted = self.accepted.lock().unwrap();
        let sent = self.next.load(Ordering::Relaxed);
        let refused = self.refused();
        println!(
            "{sent} sent, {} answered 200, refused {refused:?}, {} queued",
            accepted.len(),
            queued.len()
        );
        let lost: Vec<_> = accepted.iter().filter(|number| !queued.contains_key(number)).collect();
        let doubled: Vec<_> = queued.iter().filter(|(_, count)| **count > 1).collect();
        let phantoms: Vec<_> = queued.keys().filter(|number| **number >= sent).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert!(doubled.is_empty(), "doubled: {doubled:?}");
        assert!(phantoms.is_empty(), "never sent: {phantoms:?}");
        accepted.len()
    }
}

/// Random numbers from a printed seed (splitmix64); `SEED` repeats a run.
pub struct Random {
    seed: u64,
    state: u64,
    began: std::time::Instant,
}

/// How many rounds: `ROUNDS`, or this many.
pub fn rounds(default: u64) -> u64 {
    std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(default)
}

impl Random {
    pub fn from_environment() -> Random {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| uuid::Uuid::now_v7().as_u128() as u64);
        println!("SEED={seed}");
        Random { seed, state: seed, began: std::time::Instant::now() }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}
