//! The bare servers that `benches/run` measures the gateway against: hyper on the same runtime, and next to nothing else.
//!
//! Each reads a body to its end and answers what the gateway answers. By itself that is the ceiling; what the gateway costs on
//! top of it is the price of admission, JSON, the log line and durability. With `--redis` or `--file` it stores the body as it
//! came before it answers, and nothing else: so much is left for a gateway in front of that store.
//!
//! - `--redis`: plain XADDs over one connection, two pipelines on their way, each of all that waits. Written by hand, because the
//!   library's pipeline copies each body once more.
//! - `--file`: all that waits is written in one piece, to blocks that were written before, and synced.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ACCEPTED: &[u8] = br#"{"result":true,"error":""}"#;

/// As many jobs as a batch of the gateway has at the most, and as many batches on their way.
const BATCH_LIMIT: usize = 256;
const WINDOW: usize = 2;

/// The file is written from its begin again when it is full.
const FILE_BYTES: usize = 64 << 20;

/// Answers every request with 200, and says on which address.
#[derive(Debug, Parser)]
struct Flags {
    /// Append each body to the stream `jobs` of this Redis first
    #[arg(long, value_name = "ADDRESS")]
    redis: Option<SocketAddr>,
    /// Write each body to this file first, and sync it
    #[arg(long, conflicts_with = "redis")]
    file: Option<PathBuf>,
    /// Worker threads; as many as there are cores unless given
    #[arg(long)]
    workers: Option<usize>,
}

/// A body, and who waits until it is stored.
type Waiting = (Bytes, oneshot::Sender<()>);

/// Who waits for the replies to a pipeline, and its place in the window.
type Sent = (Vec<oneshot::Sender<()>>, OwnedSemaphorePermit);

fn main() -> Result<(), Failure> {
    // Without this, a plain `cargo bench` would start a server that never ends.
    if std::env::args().any(|argument| argument == "--bench") {
        return Ok(writeln!(io::stderr(), "bare_hyper: benches/run starts this server")?);
    }
    let flags = Flags::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = flags.workers {
        runtime.worker_threads(workers);
    }
    runtime.enable_all().build()?.block_on(serve(flags))
}

async fn serve(flags: Flags) -> Result<(), Failure> {
    let (sender, waiting) = mpsc::channel(4096);
    let store = if let Some(address) = flags.redis {
        tokio::spawn(async move { report(append_to_redis(address, waiting).await) });
        Some(sender)
    } else if let Some(path) = flags.file {
        let file = File::options().write(true).create(true).truncate(true).open(path)?;
        file.write_all_at(&vec![b'x'; FILE_BYTES], 0)?;
        file.sync_all()?;
        std::thread::spawn(move || report(append_to_file(&file, waiting).map_err(Failure::from)));
        Some(sender)
    } else {
        None
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let store = store.clone();
        let service = service_fn(move |request| answer(store.clone(), request));
        // A connection that ends early is the load generator's to count.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Whoever waits gets no answer then.
fn report(stored: Result<(), Failure>) {
    if let Err(error) = stored {
        let _ = writeln!(io::stderr(), "bare_hyper: {error}");
    }
}

async fn answer(
    store: Option<mpsc::Sender<Waiting>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Failure> {
    let body = request.into_body().collect().await?.to_bytes();
    if let Some(store) = store {
        let (settled, outcome) = oneshot::channel();
        store.send((body, settled)).await?;
        outcome.await?;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(ACCEPTED)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

async fn append_to_redis(address: SocketAddr, waiting: mpsc::Receiver<Waiting>) -> Result<(), Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (replies, commands) = stream.into_split();
    let (sender, sent) = mpsc::unbounded_channel();
    tokio::try_join!(send_commands(commands, waiting, sender), read_replies(replies, sent))?;
    Ok(())
}

async fn send_commands(
    mut commands: OwnedWriteHalf,
    mut waiting: mpsc::Receiver<Waiting>,
    sent: mpsc::UnboundedSender<Sent>,
) -> Result<(), Failure> {
    let window = Arc::new(Semaphore::new(WINDOW));
    let (mut batch, mut out) = (Vec::new(), Vec::new());
    loop {
        let permit = Arc::clone(&window).acquire_owned().await?;
        if waiting.recv_many(&mut batch, BATCH_LIMIT).await == 0 {
            return Ok(());
        }
        let mut settled = Vec::with_capacity(batch.len());
        for (body, waiter) in batch.drain(..) {
            write!(out, "*5\r\n$4\r\nXADD\r\n$4\r\njobs\r\n$1\r\n*\r\n$1\r\nd\r\n${}\r\n", body.len())?;
            out.extend_from_slice(&body);
            out.extend_from_slice(b"\r\n");
            settled.push(waiter);
        }
        commands.write_all(&out).await?;
        out.clear();
        sent.send((settled, permit))?;
    }
}

async fn read_replies(
    mut replies: OwnedReadHalf,
    mut sent: mpsc::UnboundedReceiver<Sent>,
) -> Result<(), Failure> {
    let mut bytes = vec![0; 64 << 10];
    let mut lines = 0;
    while let Some((settled, _permit)) = sent.recv().await {
        for waiter in settled {
            // An entry's id is two lines, its length and itself. benches/run counts what is on the stream.
            while lines < 2 {
                let length = replies.read(&mut bytes).await?;
                if length == 0 {
                    return Err("Redis closed the connection".into());
                }
                lines += bytes[..length].iter().filter(|byte| **byte == b'\n').count();
            }
            lines -= 2;
            let _ = waiter.send(());
        }
    }
    Ok(())
}

fn append_to_file(file: &File, mut waiting: mpsc::Receiver<Waiting>) -> io::Result<()> {
    let (mut batch, mut piece, mut at) = (Vec::new(), Vec::new(), 0);
    while waiting.blocking_recv_many(&mut batch, BATCH_LIMIT) > 0 {
        piece.clear();
        batch.iter().for_each(|(body, _)| piece.extend_from_slice(body));
        if at + piece.len() > FILE_BYTES {
            at = 0;
        }
        file.write_all_at(&piece, at as u64)?;
        file.sync_data()?;
        at += piece.len().next_multiple_of(4096);
        for (_, settled) in batch.drain(..) {
            let _ = settled.send(());
        }
    }
    Ok(())
}
