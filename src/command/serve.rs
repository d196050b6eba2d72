//! `serve`: settings, logging, runtime, signals, exit code.

use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::{EXIT_CONFIG, complain};
use crate::admission::ListMode;
use crate::config::problems::{Problems, Severity};
use crate::config::{Backend, Config, Environment, env};
use crate::gateway::Gateway;
use crate::shutdown::Shutdown;
use crate::telemetry::start_logging;

pub(super) fn serve() -> ExitCode {
    let (config, problems) = env::read(&Environment);
    let Some(config) = config else {
        complain(format_args!("the settings can't be used\n\n{problems}"));
        return ExitCode::from(EXIT_CONFIG);
    };
    let log = match start_logging(&config.log) {
        Ok(log) => log,
        Err(error) => {
            complain(format_args!("the log can't be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    announce(&config, &problems);
    let ended = runtime()
        .build()
        .map_err(|error| format!("the runtime can't be started: {error}"))
        .and_then(|runtime| runtime.block_on(run(config)));
    // What was logged comes before the last word.
    drop(log);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

/// A worker's own queue holds 256 tasks. What doesn't fit, and what another thread wakes, waits in a queue behind it; by Tokio's
/// own measure of one turn in many the slowest of 1,000 busy connections waited five times as long as the median. So every
/// second turn is for that queue, and no more connections are woken at once than get their turns before the next look at the
/// network, in the order in which the kernel has them: about half of [`TURNS_BETWEEN`] (docs/performance.md, overload).
const EVENTS_AT_ONCE: usize = 16;
const TURNS_BETWEEN: u32 = 31;
const OVERFLOW_TURN: u32 = 2;

/// A worker for each core but one, which is left to what the queue's confirmation needs: the thread that writes to the disk,
/// or a Redis on the same machine, and the kernel's network. With one for each, webhooks and their confirmations cross from
/// core to core, which costs more than the last core brings (docs/performance.md). Tokio's own variable overrules it.
fn runtime() -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        builder.worker_threads(cores.saturating_sub(1).max(1));
    }
    builder
        .max_io_events_per_tick(EVENTS_AT_ONCE)
        .event_interval(TURNS_BETWEEN)
        .global_queue_interval(OVERFLOW_TURN)
        .enable_all();
    builder
}

async fn run(config: Config) -> Result<(), String> {
    let gateway = Gateway::start(config).await.map_err(|error| error.to_string())?;
    if let (Ok(public), Ok(private)) = (gateway.address(), gateway.admin_address()) {
        info!(%public, %private, "listening");
    }
    let shutdown = Shutdown::default();
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => {
            tokio::spawn(watch_signals(terminate, interrupt, shutdown.clone()));
        }
        (Err(error), _) | (_, Err(error)) => {
            warn!(%error, "signals can't be watched, so there is no graceful stop")
        }
    }
    gateway.run(shutdown).await.map_err(|error| error.to_string())?;
    info!("stopped");
    Ok(())
}

/// The first signal drains, the second stops at once.
async fn watch_signals(mut terminate: Signal, mut interrupt: Signal, shutdown: Shutdown) {
    for token in [&shutdown.requested, &shutdown.aborted] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    }
}

/// Says at the start what the operator should know.
fn announce(config: &Config, problems: &Problems) {
    info!(version = crate::VERSION, commit = crate::COMMIT, app = %config.app, "retrieve-gateway starts");
    for problem in problems.iter().filter(|problem| problem.severity == Severity::Warning) {
        warn!(setting = %problem.key, origin = %problem.origin, hint = problem.hint.as_deref(), "{}", problem.message);
    }
    if config.allowlist_is_default && config.list_mode == ListMode::Enforce {
        info!("RETRIEVE_ALLOWED_LIST isn't set: only this machine (loopback) may call");
    }
    match &config.queue {
        Backend::Embedded(folder) => {
            info!(folder = %folder.display(), "a 200 means: fsynced on this machine")
        }
        Backend::Redis(_) => {
            info!("a 200 means: Redis confirmed it; Redis's own settings decide what that survives")
        }
    }
    let integrations = config.integrations.len();
    let any = config.integrations.accepts_any();
    let memory_bound_mib = config.memory_bound_bytes() >> 20;
    info!(integrations, any, memory_bound_mib, "connections and bodies in flight are bounded");
    raise_file_limit(config.connections.max_connections);
}

/// Each connection is an open file, and the soft limit is often 1024. A process may raise it up to the hard one.
fn raise_file_limit(max_connections: usize) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    const OTHER_FILES: u64 = 256;
    let needed = (max_connections as u64).saturating_add(OTHER_FILES);
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    limit.current = Some(limit.maximum.map_or(needed, |maximum| maximum.min(needed)));
    let raised = setrlimit(Resource::Nofile, limit).is_ok();
    if !raised || limit.current.is_some_and(|current| current < needed) {
        warn!(
            needed,
            limit = limit.current,
            "the limit of open files (ulimit -n) is too low for RETRIEVE_MAX_CONNECTIONS"
        );
    }
}
