//! What the queue's numbered append costs beside plain XADD, on one connection to the same redis-server.
//!
//! `benches/run append` starts it, in alternating rounds. It appends documents by one of three ways and prints one line
//! of JSON:
//!
//! - `numbered`: the gateway's own writer, as a request's path calls it: tasks hand over a document each and wait for
//!   its receipt; what waits goes out as a numbered batch, which a script appends.
//! - `plain`: the same tasks and the same rule for batches, but each batch is a pipeline of XADDs. A pipeline whose answer gets lost is
//!   lost or stored, and nobody knows which: that is what the numbers are for.
//! - `pipelined`: nobody waits; pipelines of a given number of XADDs, two on their way.

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use redis::aio::MultiplexedConnection;
use retrieve_gateway::job::Job;
use retrieve_gateway::memory::MemoryBudget;
use retrieve_gateway::queue::redis::target::Target;
use retrieve_gateway::queue::redis::{Ack, JOB_FIELD, Keys, Redis, Settings, Trim};
use retrieve_gateway::queue::{Health, Queue, lane};
use retrieve_gateway::telemetry::queue::QueueMetrics;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use uuid::Uuid;

type Failure = Box<dyn Error + Send + Sync>;

/// Pipelines on their way at the most, as many as the gateway's writer has batches.
const WINDOW: usize = 2;

/// Longer than any append may take here.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    Numbered,
    Plain,
    Pipelined,
}

/// Appends documents to a stream and prints one line of JSON.
#[derive(Debug, Parser)]
struct Flags {
    /// By which way
    #[arg(long)]
    way: Way,
    /// The Redis
    #[arg(long, value_name = "URL")]
    redis: String,
    /// How many documents
    #[arg(long, default_value_t = 100_000)]
    documents: u64,
    /// Their size
    #[arg(long, default_value_t = 2400)]
    bytes: usize,
    /// How many tasks append at once; each waits for its receipt
    #[arg(long, default_value_t = 64)]
    tasks: usize,
    /// How many XADDs a pipeline has where nobody waits
    #[arg(long, default_value_t = 32)]
    pipeline: usize,
}

fn main() -> Result<(), Failure> {
    // A plain `cargo bench` only says what this is.
    if std::env::args().any(|argument| argument == "--bench") {
        return Ok(writeln!(io::stderr(), "append: benches/run starts this program")?);
    }
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let document = Bytes::from(vec![b'x'; flags.bytes]);
    let taken = runtime.block_on(async {
        match flags.way {
            Way::Numbered => numbered(&flags, &document).await,
            Way::Plain => plain(&flags, &document).await,
            Way::Pipelined => pipelined(&flags, &document).await,
        }
    })?;
    let result = serde_json::json!({ "documents": flags.documents, "seconds": taken.as_secs_f64() });
    Ok(writeln!(io::stdout(), "{result}")?)
}

/// Calls `append` from so many tasks until all documents are there. Returns how long it took.
async fn from_tasks<F>(
    flags: &Flags,
    append: impl Fn() -> F + Clone + Send + 'static,
) -> Result<Duration, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send,
{
    let taken = Arc::new(AtomicU64::new(0));
    let (documents, started) = (flags.documents, Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..flags.tasks {
        let (taken, append) = (Arc::clone(&taken), append.clone());
        tasks.spawn(async move {
            while taken.fetch_add(1, Ordering::Relaxed) < documents {
                append().await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(started.elapsed())
}

async fn numbered(flags: &Flags, document: &Bytes) -> Result<Duration, Failure> {
    let settings = Settings {
        target: Target::parse(&flags.redis).ok_or("--redis isn't the URL of a Redis")??,
        tls: None,
        shards: 1,
        ack: Ack::Redis,
        trim: Trim { acknowledged: false, age_limit: None },
        dead_after: Duration::from_secs(3600),
        stream_limit: 0,
    };
    let (redis, writers, _) = Redis::new(&settings, "default", TIMEOUT, None, &QueueMetrics::default());
    for writer in writers {
        tokio::spawn(writer.run());
    }
    let queue = Arc::new(Queue::Redis(Box::new(redis)));
    while queue.health() != Health::Up {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let memory = Arc::new(MemoryBudget::new(1 << 30));
    let document = document.clone();
    let append = move || {
        let (queue, memory, document) = (Arc::clone(&queue), Arc::clone(&memory), document.clone());
        async move {
            let reservation = memory.reserve(document.len()).map_err(|_| "out of memory")?;
            let job = Job { id: Uuid::now_v7(), document, dedupe: None };
            queue.append(job, None, reservation, TIMEOUT).await?;
            Ok(())
        }
    };
    from_tasks(flags, append).await
}

/// A document and who waits for it.
type Waiting = (Bytes, oneshot::Sender<()>);

async fn plain(flags: &Flags, document: &Bytes) -> Result<Duration, Failure> {
    let connection = connect(flags).await?;
    let (sender, receiver) = mpsc::channel::<Waiting>(4096);
    let writer = tokio::spawn(write_batches(connection, receiver));
    let document = document.clone();
    let append = move || {
        let (sender, document) = (sender.clone(), document.clone());
        async move {
            let (settled, outcome) = oneshot::channel();
            sender.send((document, settled)).await?;
            Ok(outcome.await?)
        }
    };
    let taken = from_tasks(flags, append).await?;
    writer.await??;
    Ok(taken)
}

/// What is waiting goes out together, as the gateway's writer does it: a batch follows another one that is on its way when
/// it is worth that.
async fn write_batches(
    connection: MultiplexedConnection,
    mut receiver: mpsc::Receiver<Waiting>,
) -> Result<(), Failure> {
    let stream = Keys::of("default", 0).stream;
    let (mut sent, mut waiting, mut is_open) = (JoinSet::new(), Vec::new(), true);
    while is_open || !waiting.is_empty() || !sent.is_empty() {
        let room = lane::BATCH_LIMIT_JOBS - waiting.len();
        tokio::select! {
            count = receiver.recv_many(&mut waiting, room), if is_open && room > 0 => is_open = count > 0,
            Some(done) = sent.join_next() => done??,
        }
        let may_follow = sent.len() < WINDOW && waiting.len() >= lane::ENOUGH_JOBS;
        if waiting.is_empty() || !(sent.is_empty() || may_follow) {
            continue;
        }
        let batch: Vec<Waiting> = std::mem::take(&mut waiting);
        let mut pipeline = redis::pipe();
        for (document, _) in &batch {
            pipeline.cmd("XADD").arg(&stream).arg("*").arg(JOB_FIELD).arg(document.as_ref());
        }
        let mut connection = connection.clone();
        sent.spawn(async move {
            let _ids: Vec<String> = pipeline.query_async(&mut connection).await?;
            for (_, settled) in batch {
                let _ = settled.send(());
            }
            Ok::<_, Failure>(())
        });
    }
    Ok(())
}

async fn pipelined(flags: &Flags, document: &Bytes) -> Result<Duration, Failure> {
    let connection = connect(flags).await?;
    let stream = Keys::of("default", 0).stream;
    let left = Arc::new(AtomicU64::new(flags.documents));
    let started = Instant::now();
    let mut senders = JoinSet::new();
    for _ in 0..WINDOW {
        let (mut connection, left, stream) = (connection.clone(), Arc::clone(&left), stream.clone());
        let (document, most) = (document.clone(), flags.pipeline as u64);
        senders.spawn(async move {
            loop {
                let take = |left: u64| (left > 0).then(|| left.saturating_sub(most));
                let Ok(before) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else { break };
                let mut pipeline = redis::pipe();
                for _ in 0..before.min(most) {
                    pipeline.cmd("XADD").arg(&stream).arg("*").arg(JOB_FIELD).arg(document.as_ref());
                }
                let _ids: Vec<String> = pipeline.query_async(&mut connection).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    Ok(started.elapsed())
}

async fn connect(flags: &Flags) -> Result<MultiplexedConnection, Failure> {
    Ok(redis::Client::open(flags.redis.as_str())?.get_multiplexed_async_connection().await?)
}
