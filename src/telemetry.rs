//! Logs and metrics.

#[cfg(test)]
pub(crate) mod captured;
mod lines;
pub mod metrics;
mod plain;
pub mod queue;

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

pub use self::lines::LinesGuard;
use self::plain::Plain;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A level, or directives such as `info,retrieve_gateway::queue=debug`.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// Whether a text is a filter for log lines: a level, or `module=level`, separated by commas. A bare word that is no
/// level would be read as a module's name and switch everything else off, so it isn't taken.
pub fn is_filter(text: &str) -> bool {
    let is_level = |directive: &str| directive.parse::<LevelFilter>().is_ok();
    let bare_words_are_levels = text.split(',').all(|part| part.contains('=') || is_level(part));
    bare_words_are_levels && EnvFilter::try_new(text).is_ok()
}

/// Starts logging to standard error, by a thread of its own. Panics are logged like any other failure.
///
/// The guard writes what is left when it is dropped.
///
/// # Errors
/// The thread can't be started.
pub fn start_logging(config: &LogConfig) -> io::Result<LinesGuard> {
    let report =
        |lines| tracing::warn!(lines, "log lines were dropped: standard error takes them too slowly");
    let (writer, guard) = lines::start(io::stderr(), report)?;
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    let started = match config.format {
        LogFormat::Text if io::stderr().is_terminal() => subscriber.try_init(),
        LogFormat::Text => subscriber.event_format(Plain).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a bug: the code panicked")));
    }
    Ok(guard)
}
