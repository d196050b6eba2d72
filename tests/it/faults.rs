//! Faults in numbers: each test here breaks one thing many times under load, with real processes, and then holds what was
//! answered against what is stored ([`crate::support::attempts`]): nothing lost, nothing doubled, nothing there that was
//! refused.
//!
//! `ROUNDS` sets how often it is broken, `SEED` repeats a schedule. Each test ends with a line `FAULT {…}`, which
//! `scripts/faults` collects for docs/evidence/faults.md.

mod gateway_kills;
mod lost_replies;
mod redis_troubles;
mod topologies;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::attempts::{ATTEMPTS_HAVE_ADDRESSES, Account, Attempts, Random};
use crate::support::client::try_get;
use crate::support::eventually_within;
use crate::support::process::{GatewayProcess, RunningGateway};

/// What batches have before they go to the journal is three quarters of this.
const TIMEOUT: (&str, &str) = ("RETRIEVE_QUEUE_TIMEOUT", "400ms");

/// One run of one fault.
struct Run {
    fault: &'static str,
    mode: &'static str,
    rounds: u64,
    random: Random,
    begin: Instant,
}

impl Run {
    /// With so many rounds, unless `ROUNDS` says otherwise.
    fn begin(fault: &'static str, mode: &'static str, rounds: u64) -> Run {
        let rounds = from_environment("ROUNDS").unwrap_or(rounds);
        Run { fault, mode, rounds, random: Random::from_environment(), begin: Instant::now() }
    }

    /// Prints what came of it, and fails if anything is wrong. `more` is what is particular to this fault.
    fn end(self, account: Account, more: &Value) {
        let Account { attempts, accepted, refused, unconfirmed, unconfirmed_stored, unanswered, .. } =
            account;
        let Account { lost, doubled, phantoms, .. } = account;
        let line = json!({
            "fault": self.fault, "mode": self.mode, "seed": self.random.seed, "rounds": self.rounds,
            "attempts": attempts, "accepted": accepted, "refused": refused, "unconfirmed": unconfirmed,
            "unconfirmed_stored": unconfirmed_stored, "unanswered": unanswered,
            "lost": lost, "doubled": doubled, "phantoms": phantoms,
            "seconds": self.begin.elapsed().as_secs(), "more": more,
        });
        println!("FAULT {line}");
        assert!(account.is_sound(), "{account:?}");
        assert!(accepted > self.rounds, "the load was too small to prove anything: {account:?}");
    }
}

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{value}`")))
}

/// Starts a gateway whose refusals are noted.
async fn start_gateway(
    folder: &TempDir,
    settings: &[(&str, &str)],
    attempts: &Arc<Attempts>,
) -> RunningGateway {
    let settings = [settings, &ATTEMPTS_HAVE_ADDRESSES].concat();
    let attempts = Arc::clone(attempts);
    GatewayProcess::start(folder, &settings).await.with_log(move |line| attempts.note_refusal(line))
}

fn start_clients(attempts: &Arc<Attempts>, gateway: &RunningGateway, count: usize) -> Vec<JoinHandle<()>> {
    (0..count).map(|_| tokio::spawn(Arc::clone(attempts).send_until_gone(gateway.address))).collect()
}

/// Waits until those clients have ended.
async fn join(clients: Vec<JoinHandle<()>>) {
    for client in clients {
        client.await.unwrap();
    }
}

/// The value of a gateway's metric; None if it is too busy to answer.
async fn metric(gateway: &RunningGateway, name: &str) -> Option<f64> {
    let text = try_get(gateway.admin, "/metrics").await?.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Some(line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap())
}

/// Waits until Redis has all that the journal held. Readiness without a note says so from the first moment on; the metric
/// of a gateway that has just started is 0 until its worker runs.
async fn drained(gateway: &RunningGateway) {
    eventually_within(240, "the journal is empty", || async {
        let ready = try_get(gateway.admin, "/ready").await?.json();
        let is_up = ready["probes"]["queue"] == json!({ "ready": true });
        (is_up && metric(gateway, "retrieve_journal_jobs").await? == 0.0).then_some(())
    })
    .await;
}

/// A gateway on Redis that stays up under load while Redis is in trouble.
struct Site {
    /// Holds the journal.
    _folder: TempDir,
    gateway: RunningGateway,
    attempts: Arc<Attempts>,
    clients: Vec<JoinHandle<()>>,
}

/// What a site's gateway says of itself at the end.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    broken_connections: u64,
    /// Losses at Redis that the gateway couldn't make up for.
    reported_losses: u64,
}

impl Site {
    /// With so many clients, each of which pauses after an answer.
    async fn start(url: &str, clients: usize, pause: Duration) -> Site {
        Site::start_with(url, &[], clients, pause).await
    }

    async fn start_with(url: &str, more: &[(&str, &str)], clients: usize, pause: Duration) -> Site {
        let folder = TempDir::new().unwrap();
        let attempts = Arc::new(Attempts::with_pause(pause));
        let settings = [&[("RETRIEVE_QUEUE", url), TIMEOUT], more].concat();
        let gateway = start_gateway(&folder, &settings, &attempts).await;
        let clients = start_clients(&attempts, &gateway, clients);
        Site { _folder: folder, gateway, attempts, clients }
    }

    /// Waits until more webhooks were accepted.
    async fn goes_on(&self) {
        let before = self.attempts.accepted();
        eventually_within(60, "webhooks are accepted", || async {
            (self.attempts.accepted() > before + 10).then_some(())
        })
        .await;
    }

    /// Waits until jobs go to Redis directly again.
    async fn drained(&self) {
        drained(&self.gateway).await;
    }

    /// Ends the load, and the gateway once the journal is empty: whatever was accepted has to be at Redis then.
    async fn end(self) -> (Arc<Attempts>, Said) {
        self.attempts.finish();
        join(self.clients).await;
        drained(&self.gateway).await;
        let said = eventually_within(60, "the gateway says how it went", || async {
            Some(Said {
                broken_connections: metric(&self.gateway, "retrieve_redis_broken_connections_total").await?
                    as u64,
                reported_losses: metric(&self.gateway, "retrieve_redis_losses_total").await? as u64,
            })
        })
        .await;
        self.gateway.kill().await;
        (self.attempts, said)
    }
}
