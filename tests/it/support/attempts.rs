//! The oracle of durability: every attempt carries a number of its own and is never sent again. Afterwards the queue
//! is read: answered 200 and absent is lost, twice is doubled, never sent or refused and there all the same is a phantom.
//!
//! A 503 says "not stored", with one exception: the outcome `queue_unconfirmed` says that it isn't known. Which outcome a
//! 503 had stands in the gateway's log alone, so each attempt comes from an address of its own (`X-Forwarded-For`), by
//! which a process's log lines are told apart ([`Attempts::note_refusals_of`]).

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::eventually_within;
use super::process::{GatewayProcess, RunningGateway};

/// Lets a gateway take the attempts' addresses for its clients'.
pub const ATTEMPTS_HAVE_ADDRESSES: [(&str, &str); 2] =
    [("RETRIEVE_TRUSTED_PROXIES", "127.0.0.1"), ("RETRIEVE_ALLOWED_LIST", "10.0.0.0/8")];

/// The outcome of a refused webhook whose job may be stored nevertheless.
const UNCONFIRMED: &str = "queue_unconfirmed";

/// What became of every attempt.
#[derive(Default)]
pub struct Attempts {
    next: AtomicU64,
    accepted: Mutex<Vec<u64>>,
    /// The status of each that was refused.
    refused: Mutex<BTreeMap<u64, u16>>,
    /// The outcome of refused ones, where a log says it.
    outcomes: Mutex<HashMap<u64, String>>,
    /// Whether a 503 came without saying when to come again.
    lacks_retry_after: AtomicBool,
    enough: AtomicBool,
    pause: Duration,
    /// How many bytes more than its number an attempt has.
    padding: usize,
}

/// What the oracle found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    pub attempts: u64,
    pub accepted: u64,
    pub refused: u64,
    /// Of those refused the ones whose outcome was unknown to the gateway.
    pub unconfirmed: u64,
    /// And of these the ones that were stored.
    pub unconfirmed_stored: u64,
    /// The connection ended without an answer; such a job may be there or not.
    pub unanswered: u64,
    pub lost: u64,
    pub doubled: u64,
    pub phantoms: u64,
}

impl Account {
    pub fn is_sound(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.phantoms == 0
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, other: Account) {
        self.attempts += other.attempts;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.unconfirmed += other.unconfirmed;
        self.unconfirmed_stored += other.unconfirmed_stored;
        self.unanswered += other.unanswered;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.phantoms += other.phantoms;
    }
}

impl Attempts {
    /// Attempts whose clients pause after each answer.
    pub fn with_pause(pause: Duration) -> Attempts {
        Attempts { pause, ..Attempts::default() }
    }

    /// Attempts that are larger than they need to be.
    pub fn padded(padding: usize) -> Attempts {
        Attempts { padding, ..Attempts::default() }
    }

    /// Whether each 503 said when to come again.
    pub fn all_said_when_to_come_again(&self) -> bool {
        !self.lacks_retry_after.load(Ordering::Relaxed)
    }

    /// Starts so many clients, each of which sends as [`Attempts::send_until_gone`] does. Clients can be started again after
    /// [`Attempts::finish`].
    pub fn start_clients(self: &Arc<Self>, address: SocketAddr, count: usize) -> JoinSet<()> {
        self.enough.store(false, Ordering::Relaxed);
        (0..count).map(|_| Arc::clone(self).send_until_gone(address)).collect()
    }

    /// Sends webhooks one after the other, until the gateway is gone or [`Attempts::finish`] was called.
    pub async fn send_until_gone(self: Arc<Self>, address: SocketAddr) {
        let Ok(mut stream) = TcpStream::connect(address).await else { return };
        let mut answer = vec![0; 4096];
        while !self.enough.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(&request(number, self.padding)).await.is_err() {
                return;
            }
            // An answer is far smaller than the buffer and comes in one piece, or not at all.
            let Ok(length @ 1..) = stream.read(&mut answer).await else { return };
            let text = String::from_utf8_lossy(&answer[..length]);
            if text.starts_with("HTTP/1.1 200 ") && text.ends_with("{\"result\":true,\"error\":\"\"}") {
                self.accepted.lock().unwrap().push(number);
            } else {
                let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
                self.refused.lock().unwrap().insert(number, status);
                let says_when = text.to_ascii_lowercase().contains("\r\nretry-after: ");
                self.lacks_retry_after.fetch_or(status == 503 && !says_when, Ordering::Relaxed);
            }
            if !self.pause.is_zero() {
                tokio::time::sleep(self.pause).await;
            }
        }
    }

    /// Lets the clients end.
    pub fn finish(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }

    /// How many numbers were given to attempts so far.
    pub fn sent(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Waits until so many further ones, and one more, were accepted.
    pub async fn go_on_within(&self, seconds: u64, more: usize) {
        let before = self.accepted();
        eventually_within(seconds, "webhooks are accepted", || async {
            (self.accepted() > before + more).then_some(())
        })
        .await;
    }

    pub fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    /// How many were refused, by their status.
    pub fn refused(&self) -> HashMap<u16, u64> {
        let mut counts = HashMap::new();
        for status in self.refused.lock().unwrap().values() {
            *counts.entry(*status).or_default() += 1;
        }
        counts
    }

    /// Waits until the log has told the outcome of each refused attempt.
    pub async fn refusals_are_noted(&self) {
        eventually_within(10, "the log has each refusal", || async {
            let (refused, outcomes) = (self.refused.lock().unwrap(), self.outcomes.lock().unwrap());
            refused.keys().all(|number| outcomes.contains_key(number)).then_some(())
        })
        .await;
    }

    /// Notes the outcomes of refused attempts in a gateway's log, for as long as it runs. It has to know their addresses
    /// ([`ATTEMPTS_HAVE_ADDRESSES`]).
    pub fn note_refusals_of(self: &Arc<Self>, gateway: GatewayProcess) -> RunningGateway {
        let attempts = Arc::clone(self);
        gateway.with_log(move |line| attempts.note_refusal(line))
    }

    /// Takes from a gateway's log line the outcome of a refused attempt, if the line is one of those.
    fn note_refusal(&self, line: &str) {
        if !line.contains("\"refused\"") {
            return;
        }
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let (Some(code), Some(client)) = (line["code"].as_str(), line["client"].as_str()) else { return };
        let Ok(IpAddr::V4(client)) = client.parse() else { return };
        self.outcomes.lock().unwrap().insert(u64::from(client.to_bits() & 0x00ff_ffff), code.to_owned());
    }

    /// Holds the queue's jobs against the answers.
    pub fn account(&self, jobs: &[serde_json::Value]) -> Account {
        let mut queued: HashMap<u64, usize> = HashMap::new();
        for job in jobs {
            *queued.entry(job["data"]["data"]["attempt"].as_u64().unwrap()).or_default() += 1;
        }
        let (accepted, refused) = (self.accepted.lock().unwrap(), self.refused.lock().unwrap());
        let outcomes = self.outcomes.lock().unwrap();
        let sent = self.sent();
        let is_unconfirmed = |number: &u64| outcomes.get(number).is_some_and(|code| code == UNCONFIRMED);
        let lost: Vec<_> = accepted.iter().filter(|number| !queued.contains_key(number)).collect();
        let doubled: Vec<_> = queued.iter().filter(|(_, count)| **count > 1).collect();
        let never_sent: Vec<_> = queued.keys().filter(|number| **number >= sent).collect();
        let refused_and_there: Vec<_> = refused
            .keys()
            .filter(|number| queued.contains_key(number) && !is_unconfirmed(number))
            .map(|number| (number, outcomes.get(number)))
            .collect();
        for (what, which) in [
            ("lost", format!("{lost:?}")),
            ("doubled", format!("{doubled:?}")),
            ("never sent", format!("{never_sent:?}")),
            ("refused and there", format!("{refused_and_there:?}")),
        ] {
            if which != "[]" {
                println!("{what}: {which}");
            }
        }
        let unconfirmed = refused.keys().filter(|number| is_unconfirmed(number));
        let (accepted, refused_len) = (accepted.len() as u64, refused.len() as u64);
        Account {
            attempts: sent,
            accepted,
            refused: refused_len,
            unconfirmed: unconfirmed.clone().count() as u64,
            unconfirmed_stored: unconfirmed.filter(|number| queued.contains_key(number)).count() as u64,
            unanswered: sent - accepted - refused_len,
            lost: lost.len() as u64,
            doubled: doubled.len() as u64,
            phantoms: (never_sent.len() + refused_and_there.len()) as u64,
        }
    }

    /// Fails if anything is lost, doubled or there against its answer. Returns how many were accepted.
    pub fn check(&self, jobs: &[serde_json::Value]) -> usize {
        let account = self.account(jobs);
        println!("{account:?}, refused {:?}, {} entries", self.refused(), jobs.len());
        assert!(account.is_sound(), "{account:?}");
        self.accepted()
    }
}

/// The attempt's number is in the body, and in the address that it seems to come from.
fn request(number: u64, padding: usize) -> Vec<u8> {
    let low = u32::try_from(number).ok().filter(|low| *low < 1 << 24).expect("fewer attempts than addresses");
    let address = Ipv4Addr::from_bits(0x0a00_0000 | low);
    let body = format!("{{\"attempt\":{number},\"padding\":\"{}\"}}", "x".repeat(padding));
    format!(
        "POST /integration/demo HTTP/1.1\r\nHost: gateway.test\r\nX-Forwarded-For: {address}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn the_oracle_tells_lost_doubled_and_phantom_jobs_from_those_of_unknown_outcome() {
    let attempts = Attempts::default();
    attempts.next.store(8, Ordering::Relaxed);
    *attempts.accepted.lock().unwrap() = vec![0, 1, 2];
    *attempts.refused.lock().unwrap() = [(3, 503), (4, 503), (5, 503), (6, 503)].into();
    attempts.note_refusal(r#"{"message":"refused","client":"10.0.0.3","code":"queue_unconfirmed"}"#);
    attempts.note_refusal(r#"{"message":"refused","client":"10.0.0.4","code":"queue_unconfirmed"}"#);
    attempts.note_refusal(r#"{"message":"refused","client":"10.0.0.5","code":"queue_unavailable"}"#);
    // 0 is lost, 2 doubled, 3 there though its outcome was unknown, 5 and 6 there though refused, 8 was never sent.
    let jobs = [1, 2, 2, 3, 5, 6, 7, 8].map(|n| serde_json::json!({ "data": { "data": { "attempt": n } } }));
    let expect = Account {
        attempts: 8,
        accepted: 3,
        refused: 4,
        unconfirmed: 2,
        unconfirmed_stored: 1,
        unanswered: 1,
        lost: 1,
        doubled: 1,
        phantoms: 3,
    };
    assert_eq!(attempts.account(&jobs), expect);
    assert!(!expect.is_sound());
}
