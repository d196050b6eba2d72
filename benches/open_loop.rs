//! An open-loop load generator: it sends at a fixed rate, however slowly the answers come.
//!
//! A request's latency counts from the moment at which it should have been sent. So a server that stalls is charged
//! for every request that fell due meanwhile (no coordinated omission). Percentiles are exact: every sample is kept.
//!
//! With `--drop` a request that is due while every connection is busy isn't sent later but never, and latencies count from
//! the moment of sending: that is for overload, where no generator keeps up.
//!
//! With `--times` each request bears its number, and a file says when each one was sent and answered: what stands on a stream
//! can be held against the order in which it came.
//!
//! Requests are bytes that are made once, and of an answer no more is read than its status and its end: the generator
//! shares the machine with what it measures.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

type Failure = Box<dyn Error + Send + Sync>;

/// Longer than any answer should take; a request without one by then is an error.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// For the tasks to be ready before the first request falls due.
const START_DELAY: Duration = Duration::from_millis(50);

/// The header with a request's number, before there is one.
const NUMBER: &str = "x-number: 000000000000";
const DIGITS: usize = 12;

/// An answer's head may be so long.
const HEAD_LIMIT_BYTES: usize = 16 << 10;

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
    /// A header; application/json is the content type unless one is given
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Requests per second
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Connections that are kept open
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// For how long
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Never send what falls due while all connections are busy
    #[arg(long)]
    drop: bool,
    /// Numbers the requests (x-number) and writes here when each was sent and answered: number, µs, µs, status
    #[arg(long, value_name = "FILE")]
    times: Option<PathBuf>,
}

/// What all connections share.
struct Plan {
    flags: Flags,
    request: Vec<u8>,
    /// Where the digits of a request's number are, with `--times`.
    digits: Option<Range<usize>>,
    start: Instant,
    total: u64,
    /// One permit for each request that has fallen due and wasn't taken yet.
    due: Semaphore,
    taken: AtomicU64,
    dropped: AtomicU64,
}

/// A connection, and the bytes of an answer that have been read.
struct Connection {
    stream: TcpStream,
    read: BytesMut,
}

/// What of an answer's head counts here.
struct Head {
    status: u16,
    body_bytes: usize,
    closes: bool,
}

#[derive(Default)]
struct Samples {
    /// From when each request was due (or sent, with `--drop`) until its answer had been read.
    latencies: Vec<Duration>,
    /// From when it was due until it was sent: how far the generator itself was behind.
    delays: Vec<Duration>,
    statuses: BTreeMap<u16, u64>,
    errors: u64,
    /// With `--times`: each request's number, when it was sent and answered since the start, and its status.
    times: Vec<(u64, Duration, Duration, u16)>,
}

fn main() -> Result<(), Failure> {
    // A plain `cargo bench` only says what this is.
    if std::env::args().any(|argument| argument == "--bench") {
        return Ok(writeln!(io::stderr(), "open_loop: benches/run starts this generator")?);
    }
    let flags = Flags::parse();
    // Overload is sent from one core. There, and with more connections than a worker's own queue has places for, a runtime of
    // several workers would let some answers wait and count that as the server's.
    let mut builder = match flags.drop {
        true => tokio::runtime::Builder::new_current_thread(),
        false => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build()?.block_on(run(flags))
}

async fn run(flags: Flags) -> Result<(), Failure> {
    let mut connections = Vec::new();
    for _ in 0..flags.connections {
        connections.push(connect(flags.address).await?);
    }
    let request = request(&flags)?;
    let digits = request.windows(NUMBER.len()).position(|window| window == NUMBER.as_bytes());
    let digits =
        digits.filter(|_| flags.times.is_some()).map(|at| at + NUMBER.len() - DIGITS..at + NUMBER.len());
    let plan = Arc::new(Plan {
        request,
        digits,
        start: Instant::now() + START_DELAY,
        total: flags.rate * flags.seconds,
        due: Semaphore::new(0),
        taken: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
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
    if let Some(file) = &plan.flags.times {
        samples.write_times(file)?;
    }
    Ok(writeln!(io::stdout(), "{}", samples.report(&plan))?)
}

/// The bytes that every connection sends, with zeros for the number.
fn request(flags: &Flags) -> Result<Vec<u8>, Failure> {
    let body = std::fs::read(&flags.body)?;
    let mut head = format!("POST {} HTTP/1.1\r\nhost: {}\r\n", flags.path, flags.address);
    if !flags.headers.iter().any(|header| header.to_ascii_lowercase().starts_with("content-type:")) {
        head.push_str("content-type: application/json\r\n");
    }
    for header in &flags.headers {
        write!(head, "{header}\r\n")?;
    }
    if flags.times.is_some() {
        write!(head, "{NUMBER}\r\n")?;
    }
    write!(head, "content-length: {}\r\n\r\n", body.len())?;
    let mut request = head.into_bytes();
    request.extend(body);
    Ok(request)
}

impl Plan {
    fn due_at(&self, number: u64) -> Instant {
        self.start + Duration::from_nanos(number * 1_000_000_000 / self.flags.rate)
    }

    /// Keeps time on a thread of its own: the runtime's timer counts whole milliseconds, which is too coarse.
    fn pace(&self) {
        let mut number = 0;
        while number < self.total {
            std::thread::sleep(self.due_at(number).saturating_duration_since(Instant::now()));
            // At high rates several have fallen due by now.
            let elapsed = self.start.elapsed().as_nanos() * u128::from(self.flags.rate) / 1_000_000_000;
            let due = u64::try_from(elapsed).unwrap_or(u64::MAX).min(self.total - 1) + 1;
            let fallen = due.saturating_sub(number).max(1);
            number += fallen;
            let room = match self.flags.drop {
                true => (self.flags.connections as u64).saturating_sub(self.due.available_permits() as u64),
                false => fallen,
            };
            self.dropped.fetch_add(fallen.saturating_sub(room), Ordering::Relaxed);
            self.due.add_permits(usize::try_from(fallen.min(room)).unwrap_or(usize::MAX));
        }
        // One more for each connection is its sign to stop.
        self.due.add_permits(self.flags.connections);
    }

    /// How many requests are sent in all, as far as is known.
    fn sent_in_all(&self) -> u64 {
        self.total - self.dropped.load(Ordering::Relaxed)
    }
}

/// Takes the next request that is due whenever this connection is free.
async fn send_what_is_due(plan: Arc<Plan>, connection: Connection) -> Samples {
    let mut samples = Samples::default();
    let mut connection = Some(connection);
    while let Ok(permit) = plan.due.acquire().await {
        permit.forget();
        let number = plan.taken.fetch_add(1, Ordering::Relaxed);
        if number >= plan.sent_in_all() {
            break;
        }
        let now = Instant::now();
        let from = if plan.flags.drop { now } else { plan.due_at(number) };
        samples.delays.push(now.saturating_duration_since(from));
        let outcome =
            match tokio::time::timeout(ANSWER_TIMEOUT, exchange(&plan, number, &mut connection)).await {
                Ok(outcome) => outcome,
                Err(elapsed) => Err(elapsed.into()),
            };
        samples.latencies.push(from.elapsed());
        if plan.digits.is_some() {
            let status = *outcome.as_ref().unwrap_or(&0);
            samples.times.push((number, now - plan.start, plan.start.elapsed(), status));
        }
        match outcome {
            Ok(status) => *samples.statuses.entry(status).or_default() += 1,
            Err(error) => {
                samples.errors += 1;
                connection = None;
                if samples.errors == 1 {
                    let _ = writeln!(io::stderr(), "open_loop: request {number}: {error}");
                }
            }
        }
    }
    samples
}

async fn exchange(plan: &Plan, number: u64, slot: &mut Option<Connection>) -> Result<u16, Failure> {
    let mut request = Cow::Borrowed(&plan.request[..]);
    if let Some(digits) = &plan.digits {
        request.to_mut()[digits.clone()].copy_from_slice(format!("{number:0DIGITS$}").as_bytes());
    }
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(connect(plan.flags.address).await?),
    };
    // A server may refuse and close before it has read everything; then its answer counts.
    let written = connection.stream.write_all(&request).await;
    let head = connection.answer().await.map_err(|error| written.err().map_or(error, Failure::from))?;
    if head.closes {
        *slot = None;
    }
    Ok(head.status)
}

impl Connection {
    /// Reads an answer to its end.
    async fn answer(&mut self) -> Result<Head, Failure> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if self.read.len() > HEAD_LIMIT_BYTES || self.stream.read_buf(&mut self.read).await? == 0 {
                return Err("the connection ended within an answer".into());
            }
        };
        let head = Head::parse(&self.read[..end]).ok_or("an answer that isn't understood")?;
        while self.read.len() < end + head.body_bytes {
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err("the connection ended within an answer's body".into());
            }
        }
        self.read.advance(end + head.body_bytes);
        Ok(head)
    }
}

impl Head {
    /// Answers without a length aren't understood: none of the servers here sends one.
    fn parse(bytes: &[u8]) -> Option<Head> {
        let text = std::str::from_utf8(bytes).ok()?.to_ascii_lowercase();
        let mut lines = text.lines();
        let status = lines.next()?.strip_prefix("http/1.1 ")?.get(..3)?.parse().ok()?;
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let body_bytes = value("content-length:")?.parse().ok()?;
        Some(Head { status, body_bytes, closes: value("connection:") == Some("close") })
    }
}

async fn connect(address: SocketAddr) -> Result<Connection, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Connection { stream, read: BytesMut::with_capacity(1024) })
}

impl Samples {
    fn add(&mut self, other: Samples) {
        self.latencies.extend(other.latencies);
        self.delays.extend(other.delays);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.errors += other.errors;
        self.times.extend(other.times);
    }

    fn write_times(&mut self, file: &Path) -> io::Result<()> {
        self.times.sort_unstable();
        let mut file = io::BufWriter::new(File::create(file)?);
        for (number, sent, answered, status) in &self.times {
            writeln!(file, "{number} {} {} {status}", sent.as_micros(), answered.as_micros())?;
        }
        file.flush()
    }

    fn report(&mut self, plan: &Plan) -> serde_json::Value {
        self.latencies.sort_unstable();
        self.delays.sort_unstable();
        serde_json::json!({
            "rate": plan.flags.rate,
            "connections": plan.flags.connections,
            "seconds": plan.flags.seconds,
            "sent": self.latencies.len(),
            "dropped": plan.dropped.load(Ordering::Relaxed),
            "statuses": self.statuses.iter().map(|(status, count)| (status.to_string(), count)).collect::<BTreeMap<_, _>>(),
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
