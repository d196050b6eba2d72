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

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::attempts::{ATTEMPTS_HAVE_ADDRESSES, Attempts};
use crate::support::eventually_within;
use crate::support::fault_run::FaultRun;
use crate::support::gateway::{journal_is_sent_within, metric};
use crate::support::process::{GatewayProcess, RunningGateway};
use crate::support::redis_server::RedisServer;

/// What batches have before they go to the journal is three quarters of this.
const TIMEOUT: (&str, &str) = ("RETRIEVE_QUEUE_TIMEOUT", "400ms");

/// How long a journal may take on a busy machine.
const DRAIN_SECONDS: u64 = 240;

/// Starts a gateway whose refusals are noted.
async fn start_gateway(
    folder: &TempDir,
    settings: &[(&str, &str)],
    attempts: &Arc<Attempts>,
) -> RunningGateway {
    let settings = [settings, &ATTEMPTS_HAVE_ADDRESSES].concat();
    attempts.note_refusals_of(GatewayProcess::start(folder, &settings).await)
}

/// A gateway on Redis that stays up under load while Redis is in trouble.
struct Site {
    /// Holds the journal.
    _folder: TempDir,
    gateway: RunningGateway,
    attempts: Arc<Attempts>,
    clients: JoinSet<()>,
}

/// What a site's gateway says of itself at the end.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    broken_connections: u64,
    /// Losses at Redis that the gateway couldn't make up for.
    reported_losses: u64,
}

impl AddAssign for Said {
    fn add_assign(&mut self, other: Said) {
        self.broken_connections += other.broken_connections;
        self.reported_losses += other.reported_losses;
    }
}

impl Said {
    /// Adds it to what is particular to a fault.
    fn beside(self, mut more: Value) -> Value {
        more["broken_connections"] = self.broken_connections.into();
        more["reported_losses"] = self.reported_losses.into();
        more
    }
}

/// Ends a run on that site, whose jobs are at that Redis by now.
async fn finish(run: FaultRun, site: Site, redis: &RedisServer, more: Value) {
    let (attempts, said) = site.end().await;
    run.end(attempts.account(&redis.jobs("default").await), &said.beside(more));
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
        let clients = attempts.start_clients(gateway.address, clients);
        Site { _folder: folder, gateway, attempts, clients }
    }

    /// Waits until more webhooks were accepted.
    async fn goes_on(&self) {
        self.attempts.go_on_within(60, 10).await;
    }

    /// Waits until jobs go to Redis directly again.
    async fn drained(&self) {
        journal_is_sent_within(DRAIN_SECONDS, self.gateway.admin).await;
    }

    /// Ends the load, and the gateway once the journal is empty: whatever was accepted has to be at Redis then.
    async fn end(self) -> (Arc<Attempts>, Said) {
        self.attempts.finish();
        self.clients.join_all().await;
        journal_is_sent_within(DRAIN_SECONDS, self.gateway.admin).await;
        let admin = self.gateway.admin;
        let said = eventually_within(60, "the gateway says how it went", || async {
            Some(Said {
                broken_connections: metric(admin, "retrieve_redis_broken_connections_total").await? as u64,
                reported_losses: metric(admin, "retrieve_redis_losses_total").await? as u64,
            })
        })
        .await;
        self.gateway.kill().await;
        (self.attempts, said)
    }
}
