//! Settings: the environment and `integrations.toml` become one [`Config`], with all problems at once.

pub mod env;
pub mod integrations;
pub mod parse;
pub mod problems;
pub mod secret;
mod source;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::admission::ListMode;
use crate::admission::allowlist::Allowlist;
use crate::admission::domains;
use crate::admission::networks::NetworkTable;
use crate::ingest::listener::ConnectionLimits;
use crate::integration::Integrations;
use crate::outbound;
use crate::queue::redis;
use crate::signature::keys::KeyCache;
use crate::telemetry::LogConfig;

/// Where settings come from: the process's environment, or a map in a test.
pub trait Strings {
    /// The value of a key.
    fn get(&self, key: &str) -> Option<String>;
    /// All keys.
    fn keys(&self) -> Vec<String>;
}

/// The process's environment. A value that isn't UTF-8 is read with replacement characters, which no setting takes.
#[derive(Debug)]
pub struct Environment;

impl Strings for Environment {
    fn get(&self, key: &str) -> Option<String> {
        std::env::var_os(key).map(|value| value.to_string_lossy().into_owned())
    }

    fn keys(&self) -> Vec<String> {
        std::env::vars_os().map(|(key, _)| key.to_string_lossy().into_owned()).collect()
    }
}

impl Strings for std::collections::BTreeMap<String, String> {
    fn get(&self, key: &str) -> Option<String> {
        std::collections::BTreeMap::get(self, key).cloned()
    }

    fn keys(&self) -> Vec<String> {
        std::collections::BTreeMap::keys(self).cloned().collect()
    }
}

/// Everything that a gateway is told.
#[derive(Debug)]
pub struct Config {
    /// `RETRIEVE_APP`.
    pub app: String,
    /// `RETRIEVE_LISTEN`.
    pub listen: SocketAddr,
    /// `RETRIEVE_ADMIN_LISTEN`.
    pub admin_listen: SocketAddr,
    /// `RETRIEVE_ADMIN_TOKEN`.
    pub admin_token: Option<SecretString>,
    /// `RETRIEVE_ALLOWED_LIST`.
    pub allowlist: Allowlist,
    /// Whether the allowlist was set at all.
    pub allowlist_is_default: bool,
    /// How the allowlists' domains are looked up: `RETRIEVE_DNS`, and limits that aren't settings.
    pub domains: domains::Settings,
    /// `RETRIEVE_ALLOWED_LIST_MODE`.
    pub list_mode: ListMode,
    /// `RETRIEVE_TRUSTED_PROXIES`.
    pub trusted_proxies: NetworkTable<()>,
    /// `RETRIEVE_PROXY_PROTOCOL`: whether trusted proxies have to send a PROXY header.
    pub proxy_protocol: bool,
    /// `RETRIEVE_INTEGRATIONS` and `RETRIEVE_INTEGRATIONS_FILE`.
    pub integrations: Integrations,
    /// Senders' public keys, as far as they were fetched; the integrations' verifiers look into it.
    pub keys: Arc<KeyCache>,
    /// How those keys are fetched; no setting.
    pub key_scope: outbound::Scope,
    /// `RETRIEVE_QUEUE`.
    pub queue: Backend,
    /// `RETRIEVE_EMBEDDED_LIMIT`.
    pub embedded_limit_bytes: u64,
    /// `RETRIEVE_QUEUE_TIMEOUT`.
    pub queue_timeout: Duration,
    /// The folder of the outage journal, for the Redis modes. None for none.
    pub data_dir: Option<PathBuf>,
    /// What the outage journal may hold.
    pub journal_limit_bytes: u64,
    /// The bounds of connections: `RETRIEVE_HEADER_TIMEOUT` and others.
    pub connections: ConnectionLimits,
    /// `RETRIEVE_BODY_TIMEOUT`.
    pub body_timeout: Duration,
    /// `RETRIEVE_IN_FLIGHT_LIMIT`.
    pub in_flight_limit_bytes: usize,
    /// `RETRIEVE_DRAIN_DELAY`.
    pub drain_delay: Duration,
    /// `RETRIEVE_DRAIN_TIMEOUT`.
    pub drain_timeout: Duration,
    /// `RETRIEVE_LOG` and `RETRIEVE_LOG_FORMAT`.
    pub log: LogConfig,
}

/// Where jobs go.
#[derive(Clone, Debug)]
pub enum Backend {
    /// `embedded:<folder>`.
    Embedded(PathBuf),
    /// `redis://…` and the like.
    Redis(Box<redis::Settings>),
}

/// How much memory one byte of a body may take until its job is settled, at the worst: the body, its text in UTF-8,
/// the JSON (up to 3.5 bytes for a byte of a form), the job with the original beside it, and the copy on its way to
/// the store.
const MEMORY_FACTOR: usize = 10;

/// What a connection takes besides bodies and its head: buffers and its task.
const CONNECTION_BYTES: usize = 28 << 10;

impl Config {
    /// The most memory that connections and bodies in flight can take together, in bytes.
    pub fn memory_bound_bytes(&self) -> usize {
        // A head is held as it was read and as it was parsed.
        let connection = CONNECTION_BYTES + 2 * self.connections.header_limit_bytes;
        let connections = self.connections.max_connections.saturating_mul(connection);
        connections.saturating_add(self.in_flight_limit_bytes.saturating_mul(MEMORY_FACTOR))
    }
}
