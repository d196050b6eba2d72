//! One of any number of workers that handle a gateway's jobs. docs/workers.md says why it does what it does.
//!
//! `REDIS_URL=redis://127.0.0.1:6379 cargo run --example worker`

use std::env;
use std::error::Error;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamAutoClaimReply, StreamId, StreamPendingCountReply, StreamReadReply};
use redis::{AsyncCommands, AsyncConnectionConfig, RedisError, RedisResult, cmd, pipe};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

const DONE_SECONDS: u64 = 24 * 3600;

struct Worker {
    connection: MultiplexedConnection,
    /// `retrieve:{<app>}:`, which every key of the app begins with.
    keys: String,
    jobs: String,
    group: String,
    name: String,
    max_tries: usize,
    /// Longer than any job takes.
    claim_idle: Duration,
    work: Duration,
}

/// Your work. It may run twice for one job, so let the job's id be the key of what it does.
async fn handle(job: &Value, work: Duration) -> Result<String, Box<dyn Error>> {
    let order = job.pointer("/data/data/order/id").ok_or("the payload has no order.id")?;
    tokio::time::sleep(work).await;
    Ok(format!("order {order} handled"))
}

impl Worker {
    async fn run(&mut self, stopping: &watch::Receiver<bool>) -> RedisResult<()> {
        let mut cursor = "0-0".to_owned();
        let mut next_claim = Instant::now();
        while !*stopping.borrow() {
            let mut entries = Vec::new();
            if Instant::now() >= next_claim {
                // First what a dead worker left, and what failed before.
                (cursor, entries) = self.claim(&cursor).await?;
                if entries.is_empty() && cursor == "0-0" {
                    next_claim = Instant::now() + self.claim_idle.min(Duration::from_secs(1));
                }
            }
            if entries.is_empty() {
                entries = self.read().await?;
            }
            for entry in entries {
                self.work_on(&entry).await?;
            }
        }
        self.leave().await
    }

    async fn claim(&mut self, cursor: &str) -> RedisResult<(String, Vec<StreamId>)> {
        let idle = u64::try_from(self.claim_idle.as_millis()).unwrap_or(u64::MAX);
        let mut claim = cmd("XAUTOCLAIM");
        claim.arg(&self.jobs).arg(&self.group).arg(&self.name).arg(idle).arg(cursor).arg("COUNT").arg(1);
        let claimed: StreamAutoClaimReply = claim.query_async(&mut self.connection).await?;
        Ok((claimed.next_stream_id, claimed.claimed))
    }

    async fn read(&mut self) -> RedisResult<Vec<StreamId>> {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.name).arg("COUNT").arg(1).arg("BLOCK").arg(1000);
        read.arg("STREAMS").arg(&self.jobs).arg(">");
        let reply: Option<StreamReadReply> = read.query_async(&mut self.connection).await?;
        Ok(reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).collect())
    }

    async fn work_on(&mut self, entry: &StreamId) -> RedisResult<()> {
        let pending: StreamPendingCountReply =
            self.connection.xpending_count(&self.jobs, &self.group, &entry.id, &entry.id, 1).await?;
        let Some(pending) = pending.ids.first().filter(|pending| pending.consumer == self.name) else {
            return Ok(()); // another worker has it
        };
        let tries = pending.times_delivered;
        let text: String = entry.get("job").unwrap_or_default();
        // An entry that is no job was put there by somebody else; handling it fails.
        let job: Value = serde_json::from_str(&text).unwrap_or_default();
        let job_id = job["id"].as_str().unwrap_or_default();
        let done = format!("{}done:{job_id}", self.keys);
        if self.connection.exists(&done).await? {
            // By a worker that was too slow to say so.
            return self.connection.xack(&self.jobs, &self.group, &[&entry.id]).await;
        }
        let handled = if tries > self.max_tries {
            Err(format!("given up after {} tries that ended without a word", self.max_tries).into())
        } else {
            handle(&job, self.work).await
        };
        let (status, message) = match handled {
            Ok(message) => ("done", message),
            Err(error) if tries >= self.max_tries => ("parked", error.to_string()),
            Err(error) => ("failed", error.to_string()),
        };
        let mut transaction = pipe();
        transaction.atomic().cmd("XADD").arg(format!("{}results", self.keys));
        transaction.arg("MAXLEN").arg("~").arg(100_000).arg("*");
        transaction.arg("job_id").arg(job_id).arg("jobStatus").arg(status).arg("message").arg(&message);
        if status == "parked" {
            transaction.cmd("XADD").arg(format!("{}parked", self.keys)).arg("*").arg("job").arg(&text);
            transaction.arg("entry").arg(&entry.id).arg("tries").arg(tries).arg("message").arg(&message);
        }
        if status == "done" {
            transaction.set_ex(&done, 1, DONE_SECONDS);
        }
        // What failed stays pending, and is claimed again after `claim_idle`.
        if status != "failed" {
            transaction.xack(&self.jobs, &self.group, &[&entry.id]);
        }
        transaction.query_async(&mut self.connection).await
    }

    /// Takes the worker's name off the group; safe only if nothing is left under it.
    async fn leave(&mut self) -> RedisResult<()> {
        let left: StreamPendingCountReply =
            self.connection.xpending_consumer_count(&self.jobs, &self.group, "-", "+", 1, &self.name).await?;
        if left.ids.is_empty() {
            let _: usize = self.connection.xgroup_delconsumer(&self.jobs, &self.group, &self.name).await?;
        }
        Ok(())
    }
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// True from the first SIGTERM or SIGINT on; the job in hand is finished first.
fn stop_signal() -> std::io::Result<watch::Receiver<bool>> {
    let (sender, stopping) = watch::channel(false);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signals, sender) = (signal(kind)?, sender.clone());
        tokio::spawn(async move {
            signals.recv().await;
            sender.send_replace(true);
        });
    }
    Ok(stopping)
}

/// A lost connection ends the worker; whatever started it starts it again.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let stopping = stop_signal()?;
    let keys = format!("retrieve:{{{}}}:", setting("APP", "default"));
    let client = redis::Client::open(setting("REDIS_URL", "redis://127.0.0.1:6379"))?;
    // XREADGROUP blocks for longer than the client's default time-out of an answer.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let hostname = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let mut worker = Worker {
        connection: client.get_multiplexed_async_connection_with_config(&config).await?,
        jobs: format!("{keys}jobs"),
        keys,
        group: setting("GROUP", "workers"),
        name: setting("NAME", &format!("{}-{}", hostname.trim(), std::process::id())),
        max_tries: setting("MAX_TRIES", "5").parse()?,
        claim_idle: Duration::from_millis(setting("CLAIM_IDLE_MS", "60000").parse()?),
        work: Duration::from_secs_f64(setting("WORK_SECONDS", "0").parse()?),
    };
    let created: Result<(), RedisError> =
        worker.connection.xgroup_create_mkstream(&worker.jobs, &worker.group, "0").await;
    match created {
        Err(error) if error.code() != Some("BUSYGROUP") => return Err(error.into()),
        _ => {} // made now, or there already
    }
    Ok(worker.run(&stopping).await?)
}
