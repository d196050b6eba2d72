//! Moving up: what the embedded queue holds in the same folder goes to Redis, exactly once, while new webhooks are taken.
//!
//! Jobs have numbers that never change, so a batch is named by the number that the server must be at and the one that
//! it is at afterwards; a script compares and appends. What the server has is acknowledged in the embedded queue, which
//! removes its files. New webhooks don't wait for that: they may come before older ones.

use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::server::{Connection, Server};
use super::{Keys, describe, script};
use crate::queue::embedded::Leftover;
use crate::queue::{Entry, Health};
use crate::telemetry::queue::QueueMetrics;

/// The pause after an error.
const PAUSE: Duration = Duration::from_secs(1);

/// How many jobs go in one batch; a page holds 1 MiB at the most.
const BATCH_JOBS: usize = 256;

/// Moves the jobs of one folder.
#[derive(Debug)]
pub struct Mover {
    leftover: Leftover,
    server: Server,
    keys: Keys,
    field: String,
    /// Its sender goes when the gateway stops.
    running: watch::Receiver<Health>,
    metrics: QueueMetrics,
}

impl Mover {
    pub(super) fn new(
        leftover: Leftover,
        server: Server,
        keys: Keys,
        field: String,
        running: watch::Receiver<Health>,
        metrics: QueueMetrics,
    ) -> Mover {
        Mover { leftover, server, keys, field, running, metrics }
    }

    /// Moves everything, then rests until the gateway stops. What is on its way when it stops is found out at the next
    /// start.
    pub async fn run(self) {
        let mut running = self.running.clone();
        let gone = async { while running.changed().await.is_ok() {} };
        tokio::select! {
            () = gone => {}
            never = self.move_all() => match never {},
        }
    }

    async fn move_all(&self) -> std::convert::Infallible {
        loop {
            match self.try_to_move().await {
                Ok(moved) => {
                    if moved > 0 {
                        info!(moved, "everything that was in the embedded queue is in Redis now");
                    }
                    self.metrics.moving_jobs.set(0);
                    std::future::pending::<()>().await;
                }
                Err(why) => warn!(%why, "jobs of the embedded queue can't be moved to Redis yet"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Moves page after page. How many jobs were moved.
    async fn try_to_move(&self) -> Result<u64, String> {
        let mut jobs = self.leftover.jobs().await;
        self.metrics.moving_jobs.set(jobs);
        if jobs == 0 {
            return Ok(0);
        }
        info!(jobs, "moving the jobs of the embedded queue to Redis");
        let mut moved = 0;
        let mut connection = self.connect().await?;
        let mut at = 0;
        loop {
            let page = self.leftover.page(at, BATCH_JOBS).await.map_err(|error| error.to_string())?;
            let Some(last) = last_of(&page.entries) else { return Ok(moved) };
            let jobs_of_page = script::move_jobs(&self.keys, &self.field, at, last, &page.entries);
            let reply = connection.write(jobs_of_page).await.map_err(|error| describe(&error))?;
            let reply: String = redis::from_redis_value(reply).map_err(|error| error.to_string())?;
            let reached: u64 = reply.parse().map_err(|_| format!("`{reply}` is no number of a job"))?;
            if reached == last {
                moved += page.entries.len() as u64;
                jobs = jobs.saturating_sub(page.entries.len() as u64);
                self.metrics.moving_jobs.set(jobs);
            }
            if reached < at {
                self.metrics.redis_losses.inc();
                error!(reached, at, "Redis lost jobs of the embedded queue that it had confirmed");
            }
            at = reached;
            self.leftover.acknowledge(at).await.map_err(|error| error.to_string())?;
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let mut connection =
            self.server.connect(&self.keys.stream, self.server.settings().ack.response_timeout()).await?;
        for load in script::load() {
            load.query_async::<()>(&mut connection).await.map_err(|error| describe(&error))?;
        }
        Ok(connection)
    }
}

fn last_of(entries: &[Entry]) -> Option<u64> {
    entries.last()?.position.parse().ok()
}
