//! The composition root: settings become bound listeners, planes and workers; then they run until they have drained.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tracing::{error, info, warn};

use crate::admin::health::Readiness;
use crate::admin::{self, AdminState};
use crate::admission::domains::Domains;
use crate::app::{App, Apps};
use crate::config::{Backend, Config};
use crate::ingest::blocked;
use crate::ingest::conversions::Conversions;
use crate::ingest::listener::{ConnectionLimits, Stop, serve};
use crate::ingest::proxy_protocol::ProxyProtocol;
use crate::ingest::service::public_service;
use crate::ingest::{Context, listener};
use crate::memory::MemoryBudget;
use crate::outbound::Client;
use crate::queue::Queue;
use crate::queue::embedded::{Embedded, Leftover};
use crate::queue::files::{Folder, OpenError, open_on_disk};
use crate::queue::journal::Journal;
use crate::queue::redis::{Outage, Redis};
use crate::resolver::{Resolver, ResolverError};
use crate::shutdown::{Shutdown, Workers};
use crate::signature::fetch::{KeyFetcher, Keys};
use crate::telemetry::metrics::{ConnectionMetrics, Metrics};

/// Connections of the private plane: probes, a scraper, some tails.
const PRIVATE_MAX_CONNECTIONS: usize = 32;

/// How long workers and the private plane may take to end once nothing is left to do for them.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);

/// A gateway whose listeners are bound and whose queue is open.
#[derive(Debug)]
pub struct Gateway {
    public: TcpListener,
    private: TcpListener,
    limits: ConnectionLimits,
    proxy_protocol: Option<ProxyProtocol>,
    drain_delay: Duration,
    drain_timeout: Duration,
    state: AdminState,
    workers: Workers,
}

/// Why a gateway can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address can't be bound.
    #[error("{variable}: can't listen on {address}: {source}")]
    Listen {
        /// The setting.
        variable: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The embedded queue can't be opened.
    #[error(transparent)]
    Queue(#[from] OpenError),
    /// There are names to look up, and no resolver.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// The client that fetches keys can't be made.
    #[error("senders' keys can't be fetched: {0}")]
    Tls(tokio_rustls::rustls::Error),
    /// The system has no thread left.
    #[error("a thread can't be started: {0}")]
    Thread(io::Error),
}

/// Why a gateway that ran ended otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A worker ended before the process was asked to stop.
    #[error("the worker `{0}` ended unexpectedly; the gateway drained and stopped")]
    WorkerEnded(&'static str),
    /// Requests were still in flight when the time to drain was over, or a second signal came.
    #[error("stopped before everything in flight had been answered")]
    Aborted,
}

impl Gateway {
    /// Binds both listeners, opens the queue and starts its worker.
    ///
    /// # Errors
    /// What can't be bound or opened.
    pub async fn start(config: Config) -> Result<Gateway, StartError> {
        let mut workers = Workers::default();
        let metrics = Metrics::default();
        let queue = open_queue(&config, &metrics, &mut workers)?;
        let public = bind("RETRIEVE_LISTEN", config.listen).await?;
        let private = bind("RETRIEVE_ADMIN_LISTEN", config.admin_listen).await?;
        let keys = start_key_fetcher(&config, &metrics, &mut workers)?;
        let app = App {
            domains: start_domains(&config, &metrics, &mut workers)?,
            name: config.app,
            allowlist: config.allowlist,
            list_mode: config.list_mode,
            integrations: config.integrations,
            queue,
        };
        let proxy_protocol = config.proxy_protocol.then(|| ProxyProtocol {
            trusted: Arc::new(config.trusted_proxies.clone()),
            timeout: config.connections.header_timeout,
        });
        let context = Context {
            apps: Apps::one(app),
            trusted_proxies: config.trusted_proxies,
            body_timeout: config.body_timeout,
            queue_timeout: config.queue_timeout,
            memory: MemoryBudget::new(config.in_flight_limit_bytes),
            conversions: Conversions::one_per_core(),
            metrics,
            keys,
            blocked: blocked::Limits::default(),
        };
        Ok(Gateway {
            public,
            private,
            limits: config.connections,
            proxy_protocol,
            drain_delay: config.drain_delay,
            drain_timeout: config.drain_timeout,
            state: AdminState {
                context: Arc::new(context),
                readiness: Readiness::default(),
                token: config.admin_token.map(Arc::new),
            },
            workers,
        })
    }

    /// The public listener's address.
    ///
    /// # Errors
    /// The system doesn't know it.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.public.local_addr()
    }

    /// The private listener's address.
    ///
    /// # Errors
    /// The system doesn't know it.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.private.local_addr()
    }

    /// Serves until asked to stop, then drains: readiness off and a pause; nothing new accepted, idle connections
    /// closed; requests in flight answered; the queue's last batch confirmed; the private plane last.
    ///
    /// # Errors
    /// It stopped otherwise than asked.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), RunError> {
        let Gateway {
            public,
            private,
            limits,
            proxy_protocol,
            drain_delay,
            drain_timeout,
            state,
            mut workers,
        } = self;
        let (public_stop, private_stop) = (Stop::default(), Stop::default());
        let mut private_plane = Workers::default();
        if let Err(error) = start_private_plane(private, &state, limits, &private_stop, &mut private_plane) {
            error!(%error, "the private plane can't be started");
            return Err(RunError::WorkerEnded("private-plane"));
        }
        let context = Arc::clone(&state.context);
        let metrics = context.metrics.connections.clone();
        let proxies = Arc::clone(&state.context);
        let is_shared = move |peer| proxies.trusted_proxies.contains(peer);
        let make = move |peer| public_service(Arc::clone(&context), peer);
        let mut public_plane = Workers::default();
        let serving = serve(public, limits, proxy_protocol, metrics, public_stop.clone(), is_shared, make);
        public_plane.spawn_task("public-plane", serving);
        state.readiness.set_listening(true);

        let ended_early = tokio::select! {
            () = shutdown.requested.cancelled() => None,
            name = workers.first_to_end() => Some(name),
            name = public_plane.first_to_end() => Some(name),
            name = private_plane.first_to_end() => Some(name),
        };
        state.readiness.set_listening(false);
        match ended_early {
            None => info!("stopping: readiness is off, answering what is in flight"),
            Some(worker) => error!(worker, "a worker ended unexpectedly; draining"),
        }
        if ended_early.is_none() {
            let _ = tokio::time::timeout(drain_delay, shutdown.aborted.cancelled()).await;
        }
        let drained = drain(&mut public_plane, &public_stop, drain_timeout, &shutdown).await;
        state.context.apps.iter().for_each(App::close);
        let settled = end(&mut workers, "queue").await;
        private_stop.drain.give();
        private_stop.abort.give();
        end(&mut private_plane, "private plane").await;
        match ended_early {
            Some(worker) => Err(RunError::WorkerEnded(worker)),
            None if drained && settled => Ok(()),
            None => Err(RunError::Aborted),
        }
    }
}

async fn bind(variable: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { variable, address, source })
}

fn open_queue(config: &Config, metrics: &Metrics, workers: &mut Workers) -> Result<Queue, StartError> {
    match &config.queue {
        Backend::Embedded(folder) => {
            let (embedded, writer) = Embedded::open(folder, open_on_disk(), config.embedded_limit_bytes)?;
            let runtime = Handle::current();
            let run = move || writer.run(&runtime);
            workers.spawn_thread("embedded-writer", run).map_err(StartError::Thread)?;
            Ok(Queue::Embedded(embedded))
        }
        Backend::Redis(settings) => {
            let outage = open_journal(config, settings.journal_lanes(), workers)?;
            // A job that Redis hasn't confirmed after three quarters of the time goes to the journal.
            let settle_after = config.queue_timeout * 3 / 4;
            let (redis, writers, mover) =
                Redis::new(settings, &config.app, settle_after, outage.as_ref(), &metrics.queue);
            for writer in writers {
                workers.spawn_task("redis-writer", writer.run());
            }
            if let Some(mover) = mover {
                workers.spawn_task("mover", mover.run());
            }
            for keeper in redis.keepers(&metrics.queue) {
                workers.spawn_task("redis-keeper", keeper.run());
            }
            Ok(Queue::Redis(Box::new(redis)))
        }
    }
}

fn open_journal(config: &Config, lanes: u32, workers: &mut Workers) -> Result<Option<Outage>, StartError> {
    let Some(folder) = &config.data_dir else { return Ok(None) };
    let folder = Folder::open(folder)?;
    let leftover = Leftover::open(&folder, open_on_disk())?;
    let (journal, writer, identity, recovered) =
        Journal::open(folder, open_on_disk(), lanes, config.journal_limit_bytes)?;
    let runtime = Handle::current();
    workers.spawn_thread("journal-writer", move || writer.run(&runtime)).map_err(StartError::Thread)?;
    Ok(Some(Outage { journal, identity, recovered, leftover }))
}

/// Without a domain on any list there is nothing to start.
fn start_domains(
    config: &Config,
    metrics: &Metrics,
    workers: &mut Workers,
) -> Result<Option<Domains>, ResolverError> {
    let integrations = config.integrations.iter().map(|integration| &integration.allowlist);
    let lists = std::iter::once(&config.allowlist).chain(integrations);
    let Some((domains, worker)) = Domains::new(lists, &config.domains, &metrics.dns)? else {
        return Ok(None);
    };
    workers.spawn_task("domains", worker.run());
    Ok(Some(domains))
}

/// Only integrations whose senders publish their keys need the worker.
fn start_key_fetcher(
    config: &Config,
    metrics: &Metrics,
    workers: &mut Workers,
) -> Result<Option<Keys>, StartError> {
    if !config.integrations.fetch_keys() {
        return Ok(None);
    }
    let scope = config.key_scope.clone();
    let resolver = Resolver::new(config.domains.resolver, None, &metrics.dns)?;
    let client = Client::new(scope.trust, scope.reach).map_err(StartError::Tls)?.looking_up_by(resolver);
    let ebay = config.integrations.ebay_application().cloned();
    let (keys, fetcher) = KeyFetcher::new(Arc::clone(&config.keys), client, ebay, metrics.keys.clone());
    workers.spawn_task("key-fetcher", fetcher.run());
    Ok(Some(keys))
}

fn start_private_plane(
    listener: TcpListener,
    state: &AdminState,
    limits: ConnectionLimits,
    stop: &Stop,
    workers: &mut Workers,
) -> io::Result<()> {
    let limits = ConnectionLimits {
        max_connections: PRIVATE_MAX_CONNECTIONS,
        max_per_address: PRIVATE_MAX_CONNECTIONS,
        ..limits
    };
    let router = admin::router(state.clone());
    let stop = stop.clone();
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    workers.spawn_thread("private-plane", move || {
        runtime.block_on(async move {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return error!(%error, "the private plane can't listen"),
            };
            let make = move |peer| admin::private_service(router.clone(), peer);
            let metrics = ConnectionMetrics::default();
            listener::serve(listener, limits, None, metrics, stop, |_| false, make).await;
        });
    })
}

/// Drains the public plane. False if connections had to be dropped.
async fn drain(public_plane: &mut Workers, stop: &Stop, timeout: Duration, shutdown: &Shutdown) -> bool {
    let started = Instant::now();
    stop.drain.give();
    let in_time = tokio::select! {
        biased;
        () = public_plane.all_to_end() => true,
        () = tokio::time::sleep(timeout) => false,
        () = shutdown.aborted.cancelled() => false,
    };
    if in_time {
        info!(milliseconds = started.elapsed().as_millis(), "drained");
    } else {
        warn!("dropping the connections that are left");
        stop.abort.give();
        end(public_plane, "public plane").await;
    }
    in_time
}

async fn end(workers: &mut Workers, name: &str) -> bool {
    let in_time = tokio::time::timeout(LAST_TIMEOUT, workers.all_to_end()).await.is_ok();
    if !in_time {
        error!(name, "didn't end in time");
    }
    in_time
}
