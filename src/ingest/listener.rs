//! The listener of a plane: accepts connections up to a limit and speaks HTTP/1 on them until it is told to drain.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::proxy_protocol::{Identified, ProxyProtocol};
use super::wire::{Phase, Timeouts, Wire, linger};
use crate::telemetry::metrics::{ConnectionGuard, ConnectionMetrics};

/// The bounds of a plane's connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// From a head's first byte to its end; answered 408.
    pub header_timeout: Duration,
    /// The longest pause between two requests; then the connection is closed.
    pub idle_timeout: Duration,
    /// For the peer to take an answer; then the connection is closed.
    pub write_timeout: Duration,
    /// The largest head in bytes; answered 431.
    pub header_limit_bytes: usize,
    /// How many connections are open at once; one more is answered 503.
    pub max_connections: usize,
}

/// How a plane is told to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Accept nothing new, close what is idle, finish what is in flight.
    pub drain: CancellationToken,
    /// Drop every connection.
    pub abort: CancellationToken,
}

/// How long accepting rests after an error such as "too many open files", which would otherwise repeat at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections over the limit are being told so at once; further ones are just closed.
const MAX_REFUSALS: usize = 64;

/// Read and write buffers of a connection grow to this at the most.
const BUFFER_LIMIT_BYTES: usize = 64 << 10;

/// Serves a plane until it has drained: `make` gives a service for each connection, by the address that it comes from.
pub async fn serve<S, B>(
    listener: TcpListener,
    limits: ConnectionLimits,
    proxy_protocol: Option<ProxyProtocol>,
    metrics: ConnectionMetrics,
    stop: Stop,
    make: impl Fn(SocketAddr) -> S + Clone + Send + Sync + 'static,
) where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.drain.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => match Arc::clone(&slots).try_acquire_owned() {
                Ok(slot) => {
                    let open = (slot, metrics.open());
                    let identifying = identify(stream, peer, proxy_protocol.clone(), metrics.clone());
                    let (make, drain) = (make.clone(), stop.drain.clone());
                    let serving = async move {
                        let Some((stream, Identified { peer, unread })) = identifying.await else { return };
                        serve_connection((stream, unread), limits, make(peer), drain, open).await;
                    };
                    let abort = stop.abort.clone();
                    connections.spawn(async move { abort.run_until_cancelled(serving).await });
                }
                Err(_) => {
                    metrics.refused.inc();
                    if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                        connections.spawn(refuse_connection(stream, permit));
                    }
                }
            },
            Err(error) => rest_after(&error, &metrics).await,
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// A connection that was reset before it was accepted is its peer's affair; anything else needs a pause.
async fn rest_after(error: &io::Error, metrics: &ConnectionMetrics) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    metrics.accept_errors.inc();
    warn!(%error, "a connection couldn't be accepted; trying again");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn refuse_connection(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    if stream.write_all(&super::answer::overloaded_bytes()).await.is_ok() {
        linger(stream).await;
    }
}

async fn identify(
    mut stream: TcpStream,
    peer: SocketAddr,
    proxy_protocol: Option<ProxyProtocol>,
    metrics: ConnectionMetrics,
) -> Option<(TcpStream, Identified)> {
    let identified = match proxy_protocol {
        Some(proxy_protocol) => proxy_protocol.identify(&mut stream, peer, &metrics).await?,
        None => Identified { peer, unread: Bytes::new() },
    };
    Some((stream, identified))
}

async fn serve_connection<S, B>(
    (stream, unread): (TcpStream, Bytes),
    limits: ConnectionLimits,
    service: S,
    drain: CancellationToken,
    _open: (OwnedSemaphorePermit, ConnectionGuard),
) where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    // Answers are small and complete: nothing is gained by waiting for more to send.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY can't be set");
    }
    let phase = Arc::new(Phase::default());
    let timeouts =
        Timeouts { head: limits.header_timeout, idle: limits.idle_timeout, write: limits.write_timeout };
    let mut wire = Wire::new(stream, unread, Arc::clone(&phase), timeouts);
    let service = TowerToHyperService::new(service);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        phase.begin_exchange();
        let answering = service.call(request);
        let phase = Arc::clone(&phase);
        async move {
            let answer = answering.await;
            phase.end_exchange();
            answer
        }
    });
    let result = {
        let connection = http1_builder(limits).serve_connection(TokioIo::new(&mut wire), service);
        let mut connection = pin!(connection);
        match drain.run_until_cancelled(connection.as_mut()).await {
            Some(result) => result,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = result {
        debug!(%error, "a connection ended early");
    }
    wire.close().await;
}

fn http1_builder(limits: ConnectionLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The wire keeps the deadlines.
        .header_read_timeout(None)
        .max_header_size(limits.header_limit_bytes)
        .max_buf_size(BUFFER_LIMIT_BYTES.max(limits.header_limit_bytes))
        // A peer that has sent its request and closed its sending side still gets its answer. It also keeps a
        // request from being dropped half way because its peer went away.
        .half_close(true);
    builder
}
