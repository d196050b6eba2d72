//! The listener of a plane: accepts connections up to a limit and speaks HTTP/1 on them until it is told to drain.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::proxy_protocol::{Identified, ProxyProtocol};
use super::wire::{Phase, Timeouts, Wire, linger};
use crate::shutdown::Signal;
use crate::telemetry::metrics::{ConnectionMetrics, Counted};

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
    /// How many of them from one address; an IPv6 address counts as its /64, which one sender usually has whole.
    pub max_per_address: usize,
}

/// How many connections are open, in all and from each address.
#[derive(Debug)]
struct Slots {
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place for one connection, until it is dropped.
#[derive(Debug)]
struct Slot {
    _place: OwnedSemaphorePermit,
    address: Option<IpAddr>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Slots {
    /// Takes a place, which is nobody's yet.
    fn take(&self) -> Option<Slot> {
        let place = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Slot { _place: place, address: None, by_address: Arc::clone(&self.by_address) })
    }
}

impl Slot {
    /// Counts the connection by its peer, if that one has less than `max` of them.
    fn count(&mut self, peer: IpAddr, max: usize) -> bool {
        let address = network_of(peer);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let open = by_address.entry(address).or_default();
        if *open >= max {
            return false;
        }
        *open += 1;
        self.address = Some(address);
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = by_address.get_mut(&address) {
            *open -= 1;
            if *open == 0 {
                by_address.remove(&address);
            }
        }
    }
}

fn network_of(address: IpAddr) -> IpAddr {
    const HOST_BITS: u32 = 64;
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS)),
    }
}

/// How a plane is told to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Accept nothing new, close what is idle, finish what is in flight.
    pub drain: Signal,
    /// Drop every connection.
    pub abort: Signal,
}

/// How long accepting rests after an error such as "too many open files", which would otherwise repeat at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections over the limit are being told so at once; further ones are just closed.
const MAX_REFUSALS: usize = 64;

/// Read and write buffers of a connection grow to this at the most.
const BUFFER_LIMIT_BYTES: usize = 64 << 10;

/// Serves a plane until it has drained: `is_shared` says whose connections aren't counted by address, `make` gives a
/// service for each connection, by the address that it comes from.
pub async fn serve<S, B>(
    listener: TcpListener,
    limits: ConnectionLimits,
    proxy_protocol: Option<ProxyProtocol>,
    metrics: ConnectionMetrics,
    stop: Stop,
    is_shared: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    make: impl Fn(SocketAddr) -> S + Send + Sync + 'static,
) where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let slots = Slots { all: Arc::new(Semaphore::new(limits.max_connections)), by_address: Arc::default() };
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let connections = TaskTracker::new();
    let plane = Arc::new(Plane { limits, proxy_protocol, metrics, drain: stop.drain, is_shared, make });
    while let Some(accepted) = plane.drain.run_until_given(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => match plane.place_for(peer, &slots) {
                Some(slot) => {
                    let open = (slot, plane.metrics.open());
                    let (plane, abort) = (Arc::clone(&plane), stop.abort.clone());
                    connections.spawn(async move {
                        let serving = pin!(plane.serve_peer(stream, peer, open));
                        abort.run_until_given(serving).await
                    });
                }
                None => {
                    plane.metrics.refused.inc();
                    if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                        connections.spawn(refuse_connection(stream, permit));
                    }
                }
            },
            Err(error) => rest_after(&error, &plane.metrics).await,
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// What all connections of a plane have in common.
struct Plane<I, M> {
    limits: ConnectionLimits,
    proxy_protocol: Option<ProxyProtocol>,
    metrics: ConnectionMetrics,
    drain: Signal,
    is_shared: I,
    make: M,
}

impl<I: Fn(IpAddr) -> bool, M> Plane<I, M> {
    fn place_for(&self, peer: SocketAddr, slots: &Slots) -> Option<Slot> {
        let mut slot = slots.take()?;
        self.count(&mut slot, peer).then_some(slot)
    }

    /// False if the peer has as many connections as it may. Those that many senders come through (trusted proxies) aren't
    /// counted by their address.
    fn count(&self, slot: &mut Slot, peer: SocketAddr) -> bool {
        (self.is_shared)(peer.ip()) || slot.count(peer.ip(), self.limits.max_per_address)
    }

    /// Learns from a proxy's header, if there has to be one, whose connection it is, and serves it.
    async fn serve_peer<S, B>(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: SocketAddr,
        mut open: (Slot, Counted),
    ) where
        M: Fn(SocketAddr) -> S,
        S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let mut from = Identified { peer, unread: Bytes::new() };
        if let Some(proxy_protocol) = &self.proxy_protocol {
            let identified = proxy_protocol.identify(&mut stream, peer, &self.metrics).await;
            let Some(identified) = identified else { return };
            from = identified;
        }
        if from.peer != peer && !self.count(&mut open.0, from.peer) {
            self.metrics.refused.inc();
            return refuse_connection(stream, open).await;
        }
        let service = (self.make)(from.peer);
        let (drain, metrics) = (self.drain.clone(), self.metrics.clone());
        serve_connection((stream, from.unread), self.limits, service, drain, metrics, open).await;
    }
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

async fn refuse_connection<P>(mut stream: TcpStream, _permit: P) {
    if stream.write_all(&super::answer::overloaded_bytes()).await.is_ok() {
        linger(stream).await;
    }
}

async fn serve_connection<S, B>(
    (stream, unread): (TcpStream, Bytes),
    limits: ConnectionLimits,
    service: S,
    drain: Signal,
    metrics: ConnectionMetrics,
    _open: (Slot, Counted),
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
        let phase = Arc::clone(&phase);
        service.call(request).inspect(move |_| phase.end_exchange())
    });
    let result = {
        let connection = http1_builder(limits).serve_connection(TokioIo::new(&mut wire), service);
        let mut connection = pin!(connection);
        match drain.run_until_given(connection.as_mut()).await {
            Some(result) => result,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = result {
        debug!(%error, "a connection ended early");
        if error.is_parse() {
            metrics.malformed.inc();
        }
    }
    if wire.head_timed_out() {
        metrics.slow_heads.inc();
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
        // Answers are short: copying one behind its head costs less than a write of two pieces.
        .writev(false)
        // A peer that has sent its request and closed its sending side still gets its answer. It also keeps a
        // request from being dropped half way because its peer went away.
        .half_close(true);
    builder
}
