//! An open-loop load generator: it sends at a fixed rate, however slowly the answers come.
//!
//! A request's latency counts from the moment at which it should have been sent. So a server that stalls is charged
//! for every request that fell due meanwhile (no coordinated omission). Percentiles are exact: every sample is kept.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

type Failure = Box<dyn Error + Send + Sync>;

/// Longer than any answer should take; a request without one by then is an error.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// For the tasks to be ready before the first request falls due.
const START_DELAY: Duration = Duration::from_millis(50);

/// Sends a file by POST at a fixed rate and prints one line of JSON.
#[derive(Debug, Parser)]
struct Flags {
    /// Where to send it
    #[arg(long, value_name = "HOST:PORT")]
    address: SocketAddr,
    /// The request's path
    #[arg(long, default_value = "/integration/bench")]
    path: String,
    /// The file to send
    #[arg(long, default_value = "benches/order.json")]
    body: PathBuf,
    /// Requests per second
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Connections that are kept open
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// For how long
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// What all connections share.
struct Plan {
    flags: Flags,
    body: Bytes,
    start: Instant,
    total: u64,
    /// One permit for each request that has fallen due and wasn't taken yet.
    due: Semaphore,
    taken: AtomicU64,
}

#[derive(Default)]
struct Samples {
    /// From when each request was due until its answer had been read.
    latencies: Vec<Duration>,
    /// From when each request was due until a connection was free to send it.
    delays: Vec<Duration>,
    statuses: BTreeMap<String, u64>,
    errors: u64,
}

fn main() -> Result<(), Failure> {
    // A plain `cargo bench` runs this without a server to send to.
    if std::env::args().any(|argument| argument == "--bench") {
        return Ok(writeln!(io::stderr(), "open_loop: benches/run starts this generator")?);
    }
    let flags = Flags::parse();
    // One thread is plenty, and it leaves the other cores to the server.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(generate(flags))
}

async fn generate(flags: Flags) -> Result<(), Failure> {
    let mut connections = Vec::new();
    for _ in 0..flags.connections {
        connections.push(connect(flags.address).await?);
    }
    let plan = Arc::new(Plan {
        body: std::fs::read(&flags.body)?.into(),
        start: Instant::now() + START_DELAY,
        total: flags.rate * flags.seconds,
        due: Semaphore::new(0),
        taken: AtomicU64::new(0),
        flags,
    });
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|connection| tokio::spawn(send_what_is_due(Arc::clone(&plan), connection)))
        .collect();
    let pacer = {
        let plan = Arc::clone(&plan);
        std::thread::spawn(move || plan.pace())
    };
    let mut samples = Samples::default();
    for task in tasks {
        samples.add(task.await?);
    }
    pacer.join().map_err(|_| "the pacing thread panicked")?;
    Ok(writeln!(io::stdout(), "{}", samples.report(&plan))?)
}

impl Plan {
    fn due_at(&self, number: u64) -> Instant {
        self.start + Duration::from_nanos(number * 1_000_000_000 / self.flags.rate)
    }

    /// Keeps time on a thread of its own: the runtime's timer counts whole milliseconds, which is too coarse.
    fn pace(&self) {
        for number in 0..self.total {
            std::thread::sleep(self.due_at(number).saturating_duration_since(Instant::now()));
            self.due.add_permits(1);
        }
        // One more for each connection is its sign to stop.
        self.due.add_permits(self.flags.connections);
    }
}

/// Takes the next request that is due whenever this connection is free.
async fn send_what_is_due(plan: Arc<Plan>, connection: SendRequest<Full<Bytes>>) -> Samples {
    let mut samples = Samples::default();
    let mut connection = Some(connection);
    while let Ok(permit) = plan.due.acquire().await {
        permit.forget();
        let number = plan.taken.fetch_add(1, Ordering::Relaxed);
        if number >= plan.total {
            break;
        }
        let due = plan.due_at(number);
        samples.delays.push(due.elapsed());
        let outcome = match tokio::time::timeout(ANSWER_TIMEOUT, exchange(&plan, &mut connection)).await {
            Ok(outcome) => outcome,
            Err(elapsed) => Err(elapsed.into()),
        };
        samples.latencies.push(due.elapsed());
        match outcome {
            Ok(status) => *samples.statuses.entry(status).or_default() += 1,
            Err(error) => {
                samples.errors += 1;
                connection = None;
                let _ = writeln!(io::stderr(), "open_loop: request {number}: {error}");
            }
        }
    }
    samples
}

async fn exchange(plan: &Plan, slot: &mut Option<SendRequest<Full<Bytes>>>) -> Result<String, Failure> {
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(connect(plan.flags.address).await?),
    };
    connection.ready().await?;
    let request = Request::post(&plan.flags.path)
        .header(HOST, plan.flags.address.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(plan.body.clone()))?;
    let response = connection.send_request(request).await?;
    let status = response.status().as_str().to_owned();
    response.into_body().collect().await?;
    Ok(status)
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Its errors are reported to the sender, too.
    tokio::spawn(connection);
    Ok(sender)
}

impl Samples {
    fn add(&mut self, other: Samples) {
        self.latencies.extend(other.latencies);
        self.delays.extend(other.delays);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.errors += other.errors;
    }

    fn report(&mut self, plan: &Plan) -> serde_json::Value {
        self.latencies.sort_unstable();
        self.delays.sort_unstable();
        serde_json::json!({
            "rate": plan.flags.rate,
            "connections": plan.flags.connections,
            "seconds": plan.flags.seconds,
            "sent": self.latencies.len(),
            "statuses": self.statuses,
            "errors": self.errors,
            "p50_us": percentile(&self.latencies, 50.0),
            "p99_us": percentile(&self.latencies, 99.0),
            "p99_9_us": percentile(&self.latencies, 99.9),
            "p99_99_us": percentile(&self.latencies, 99.99),
            "max_us": percentile(&self.latencies, 100.0),
            "send_delay_p99_9_us": percentile(&self.delays, 99.9),
        })
    }
}

/// The smallest sample that at least so many per cent of all don't exceed, in microseconds.
fn percentile(sorted: &[Duration], percent: f64) -> u128 {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(0, Duration::as_micros)
}
